"""How time and memory grow with the picture.

Each size runs in a fresh process; --write also draws docs/growth.png. Memory is the most resident (Linux) while
segmenting, less what was before, picture and network included.
"""

import statistics
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
from measuring import ROOT, fresh_process, interleaved, machine, parser, photo, publish, random_bundle, resident, table

from training.charts import LEFT, RIGHT, new_figure, save_figure
from unet.bundle import Bundle
from unet.predict import Segmenter

COLORS = (LEFT, RIGHT, "#4d4d4d", "#8e3a80")
PLOT = ROOT / "docs" / "growth.png"
MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WARM_SIZE = (384, 512)


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, quick="0.1 and 0.3 megapixels")
    networks = ["residual-add", "crop-concat", str(ROOT / "weights/streets/residual-add")]
    options.add_argument("--networks", nargs="+", default=networks, help="architectures (random weights) or bundles")
    options.add_argument("--megapixels", nargs="+", type=float, metavar="N", help="(default: 0.1 to 100)")
    options.add_argument("--plot", type=Path, metavar="PNG", help="draw it here")
    args = options.parse_args(arguments)
    curves: dict[str, list[dict]] = {}
    for network in args.networks:
        name = "/".join(Path(network).parts[-3:])
        for megapixels in args.megapixels or MEGAPIXELS[: 2 if args.quick else None]:
            curves.setdefault(name, []).append(fresh_process(measure, network, megapixels))
            print(f"{name}: {curves[name][-1]}", file=sys.stderr)
    if args.write or args.plot:
        draw(curves, args.plot or PLOT)
    plot = f"![Time and extra memory over megapixels]({PLOT.name})"
    publish("growth", plot, f"{machine('torch')}.", growth(curves), write=args.write)


def measure(network: str, megapixels: float) -> dict[str, float]:
    """Pixels, median seconds and extra bytes of a segmentation."""
    bundle = Bundle.load(network) if Path(network).is_dir() else random_bundle(network, 1.0)
    segmenter = Segmenter(bundle)
    segmenter(photo(WARM_SIZE))  # the first run prepares kernels
    h = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = photo((h, h * 4 // 3))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the most so far (VmHWM)
    seconds = segmenter(image).seconds
    extra = max(0, resident("VmHWM") - before)  # the kernel counts both a little late
    if seconds < 20:
        seconds = statistics.median(interleaved({"": lambda: segmenter(image)}, 3)[""])
    return {"pixels": image.shape[0] * image.shape[1], "seconds": seconds, "extra memory": extra}


def line_through(found: list[dict]) -> tuple[float, float, float]:
    """Fit fixed + rate * pixels; returns both and the worst residual."""
    pixels, seconds = (np.array([f[which] for f in found], float) for which in ("pixels", "seconds"))
    unknowns = np.stack([np.ones_like(pixels), pixels], axis=1) / seconds[:, None]
    solution = np.linalg.lstsq(unknowns, np.ones_like(seconds), rcond=None)[0]
    return float(solution[0]), float(solution[1]), float(np.abs(unknowns @ solution - 1).max())


def growth(curves: dict[str, list[dict]]) -> str:
    """A Markdown table of time and extra memory."""
    sizes = [f"{round(found['pixels'] / 1e6, 2):g} Mpx" for found in next(iter(curves.values()))]
    rows = []
    for name, found in curves.items():
        fixed, rate, residual = line_through(found)
        times = [f"{f['seconds']:.2f} s" for f in found]
        rows.append([name, "time", *times, f"{fixed:.2f} s + {1e6 * rate:.2f} s a Mpx", f"{residual:.0%}"])
        rows.append(["", "extra memory", *(f"{f['extra memory'] / 1e6:.0f} MB" for f in found), "", ""])
    return table(["network", "", *sizes, "a line through it", "off by at most"], rows, text=2)


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """Plot time and extra memory over the picture's size."""
    figure = new_figure(9, 3.6)
    times, memory = figure.subplots(1, 2)
    for (name, found), color, marker in zip(curves.items(), cycle(COLORS), cycle("os^D")):
        megapixels = np.array([f["pixels"] / 1e6 for f in found])
        style = {"color": color, "marker": marker, "markersize": 4, "label": name}
        times.plot(megapixels, [f["seconds"] for f in found], **style, linewidth=0)
        memory.plot(megapixels, [f["extra memory"] / 1e6 for f in found], **style, linewidth=1)
        if len(found) > 1:
            fixed, rate, _ = line_through(found)
            times.plot(megapixels, fixed + 1e6 * rate * megapixels, color=color, linestyle=":", linewidth=1)
    times.set_yscale("log")
    memory.set_yscale("symlog", linthresh=1)  # a tiny picture may need no extra memory
    for axes, label in ((times, "seconds"), (memory, "extra memory, MB")):
        axes.set(xscale="log", xlabel="megapixels", ylabel=label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    times.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
