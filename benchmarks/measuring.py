"""What the benchmarks share: options, tables, timing, pictures, a running page.

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

DOCUMENTS = {"results": "README.md", "skips": "docs/results.md", "recipe": "docs/results.md"}
CLASSES = 11  # of a network with random weights
PICTURE = (360, 480)
START_SECONDS = 300.0  # until app.py must have answered
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOAD = os.getloadavg()[0]  # before anything is measured


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


_load_once = cache(load_dataset)  # every annotation is read for it


def dataset(task: str, args: argparse.Namespace) -> Dataset:
    """The pictures of a task, downloaded unless --data says where. Raises DownloadError, DataError."""
    return _load_once(dict(args.data).get(task) or fetch_dataset(task), task=TASKS.get(task))


def bundle_folders(weights: Path, task: str = "*") -> list[Path]:
    """The bundles there are: weights/TASK/ARCHITECTURE."""
    return [path.parent for path in sorted(weights.glob(f"{task}/*/config.json"))]


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, text: int = 1) -> str:
    """A Markdown table; all columns after the first ``text`` are right-aligned."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in (header, *rows)]
    return "\n".join([head, "|" + "---|" * text + "--:|" * (len(header) - text), *body])


def markers(name: str) -> tuple[str, str]:
    """The lines around a benchmark's tables in a document."""
    return f"<!-- {name}: python benchmarks/{name}.py --write -->", f"<!-- end of {name} -->"


def document(name: str) -> Path:
    """Where a benchmark's tables stand."""
    return ROOT / DOCUMENTS.get(name, "docs/benchmarks.md")


def published(name: str) -> str:
    """What stands between a benchmark's markers."""
    begin, end = markers(name)
    return document(name).read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip()


def publish(name: str, *blocks: str, write: bool) -> None:
    """Print paragraphs and tables; with ``write``, also put them between their markers."""
    text = "\n\n".join(blocks)
    print(text)
    if write:
        path, (begin, end) = document(name), markers(name)
        before, rest = path.read_text(encoding="utf-8").split(begin)
        path.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


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


# Measuring -----------------------------------------------------------------------------------------------------------


def wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each work, ``repeats`` times, after one run that does not count.

    Every repeat runs each work once, so that other load on the machine slows all of them alike.
    """
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
    """FLOP/s of a large matrix product, and the same in words.

    In ``precision`` and in float32, the best of ten each.
    precision: one that the device multiplies natively: a large emulated product takes minutes.
    """
    n, peaks = 128 if quick else 8192 if DEVICE.type == "cuda" else 2048, {}
    for name in dict.fromkeys((precision, "float32")):
        a, b = (torch.randn(n, n, device=DEVICE).to(getattr(torch, name)) for _ in range(2))
        peaks[name] = 2 * n**3 / min(interleaved({"": partial(torch.matmul, a, b)}, 10)[""])
    reached = ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {name}" for name, peak in peaks.items())
    return peaks, f"a large matrix product reaches {reached}"


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
    config = replace(config, widths=tuple(round(w * width) for w in config.widths), num_outputs=CLASSES)
    names, palette = [f"class {i}" for i in range(CLASSES)], np.zeros((CLASSES, 3))
    return Bundle(
        UNet(config).eval(), "random weights", architecture, names, palette, Preprocessing((120,) * 3, (65,) * 3)
    )


def photo(size: tuple[int, int] = PICTURE) -> np.ndarray:
    """uint8 (*size, 3): a photograph that comes with scikit-learn."""
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(size[::-1]))


def different_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files of PICTURE's size, all different, so that no answer is cached."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    image = photo()
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(image, 7 * i, axis=1)).save(path, quality=92)
    return paths


# Processes -----------------------------------------------------------------------------------------------------------


def fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident(which: str, process: int | str = "self") -> int:
    """Bytes of a process (Linux): "VmRSS" resident now, "VmHWM" the most so far."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(rf"^{which}:\s*(\d+)", status, re.MULTILINE)[1])


@dataclass(frozen=True)
class Page:
    """A running `python app.py`.

    cache: the folder of its files. started: when, by time.perf_counter.
    """

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
    """`python app.py` on a free port, with these variables, once it answers; terminated afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
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
