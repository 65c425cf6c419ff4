"""Delete expired sessions and files.

Gradio keeps both for an hour, in which a crowd, or one program, leaves more than a machine has. Beside documented names
this uses those of the pinned Gradio; tests/test_load.py fails where another one differs.
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

from page import decoding

HOUR = 3600  # seconds that sessions and files are kept
EVERY = 5.0  # seconds between two deletions
CACHE_BYTES = 4_000_000_000  # of files: uploads and results
HELD_BYTES = 1_000_000_000  # of arrays in sessions
CLOSED = 10  # pages that lost their connection and may come back
SESSIONS = 1000  # open at once
_M_ARENA_MAX = -8  # of malloc.h


def forget_sessions(blocks: gr.Blocks) -> None:
    """Delete empty sessions, and the idlest beyond the limits.

    To be called on the server's event loop, which makes them: every call of an endpoint is one.
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
    """Bytes of nested objects' arrays, each counted once."""
    waiting, seen, total = [value], {}, 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
            waiting.append(value.base)
        elif isinstance(value, np.ndarray):
            total += value.nbytes
        elif isinstance(value, (list, tuple)):
            waiting += value
        else:
            waiting += (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
    return total


def delete_files(blocks: gr.Blocks, *, max_bytes: int = CACHE_BYTES, now: float | None = None) -> None:
    """Delete files older than an hour, or beyond ``max_bytes``.

    The folder may be shared with other pages, whose files stay, but for uploads that broke off, which nobody can tell
    apart. Gradio's own deletion, every hour, stops for good when a file comes in while it runs.
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
    # Decoded pixels make room before uploads do: they can be decoded again.
    for path, status in sorted(known.items(), key=lambda item: (item[0].endswith(".npy"), -item[1].st_ctime)):
        total += status.st_size
        if now - status.st_ctime > HOUR or total > max_bytes:
            Path(path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other files in it, or gone with them
                Path(path).parent.rmdir()


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Clean up every few seconds while Gradio's app runs."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    is_glibc = hasattr(libc, "malloc_trim")
    if is_glibc:
        # It gives threads heaps of their own, up to 8 a processor, in which what a picture took stays scattered: after
        # a crowd the page would hold hundreds of megabytes more, for nothing.
        libc.mallopt(_M_ARENA_MAX, 2)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(EVERY)
            blocks = app.get_blocks()
            forget_sessions(blocks)
            await anyio.to_thread.run_sync(delete_files, blocks)
            if is_glibc and not blocks._queue.event_ids_to_events:
                await anyio.to_thread.run_sync(libc.malloc_trim, 0)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        decoding.close()
