"""PaletteLadder beside what one would use instead."""

from collections.abc import Callable
from functools import partial

import numpy as np
from measuring import ROOT, interleaved, machine, parser, photo, publish, shown, table
from PIL import Image, ImageDraw, ImageFont
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_sample_image

from unet.palette import LiveView, Palette, PaletteLadder

KS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


def main(arguments: list[str] | None = None) -> None:
    args = parser(__doc__, quick="smaller pictures and fewer repeats").parse_args(arguments)
    header = f"{machine('numpy', 'scikit-learn', 'pillow')}."
    publish("palette", header, *speed(args.quick), *quality(pictures(args.quick)), write=args.write)


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
    """Coloured text, buttons and a gradient."""
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


def pictures(quick: bool) -> dict[str, np.ndarray]:
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    images = {
        "china (photo)": china,
        "flower (photo)": flower,
        "drawing": drawing(),
        "screenshot": screenshot(),
        "china in grey": np.repeat(np.asarray(Image.fromarray(china).convert("L"))[..., None], 3, axis=2),
    }
    for path in sorted((ROOT / "weights" / "nuclei" / "examples").glob("*.jpg")):
        images[f"{path.stem} (microscope)"] = np.asarray(Image.open(path).convert("RGB"))
    return {name: np.ascontiguousarray(image[::4, ::4] if quick else image) for name, image in images.items()}


def clusters(image: np.ndarray, k: int, *, method: type = KMeans, n_init: int = 1, sample: int = 0) -> np.ndarray:
    """Centres that scikit-learn finds, in ``sample`` pixels or all."""
    pixels = image.reshape(-1, 3).astype(np.float64)
    if sample:
        pixels = np.random.default_rng(0).choice(pixels, min(sample, len(pixels)), replace=False)
    return method(k, n_init=n_init, random_state=0).fit(pixels).cluster_centers_


def kmeans_of_cells(image: np.ndarray, k: int) -> np.ndarray:
    """k-means on the means of 6-bit cells, weighted by pixels."""
    pixels = image.reshape(-1, 3)
    numbers = (pixels >> 2).astype(np.int64) @ [1 << 12, 1 << 6, 1]
    counts = np.bincount(numbers)
    sums = np.stack([np.bincount(numbers, channel) for channel in pixels.T], axis=1)
    used = counts > 0
    cells = sums[used] / counts[used, None]
    return KMeans(k, n_init=4, random_state=0).fit(cells, sample_weight=counts[used]).cluster_centers_


def pillow(image: np.ndarray, k: int, *, method: Image.Quantize) -> np.ndarray:
    return np.reshape(Image.fromarray(image).quantize(k, method).getpalette()[: 3 * k], (-1, 3))


OTHERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "KMeans on weighted cells": kmeans_of_cells,
    "KMeans, 1,000 pixels": partial(clusters, sample=1000),
    "MiniBatchKMeans": partial(clusters, method=MiniBatchKMeans),
    "Pillow MEDIANCUT": partial(pillow, method=Image.Quantize.MEDIANCUT),
    "Pillow FASTOCTREE": partial(pillow, method=Image.Quantize.FASTOCTREE),
    "Pillow MAXCOVERAGE": partial(pillow, method=Image.Quantize.MAXCOVERAGE),
}


def speed(quick: bool) -> tuple[str, str]:
    """Time the ladder, the slider, and other ways to a palette."""
    large, view = (photo(size) for size in (((300, 400), (150, 200)) if quick else ((3000, 4000), (1155, 1732))))
    pixels, view_pixels = (f"{image.shape[0] * image.shape[1] / 1e6:.3g} megapixels" for image in (large, view))
    ladder, live = PaletteLadder(large), LiveView(view)

    def step(k: int) -> np.ndarray:
        return ladder[k].decode(live.quantize(ladder[k]).label_map)

    works = {
        f"PaletteLadder, k = 1 to 8, {pixels}": lambda: PaletteLadder(large)[8],
        f"PaletteLadder, k = 1 to 64, {pixels}": lambda: PaletteLadder(large)[64],
        "the same in OKLab": lambda: PaletteLadder(large, space="oklab")[64],
        f"LiveView, {view_pixels}": lambda: LiveView(view),
        f"a step of the slider, k = 8, {view_pixels}": lambda: step(8),
        f"a step of the slider, k = 64, {view_pixels}": lambda: step(64),
        f"KMeans, n_init=1, k = 16, {pixels}": lambda: clusters(large, 16),
    }
    for name, fit in OTHERS.items():
        # Left to itself MiniBatchKMeans can take many minutes for 12 megapixels.
        image, size = (view, view_pixels) if name == "MiniBatchKMeans" else (large, pixels)
        works[f"{name}, k = 16, {size}"] = partial(fit, image, 16)
    rows = [(name, shown(seconds)) for name, seconds in interleaved(works, 1 if quick else 3).items()]
    heading = "scikit-learn's china.jpg, enlarged. The ladder makes all these palettes in the time, the others one."
    return heading, table(("what", "time"), rows)


def quality(images: dict[str, np.ndarray]) -> tuple[str, str]:
    """Squared errors beside those of k-means on all pixels."""
    rows = []
    for name, image in images.items():
        ladder = PaletteLadder(image)
        ks = [k for k in KS if k < ladder.distinct_colors]
        reference = {k: squared_error(image, clusters(image, k, n_init=4)) for k in ks}
        methods = [lambda _, k, ladder=ladder: ladder[k].colors, *OTHERS.values()]
        worst = [max(squared_error(image, fit(image, k)) / reference[k] for k in ks) for fit in methods]
        rows.append([name, *(f"{ratio:.3f}" for ratio in worst)])
    heading = (
        "Mean squared error over all pixels, every pixel in the nearest colour, divided by that of scikit-learn's "
        f"KMeans(n_init=4) on all pixels; the worst of k = {', '.join(map(str, KS))}."
    )
    return heading, table(["picture", "PaletteLadder", *OTHERS], rows)


def squared_error(image: np.ndarray, colors: np.ndarray) -> float:
    """Mean squared error, each pixel in its nearest colour."""
    palette = Palette(np.clip(np.round(colors), 0, 255))
    return float(np.square(palette.decode(palette.encode(image)).astype(float) - image).mean())


if __name__ == "__main__":
    main()
