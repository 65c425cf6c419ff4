"""How time and memory of a segmentation grow with the picture, from 0.1 to 100 megapixels.

    python benchmarks/growth.py               a Markdown table
    python benchmarks/growth.py --write       and into README.md, with the plot benchmarks/growth.png
    python benchmarks/growth.py --quick       two small sizes

Each size in a fresh process: memory is the highest that it held resident while it segmented, less what it held before,
picture and network included; so labels and confidences, 5 bytes a pixel, count. Needs Linux.
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
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from measuring import ROOT, interleaved, machine, photo, put_into_readme, random_bundle, wait_for

from training.charts import LEFT, RIGHT
from unet.bundle import Bundle
from unet.predict import Segmenter

COLORS = (LEFT, RIGHT, "#4d4d4d", "#8e3a80")
PLOT = ROOT / "benchmarks" / "growth.png"
MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WARM_SIZE = (384, 512)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.measure:
        print(json.dumps(measure(args.measure, args.megapixels[0])))
        return
    sizes = args.megapixels or ((0.1, 0.3) if args.quick else MEGAPIXELS)
    networks = args.networks or ["residual-add", "crop-concat", str(ROOT / "weights/streets/residual-add")]
    before = machine("torch")
    curves = {network: [in_a_fresh_process(network, size) for size in sizes] for network in networks}
    text = f"{before}.\n\n{table(curves)}"
    print(text)
    if args.write:
        draw(curves, PLOT)
        put_into_readme("growth", f"![Time and extra memory over megapixels]({PLOT.relative_to(ROOT)})\n\n{text}")
    if args.plot:
        draw(curves, args.plot)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--networks",
        nargs="+",
        metavar="NAME",
        help="architectures, as published, with random weights; or folders of bundles",
    )
    add("--megapixels", nargs="+", type=float, metavar="N", help="(default: 0.1 to 100)")
    add("--plot", type=Path, metavar="PNG", help="draw it here too")
    add("--quick", action="store_true", help="0.1 and 0.3 megapixels")
    add("--write", action="store_true", help="put the table into README.md")
    add("--measure", help=argparse.SUPPRESS)  # what each fresh process is asked
    return parser.parse_args(arguments)


def in_a_fresh_process(network: str, megapixels: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", network, "--megapixels", str(megapixels)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    print(f"{network}: {found}", file=sys.stderr)
    return found


def measure(network: str, megapixels: float) -> dict[str, float]:
    """Pixels, seconds (a list) and extra bytes of one size."""
    bundle = Bundle.load(network) if Path(network).is_dir() else random_bundle(network, 1.0)
    segmenter = Segmenter(bundle)
    segmenter(photo(WARM_SIZE))  # the first run prepares kernels
    h = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = photo((h, h * 4 // 3))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes what is held now
    first = segmenter(image)
    extra = resident("VmHWM") - before
    seconds = [first.seconds]
    if first.seconds < 20:
        del first
        seconds = interleaved({"": lambda: segmenter(image)}, 3, segmenter.device)[""]
    wait_for(segmenter.device)
    found = {"pixels": image.shape[0] * image.shape[1], "seconds": seconds, "extra memory": extra}
    if segmenter.device.type == "cuda":
        found["on the device"] = torch.cuda.max_memory_allocated()
    return found


def name_of(network: str) -> str:
    """An architecture's name, or a folder's, from weights/ on."""
    return "/".join(Path(network).parts[-3:])


def resident(which: str) -> int:
    """Bytes of this process: "VmRSS" is what it holds, "VmHWM" the most it has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which + ":"))


def line_through(found: list[dict]) -> tuple[float, float, float]:
    """Seconds = fixed + rate * pixels, fitted to the relative error -> (fixed, rate, largest relative residual)."""
    pixels = np.array([f["pixels"] for f in found], float)
    seconds = np.array([statistics.median(f["seconds"]) for f in found])
    unknowns = np.stack([np.ones_like(pixels), pixels], axis=1)
    solution = np.linalg.lstsq(unknowns / seconds[:, None], np.ones_like(seconds), rcond=None)[0]
    return float(solution[0]), float(solution[1]), float(np.abs(unknowns @ solution / seconds - 1).max())


def table(curves: dict[str, list[dict]]) -> str:
    sizes = [f"{round(found['pixels'] / 1e6, 2):g} Mpx" for found in next(iter(curves.values()))]
    rows = [f"| network | | {' | '.join(sizes)} | a line through it | off by at most |"]
    rows.append("|---|---|" + "--:|" * (len(sizes) + 2))
    for network, found in curves.items():
        fixed, rate, residual = line_through(found)
        times = [f"{statistics.median(f['seconds']):.2f} s" for f in found]
        line = f"{fixed:.2f} s + {1e6 * rate:.2f} s a Mpx"
        rows.append(f"| {name_of(network)} | time | {' | '.join(times)} | {line} | {residual:.0%} |")
        for kind in found[0].keys() - {"pixels", "seconds"}:
            rows.append(f"| | {kind} | {' | '.join(f'{f[kind] / 1e6:.0f} MB' for f in found)} | | |")
    return "\n".join(rows)


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """Time and extra memory over the picture's size, both axes logarithmic; dotted, the line through the times."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    times, memory = figure.subplots(1, 2)
    for (network, found), color, marker in zip(curves.items(), cycle(COLORS), cycle("os^D")):
        megapixels = np.array([f["pixels"] / 1e6 for f in found])
        style = {"color": color, "marker": marker, "markersize": 4, "label": name_of(network)}
        times.plot(megapixels, [statistics.median(f["seconds"]) for f in found], **style, linewidth=0)
        fixed, rate, _ = line_through(found)
        times.plot(megapixels, fixed + 1e6 * rate * megapixels, color=color, linestyle=":", linewidth=1)
        memory.plot(megapixels, [f["extra memory"] / 1e6 for f in found], **style, linewidth=1)
    times.set_ylabel("seconds")
    memory.set_ylabel("extra memory, MB")
    for axes in (times, memory):
        axes.set(xscale="log", yscale="log", xlabel="megapixels")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    times.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
