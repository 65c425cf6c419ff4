"""Speed and quality of PaletteLadder beside what one would use instead, measured in one run.

    python benchmarks/palette.py                     two Markdown tables, in some minutes
    python benchmarks/palette.py --quick             the same on smaller pictures, in a minute
    python benchmarks/palette.py --only quality      one of the two
    python benchmarks/palette.py --images FOLDER     with up to eight pictures of a folder

OpenCV is left out where it is not installed (pip install opencv-python-headless).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_sample_image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from unet.palette import LiveView, Palette, PaletteLadder  # noqa: E402

try:
    import cv2
except ImportError:
    cv2 = None

KS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


# Pictures ------------------------------------------------------------------------------------------------------------


def drawing() -> np.ndarray:
    """Flat shapes with smooth edges."""
    picture = Image.new("RGB", (1920, 1440), (135, 206, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, 930, 1920, 1440], fill=(86, 152, 60))
    rng = np.random.default_rng(0)
    for _ in range(40):
        x, y, r = rng.uniform([0, 0, 20], [1920, 1440, 200])
        draw.ellipse([x - r, y - r, x + r, y + r], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
        draw.line([x, y, *rng.uniform(0, 1440, 2)], fill=(20, 20, 30), width=6)
    return np.asarray(picture.resize((640, 480), Image.Resampling.LANCZOS))


def screenshot() -> np.ndarray:
    """A window full of coloured text, with buttons and a gradient."""
    picture = Image.new("RGB", (1000, 640), (246, 248, 250))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, 0, 1000, 40], fill=(36, 41, 47))
    ink = [(36, 41, 47), (9, 105, 218), (26, 127, 55), (207, 34, 46), (130, 80, 223), (87, 96, 106)]
    rng = np.random.default_rng(0)
    font = ImageFont.load_default(14)
    for y in range(52, 620, 19):
        for x in range(14, 780, 90):
            word = "".join(rng.choice(list("abcdefghijklmno(){}=_"), size=int(rng.integers(3, 11))))
            draw.text((x, y), word, font=font, fill=ink[int(rng.integers(len(ink)))])
    for i, color in enumerate([(45, 164, 78), (9, 105, 218), (191, 57, 137)]):
        draw.rounded_rectangle([850, 70 + 60 * i, 970, 105 + 60 * i], 8, fill=color)
    pixels = np.array(picture)
    ramp = np.linspace((30, 100, 200), (230, 180, 140), 200)
    pixels[400:600, 840:980] = ramp[:, None].astype(np.uint8)
    return pixels


def pictures(folder: Path | None, quick: bool) -> dict[str, np.ndarray]:
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    found = {
        "china (photo)": china,
        "flower (photo)": flower,
        "drawing": drawing(),
        "screenshot": screenshot(),
        "china in grey": np.repeat(np.asarray(Image.fromarray(china).convert("L"))[..., None], 3, axis=2),
    }
    for path in sorted((ROOT / "weights" / "nuclei" / "examples").glob("*.jpg")):
        found[f"{path.stem} (microscope)"] = np.asarray(Image.open(path).convert("RGB"))
    if folder:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png", ".jpeg", ".webp"))
        if not files:
            raise SystemExit(f"{folder} holds no .jpg, .png or .webp pictures")
        for path in files[:: -(-len(files) // 8)]:
            picture = Image.open(path).convert("RGB")
            picture.thumbnail((640, 640))
            found[path.stem[:12]] = np.asarray(picture)
    return {name: np.ascontiguousarray(image[::3, ::3] if quick else image) for name, image in found.items()}


# Rivals: (image, k) -> colours ---------------------------------------------------------------------------------------


def kmeans(image: np.ndarray, k: int, n_init: int = 4) -> np.ndarray:
    return KMeans(k, n_init=n_init, random_state=0).fit(image.reshape(-1, 3).astype(np.float64)).cluster_centers_


def kmeans_of_a_sample(image: np.ndarray, k: int) -> np.ndarray:
    pixels = image.reshape(-1, 3).astype(np.float64)
    sample = np.random.default_rng(0).choice(len(pixels), min(1000, len(pixels)), replace=False)
    return KMeans(k, n_init=1, random_state=0).fit(pixels[sample]).cluster_centers_


def mini_batch(image: np.ndarray, k: int) -> np.ndarray:
    return MiniBatchKMeans(k, n_init=1, random_state=0).fit(image.reshape(-1, 3).astype(np.float64)).cluster_centers_


def pillow(method: Image.Quantize) -> Callable[[np.ndarray, int], np.ndarray]:
    def colors(image: np.ndarray, k: int) -> np.ndarray:
        return np.reshape(Image.fromarray(image).quantize(k, method).getpalette()[: 3 * k], (-1, 3))

    return colors


def opencv(image: np.ndarray, k: int) -> np.ndarray:
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 0.2)
    return cv2.kmeans(image.reshape(-1, 3).astype(np.float32), k, None, stop, 1, cv2.KMEANS_PP_CENTERS)[2]


RIVALS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "KMeans, 1,000 pixels": kmeans_of_a_sample,
    "MiniBatchKMeans": mini_batch,
    "Pillow MEDIANCUT": pillow(Image.Quantize.MEDIANCUT),
    "Pillow FASTOCTREE": pillow(Image.Quantize.FASTOCTREE),
    "Pillow MAXCOVERAGE": pillow(Image.Quantize.MAXCOVERAGE),
} | ({"OpenCV kmeans": opencv} if cv2 else {})


# Measuring -----------------------------------------------------------------------------------------------------------


def mean_squared_error(image: np.ndarray, colors: np.ndarray) -> float:
    """With every pixel painted in the nearest of the colours, which are first rounded to 8 bits."""
    return LiveView(image).mean_squared_error(Palette(np.clip(np.round(colors), 0, 255)))


def seconds(work: Callable[[], object], repeats: int) -> str:
    """Median (and range) of the wall-clock time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    spread = f" ({min(times):.3f} to {max(times):.3f})" if repeats > 1 else ""
    return f"{statistics.median(times):.3f} s{spread}"


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), cpu)
    names = ("numpy", "scikit-learn", "pillow", *(("opencv-python-headless",) if cv2 else ()))
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, {versions}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return cv2.__version__  # another of OpenCV's packages


