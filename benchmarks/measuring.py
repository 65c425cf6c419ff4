"""What the benchmarks share: fair repeats, the machine in words, what it can do at most, and the README's tables.

Importing it lets them find the library too: what runs is `python benchmarks/inference.py`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from unet.bundle import Bundle, Preprocessing  # noqa: E402
from unet.model import ARCHITECTURES, UNet  # noqa: E402

CLASSES = 11  # of a network with random weights


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was asked for; a CPU has when it answers."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Seconds of each work, ``repeats`` times, after one run that does not count.

    In every repeat each has its turn, so that whatever else the machine does meets all of them alike.
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


def shown(seconds: Sequence[float]) -> str:
    """Median (and range)."""
    digits = 4 if statistics.median(seconds) < 0.02 else 3
    spread = f" ({min(seconds):.{digits}f} to {max(seconds):.{digits}f})" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.{digits}f} s{spread}"


def machine(*packages: str) -> str:
    """Processor, cores, load, accelerator, and versions of those packages that are installed."""
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
    installed = [name for name in packages if importlib.util.find_spec(name.replace("-", "_"))]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in installed)
    return f"{', '.join(parts)}; Python {platform.python_version()}, {versions}"


def matmul_peak(device: torch.device, dtype: torch.dtype, *, quick: bool = False) -> float:
    """FLOP/s of a large matrix product, the best of ten.

    Only for a dtype that the device multiplies natively: a large emulated product takes minutes.
    """
    n = 128 if quick else 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(interleaved({"": lambda: a @ b}, 10, device)[""])


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy; the best of ten."""
    source = torch.ones((1 << 30) if device.type == "cuda" else (1 << 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(interleaved({"": lambda: target.copy_(source)}, 10, device)[""])


def random_bundle(architecture: str, width: float) -> Bundle:
    """The architecture as it was published: full width, no working size, random weights."""
    torch.manual_seed(0)
    config = ARCHITECTURES[architecture]
    config = dataclasses.replace(config, widths=tuple(round(w * width) for w in config.widths), num_outputs=CLASSES)
    names, palette = [f"class {i}" for i in range(CLASSES)], np.zeros((CLASSES, 3))
    preprocessing = Preprocessing((120.0,) * 3, (65.0,) * 3)
    return Bundle(UNet(config).eval(), "random weights", architecture, names, palette, preprocessing)


def photo(size: tuple[int, int]) -> np.ndarray:
    """uint8 (*size, 3): a photograph that comes with scikit-learn."""
    return np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(size[::-1]))


def markers(script: str, *, gpu: bool = False) -> tuple[str, str]:
    """Between which lines of README.md a benchmark's tables are kept; those of a GPU have a place of their own."""
    name, where = (f"{script}-gpu", " on a GPU") if gpu else (script, "")
    return f"<!-- {name}: python benchmarks/{script}.py --write{where} -->", f"<!-- end of {name} -->"


def put_into_readme(script: str, text: str, *, gpu: bool = False) -> None:
    """Replace what stands between the script's markers."""
    begin, end = markers(script, gpu=gpu)
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def task_folders(entries: Sequence[str]) -> dict[str, str]:
    """["nuclei=FOLDER", ...] of the command line -> where each task's pictures are."""
    return dict(entry.split("=", 1) for entry in entries)
