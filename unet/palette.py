"""Palettes: a picture in k colours, by k-means.

k-means runs on weighted colours instead of pixels (M. E. Celebi, "Improving the performance of k-means for color
quantization", 2011, arXiv 1101.0395). OKLab is B. Ottosson's "A perceptual color space for image processing" (2020,
bottosson.github.io/posts/oklab).
"""

import functools
import io
import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from .colors import ALL_COLORS, BLOCK, cells, colors_of, histogram, look_up, to_rgb, to_space
from .images import as_rgb, hex_code, indexed_picture
from .metrics import IGNORE_INDEX

#: The largest k of a ladder, unless it is told otherwise, and of the page.
MAX_COLORS = 64
# Bits a channel and the number of cells up to which they serve; the first that fit are taken, else the last.
_CELLS_OF_LADDER = ((8, 1 << 14), (6, 1 << 15), (5, ALL_COLORS))
_CELLS_OF_VIEW = ((8, 1 << 17), (7, 1 << 17), (6, ALL_COLORS))
_RESTART_WORK = 1 << 17  # cells times colours of a run of k-means, about 10 ms
_threads = functools.cache(ThreadpoolController)  # found at the first fit, when OpenMP is loaded


@dataclass(frozen=True, eq=False)
class Palette:
    """k colours, and what turns pictures into them.

    colors: (k, 3), RGB, whole numbers 0..255, 1 <= k <= 256; stored as a read-only uint8 array.
    names: one a colour, or None. space: "rgb" or "oklab", where "nearest" is measured, see `PaletteLadder`.
    Raises ValueError for colours or names of another shape, and for an unknown space.
    """

    colors: np.ndarray
    names: tuple[str, ...] | None = None
    space: str = "rgb"

    def __post_init__(self) -> None:
        given = np.asarray(self.colors)
        if given.ndim != 2 or given.shape[1] != 3 or not 1 <= len(given) <= 256:
            raise ValueError(f"a palette needs 1 to 256 colours as an array of shape (k, 3), got shape {given.shape}")
        colors = given.astype(np.uint8)
        if not np.array_equal(colors, given):
            raise ValueError("palette colours are whole numbers from 0 to 255; round and clip them first")
        to_space(colors, self.space)  # refuses an unknown one
        colors.flags.writeable = False
        object.__setattr__(self, "colors", colors)
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
            if len(self.names) != len(colors):
                raise ValueError(f"{len(colors)} colours need as many names, got {len(self.names)}")

    def __len__(self) -> int:
        return len(self.colors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Palette):
            return NotImplemented
        return (self.names, self.space) == (other.names, other.space) and np.array_equal(self.colors, other.colors)

    def __hash__(self) -> int:
        return hash((self.colors.tobytes(), self.names, self.space))

    @property
    def hex(self) -> list[str]:
        """The colours as "#rrggbb"."""
        return [hex_code(color) for color in self.colors]

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Label every pixel with its nearest colour.

        uint8 (H, W, 3), or a Pillow image in mode RGB -> uint8 (H, W). Of equally near colours the first.
        """
        image = as_rgb(image)
        codes, _ = histogram(image)
        label_of = np.empty(ALL_COLORS, np.uint8)  # memory is taken only where a colour of the picture writes
        centers = to_space(self.colors, self.space)
        for start in range(0, len(codes), BLOCK):
            part = codes[start : start + BLOCK]
            label_of[part] = _nearest(to_space(colors_of(part), self.space), centers)
        return look_up(image, label_of)

    def decode(self, label_map: np.ndarray) -> np.ndarray:
        """Paint a label map, uint8 (H, W) -> (H, W, 3).

        IGNORE_INDEX is black, unless the palette has a colour 255. Raises ValueError for other labels without a colour.
        """
        label_map = np.asarray(label_map)
        if label_map.dtype != np.uint8 or label_map.ndim != 2 or 0 in label_map.shape:
            raise ValueError(f"decode needs a uint8 label map (H, W), got {label_map.dtype} {label_map.shape}")
        unknown = label_map[(label_map >= len(self)) & (label_map != IGNORE_INDEX)]
        if len(unknown):
            known = f"0..{len(self) - 1} and {IGNORE_INDEX} (ignored)"
            raise ValueError(f"label {unknown[0]} has no colour: this palette's labels are {known}")
        # Pillow's look-up is 5 times as fast as numpy's.
        return np.array(indexed_picture(label_map, self.colors).convert("RGB"))

    def palette_png(self, image: np.ndarray) -> bytes:
        """The picture in these colours, as an indexed PNG."""
        file = io.BytesIO()
        indexed_picture(self.encode(image), self.colors).save(file, "PNG")
        return file.getvalue()

    def to_gpl(self, title: str = "Palette") -> str:
        """A GIMP palette (.gpl), for Inkscape and Krita too."""
        rows = zip(self.colors, self.names or self.hex, strict=True)
        lines = [f"{red:3} {green:3} {blue:3}\t{name}" for (red, green, blue), name in rows]
        return "\n".join(["GIMP Palette", f"Name: {title}", "Columns: 8", "#", *lines, ""])

    def to_ase(self) -> bytes:
        """An Adobe Swatch Exchange file (.ase), version 1.0, big-endian."""
        blocks = []
        for color, name in zip(self.colors, self.names or self.hex, strict=True):
            text = (name + "\0").encode("utf-16-be")
            body = struct.pack(">H", len(text) // 2) + text + b"RGB " + struct.pack(">3fH", *(color / 255), 0)
            blocks.append(struct.pack(">HI", 1, len(body)) + body)
        return b"ASEF" + struct.pack(">HHI", 1, 0, len(blocks)) + b"".join(blocks)

    def to_json(self) -> str:
        """{"palette": [[r, g, b], ...], "hex": [...], "class_names": [...] if there are names}."""
        content = {"palette": self.colors.tolist(), "hex": self.hex}
        return json.dumps(content | ({"class_names": self.names} if self.names else {}), indent=1)

    def to_css(self) -> str:
        """The colours as custom properties: `var(--color-0)` and so on."""
        return "\n".join([":root {", *(f"  --color-{i}: {code};" for i, code in enumerate(self.hex)), "}", ""])


class PaletteLadder:
    """A picture's k-means palettes: `ladder[8]` has 8 colours.

    image: uint8 (H, W, 3), or a Pillow image in mode RGB. max_colors: the largest k, 1..256.
    space: where distances are measured, in fitting and in `Palette.encode`. "rgb" makes the squared error of the pixel
        values as small as it can. "oklab" measures differences as the eye does: shadows and pale hues keep more
        colours, bright areas fewer.
    distinct_colors: how many the picture has. From there on `ladder[k]` is all of them.

    Each palette comes from the one below it: one of the two clusters with the largest squared error is split along its
    widest axis, and scikit-learn's KMeans refines all centres on weighted colours. The squared error is within 3 % of
    KMeans(n_init=4) on all pixels of photos and microscope pictures, and within 6 % on a drawing of flat shapes
    (benchmarks/palette.py). A picture gives the same palettes on every run, whichever k is asked for first.

    Colours keep their order from one palette to the next, and new ones stand where their lightness belongs: a swatch
    stays where it was when k moves by one.
    """

    def __init__(self, image: np.ndarray, *, max_colors: int = MAX_COLORS, space: str = "rgb") -> None:
        if not 1 <= max_colors <= 256:
            raise ValueError(f"max_colors is the largest k, from 1 to 256, got {max_colors}")
        self.max_colors, self.space = max_colors, space
        codes, counts = histogram(as_rgb(image))
        self.distinct_colors = len(codes)
        means, self._weights, _ = cells(codes, counts, _CELLS_OF_LADDER)
        self._points = to_space(means, space).astype(np.float64)
        self._cell_colors = np.round(means).astype(np.uint8)
        self._all_colors = colors_of(codes) if len(codes) <= max_colors else None
        self._clusters = np.zeros(len(means), int)  # of the cells, in the largest palette so far
        self._palettes: list[Palette] = []
        self._lock = threading.Lock()  # two requests may climb at once

    def __getitem__(self, k: int) -> Palette:
        """The palette of k colours, or all there are."""
        if not 1 <= k <= self.max_colors:
            raise ValueError(f"this ladder has palettes of 1 to {self.max_colors} colours, got k = {k}")
        with self._lock:
            while len(self._palettes) < min(k, self.distinct_colors):
                self._palettes.append(self._next_palette())
            return self._palettes[min(k, self.distinct_colors) - 1]

    def _next_palette(self) -> Palette:
        k = len(self._palettes) + 1
        below = self._palettes[-1].colors if self._palettes else None
        if self._all_colors is not None and k == self.distinct_colors:
            colors = self._all_colors
        elif k == 1:
            colors = to_rgb(np.average(self._points, axis=0, weights=self._weights)[None], self.space)
        else:
            colors, self._clusters = self._refined(k)
        return Palette(_in_order_of(below, colors), space=self.space)

    def _refined(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best run: colours, and every cell's cluster."""
        from sklearn.cluster import KMeans  # takes 1 to 2 s, and only fitting needs it

        starts = list(_splits(self._points, self._weights, self._clusters, k - 1))
        runs = [KMeans(k, init=centers, n_init=1, max_iter=8, random_state=0) for centers in starts]
        # Splitting ends in a local minimum now and then: start anew, too, as often as costs next to nothing.
        restarts = min(4, _RESTART_WORK // (len(self._points) * k))
        runs += [KMeans(k, n_init=1, max_iter=20, random_state=seed) for seed in range(restarts)]
        # One thread: for so few points waking others costs more than it gains.
        with _threads().limit(limits=1, user_api="openmp"):
            for run in runs:
                run.fit(self._points, sample_weight=self._weights)
        found = [(to_rgb(run.cluster_centers_, self.space), run.labels_) for run in runs]
        colors, clusters = min(found, key=lambda run: self._errors(run[0]).sum())
        return self._all_distinct(colors), clusters

    def _errors(self, colors: np.ndarray) -> np.ndarray:
        """Every cell's weighted squared distance from these colours."""
        centers = to_space(colors, self.space)
        labels = _nearest(self._points, centers)
        return ((self._points - centers[labels]) ** 2).sum(1) * self._weights

    def _all_distinct(self, colors: np.ndarray) -> np.ndarray:
        """Replace equal colours by the worst cells' colours."""
        found = np.unique(colors, axis=0)
        for cell in (-self._errors(colors)).argsort(kind="stable") if len(found) < len(colors) else ():
            found = np.unique([*found, self._cell_colors[cell]], axis=0)
            if len(found) == len(colors):
                break
        return found


class Quantized(NamedTuple):
    """A picture in the colours of a palette.

    label_map: uint8 (H, W). error: mean over all pixels of the squared distance in RGB levels, summed over the three
    channels. shares: float (k,), of the pixels, for each colour.
    """

    label_map: np.ndarray
    error: float
    shares: np.ndarray


class LiveView:
    """A picture prepared for a slider.

    Cells of colours, not pixels, are given their nearest palette colour, within milliseconds. Exact up to 131,072
    distinct colours; above, the mean squared error is at most 0.5 % larger than with `Palette.encode`.
    """

    def __init__(self, image: np.ndarray) -> None:
        image = as_rgb(image)
        codes, counts = histogram(image)
        self._means, self._weights, cell_of = cells(codes, counts, _CELLS_OF_VIEW)
        self._inner = float(((colors_of(codes) - self._means[cell_of]) ** 2).sum(1) @ counts)
        self._points: dict[str, np.ndarray] = {}  # the cells' means in each space asked for so far
        cell_of_code = np.empty(ALL_COLORS, np.uint32)
        cell_of_code[codes] = cell_of
        self._cell_of_pixel = look_up(image, cell_of_code)

    def quantize(self, palette: Palette) -> Quantized:
        """Give every pixel its nearest palette colour."""
        if palette.space not in self._points:
            self._points[palette.space] = to_space(self._means, palette.space)
        labels = _nearest(self._points[palette.space], to_space(palette.colors, palette.space))
        between = ((self._means - palette.colors[labels]) ** 2).sum(1) @ self._weights
        pixels = self._weights.sum()
        shares = np.bincount(labels, self._weights, len(palette)) / pixels
        return Quantized(labels[self._cell_of_pixel], float((between + self._inner) / pixels), shares)


def _splits(points: np.ndarray, weights: np.ndarray, clusters: np.ndarray, k: int) -> Iterator[np.ndarray]:
    """Centres with a bad cluster split along its widest axis."""

    def per_cluster(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(clusters, weights * column, k) for column in values.T], axis=1)

    centers = per_cluster(points) / np.bincount(clusters, weights, k)[:, None]
    off = points - centers[clusters]
    errors = per_cluster(off**2)
    for cluster in (-errors.sum(1)).argsort(kind="stable")[:2]:
        inside, upper = clusters == cluster, off[:, errors[cluster].argmax()] > 0
        halves = [part for part in (inside & ~upper, inside & upper) if part.any()]
        if len(halves) == 2:
            means = [np.average(points[part], axis=0, weights=weights[part]) for part in halves]
            yield np.vstack([np.delete(centers, cluster, axis=0), *means])


