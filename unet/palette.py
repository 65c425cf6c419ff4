"""Colours <-> labels: palettes, k-means palettes for every k at once, and the classes of colour-coded masks.

Everything here starts from one exact fact: how many pixels have which of the 2**24 colours. Colours are numbered in
Z-order (Morton order: the bits of red, green and blue interleaved), so that sorting the numbers sorts the colours into
an octree: cutting 3 bits off a number names the cube, twice as wide, that the colour lies in.

Sources: M. E. Celebi, "Improving the performance of k-means for color quantization" (2011, arXiv 1101.0395), for
k-means on weighted colours instead of pixels; B. Ottosson, "A perceptual color space for image processing" (2020,
bottosson.github.io/posts/oklab), for OKLab.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .metrics import IGNORE_INDEX

SPACES = ("rgb", "oklab")

_ALL = 1 << 24  # the colours there are
_BLOCK = 1 << 16  # pixels worked on at a time: what they need stays in the processor's cache
_SPREAD = sum((np.arange(256) >> bit & 1) << 3 * bit for bit in range(8))  # abcdefgh -> a00b00c00d00e00f00g00h
_GATHER = [  # for red, green, blue: rgbrgbrgbrgb -> the four bits of that channel
    sum((np.arange(4096) >> 3 * bit + shift & 1) << bit for bit in range(4)).astype(np.uint8) for shift in (2, 1, 0)
]


@dataclass(frozen=True, eq=False)
class Palette:
    """k colours, and the way from a picture to label maps and back.

    Parameters
    ----------
    colors : array of shape (k, 3), RGB, whole numbers 0..255, 1 <= k <= 256. Stored as a read-only uint8 array.
    names : k strings, optional. One name a colour.
    space : "rgb" or "oklab". Where "nearest" is measured, see `PaletteLadder`.
    reason : str. For a palette found by `of_masks`: how many classes were found, and why. Print it.

    Raises ValueError when the colours or names have another shape, or the space is unknown.
    """

    colors: np.ndarray
    names: tuple[str, ...] | None = None
    space: str = "rgb"
    reason: str = ""

    def __post_init__(self) -> None:
        given = np.asarray(self.colors)
        if given.ndim != 2 or given.shape[1] != 3 or not 1 <= len(given) <= 256:
            raise ValueError(f"a palette needs 1 to 256 colours as an array of shape (k, 3), got shape {given.shape}")
        colors = given.astype(np.uint8)
        if not np.array_equal(colors, given):
            raise ValueError("palette colours are whole numbers from 0 to 255; round and clip them first")
        colors.flags.writeable = False
        object.__setattr__(self, "colors", colors)
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))
            if len(self.names) != len(colors):
                raise ValueError(f"{len(colors)} colours need as many names, got {len(self.names)}")
        _check_space(self.space)

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
        return ["#" + bytes(color).hex() for color in self.colors]

    def encode(self, image: np.ndarray) -> np.ndarray:
        """The nearest palette colour of every pixel, exactly; of equally near ones the first.

        image : uint8 (H, W, 3). Returns a label map, uint8 (H, W).
        Each distinct colour is compared once. Working memory grows with their number, 16.8 million at the most, and not
        with the number of pixels.
        """
        image = _check_image(image)
        seen = np.zeros(_ALL, bool)
        for _, block in _blocks(image):
            seen[_codes_of(block)] = True
        codes = np.flatnonzero(seen)
        label_of = np.empty(_ALL, np.uint8)  # memory is taken only where a colour of the picture writes
        centers = _to_space(self.colors, self.space)
        for start in range(0, len(codes), _BLOCK):
            part = codes[start : start + _BLOCK]
            label_of[part] = _nearest(_to_space(_colors_of(part), self.space), centers)
        return _look_up(image, label_of)

    def decode(self, label_map: np.ndarray) -> np.ndarray:
        """Paint a label map: uint8 (H, W) -> uint8 (H, W, 3).

        IGNORE_INDEX becomes black, unless the palette has a colour 255. Raises ValueError for any other label without a
        colour.
        """
        label_map = np.asarray(label_map)
        if label_map.dtype != np.uint8 or label_map.ndim != 2 or 0 in label_map.shape:
            raise ValueError(f"decode needs a uint8 label map (H, W), got {label_map.dtype} {label_map.shape}")
        if label_map.max() >= len(self):
            unknown = label_map[(label_map >= len(self)) & (label_map != IGNORE_INDEX)]
            if len(unknown):
                raise ValueError(
                    f"label {unknown[0]} has no colour: this palette's labels are 0..{len(self) - 1} "
                    f"and {IGNORE_INDEX} (ignored)"
                )
        return np.array(self._indexed(label_map).convert("RGB"))  # Pillow's look-up is 5 times as fast as numpy's

    def shares(self, label_map: np.ndarray) -> np.ndarray:
        """How much of a label map (uint8, any shape) each colour covers: float (k,), of all pixels with a colour."""
        counts = np.bincount(np.asarray(label_map).reshape(-1), minlength=len(self))[: len(self)]
        return counts / max(counts.sum(), 1)

    def table(self, shares: Sequence[float]) -> str:
        """One line a class: index, colour, name and share, to be read before a training starts. shares: (k,), 0..1."""
        if len(shares) != len(self):
            raise ValueError(f"{len(self)} colours need as many shares, got {len(shares)}")
        names = self.names or [f"class {i}" for i in range(len(self))]
        width = max(map(len, [*names, "name"]))
        lines = [f"class  colour   {'name':{width}}    share"]
        for i, (color, name, share) in enumerate(zip(self.hex, names, shares, strict=True)):
            lines.append(f"{i:5}  {color}  {name:{width}}  {share:7.3%}")
        return "\n".join(lines)

    # Colour-coded masks --------------------------------------------------------------------------------------------

    @classmethod
    def of_masks(
        cls, masks: Iterable[np.ndarray], k: int | None = None, *, names: Mapping[str, Sequence[int]] | None = None
    ) -> Palette:
        """Find the classes of colour-coded masks, exact ones (PNG) or with compression noise and blended edges (JPEG).

        masks : uint8 (H, W, 3) each, read one at a time. The training split only.
        k : how many classes, or None to find out. Of more colours than k the k largest become classes.
        names : {class name: (r, g, b)}, optional. A class within 24 levels of a named colour gets that name and exactly
            that colour; names without such a class are left out.

        A class is a colour that fills areas: only pixels whose 5x5 neighbourhood is flat (within 8 levels a channel)
        are counted, since blended edges and ringing never fill one, however many pixels they have. The most frequent
        colour takes in all within 14 levels, their mean becomes the class's colour, then the most frequent of the rest,
        and so on, down to 0.002 % of the flat area. Masks with at most 256 distinct colours, half of which fill areas,
        are taken for exact, and each of the colours for a class. A class that is nowhere 5 pixels wide can be found in
        exact masks only.

        The classes are ordered by the area they fill, largest first, equal ones by colour. No random numbers: the order
        of the masks makes no difference. `reason` says what was found and why.

        Raises ValueError without masks, without flat pixels, or for k larger than the number of colours found.
        """
        flat, everywhere = np.zeros((2, _ALL), np.uint32)
        for mask in masks:
            mask = _check_image(mask)
            inside = _range(mask, 2) <= 8
            np.add.at(flat, _codes_of(mask[inside]), np.uint32(1))
            np.add.at(everywhere, _codes_of(mask.reshape(-1, 3)), np.uint32(1))
        codes, seen = np.flatnonzero(flat), np.flatnonzero(everywhere)
        if not len(codes):
            raise ValueError("no mask with a flat area was given: colour-coded masks fill areas with one colour each")
        # Blended edges have many colours that fill nothing, exact masks at most a few: classes drawn in thin lines.
        exact = len(seen) <= min(256, 2 * len(codes))
        if exact:
            codes, flat = seen, everywhere
        colors, sizes = _modes(_colors_of(codes).astype(float), flat[codes].astype(float), radius=0 if exact else 14)
        shares = sizes / flat[codes].sum()
        found = len(colors) if exact else int(np.count_nonzero(shares >= _SMALLEST_CLASS))
        if k is None:
            k = found
            why = f"found {k} classes"
        elif k > len(colors):
            raise ValueError(
                f"{k} classes were asked for, but only {len(colors)} colours fill areas in the masks; "
                f"ask for {found}, or leave k out"
            )
        else:
            why = f"{k} classes asked for, {found} found"
        if k > 255:
            raise ValueError(
                f"{k} colours fill areas, but a label map holds 255 classes: these are photos, not "
                "colour-coded masks; if they are masks, give k"
            )
        kind = "exact masks" if exact else "masks with compressed or blended edges"
        rest = f"the next colour fills {shares[k]:.4%}" if k < len(shares) else "no other colour fills any"
        reason = (
            f"{why}: {kind}, in which these colours fill {shares[:k].sum():.3%} of the flat area, "
            f"the smallest of them {shares[k - 1]:.4%}; {rest}"
        )
        colors = np.round(colors[:k]).astype(np.uint8)
        if not names:
            return cls(colors, reason=reason)
        titles = [f"class {i}" for i in range(k)]
        distances = np.linalg.norm(colors[:, None] - np.array(list(names.values()), float), axis=2)
        for j, (name, color) in enumerate(names.items()):
            i = distances[:, j].argmin()
            if distances[i, j] <= 24 and distances[i].argmin() == j:  # each is the other's nearest
                titles[i], colors[i] = name, color
        return cls(colors, tuple(titles), reason=reason)

    def encode_mask(self, mask: np.ndarray, *, ambiguous: str = "nearest") -> np.ndarray:
        """The classes of a colour-coded mask: uint8 (H, W, 3) -> label map, uint8 (H, W).

        An exact mask is looked up. In any other, flat pixels get the nearest colour. At an edge the nearest colour is
        often wrong: a blend of A and B can be the very colour of a class C, and JPEG keeps colour at half resolution.
        So an edge pixel gets the class that explains its own brightness and, together with the classes around it, the
        blurred colour there, and that is a neighbour's too, if possible.

        ambiguous : "nearest" labels every pixel. "ignore" gives IGNORE_INDEX to edge pixels that a second class
            explains about as well, since a wrong label there teaches a wrong outline, and to flat areas farther than
            48 levels from every class, since they are of no class (of k = 10 colours where the masks have 19).

        At JPEG quality 75 and 4:2:0, "nearest" gets 99.2 % of the pixels of street scenes of 256x256 right (the nearest
        colour alone: 97 %); "ignore" leaves out 1.2 % and gets 99.6 % of the rest right. About 0.1 s a mask.
        """
        if ambiguous not in ("nearest", "ignore"):
            raise ValueError(f'ambiguous is "nearest" or "ignore", got {ambiguous!r}')
        label_map = Palette(self.colors).encode(mask)
        distance = np.linalg.norm(np.subtract(mask, self.colors[label_map], dtype=np.float32), axis=2)
        if not distance.any():
            return label_map
        flat = _range(mask, 1) <= 32
        foreign = flat & (distance > 48)
        doubtful = _explain_edges(mask, self.colors, label_map, np.flatnonzero(~flat | ((distance > 24) & ~foreign)))
        if ambiguous == "ignore":
            label_map[doubtful | foreign] = IGNORE_INDEX
        return label_map

    def strange_colors(self, mask: np.ndarray) -> np.ndarray:
        """The colours of a colour-coded mask, uint8 (H, W, 3), that are none of these: uint8 (n, 3), largest first.

        In an exact mask, every colour more than 24 levels from all of the palette's. In one with compressed or blended
        edges, those farther than 48 that fill areas of 5x5 pixels, together more than a thousandth of the mask: at JPEG
        quality 50 and 4:2:0, ringing between the colours of the palette fills less than a thirtieth of that.
        """
        mask = _check_image(mask)
        label_map = Palette(self.colors).encode(mask)
        distance = np.linalg.norm(np.subtract(mask, self.colors[label_map], dtype=np.float32), axis=2)
        if not (distance > 24).any():
            return np.empty((0, 3), np.uint8)
        spread, codes = _range(mask, 2), _codes_of(mask.reshape(-1, 3)).reshape(mask.shape[:2])
        filling = len(np.unique(codes[spread <= 8])) or 256  # one as small as a stamp has no areas
        exact = len(np.unique(codes)) <= min(256, 2 * filling)  # as in `of_masks`
        strange = distance > 24 if exact else (distance > 48) & (spread <= 32)
        if not exact and strange.mean() <= 1e-3:
            return np.empty((0, 3), np.uint8)
        found, counts = np.unique(codes[strange], return_counts=True)
        colors, _ = _modes(_colors_of(found).astype(float), counts.astype(float), radius=0 if exact else 24)
        return np.round(colors).astype(np.uint8)

    # Files ---------------------------------------------------------------------------------------------------------

    def palette_png(self, image: np.ndarray) -> bytes:
        """The picture (uint8 (H, W, 3)) in this palette's colours, as the bytes of an indexed PNG."""
        file = io.BytesIO()
        self._indexed(self.encode(image)).save(file, "PNG")
        return file.getvalue()

    def to_gpl(self, title: str = "Palette") -> str:
        """A GIMP palette (.gpl), which Inkscape and Krita read too."""
        rows = zip(self.colors.tolist(), self._labels(), strict=True)
        lines = [f"{red:3} {green:3} {blue:3}\t{name}" for (red, green, blue), name in rows]
        return "\n".join(["GIMP Palette", f"Name: {title}", "Columns: 8", "#", *lines, ""])

    def to_ase(self) -> bytes:
        """An Adobe Swatch Exchange file (.ase): version 1.0, one global RGB colour a block, all big-endian."""
        blocks = []
        for color, name in zip(self.colors, self._labels(), strict=True):
            text = (name + "\0").encode("utf-16-be")
            body = struct.pack(">H", len(text) // 2) + text + b"RGB " + struct.pack(">3fH", *(color / 255), 0)
            blocks.append(struct.pack(">HI", 1, len(body)) + body)
        return b"ASEF" + struct.pack(">HHI", 1, 0, len(blocks)) + b"".join(blocks)

    def to_json(self) -> str:
        """{"palette": [[r, g, b], ...], "hex": [...], "class_names": [...] if there are names}."""
        content = {"palette": self.colors.tolist(), "hex": self.hex}
        return json.dumps(content | ({"class_names": list(self.names)} if self.names else {}), indent=1)

    def to_css(self) -> str:
        """The colours as custom properties: `var(--color-0)` and so on."""
        return "\n".join([":root {", *(f"  --color-{i}: {code};" for i, code in enumerate(self.hex)), "}", ""])

    def _labels(self) -> Sequence[str]:
        return self.names or self.hex

    def _indexed(self, label_map: np.ndarray) -> Image.Image:
        picture = Image.fromarray(label_map)
        picture.putpalette(self.colors.tobytes())  # colours the palette lacks are black
        return picture


class PaletteLadder:
    """The k-means palettes of a picture for every k at once: `ladder[8]` is its 8-colour `Palette`.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    max_colors : the largest k, 1..256
    space : "rgb" or "oklab". Where distances are measured, in fitting and in `Palette.encode`. "rgb" makes the squared
        error of the pixel values as small as it can, which is what error figures measure, and spends colours on
        differences that nobody sees. "oklab" measures differences as the eye does, equal steps looking equally large:
        shadows and pale hues keep more colours, bright areas fewer, and the error of the pixel values is larger.

    Attributes
    ----------
    distinct_colors : the exact number of distinct colours in the picture. From there on `ladder[k]` is all of them, and
        encoding and decoding returns the picture unchanged.

    How: the exact colour histogram of all pixels is cut into at most 8192 octree cells, small where squared error is
    concentrated. Up and down the ladder, every rung tries its neighbour's centres with the best new one added, or the
    least useful one removed, followed by weighted k-means, and keeps the best it has seen. Lloyd's algorithm alone
    stays in the local minimum where it starts; centres that move between distant places get it out. Where all colours
    are grey, the problem has one dimension, and the palettes are the true optimum, by dynamic programming.

    No random numbers, and coordinates on a grid of 1/8 level, where float32 sums are exact: the same picture gives the
    same palettes on every run and with any number of threads.

    Order: every rung keeps the colours of the one below in their order, moved a little, and puts its new colour where
    its lightness belongs, from dark to light. So a swatch stays where it was when k moves by one; a plain sort by
    lightness would let two that are about equally light trade places.
    """

    def __init__(self, image: np.ndarray, *, max_colors: int = 64, space: str = "rgb") -> None:
        _check_space(space)
        if not 1 <= max_colors <= 256:
            raise ValueError(f"max_colors is the largest k, from 1 to 256, got {max_colors}")
        self.max_colors = max_colors
        codes, counts = _histogram(_check_image(image))
        self.distinct_colors = len(codes)
        top = min(max_colors, self.distinct_colors - 1)  # the rungs that need k-means
        if self.distinct_colors <= 256 and np.ptp(_colors_of(codes), axis=1).max() == 0:
            rungs = _grey_rungs(codes, counts, top, space)
        else:
            rungs = _rungs(_Octree(codes, counts), top, space)
        if self.distinct_colors <= max_colors:
            rungs.append(_colors_of(codes))
        self._palettes = [Palette(colors, space=space) for colors in _in_stable_order(rungs)]

    def __getitem__(self, k: int) -> Palette:
        """The palette of k colours, 1 <= k <= max_colors, or of all the picture's colours where it has fewer."""
        if not 1 <= k <= self.max_colors:
            raise ValueError(f"this ladder has palettes of 1 to {self.max_colors} colours, got k = {k}")
        return self._palettes[min(k, len(self._palettes)) - 1]


class LiveView:
    """A picture made ready for a slider: its label map in any palette within milliseconds, nearly exact.

    image : uint8 (H, W, 3). Its colours are put into at most 131072 octree cells once; from then on cells, not pixels,
    are given their nearest palette colour, and pixels are looked up. Exact up to that many distinct colours; above, the
    mean squared error is at most 0.5 % larger than with `Palette.encode`. Holds 4 bytes a pixel.
    """

    def __init__(self, image: np.ndarray) -> None:
        image = _check_image(image)
        codes, counts = _histogram(image)
        self._cells = _Octree(codes, counts).cut(1 << 17)
        self._points: dict[str, np.ndarray] = {}  # the cells' means in each space asked for so far
        cell_of = np.empty(_ALL, np.uint32)
        cell_of[codes] = self._cells.of_code
        self._cell_of_pixel = _look_up(image, cell_of)

    def encode(self, palette: Palette) -> np.ndarray:
        """The label map of the picture in this palette: uint8 (H, W). `palette.decode` paints it."""
        return self._labels(palette)[self._cell_of_pixel]

    def mean_squared_error(self, palette: Palette) -> float:
        """How far `palette.decode(view.encode(palette))` is off: the mean over all pixels of the squared distance in
        RGB levels, the three channels summed."""
        cells = self._cells
        between = ((cells.means - palette.colors[self._labels(palette)]) ** 2).sum(1) @ cells.weights
        return float((between + cells.inner) / cells.weights.sum())

    def _labels(self, palette: Palette) -> np.ndarray:
        if palette.space not in self._points:
            self._points[palette.space] = _to_space(self._cells.means, palette.space)
        return _nearest(self._points[palette.space], _to_space(palette.colors, palette.space))


# Colours and their numbers -------------------------------------------------------------------------------------------


def _check_space(space: str) -> None:
    if space not in SPACES:
        raise ValueError(f"space is one of {SPACES}, got {space!r}")


def _check_image(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"need a uint8 RGB picture of shape (H, W, 3), got {image.dtype} {image.shape}; "
            "unet.images.read_image makes one of any file"
        )
    return np.ascontiguousarray(image)


def _blocks(image: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    pixels = image.reshape(-1, 3)
    for start in range(0, len(pixels), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield part, pixels[part]


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W) of what a table of all colours says about each pixel's."""
    found = np.empty(image.shape[:2], table.dtype)
    for part, block in _blocks(image):
        found.reshape(-1)[part] = table[_codes_of(block)]
    return found


def _codes_of(pixels: np.ndarray) -> np.ndarray:
    """Z-order numbers of colours: uint8 (n, 3) -> int (n,), 0..2**24 - 1."""
    red, green, blue = pixels.T.astype(np.intp)
    return (_SPREAD << 2)[red] | (_SPREAD << 1)[green] | _SPREAD[blue]


def _colors_of(codes: np.ndarray) -> np.ndarray:
    """The inverse of `_codes_of`: int (n,) -> uint8 (n, 3)."""
    high, low = codes >> 12, codes & 4095
    return np.stack([table[high] << 4 | table[low] for table in _GATHER]).T


def _histogram(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct colours, as ascending numbers, and how many pixels have each."""
    counts = np.zeros(_ALL, np.uint32)
    for _, block in _blocks(image):
        np.add.at(counts, _codes_of(block), np.uint32(1))
    codes = np.flatnonzero(counts != 0)
    return codes, counts[codes]


def _to_space(colors: np.ndarray, space: str) -> np.ndarray:
    """RGB 0..255 (n, 3) -> coordinates whose squared distance counts, float (n, 3), all within -128..128."""
    if space == "rgb":
        return np.asarray(colors, np.float32) - 128
    rgb = np.asarray(colors, np.float32) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _LMS_FROM_RGB.T) @ _LAB_FROM_LMS.T
    return lab * 255 - _LAB_MIDDLE


def _to_rgb(points: np.ndarray, space: str) -> np.ndarray:
    """The inverse of `_to_space`, rounded to uint8 and clipped to the gamut."""
    if space == "rgb":
        rgb = points + 128
    else:
        lms = ((points + _LAB_MIDDLE) / 255 @ np.linalg.inv(_LAB_FROM_LMS).T) ** 3
        linear = np.clip(lms @ np.linalg.inv(_LMS_FROM_RGB).T, 0, 1)
        rgb = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


_LAB_MIDDLE = np.array([128, 0, 0])
_LMS_FROM_RGB = np.array(  # linear sRGB -> cone response, Ottosson 2020
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB_FROM_LMS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


# Colour-coded masks --------------------------------------------------------------------------------------------------

_SMALLEST_CLASS = 2e-5  # of the flat area. At JPEG quality 75 what ringing leaves of other colours stays below 1e-5
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)  # JPEG


def _range(mask: np.ndarray, radius: int) -> np.ndarray:
    """How far the levels around each pixel are apart, in the channel where they are farthest: uint8 (H, W)."""
    low = high = np.pad(mask, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    for axis in (0, 1):
        around = range(2 * radius + 1)
        low = np.minimum.reduce([_part(low, axis, i, mask.shape[axis]) for i in around])
        high = np.maximum.reduce([_part(high, axis, i, mask.shape[axis]) for i in around])
    return (high - low).max(2)


def _part(array: np.ndarray, axis: int, start: int, length: int) -> np.ndarray:
    return array[start : start + length] if axis == 0 else array[:, start : start + length]


def _modes(colors: np.ndarray, counts: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent colour with all within radius, then the most frequent of the rest: means and sizes, by size."""
    left = counts.copy()
    means, sizes = [], []
    while left.any() and len(means) < 400:
        near = ((colors - colors[left.argmax()]) ** 2).sum(1) <= radius**2
        sizes.append(left[near].sum())
        means.append(left[near] @ colors[near] / sizes[-1])
        left[near] = 0
    order = np.lexsort([*np.transpose(means), -np.array(sizes)])
    return np.array(means)[order], np.array(sizes)[order]


def _explain_edges(mask: np.ndarray, colors: np.ndarray, label_map: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Improve the labels of the edge pixels (flat indices) in place; returns where two classes do about equally well.

    Minimises, by coordinate descent (iterated conditional modes, Besag 1986), the squared error of luma, plus half of
    that of chroma as 4:2:0 subsampling blurs it, minus 200 for every equal neighbour: weights that did best on masks
    made from street scenes at JPEG quality 75 to 95.
    """
    observed, of_class = mask @ _YCBCR.T, colors @ _YCBCR.T
    luma_cost = (observed.reshape(-1, 3)[edge, :1] - of_class[:, 0]) ** 2
    rows, columns = np.divmod(edge, label_map.shape[1])
    doubtful = np.zeros(label_map.shape, bool)
    label_map.reshape(-1)[edge] = (
        luma_cost + 0.1 * ((observed.reshape(-1, 3)[edge, None, 1:] - of_class[:, 1:]) ** 2).sum(2)
    ).argmin(1)
    for _ in range(4):
        for phase in range(4):  # a quarter of the pixels at a time, so that neighbours do not change together
            now = (rows % 2) * 2 + columns % 2 == phase
            residual = _subsampled(observed[..., 1:] - _subsampled(of_class[label_map][..., 1:]))
            change = of_class[:, 1:] - of_class[label_map.reshape(-1)[edge[now]], None, 1:]
            # What the change does to the squared residuals of all pixels that its blur reaches; 0.15 is the sum of
            # the blur's squared weights. The blur is about symmetric, so that it serves as its own transpose.
            chroma_cost = 0.15 * (change**2).sum(2) - 2 * (change @ residual.reshape(-1, 2)[edge[now], :, None])[..., 0]
            cost = luma_cost[now] + 0.5 * chroma_cost
            around = np.pad(label_map, 1, mode="edge")
            every = np.arange(len(cost))
            for i, j in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
                cost[every, around[rows[now] + i, columns[now] + j]] -= 200
            label_map.reshape(-1)[edge[now]] = cost.argmin(1)
            if len(colors) > 1:
                best, second = np.partition(cost, 1, axis=1)[:, :2].T
                doubtful.reshape(-1)[edge[now]] = second - best < 600
    return doubtful


def _subsampled(chroma: np.ndarray) -> np.ndarray:
    """(H, W, 2) as a JPEG decoder returns it: the means of 2x2 pixels, then interpolated 3 : 1 between neighbours."""
    for axis in (0, 1):
        chroma = np.swapaxes(chroma, 0, axis)
        length = len(chroma)
        half = np.concatenate([chroma, chroma[-1:]])[: length + length % 2]
        half = (half[0::2] + half[1::2]) / 2
        before, after = np.concatenate([half[:1], half[:-1]]), np.concatenate([half[1:], half[-1:]])
        chroma = np.stack([0.75 * half + 0.25 * before, 0.75 * half + 0.25 * after], axis=1)
        chroma = np.swapaxes(chroma.reshape(-1, *half.shape[1:])[:length], 0, axis)
    return chroma


# Squared distances ---------------------------------------------------------------------------------------------------


def _nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Index of the nearest centre of every point, uint8 (n,); the first of equally near ones."""
    # |p - c|^2 is smallest where p.c - |c|^2 / 2 is largest. On 8-bit levels every term is exact in float32.
    half_squares = (centers**2).sum(1) / 2
    labels = np.empty(len(points), np.uint8)
    for start in range(0, len(points), 1024):  # in the processor's cache, and too few for BLAS to wake its threads
        part = slice(start, start + 1024)
        labels[part] = (points[part] @ centers.T - half_squares).argmax(1)
    return labels


class _Points:
    """Weighted points for k-means, rounded to 1/8 level: within -128..128, float32 then holds every product and every
    sum of squares exactly, so that no order of summation (thread count, BLAS, processor) can change a label."""

    def __init__(self, points: np.ndarray, weights: np.ndarray) -> None:
        self.x = _on_grid(points)
        self.weights = weights
        self._x1 = np.column_stack([self.x, np.ones(len(points), np.float32)])
        self._squares = (self.x**2).sum(1)
        self._weighted = [weights * column for column in self.x.T]
        self._rows = np.arange(len(points))

    def scores(self, centers: np.ndarray) -> np.ndarray:
        """(n, k): half the squared distance, turned around and shifted a row: larger is nearer."""
        columns = np.empty((4, len(centers)), np.float32)
        columns[:3] = centers.T
        columns[3] = (columns[:3] ** 2).sum(0) / -2
        return self._x1 @ columns

    def nearest(self, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n,) and squared distances (n,)."""
        scores = self.scores(centers)
        labels = scores.argmax(1)
        return labels, self._squares - 2 * scores[self._rows, labels]

    def means(self, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
        """The weighted mean of each cluster; an empty one keeps its centre."""
        k = len(centers)
        sizes = np.bincount(labels, self.weights, k)
        sums = np.array([np.bincount(labels, column, k) for column in self._weighted])
        means = _on_grid(sums / np.maximum(sizes, 1e-9)).T
        return means if sizes.all() else np.where(sizes[:, None] > 0, means, centers)

    def lloyd(self, centers: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
        """At most so many steps of Lloyd's algorithm. Returns the centres, and the squared error before the last step.

        Steps are 1.6 times as long as to the mean, which needs half as many of them (Lee, Baek, Sung 1997).
        """
        error = np.inf
        for _ in range(steps):
            labels, distances = self.nearest(centers)
            last, error = error, float(distances @ self.weights)
            if error > 0.9999 * last:
                break
            centers = _on_grid(centers + 1.6 * (self.means(labels, centers) - centers))
        return centers, error

    def losses(self, centers: np.ndarray) -> np.ndarray:
        """(k,): half of what losing each centre costs, its points going to the next nearest."""
        scores = self.scores(centers)
        labels = scores.argmax(1)
        first = scores[self._rows, labels]
        scores[self._rows, labels] = -np.inf
        return np.bincount(labels, (first - scores.max(1)) * self.weights, len(centers))


def _on_grid(points: np.ndarray) -> np.ndarray:
    return (np.rint(np.multiply(points, 8)) / 8).astype(np.float32)


# The ladder ----------------------------------------------------------------------------------------------------------


class _Octree:
    """The colours of a picture as an octree, with the squared error of every cube around its mean."""

    def __init__(self, codes: np.ndarray, counts: np.ndarray) -> None:
        self._codes, self._counts = codes, counts
        self.parents = []  # of depth 8 (single colours), 7, ... 1: each node's parent, as an index into the depth above
        self.sums = []  # of depth 7, ... 0: (5, nodes), see _moments
        for _ in range(8):
            codes = codes >> 3
            first = np.append(True, codes[1:] != codes[:-1])
            starts = np.flatnonzero(first)
            self.parents.append(np.cumsum(first) - 1)
            below = self.sums[-1] if self.sums else _moments(self._codes, counts)
            self.sums.append(np.stack([np.add.reduceat(row, starts) for row in below]))
            codes = codes[starts]
        self.errors = [_squared_error(sums) for sums in self.sums]

    def cut(self, limit: int) -> _Cells:
        """At most so many cells: all cubes with a squared error above a common threshold are divided."""
        errors = np.concatenate(self.errors)
        growth = np.concatenate([np.bincount(parents) for parents in self.parents]) - 1  # leaves won by dividing a cube
        errors, growth = errors[growth > 0], growth[growth > 0]
        if len(errors) > limit:  # each division wins a leaf, so that the largest errors decide
            largest = np.argpartition(-errors, limit)[: limit + 1]
            errors, growth = errors[largest], growth[largest]
        order = np.argsort(-errors)
        beyond = np.flatnonzero(1 + np.cumsum(growth[order]) > limit)
        threshold = errors[order[beyond[0]]] if len(beyond) else -1.0
        leaves, cell, total = [], np.full(1, -1), 0
        for level in range(7, -2, -1):  # from the root to the single colours: what is not divided becomes a cell
            leaf = cell < 0
            if level >= 0:
                leaf &= self.errors[level] <= threshold
                leaves.append(self.sums[level][:, leaf])
            else:
                leaves.append(np.stack(list(_moments(self._codes[leaf], self._counts[leaf]))))
            cell[leaf] = np.arange(total, total := total + np.count_nonzero(leaf))
            if level >= 0:
                cell = cell[self.parents[level]]
        sums = np.concatenate(leaves, axis=1)
        return _Cells((sums[1:4] / sums[0]).T, sums[0], float(_squared_error(sums).sum()), cell)


@dataclass(frozen=True)
class _Cells:
    means: np.ndarray  # (n, 3) RGB levels
    weights: np.ndarray  # (n,) pixels
    inner: float  # squared error of all pixels around the means of their cells
    of_code: np.ndarray  # (distinct colours,) the cell of each


def _moments(codes: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Five rows of (n,) float64: pixels, their sums of red, green, blue, and of squares. Whole numbers, hence exact."""
    weights = counts.astype(np.float64)
    colors = _colors_of(codes).T
    yield weights
    for channel in colors:
        yield weights * channel
    yield weights * sum(np.square(channel, dtype=np.int32) for channel in colors)


def _squared_error(sums: np.ndarray) -> np.ndarray:
    return np.maximum(sums[4] - (sums[1:4] ** 2).sum(0) / sums[0], 0)


def _rungs(octree: _Octree, top: int, space: str) -> list[np.ndarray]:
    """The palettes of k = 1..top, each uint8 (k, 3), in no particular order of colours."""
    from threadpoolctl import threadpool_limits  # here, because only fitting needs it

    coarse, fine = (_Points(_to_space(cells.means, space), cells.weights) for cells in map(octree.cut, (1024, 8192)))
    # Thousands of products of 0.1 ms each: to wake BLAS's threads for each would cost more than it gains.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda centers: _settle(fine, centers, space), _climb(coarse, top)))


# Which choice to take on a walk, and how high to go: the low rungs cost next to nothing.
_WALKS = ((0, 256), (1, 16), (2, 16), (3, 16), (1, 256))


def _climb(points: _Points, top: int) -> list[np.ndarray]:
    """Centres for k = 1..top: walks up and down the ladder, every rung keeping the best centres it has seen.

    Up: the rung below and the candidate that lowers the squared error most (global k-means, Likas 2003). Down: the
    rung above without its least useful centre. Later walks take the second-best cluster to divide and the second least
    useful centre, and so on, since the best has been tried.
    """
    candidates = _spread_out(points, 256)
    distances = ((points.x[:, None] - candidates) ** 2).sum(2)
    weights = points.weights.astype(np.float32)
    mean = points.means(np.zeros(len(points.x), int), np.zeros((1, 3)))
    best = [(mean, np.inf)]

    def attempt(centers: np.ndarray) -> None:
        found = points.lloyd(centers, 7)
        if len(centers) > len(best):
            best.append(found)
        elif found[1] < best[len(centers) - 1][1]:
            best[len(centers) - 1] = found

    for choice, highest in _WALKS:
        for k in range(2, min(top, highest) + 1):
            centers = best[k - 2][0]
            gains = weights @ np.maximum(points.nearest(centers)[1][:, None] - distances, 0)
            clusters = _nearest(candidates, centers)
            most = np.zeros(k - 1)
            np.maximum.at(most, clusters, gains)
            cluster = (-most).argsort(kind="stable")[min(choice, k - 2)]
            attempt(np.vstack([centers, candidates[np.where(clusters == cluster, gains, -1).argmax()]]))
        for k in range(min(top, highest + 1) - 1, 1, -1):
            centers = best[k][0]
            attempt(np.delete(centers, points.losses(centers).argsort(kind="stable")[min(choice, k)], axis=0))
    return [centers for centers, _ in best[:top]]


def _spread_out(points: _Points, count: int) -> np.ndarray:
    """Points for centres to start from: each the one with the largest weighted squared distance to those before."""
    chosen = []
    distances = np.full(len(points.x), np.float64(1e9))
    for _ in range(min(count, len(points.x))):
        chosen.append(points.x[(points.weights * distances).argmax()])
        distances = np.minimum(distances, ((points.x - chosen[-1]) ** 2).sum(1))
    return np.array(chosen)


def _settle(points: _Points, centers: np.ndarray, space: str) -> np.ndarray:
    """Whole-number colours near the centres: k distinct ones, with the smallest squared error of a few tries."""
    centers, _ = points.lloyd(centers, 3)
    best, best_error = None, np.inf
    for attempt in range(6):
        colors = _to_rgb(centers, space)
        snapped = _on_grid(_to_space(colors, space))
        labels, distances = points.nearest(snapped)
        empty = np.bincount(labels, minlength=len(centers)) == 0
        error = distances @ points.weights + empty.sum() * 1e12
        if error >= best_error:
            break
        best, best_error = colors, error
        if attempt >= 1 and not empty.any():
            break
        centers = points.means(labels, snapped)
        for i in np.flatnonzero(empty):  # two centres were rounded to one colour: move one to where it is missed most
            worst = (distances * points.weights).argmax()
            centers[i], distances[worst] = points.x[worst], 0
    return best


def _grey_rungs(codes: np.ndarray, counts: np.ndarray, top: int, space: str) -> list[np.ndarray]:
    """The best palettes there are for k = 1..top when all colours are grey, each (k, 3), dark to light.

    In one dimension clusters are intervals, and the best k intervals up to a level are the best k - 1 up to an earlier
    one and the interval from there. The centres are rounded before their error is counted, so that whole numbers too
    cannot do better.
    """
    colors = _colors_of(codes)
    x = _to_space(colors, space)[:, 0].astype(np.float64)
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum([counts, counts * x, counts * x**2], axis=1)], axis=1)
    last, first = np.tril_indices(len(x))
    weight, linear, square = sums[:, last + 1] - sums[:, first]
    center = linear / weight if space == "oklab" else np.round(linear / weight)
    cost = np.full((len(x), len(x)), np.inf)  # [last, first]: the squared error of one colour for that interval
    cost[last, first] = square - 2 * center * linear + center**2 * weight
    center_of = np.zeros_like(cost)
    center_of[last, first] = center

    error, starts, rungs = cost[:, 0], [np.zeros(len(x), int)], []
    for k in range(1, top + 1):
        if k > 1:
            total = cost + np.append(np.inf, error[:-1])
            starts.append(total.argmin(1))
            error = total.min(1)
        end, centers = len(x) - 1, []
        for start in reversed(starts):
            centers.append(center_of[end, start[end]])
            end = start[end] - 1
        lab = np.column_stack([centers[::-1], np.zeros((k, 2))])
        rungs.append(_to_rgb(lab if space == "oklab" else np.repeat(lab[:, :1], 3, axis=1), space))
    return rungs


def _in_stable_order(rungs: list[np.ndarray]) -> list[np.ndarray]:
    """Each rung's colours in the order of the rung below, new ones where their lightness belongs."""
    ordered: list[np.ndarray] = []
    for colors in rungs:
        lightness = _to_space(colors, "oklab")[:, 0]
        order: list[int] = []
        if ordered:  # pair the colours of both rungs, nearest pairs first
            distances = ((ordered[-1][:, None].astype(np.float32) - colors) ** 2).sum(2)
            heir = np.empty(len(ordered[-1]), int)
            for _ in range(len(heir)):
                old, new = divmod(int(distances.argmin()), len(colors))
                heir[old] = new
                distances[old], distances[:, new] = np.inf, np.inf
            order = heir.tolist()
        for i in sorted(set(range(len(colors))) - set(order), key=lightness.__getitem__):
            lighter = lightness[order] > lightness[i]
            misplaced = np.append(0, np.cumsum(lighter)) + np.append(np.cumsum(~lighter[::-1])[::-1], 0)
            order.insert(int(misplaced.argmin()), i)
        ordered.append(colors[order])
    return ordered
