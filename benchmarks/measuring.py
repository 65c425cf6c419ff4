"""What the benchmarks share: options, timing, tables, pictures, a running page.

A benchmark runs as `python benchmarks/NAME.py`; importing this module makes the project importable.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.dataset import Dataset, load_dataset  # noqa: E402
from training.datasets import TASKS, fetch_dataset  # noqa: E402
from unet.bundle import Bundle, Preprocessing  # noqa: E402
from unet.model import ARCHITECTURES, UNet, UNetConfig  # noqa: E402

DOCUMENTS = {"results": "README.md", "skips": "docs/results.md", "recipe": "docs/results.md"}
CLASSES = 11  # of a network with random weights
START_SECONDS = 120.0  # until app.py must have answered


# Options and tables --------------------------------------------------------------------------------------------------


def parser(description: str, *, quick: str = "", weights: bool = False, data: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share.

    quick: the help text of --quick. weights, data: whether to add these options.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--write", action="store_true", help="put the tables into the documentation")
    if quick:
        made.add_argument("--quick", action="store_true", help=quick)
    if weights:
        made.add_argument("--weights", type=Path, default=ROOT / "weights", help="bundles, as TASK/ARCHITECTURE")
    if data:
        made.add_argument(
            "--data",
            nargs="+",
            default=[],
            type=lambda entry: tuple(entry.split("=", 1)),
            metavar="TASK=FOLDER",
            help="where a task's pictures are (default: downloaded once)",
        )
    return made


@functools.cache  # every annotation is read for it
def dataset(task: str, folder: str | None) -> Dataset:
    """The pictures of a task, downloaded where no folder is given. Raises DownloadError, DataError."""
    return load_dataset(folder or fetch_dataset(task), task=TASKS.get(task))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, text: int = 1) -> str:
    """A Markdown table; all columns after the first ``text`` are right-aligned."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in (header, *rows)]
    return "\n".join([head, "|" + "---|" * text + "--:|" * (len(header) - text), *body])


def markers(name: str) -> tuple[str, str]:
    """The lines of a document between which a benchmark's tables stand."""
    return f"<!-- {name}: python benchmarks/{name}.py --write -->", f"<!-- end of {name} -->"


def document(name: str) -> Path:
    """Where a benchmark's tables stand."""
    return ROOT / DOCUMENTS.get(name, "docs/benchmarks.md")


def published(name: str) -> str:
    """What stands between a benchmark's markers."""
    begin, end = markers(name)
    return document(name).read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip()


def publish(name: str, text: str, *, write: bool) -> None:
    """Print tables; with ``write``, also put them between their markers."""
    print(text)
    if write:
        path, (begin, end) = document(name), markers(name)
        before, rest = path.read_text(encoding="utf-8").split(begin)
        path.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def shown(seconds: Sequence[float]) -> str:
    """Median and range."""
    digits = 4 if statistics.median(seconds) < 0.02 else 3
    spread = f" ({min(seconds):.{digits}f} to {max(seconds):.{digits}f})" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.{digits}f} s{spread}"


def machine(*packages: str) -> str:
    """Accelerator, processor, cores, load, and versions of those packages that are installed."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), cpu)
    parts = [cpu, f"{os.cpu_count()} cores"]
    if torch.get_num_threads() != os.cpu_count():
        parts.append(f"torch on {torch.get_num_threads()}")
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} before")
    if torch.cuda.is_available():
        parts.insert(0, torch.cuda.get_device_name())
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{', '.join(parts)}; {', '.join(versions)}"


# Measuring -----------------------------------------------------------------------------------------------------------


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Seconds of each work, ``repeats`` times, after one run that does not count.

    Every repeat runs each work once, so that other load on the machine slows all of them alike.
    """
    device = device or torch.device("cpu")
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            wait_for(device)
            start = time.perf_counter()
            work()
            wait_for(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def matmul_peak(device: torch.device, dtype: torch.dtype, *, quick: bool = False) -> float:
    """FLOP/s of a large matrix product, the best of ten.

    Only for a dtype that the device multiplies natively: a large emulated product takes minutes.
    """
    n = 128 if quick else 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(interleaved({"": lambda: a @ b}, 10, device)[""])


def flops(config: UNetConfig, size: tuple[int, int], *, training: bool = False) -> int:
    """Count the FLOPs of a network for one picture (1, 3, *size).

    training: count the backward pass too. Nothing is computed.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        logits = UNet(config)(torch.empty(1, config.in_channels, *size))
        if training:
            logits.sum().backward()
    return counter.get_total_flops()


def random_bundle(architecture: str, width: float) -> Bundle:
    """A bundle with random weights and no working size.

    width: multiplies the channels of the published architecture.
    """
    torch.manual_seed(0)
    config = ARCHITECTURES[architecture]
    config = dataclasses.replace(config, widths=tuple(round(w * width) for w in config.widths), num_outputs=CLASSES)
    names, palette = [f"class {i}" for i in range(CLASSES)], np.zeros((CLASSES, 3))
    preprocessing = Preprocessing((120.0,) * 3, (65.0,) * 3)
    return Bundle(UNet(config).eval(), "random weights", architecture, names, palette, preprocessing)


def photo(size: tuple[int, int]) -> np.ndarray:
    """uint8 (*size, 3): a photograph that comes with scikit-learn."""
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(size[::-1]))


# The page in a process of its own ------------------------------------------------------------------------------------


class Page:
    """A running `python app.py`.

    task: the first in its weights. cache: the folder of its files.
    """

    def __init__(self, process: subprocess.Popen, url: str, task: str, cache: Path, started: float) -> None:
        self.process, self.url, self.task, self.cache, self.started = process, url, task, cache, started

    def seconds(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.started

    def memory(self) -> int:
        """Resident bytes (Linux)."""
        return resident("VmRSS", self.process.pid)


def resident(which: str, process: int | str = "self") -> int:
    """Bytes of a process (Linux): "VmRSS" resident now, "VmHWM" the most so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which + ":"))


@contextmanager
def serve(weights: Path, **environment: str) -> Iterator[Page]:
    """`python app.py` on a free port, with these variables, once it answers; terminated afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, task = f"http://127.0.0.1:{port}/", min(path.name for path in weights.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as folder:
        log, cache = Path(folder) / "log", Path(folder) / "cache"
        environment = {
            "UNET_WEIGHTS": str(weights),
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(cache),
            "HF_HUB_OFFLINE": "1",
            "BROWSER": "true",  # the command of this name, which does nothing, in place of a browser
            **environment,
        }
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
            )
        try:
            while not _answers(url):
                if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    raise SystemExit(f"app.py does not answer:\n{log.read_text(errors='replace')}")
                time.sleep(0.02)
            yield Page(process, url, task, cache, started)
        finally:
            process.terminate()
            process.wait(20)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