def _in_order_of(before: np.ndarray | None, colors: np.ndarray) -> np.ndarray:
    """Colours in the order of the palette below."""
    from scipy.optimize import linear_sum_assignment  # as scikit-learn, which imports it

    lightness = to_space(colors, "oklab")[:, 0]
    order: list[int] = []
    if before is not None:  # each colour's heir is near it
        distances = ((before[:, None].astype(np.float32) - colors) ** 2).sum(2)
        order = linear_sum_assignment(distances)[1].tolist()
    for i in sorted(set(range(len(colors))) - set(order), key=lightness.__getitem__):  # new: where they belong
        lighter = lightness[order] > lightness[i]
        misplaced = np.append(0, np.cumsum(lighter)) + np.append(np.cumsum(~lighter[::-1])[::-1], 0)
        order.insert(int(misplaced.argmin()), i)
    return colors[order]


def _nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Every point's nearest centre; of ties the first."""
    # |p - c|^2 is smallest where p.c - |c|^2 / 2 is largest. On 8-bit levels every term is exact in float32.
    half_squares = (centers**2).sum(1) / 2
    labels = np.empty(len(points), np.uint8)
    for start in range(0, len(points), 1024):  # in the processor's cache, and too few for BLAS to wake its threads
        part = slice(start, start + 1024)
        labels[part] = (points[part] @ centers.T - half_squares).argmax(1)
    return labels
