"""Read a ground truth for the classes of a bundle.

Class numbers in a grey or palette file, masks of 0 and 1 or of 0 and 255, and masks in the classes' colours, exact or
blurred by JPEG. Void is 255, the number after the last class (CamVid's 11), black, and any colour that is no class's.
How a file was read is said in words: nobody should have to guess what a score was counted over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from . import images
from .images import MAX_PIXELS, Source, hex_code
from .masks import SAME_COLOR, encode_mask, palette_of_masks
from .metrics import IGNORE_INDEX
from .palette import Palette


class TruthError(ValueError):
    """A ground truth for other classes, and what to do."""


@dataclass(frozen=True)
class Truth:
    """A ground truth as a label map.

    labels: uint8 (H, W), class indices and IGNORE_INDEX. how: how the file was read, as the end of a sentence.
    notes: sentences about what was decided and may not have been meant.
    """

    labels: np.ndarray
    how: str
    notes: tuple[str, ...] = ()

    @property
    def void(self) -> float:
        """The share that is left out of every score."""
        return float(np.mean(self.labels == IGNORE_INDEX))


def read_truth(
    source: Source,
    class_names: Sequence[str],
    palette: np.ndarray,
    *,
    max_pixels: int | None = MAX_PIXELS,
    reader: Any = images,
) -> Truth:
    """Read a ground truth for these classes.

    palette: uint8 (k, 3), the colour of each class. source, max_pixels: as for `read_image`. reader: has `read_image`
    and `read_annotation`. Raises ImageError for what is no picture, TruthError for numbers or colours of other classes.

    A palette file holds numbers and colours: its numbers count, unless all its colours are the classes' and stand in
    another order than the classes.
    """
    pages: list[str] = []
    annotation = reader.read_annotation(source, max_pixels=max_pixels, notify=pages.append)
    if annotation.ndim == 2:
        numbers, colors = annotation, reader.read_image(source, max_pixels=max_pixels, notify=lambda _: None)
    else:  # some programs write numbers into all three channels
        colors, gray = annotation, annotation[..., 0]
        numbers = gray if (annotation == gray[..., None]).all() else None
    palette = np.asarray(palette, np.uint8)
    if numbers is not None and len(class_names) == 2 and _is_white_first(numbers, colors):
        numbers = colors[..., 0]
    if numbers is None or _colors_count(numbers, colors, palette):
        truth = _of_colors(colors, class_names, palette)
    else:
        truth = _of_numbers(numbers, class_names)
    return replace(truth, notes=(*pages, *truth.notes))


def _is_white_first(numbers: np.ndarray, colors: np.ndarray) -> bool:
    """Whether a palette mask numbers white before black."""
    white, black = (colors == 255).all(axis=2), (colors == 0).all(axis=2)
    return bool((white | black).all()) and numbers[white].max(initial=0) < numbers[black].min(initial=1)


def _colors_count(numbers: np.ndarray, colors: np.ndarray, palette: np.ndarray) -> bool:
    """Whether a file's colours, not its numbers, are the classes'."""
    table = np.zeros((256, 3), np.uint8)
    table[numbers] = colors
    used = np.flatnonzero(np.bincount(numbers.reshape(-1), minlength=256))
    nearest, same = _nearest_class(table[used], palette)
    in_order = bool(np.all(nearest[used < len(palette)] == used[used < len(palette)]))
    black = _is_black(table[used])
    return not in_order and bool(np.all(same | black)) and bool(np.any(same & ~black))


def _of_numbers(numbers: np.ndarray, class_names: Sequence[str]) -> Truth:
    classes = len(class_names)
    values = np.flatnonzero(np.bincount(numbers.reshape(-1), minlength=256)).tolist()
    if classes == 2 and values in ([0, 255], [255]):
        return Truth((numbers > 0).astype(np.uint8), f"a mask: white is {class_names[1]}")
    if values == [0, 255]:
        how = f"save their numbers, 0 to {classes - 1}, as a grey PNG, or paint it in the colours of the legend"
        raise TruthError(f"The ground truth is black and white, but there are {classes} classes: {how}.")
    labels = [value for value in values if value != IGNORE_INDEX]
    if (largest := max(labels, default=0)) > classes:
        shown = ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")
        wanted = f"with {classes} classes they are 0 to {classes - 1}, and {IGNORE_INDEX} or {classes} for void"
        if classes == 2:
            wanted = "a mask has 0 and 1, or 0 and 255, so save it without smoothing and without object numbers"
        raise TruthError(f"The ground truth has the numbers {shown}: {wanted}.")
    if largest < classes:
        return Truth(numbers, "class numbers")
    meant = f"is taken for void: the {classes} classes have 0 to {classes - 1}. If yours begin with 1, subtract 1."
    numbers = np.where(numbers == classes, np.uint8(IGNORE_INDEX), numbers)
    note = f"The number {classes} in the ground truth {meant}"
    return Truth(numbers, f"class numbers, {classes} being void", (note,))


def _of_colors(colors: np.ndarray, class_names: Sequence[str], palette: np.ndarray) -> Truth:
    classes, how = len(class_names), "the classes’ colours"
    few = Image.fromarray(colors).getcolors(256)
    try:  # the colours that fill areas
        areas = palette_of_masks([colors])[0].colors if few is None else np.array([color for _, color in few], np.uint8)
    except ValueError as error:
        raise _other_colors("it has no areas of one colour, like a photograph") from error
    nearest, same = _nearest_class(areas, palette)
    strange = areas[~same]
    if classes == 2 and nearest[same].tolist() == [0] and len(strange) == 1 and not _is_black(strange)[0]:
        palette = np.stack([palette[0], strange[0]])  # one colour on the background's: it is the object
        how, strange = f"a mask: {hex_code(palette[1])} is {class_names[1]}", strange[:0]
    if classes + len(strange) > 256:
        raise _other_colors(f"{len(strange)} of its colours are none of theirs")
    known = Palette(np.concatenate([palette, strange]))
    labels = encode_mask(colors, known) if few is None else known.encode(colors)
    shares = np.bincount(labels.reshape(-1), minlength=len(known)) / labels.size
    bright = ~_is_black(known.colors)
    of_class, of_none = shares[:classes][bright[:classes]].sum(), np.where(bright, shares, 0)[classes:]
    largest = np.argsort(-of_none, kind="stable")[: np.count_nonzero(of_none)]
    if of_none.sum() > of_class:
        most = hex_code(strange[largest[0]])
        raise _other_colors(f"{100 * of_none.sum():.0f} % of it is of no class, most of that {most}")
    labels[labels >= classes] = IGNORE_INDEX
    if not largest.size:
        return Truth(labels, how)
    listed = ", ".join(hex_code(color) for color in strange[largest[:3]]) + (" and others" if largest.size > 3 else "")
    note = f"Colours of no class in the ground truth are left out as void: {listed}, {100 * of_none.sum():.2g} % of it."
    return Truth(labels, how, (note,))


def _is_black(colors: np.ndarray) -> np.ndarray:
    return colors.max(axis=1, initial=0) <= SAME_COLOR


def _nearest_class(colors: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest class, and whether its colour is the same."""
    distances = np.linalg.norm(np.subtract(colors[:, None], palette, dtype=float), axis=2)
    return distances.argmin(axis=1), distances.min(axis=1) <= SAME_COLOR


def _other_colors(why: str) -> TruthError:
    advice = "Paint it in the colours of the legend, or save class numbers as a grey PNG."
    return TruthError(f"The ground truth is not in the classes’ colours: {why}. {advice}")
