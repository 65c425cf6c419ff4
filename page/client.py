"""Cancel work whose client disconnected: Gradio lets a handler run on.

Beside documented names this uses those of the pinned Gradio; tests/test_load.py fails where another one differs.
"""

from __future__ import annotations

import gradio as gr
from gradio.context import LocalContext


class ClientDisconnected(gr.Error):
    """The client hung up or cancelled. Only Gradio's queue sees it."""

    def __init__(self) -> None:
        super().__init__("The client disconnected.", print_exception=False)


def raise_if_disconnected() -> None:
    """Raise ClientDisconnected if the client has left; long work calls this between its steps.

    Outside of a handler, and in ZeroGPU's process, no client is known: the work goes on.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event_id is None:
        return
    event = blocks._queue.event_ids_to_events.get(event_id)
    if event is None or not event.alive:
        raise ClientDisconnected
