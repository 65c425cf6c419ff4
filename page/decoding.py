"""Decode pictures in processes that can be ended.

A file of a few KB can keep a decoder busy for minutes, take all memory, or crash it. Here a picture may take SECONDS of
a processor and MEMORY, and its process is ended when the client disconnects. What is read is what unet.images reads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from page.client import raise_if_disconnected
from unet.images import ImageError

WORKERS = 2  # processes, and so pictures that are decoded at the same time
SECONDS = 5  # of a processor, for one picture
MEMORY = 1_000_000_000  # bytes of address space, for one process
PATIENCE = 30.0  # seconds of wall-clock time: a busy machine takes longer for the same work
_POLL = 0.1  # seconds between two looks at whether the client is still there

_pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="decoding")
_own = threading.local()  # .process, of a thread of the pool
_processes: set[subprocess.Popen] = set()


def read_image(path: str | os.PathLike[str], *, max_pixels: int | None, notify: Callable[[str], object]) -> np.ndarray:
    """`unet.images.read_image` with limits on time and memory. Raises ImageError, and ClientDisconnected."""
    return _ask("read_image", path, notify, max_pixels=max_pixels)


def read_annotation(
    path: str | os.PathLike[str], *, max_pixels: int | None, notify: Callable[[str], object]
) -> np.ndarray:
    """`unet.images.read_annotation` with limits on time and memory. Raises as `read_image`."""
    return _ask("read_annotation", path, notify, max_pixels=max_pixels)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """`unet.images.image_size` with limits on time and memory. Raises as `read_image`."""
    return _ask("image_size", path, lambda note: None)


def close() -> None:
    """End all processes; the next picture starts a new one."""
    for process in tuple(_processes):
        process.kill()
        with contextlib.suppress(OSError), process:  # waits for it and closes its pipes; what it was sent is lost
            _processes.discard(process)


atexit.register(close)


class _Job:
    """A request in progress, its process and when it started, in seconds of time.monotonic."""

    def __init__(self, function: str, path: str, options: dict[str, Any]) -> None:
        self.request = (function, path, options)
        self.process: subprocess.Popen | None = None
        self.started: float | None = None

    def run(self) -> Any:
        """Send the request to this thread's process and wait."""
        self.started = time.monotonic()
        self.process = process = _process()
        try:
            pickle.dump(self.request, process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (OSError, ValueError, EOFError, pickle.UnpicklingError):  # ValueError: closed meanwhile
            process.kill()
            name = repr(os.path.basename(self.request[1]))
            if process.wait() in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
                why = f"{name} takes more than {SECONDS} seconds to decode"
            else:
                why = f"{name} cannot be decoded"
            return ImageError(f"{why}: open it in another program and export it as PNG."), []
        finally:
            if process.poll() is not None:
                _processes.discard(process)


def _ask(function: str, path: str | os.PathLike[str], notify: Callable[[str], object], **options: Any) -> Any:
    job = _Job(function, os.fspath(path), options)
    future: Future = _pool.submit(job.run)
    try:
        while not wait([future], _POLL).done:
            raise_if_disconnected()
            if job.started and time.monotonic() - job.started > PATIENCE and job.process:
                job.process.kill()
    except BaseException:
        if not future.cancel() and job.process:
            job.process.kill()
        raise
    result, notes = future.result()
    if isinstance(result, ImageError):
        raise result
    for note in notes:
        notify(note)
    return result


def _process() -> subprocess.Popen:
    """The process of this thread of the pool, started where there is none."""
    process = getattr(_own, "process", None)
    if process is None or process.poll() is not None:
        command = [sys.executable, str(Path(__file__).with_name("decoder.py")), str(SECONDS), str(MEMORY)]
        # Each arena of malloc and each thread of BLAS would take address space for nothing.
        environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        _own.process = process
        _processes.add(process)
    return process