def speed(quick: bool) -> None:
    repeats = 3 if quick else 7
    photo = Image.fromarray(load_sample_image("china.jpg"))
    large = np.asarray(photo.resize((4000, 3000), Image.Resampling.LANCZOS))
    view = np.asarray(photo.resize((1732, 1155), Image.Resampling.LANCZOS))
    PaletteLadder(view)  # what is done once a process
    ladder, live = PaletteLadder(large), LiveView(view)
    rows = {
        "PaletteLadder, k = 1 to 64, 12 megapixels": (lambda: PaletteLadder(large), repeats),
        "the same in OKLab": (lambda: PaletteLadder(large, space="oklab"), repeats),
        "LiveView, 2 megapixels": (lambda: LiveView(view), repeats),
        "a step of the slider, k = 8, 2 megapixels": (lambda: ladder[8].decode(live.encode(ladder[8])), 3 * repeats),
        "a step of the slider, k = 64, 2 megapixels": (lambda: ladder[64].decode(live.encode(ladder[64])), 3 * repeats),
        "Palette.encode (exact), k = 16, 12 megapixels": (lambda: ladder[16].encode(large), repeats),
    }
    size, name = (view, "2 megapixels") if quick else (large, "12 megapixels")
    rows[f"KMeans, n_init=1, k = 16, {name}"] = (lambda: kmeans(size, 16, n_init=1), 1)
    for rival, fit in RIVALS.items():
        # Left to itself MiniBatchKMeans can take many minutes for 12 megapixels.
        image, pixels = (view, "2 megapixels") if rival == "MiniBatchKMeans" else (size, name)
        rows[f"{rival}, k = 16, {pixels}"] = (lambda fit=fit, image=image: fit(image, 16), 1 if quick else 3)
    print("\nSpeed, on scikit-learn's china.jpg enlarged: median (range). Rivals give one palette and no picture.\n")
    print("| what | time |\n|---|--:|")
    for row, (work, times) in rows.items():
        print(f"| {row} | {seconds(work, times)} |", flush=True)


def quality(images: dict[str, np.ndarray]) -> None:
    print("\nMean squared error over all pixels, divided by that of scikit-learn's KMeans(n_init=4) on all pixels.")
    print(f"All palettes in 8 bits, pixels in the nearest colour. Worst (median) of k = {', '.join(map(str, KS))}.\n")
    print(f"| picture | distinct colours | PaletteLadder | {' | '.join(RIVALS)} |")
    print("|---|--:|--:" + "|--:" * len(RIVALS) + "|")
    by_k: dict[int, list[float]] = {k: [] for k in KS}
    for name, image in images.items():
        ladder = PaletteLadder(image)
        ratios: dict[str, list[float]] = {method: [] for method in ("PaletteLadder", *RIVALS)}
        for k in (k for k in KS if k < ladder.distinct_colors):
            reference = mean_squared_error(image, kmeans(image, k))
            ratios["PaletteLadder"].append(mean_squared_error(image, ladder[k].colors) / reference)
            by_k[k].append(ratios["PaletteLadder"][-1])
            for rival, fit in RIVALS.items():
                ratios[rival].append(mean_squared_error(image, fit(image, k)) / reference)
        cells = (f"{max(r):.3f} ({statistics.median(r):.3f})" for r in ratios.values())
        print(f"| {name} | {ladder.distinct_colors:,} | {' | '.join(cells)} |", flush=True)
    print("\nPaletteLadder at each k, over all these pictures.\n")
    print("| k | " + " | ".join(map(str, KS)) + " |\n|---" + "|--:" * len(KS) + "|")
    for label, of in (("worst", max), ("median", statistics.median)):
        print(f"| {label} | " + " | ".join(f"{of(by_k[k]):.4f}" for k in KS) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller pictures and fewer repeats")
    parser.add_argument("--only", choices=("speed", "quality"), help="one table of the two")
    parser.add_argument("--images", type=Path, help="a folder of further pictures for the quality table")
    args = parser.parse_args()
    print(machine())
    if args.only != "quality":
        speed(args.quick)
    if args.only != "speed":
        quality(pictures(args.images, args.quick))


if __name__ == "__main__":
    main()
