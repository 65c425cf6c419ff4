"""Colours as numbers, in cells, in colour spaces."""

from collections.abc import Iterator, Sequence

import numpy as np

ALL_COLORS = 1 << 24
BLOCK = 1 << 16  # pixels worked on at a time: what they need stays in the processor's cache


def _blocks(image: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Pixels' positions and colours as numbers, in blocks."""
    pixels = image.reshape(-1, 3)
    for start in range(0, len(pixels), BLOCK):
        part = slice(start, start + BLOCK)
        yield part, codes_of(pixels[part])


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Every pixel's entry in a table of all colours."""
    found = np.empty(image.shape[:2], table.dtype)
    for part, codes in _blocks(image):
        found.reshape(-1)[part] = table[codes]
    return found


def codes_of(pixels: np.ndarray) -> np.ndarray:
    """uint8 (n, 3) -> int (n,), 0..2**24 - 1."""
    red, green, blue = pixels.T.astype(np.intp)
    return red << 16 | green << 8 | blue


def colors_of(codes: np.ndarray) -> np.ndarray:
    """The inverse: int (n,) -> uint8 (n, 3)."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)


def histogram(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct colours, ascending, and their pixels."""
    counts = np.zeros(ALL_COLORS, np.uint32)
    for _, codes in _blocks(image):
        np.add.at(counts, codes, np.uint32(1))
    codes = np.flatnonzero(counts != 0)  # numpy is slow to look for numbers, and fast for booleans
    return codes, counts[codes]


def cells(
    codes: np.ndarray, counts: np.ndarray, sizes: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put colours into cells of few bits a channel.

    sizes: (bits, most cells); the first that fits is taken, else the last. Returns the mean colour of each cell, float
    (n, 3), its number of pixels, float (n,), and the cell of each colour.
    """
    colors = colors_of(codes)
    for bits, most in sizes:
        numbers, cell_of = np.unique(codes_of(colors >> (8 - bits)), return_inverse=True)
        if len(numbers) <= most:
            break
    weights = np.bincount(cell_of, counts)
    sums = np.stack([np.bincount(cell_of, counts * channel.astype(np.float64)) for channel in colors.T], axis=1)
    return sums / weights[:, None], weights, cell_of


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """sRGB values 0..1 to linear light, 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_space(colors: np.ndarray, space: str) -> np.ndarray:
    """RGB 0..255 (n, 3) to coordinates within -128..128.

    Raises ValueError for a space that is neither "rgb" nor "oklab".
    """
    if space == "rgb":
        return np.asarray(colors, np.float32) - 128
    if space != "oklab":
        raise ValueError(f'space is "rgb" or "oklab", got {space!r}')
    linear = srgb_to_linear(np.asarray(colors, np.float32) / 255)
    lab = np.cbrt(linear @ _LMS_FROM_RGB.T) @ _LAB_FROM_LMS.T
    return lab * 255 - _LAB_MIDDLE


def to_rgb(points: np.ndarray, space: str) -> np.ndarray:
    """The inverse, rounded to uint8, clipped to the gamut."""
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
