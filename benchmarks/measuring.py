"""What the benchmarks share.

A benchmark runs as `python benchmarks/NAME.py`, with --write also puts its tables into the documentation, and with
--quick only shows that it works. Importing this module makes the project importable.
"""

import argparse
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
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

CLASSES = 11  # of a network with random weights
PICTURE = (360, 480)
START_SECONDS = 300.0  # until app.py must have answered
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOAD = os.getloadavg()[0]  # before anything is measured


def parser(description: str, *, quick: str = "", weights: bool = False, data: bool = False) -> argparse.ArgumentParser:
    """A parser with shared options. quick: help text of --quick."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--write", action="store_true", help="put the tables into the documentation")
    if quick:
        add("--quick", action="store_true", help=quick)
    if weights:
        add("--weights", type=Path, default=ROOT / "weights", help="bundles, as TASK/ARCHITECTURE")
    if data:
        where = "where a task's pictures are (default: downloaded once)"
        add(
            "--data",
            nargs="+",
            action="extend",
            default=[],
            type=lambda text: text.split("=", 1),
            metavar="TASK=FOLDER",
            help=where,
        )
    return made


_load_once = cache(load_dataset)  # every annotation is read for it


def dataset(task: str, args: argparse.Namespace) -> Dataset:
    """A task's pictures. Raises DownloadError, DataError."""
    return _load_once(dict(args.data).get(task) or fetch_dataset(task), task=TASKS.get(task))


def bundle_folders(weights: Path, task: str = "*") -> list[Path]:
    """The bundles there are: weights/TASK/ARCHITECTURE."""
    return [path.parent for path in sorted(weights.glob(f"{task}/*/config.json"))]


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, text: int = 1) -> str:
    """A Markdown table; only ``text`` columns are aligned left."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in (header, *rows)]
    return "\n".join([head, "|" + "---|" * text + "--:|" * (len(header) - text), *body])


def place(name: str) -> tuple[Path, str, str, str]:
    """A document, and its text before, between and after a benchmark's markers."""
    begin, end = f"<!-- {name}: python benchmarks/{name}.py --write -->\n", f"\n<!-- end of {name} -->\n"
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        before, _, rest = path.read_text(encoding="utf-8").partition(begin)
        text, found, after = rest.partition(end)
        if found:
            return path, before + begin, text, end + after
    raise SystemExit(f"no document has the lines {begin.strip()}, anything, and {end.strip()}; add them")


def publish(name: str, *blocks: str, write: bool) -> None:
    """Print blocks; with ``write``, put them between their markers."""
    text = "\n\n".join(blocks)
    print(text)
    if write:
        path, before, _, after = place(name)
        path.write_text(before + text + after, encoding="utf-8")


def shown(values: Sequence[float], unit: str = " s", digits: int | None = None) -> str:
    """Median and range."""
    median = statistics.median(values)
    digits = digits or (4 if median < 0.02 else 3)
    around = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median:.{digits}f}{unit}{around}"


def machine(*packages: str) -> str:
    """Accelerator, processor, cores, load before, and versions."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    parts = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    parts += [models[0] if models else platform.processor(), f"{os.cpu_count()} cores"]
    if torch.get_num_threads() != os.cpu_count():
        parts.append(f"torch on {torch.get_num_threads()}")
    versions = [f"Python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages)]
    return f"{', '.join(parts)}, load {LOAD:.1f} before; {', '.join(versions)}"


def wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each work, ``repeats`` times, after one that does not count."""
    # Every repeat runs each work once, so that other load on the machine slows all of them alike.
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            wait_for_gpu()
            start = time.perf_counter()
            work()
            wait_for_gpu()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def matmul_peaks(precision: str, *, quick: bool) -> tuple[dict[str, float], str]:
    """FLOP/s of a large matrix product, best of ten, and in words.

    precision: beside float32, one that the device multiplies natively: emulated, it takes minutes.
    """
    n, peaks = 128 if quick else 8192 if DEVICE.type == "cuda" else 2048, {}
    for name in dict.fromkeys((precision, "float32")):
        a, b = (torch.randn(n, n, device=DEVICE).to(getattr(torch, name)) for _ in range(2))
        peaks[name] = 2 * n**3 / min(interleaved({"": partial(torch.matmul, a, b)}, 10)[""])
    reached = ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {name}" for name, peak in peaks.items())
    return peaks, f"a large matrix product reaches {reached}"


def flops(config: UNetConfig, size: tuple[int, int], *, training: bool = False) -> int:
    """Count a network's FLOPs for one picture (1, 3, *size).

    training: with the backward pass. Nothing is computed.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        logits = UNet(config)(torch.empty(1, config.in_channels, *size))
        if training:
            logits.sum().backward()
    return counter.get_total_flops()


def random_bundle(architecture: str, width: float) -> Bundle:
    """A bundle with random weights. width: multiplies its channels."""
    torch.manual_seed(0)
    config = ARCHITECTURES[architecture]
    config = replace(config, widths=tuple(round(w * width) for w in config.widths), num_outputs=CLASSES)
    names, palette = [f"class {i}" for i in range(CLASSES)], np.zeros((CLASSES, 3))
    preprocessing = Preprocessing((120,) * 3, (65,) * 3)
    return Bundle(UNet(config).eval(), "random weights", architecture, names, palette, preprocessing)


def photo(size: tuple[int, int] = PICTURE) -> np.ndarray:
    """uint8 (*size, 3): a photograph of scikit-learn."""
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(size[::-1]))


def different_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files of PICTURE's size, all different: no answer is cached."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    image = photo()
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(image, 7 * i, axis=1)).save(path, quality=92)
    return paths


def fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident(which: str, process: int | str = "self") -> int:
    """Bytes (Linux): "VmRSS" resident now, "VmHWM" the most so far."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(rf"^{which}:\s*(\d+)", status, re.MULTILINE)[1])


@dataclass(frozen=True)
class Page:
    """A running `python app.py`. cache: the folder of its files."""

    process: subprocess.Popen
    url: str
    cache: Path
    started: float

    @cached_property
    def task(self) -> str:
        """The task that the page opens with."""
        components = httpx.get(f"{self.url}config", timeout=60).json()["components"]
        return next(c["props"]["value"] for c in components if c["props"].get("elem_id") == "task")

    def seconds(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.started

    def memory(self) -> int:
        """Resident bytes (Linux)."""
        return resident("VmRSS", self.process.pid)


@contextmanager
def serve(weights: Path, **environment: str) -> Iterator[Page]:
    """Run `python app.py` on a free port, with these variables."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log, files = Path(folder) / "log", Path(folder) / "cache"
        environment = {
            "UNET_WEIGHTS": str(weights),
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(files),
            "HF_HUB_OFFLINE": "1",
            "BROWSER": "true",  # the command of this name, which does nothing, in place of a browser
        } | environment
        started = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
            )
        page = Page(process, f"http://127.0.0.1:{port}/", files, started)
        try:
            while not _answers(page.url):
                if process.poll() is not None or page.seconds() > START_SECONDS:
                    raise SystemExit(f"app.py does not answer:\n{log.read_text(errors='replace')}")
                time.sleep(0.02)
            yield page
        finally:
            process.terminate()
            process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
