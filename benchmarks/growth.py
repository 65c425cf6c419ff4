"""How time and memory grow with the picture, up to 100 megapixels.

    python benchmarks/growth.py               a Markdown table
    python benchmarks/growth.py --write       and into docs/benchmarks.md, with the plot docs/growth.png
    python benchmarks/growth.py --quick       two small sizes

Each size runs in a fresh process. Memory is the most that it held resident while it segmented, less what it held
before, picture and network included; so labels and confidences, 5 bytes a pixel, count. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from measuring import ROOT, interleaved, machine, parser, photo, publish, random_bundle, resident, table

from training.charts import LEFT, RIGHT
from unet.bundle import Bundle
from unet.predict import Segmenter

COLORS = (LEFT, RIGHT, "#4d4d4d", "#8e3a80")
PLOT = ROOT / "docs" / "growth.png"
MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WARM_SIZE = (384, 512)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.measure:
        print(json.dumps(measure(args.measure, args.megapixels[0])))
        return
    sizes = args.megapixels or ((0.1, 0.3) if args.quick else MEGAPIXELS)
    networks = args.networks or ["residual-add", "crop-concat", str(ROOT / "weights/streets/residual-add")]
    header = machine("torch")
    curves = {network: [in_a_fresh_process(network, size) for size in sizes] for network in networks}
    if args.write or args.plot:
        draw(curves, args.plot or PLOT)
    plot = f"![Time and extra memory over megapixels]({PLOT.name})"
    publish("growth", f"{plot}\n\n{header}.\n\n{growth(curves)}", write=args.write)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    options = parser(__doc__, quick="0.1 and 0.3 megapixels")
    options.add_argument("--networks", nargs="+", metavar="NAME", help="architectures with random weights, or bundles")
    options.add_argument("--megapixels", nargs="+", type=float, metavar="N", help="(default: 0.1 to 100)")
    options.add_argument("--plot", type=Path, metavar="PNG", help="draw it here")
    options.add_argument("--measure", help=argparse.SUPPRESS)  # the network that a fresh process measures
    return options.parse_args(arguments)


def in_a_fresh_process(network: str, megapixels: float) -> dict[str, float]:
    """What `measure` returns in a process of its own."""
    command = [sys.executable, __file__, "--measure", network, "--megapixels", str(megapixels)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    print(f"{network}: {found}", file=sys.stderr)
    return found


def measure(network: str, megapixels: float) -> dict[str, float]:
    """Pixels, seconds (a list) and extra bytes of a segmentation of this size."""
    bundle = Bundle.load(network) if Path(network).is_dir() else random_bundle(network, 1.0)
    segmenter = Segmenter(bundle)
    segmenter(photo(WARM_SIZE))  # the first run prepares kernels
    h = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = photo((h, h * 4 // 3))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the most so far (VmHWM)
    first = segmenter(image)
    extra = max(0, resident("VmHWM") - before)  # the kernel counts both a little late
    seconds = [first.seconds]
    if first.seconds < 20:
        del first
        seconds = interleaved({"": lambda: segmenter(image)}, 3, segmenter.device)[""]
    return {"pixels": image.shape[0] * image.shape[1], "seconds": seconds, "extra memory": extra}


def name_of(network: str) -> str:
    """An architecture's name, or a folder's, from weights/ on."""
    return "/".join(Path(network).parts[-3:])


def line_through(found: list[dict]) -> tuple[float, float, float]:
    """Fit seconds = fixed + rate * pixels to the relative error.

    Returns (fixed, rate, largest relative residual).
    """
    pixels = np.array([f["pixels"] for f in found], float)
    seconds = np.array([statistics.median(f["seconds"]) for f in found])
    unknowns = np.stack([np.ones_like(pixels), pixels], axis=1)
    solution = np.linalg.lstsq(unknowns / seconds[:, None], np.ones_like(seconds), rcond=None)[0]
    return float(solution[0]), float(solution[1]), float(np.abs(unknowns @ solution / seconds - 1).max())


def growth(curves: dict[str, list[dict]]) -> str:
    """Two rows of a Markdown table for each network: time and extra memory."""
    sizes = [f"{round(found['pixels'] / 1e6, 2):g} Mpx" for found in next(iter(curves.values()))]
    rows = []
    for network, found in curves.items():
        fixed, rate, residual = line_through(found)
        line = f"{fixed:.2f} s + {1e6 * rate:.2f} s a Mpx"
        times = [f"{statistics.median(f['seconds']):.2f} s" for f in found]
        rows.append([name_of(network), "time", *times, line, f"{residual:.0%}"])
        rows.append(["", "extra memory", *(f"{f['extra memory'] / 1e6:.0f} MB" for f in found), "", ""])
    return table(["network", "", *sizes, "a line through it", "off by at most"], rows, text=2)


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """Plot time and extra memory over the picture's size.

    The axes are logarithmic; the line through the times is dotted.
    """
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    times, memory = figure.subplots(1, 2)
    for (network, found), color, marker in zip(curves.items(), cycle(COLORS), cycle("os^D")):
        megapixels = np.array([f["pixels"] / 1e6 for f in found])
        style = {"color": color, "marker": marker, "markersize": 4, "label": name_of(network)}
        times.plot(megapixels, [statistics.median(f["seconds"]) for f in found], **style, linewidth=0)
        if len(found) > 1:
            fixed, rate, _ = line_through(found)
            times.plot(megapixels, fixed + 1e6 * rate * megapixels, color=color, linestyle=":", linewidth=1)
        memory.plot(megapixels, [f["extra memory"] / 1e6 for f in found], **style, linewidth=1)
    times.set_ylabel("seconds")
    memory.set_ylabel("extra memory, MB")
    times.set_yscale("log")
    memory.set_yscale("symlog", linthresh=1)  # a tiny picture may need no extra memory
    for axes in (times, memory):
        axes.set(xscale="log", xlabel="megapixels")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    times.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
