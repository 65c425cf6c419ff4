"""Photo and colour mask side by side."""

from __future__ import annotations

import contextlib

import numpy as np

from unet.images import ImageError
from unet.masks import color_distance, palette_of_masks
from unet.palette import Palette

from ..working_size import sample_indices
from .base import DataError, Reading, SideBySide
from .class_lists import find_classes
from .folder import Folder

NAME = "side-by-side"

SAMPLED = 20  # pictures
#: Of a mask, at least this share of the pixels is near a colour of all masks ...
COVERED = 0.75
#: ... and of the photo beside it, less by at least this much. In real pairs (JPEG, 27 colours) it is 0.44 to 0.77 less,
#: in the halves of photos of streets, hands, slides and objects at most 0.13.
CONTRAST = 0.3


def fits(folder: Folder) -> str:
    """Why the right halves are masks, or ""."""
    chosen = [folder.pictures[i] for i in sample_indices(len(folder.pictures), SAMPLED)]
    pairs = []
    for path in chosen:
        with contextlib.suppress(ImageError, DataError):  # the scan of all pictures names it
            pairs.append(SideBySide(path, path).halves())
    if len(pairs) < max(1, len(chosen) / 2):
        return ""
    try:
        palette, _ = palette_of_masks(right for _, right in pairs)
    except ValueError:
        return ""
    masks = sum(
        (right := covered(palette, mask)) >= COVERED and right - covered(palette, photo) >= CONTRAST
        for photo, mask in pairs
    )
    return f"{len(palette)} colours fill the right halves" if masks >= 0.9 * len(pairs) else ""


def read(folder: Folder) -> Reading:
    """Read photo left, mask right."""
    reading = Reading("photo left, colour mask right", classes=find_classes(folder))
    for path in folder.pictures:
        reading.splits[folder.split_of(path)].append(SideBySide(path, path))
    return reading


def covered(palette: Palette, image: np.ndarray) -> float:
    """The share of pixels near a colour."""
    return float(np.mean(color_distance(image, palette, palette.encode(image)) <= 16))
