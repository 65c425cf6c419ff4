"""Visitors come and go: is the one who asked still there, and what did those who left leave behind?

Gradio lets a handler run on after its client has gone, keeps what a session looks at for an hour, and files until they
are old: within an hour a crowd, or one program, leaves more than a machine has. What is used of Gradio here beside its
documented names is that of the pinned version; tests/test_load.py fails where another one has it otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import gradio as gr
import numpy as np
from gradio.context import LocalContext

HOUR = 3600  # seconds: how long what a visitor looks at is kept
EVERY = 5.0  # seconds between two looks at what was left behind
CACHE_BYTES = 4_000_000_000  # of files: uploads, and what came of them
HELD_BYTES = 1_000_000_000  # of arrays: what the sessions look at
CLOSED = 10  # pages that lost their connection, and may come back to what they showed
SESSIONS = 1000  # open at once
_M_ARENA_MAX = -8  # of malloc.h

# ---- who is gone -----------------------------------------------------------------------------------------------------


class Gone(gr.Error):
    """Nobody waits for this answer any more. Gradio hears of it, and nobody else."""

    def __init__(self) -> None:
        super().__init__("Nobody waits for this answer any more.", print_exception=False)


def leave_if_gone() -> None:
    """For long work in a handler to call between its steps. Raises Gone where the client hung up or cancelled.

    Outside of a handler, and in ZeroGPU's process, nothing is known of anybody: the work goes on.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event_id is None:
        return
    event = blocks._queue.event_ids_to_events.get(event_id)
    if event is None or not event.alive:
        raise Gone


# ---- what they leave behind ------------------------------------------------------------------------------------------


def forget_sessions(blocks: gr.Blocks) -> None:
    """Let go of sessions that hold nothing, and of the idlest: of all beyond HELD_BYTES, of closed pages beyond CLOSED.

    Every call of an endpoint is a session of its own. To be called on the server's event loop, which makes them.
    """
    holder = blocks.state_holder
    busy = {event.session_hash for event in blocks._queue.event_ids_to_events.values()}
    held = closed = 0
    for name, session in reversed(list(holder.session_data.items())):  # the last used comes first
        values = [value for value in session.state_data.values() if value is not None]
        held += held_bytes(values)
        closed += session.is_closed
        if name not in busy and (not values or held > HELD_BYTES or (session.is_closed and closed > CLOSED)):
            with holder.lock:
                holder.session_data.pop(name, None)
                holder.time_last_used.pop(name, None)


def held_bytes(value: Any) -> int:
    """Of all arrays in dataclasses and other plain objects, lists, tuples and dicts; each is counted once."""
    waiting, seen, total = [value], {}, 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, np.ndarray) and value.base is not None:
            waiting.append(value.base)
        elif isinstance(value, np.ndarray):
            total += value.nbytes
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        else:
            waiting += getattr(value, "__dict__", {}).values()
    return total


def delete_files(blocks: gr.Blocks, *, max_bytes: int = CACHE_BYTES, now: float | None = None) -> None:
    """Delete what this page was sent or wrote more than an hour ago, and, beyond ``max_bytes``, the oldest of the rest.

    The folder may be shared with other pages, whose files are theirs; of uploads that broke off nobody knows whose they
    were. Gradio's own look, every hour, ends for good when a file comes in while it is looking.
    """
    now = time.time() if now is None else now
    kept = {path for block in blocks.blocks.values() for path in getattr(block, "keep_in_cache", ())}
    known: dict[str, os.stat_result] = {}
    for paths in blocks.temp_file_sets:
        for path in list(paths):  # requests add to it meanwhile
            if path in kept:
                continue
            try:
                known[path] = os.lstat(path)
            except FileNotFoundError:
                paths.discard(path)
    for path in Path(gr.utils.get_upload_folder()).glob("tmp*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                known[str(path)] = path.lstat()
    total = 0
    for path, status in sorted(known.items(), key=lambda item: -item[1].st_ctime):
        total += status.st_size
        if now - status.st_ctime > HOUR or total > max_bytes:
            Path(path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other files in it, or gone with them
                Path(path).parent.rmdir()


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None


@contextlib.asynccontextmanager
async def upkeep(app: Any) -> AsyncIterator[None]:
    """Look after all this as long as the page is served; a lifespan, for gr.Blocks.launch(app_kwargs=...)."""

    libc = _glibc()
    if libc is not None:
        # It gives threads heaps of their own, up to 8 a processor, in which what a picture took stays scattered: after
        # a crowd the page would hold hundreds of megabytes more, for nothing.
        libc.mallopt(_M_ARENA_MAX, 2)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(EVERY)
            blocks = app.get_blocks()
            forget_sessions(blocks)
            await anyio.to_thread.run_sync(delete_files, blocks)
            if libc is not None and not blocks._queue.event_ids_to_events:
                await anyio.to_thread.run_sync(libc.malloc_trim, 0)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
