"""Decode pictures in processes that can be ended.

A file of a few KB can keep a decoder busy for minutes, take all memory, or crash it. Here a picture may take SECONDS of
a processor and MEMORY, and its process is ended when the client disconnects. What is read is what unet.images reads.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from page.errors import raise_if_disconnected
from unet.images import ImageError

WORKERS = 2  # processes, and so pictures that are decoded at the same time
SECONDS = 5  # of a processor, for one picture
MEMORY = 1_000_000_000  # bytes of address space, for one process
PATIENCE = 30.0  # seconds of wall-clock time: a busy machine takes longer for the same work
_POLL = 0.1  # seconds between two looks at whether the client is still there

_processes: set[subprocess.Popen] = set()
_idle: SimpleQueue[subprocess.Popen | None] = SimpleQueue()  # None is one that is not started yet
for _ in range(WORKERS):
    _idle.put(None)
_pipes = ThreadPoolExecutor(WORKERS, thread_name_prefix="decoding")


def _ask(
    function: str,
    path: str | os.PathLike[str],
    *,
    notify: Callable[[str], object] = lambda note: None,
    **options: Any,
) -> Any:
    """A function of unet.images, with limits on time and memory. Raises ImageError, and ClientDisconnected."""
    with _free_process() as process:
        answer = _pipes.submit(_exchange, process, (function, os.fspath(path), options))
        latest = time.monotonic() + PATIENCE
        try:
            while not wait([answer], _POLL).done:
                raise_if_disconnected()
                if time.monotonic() > latest:
                    process.kill()
            result, notes = answer.result()
        finally:
            if not answer.done():
                process.kill()
                wait([answer])
    if isinstance(result, ImageError):
        raise result
    for note in notes:
        notify(note)
    return result


read_image = functools.partial(_ask, "read_image")
read_annotation = functools.partial(_ask, "read_annotation")
image_size = functools.partial(_ask, "image_size")


def _exchange(process: subprocess.Popen, request: tuple[str, str, dict[str, Any]]) -> tuple[Any, list[str]]:
    try:
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (OSError, ValueError, EOFError, pickle.UnpicklingError):  # ValueError: closed meanwhile
        process.kill()
        slow = process.wait() in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0))
        why = f"takes more than {SECONDS} seconds to decode" if slow else "cannot be decoded"
        name = os.path.basename(request[1])
        return ImageError(f"{name!r} {why}: open it in another program and export it as PNG."), []


@contextlib.contextmanager
def _free_process() -> Iterator[subprocess.Popen]:
    """Wait for a process, and start another one where it has ended."""
    process = _idle.get()
    try:
        if process is None or process.poll() is not None:
            _processes.discard(process)
            command = [sys.executable, str(Path(__file__).with_name("decoder.py")), str(SECONDS), str(MEMORY)]
            # Each arena of malloc and each thread of BLAS would take address space for nothing.
            environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            _processes.add(process)
        yield process
    finally:
        _idle.put(process)


def close() -> None:
    """End all processes; the next picture starts one."""
    for process in tuple(_processes):
        process.kill()
        with contextlib.suppress(OSError), process:  # waits for it and closes its pipes; what it was sent is lost
            _processes.discard(process)


atexit.register(close)
