"""Fit pictures and label maps to a number of pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image


def view_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """``size`` (h, w) scaled down to at most ``max_pixels`` pixels, same shape."""
    h, w = size
    if h * w <= max_pixels:
        return h, w
    scale = (max_pixels / (h * w)) ** 0.5
    # The longer side gives way, so that a strip of one pixel's height stays within the limit too.
    if h <= w:
        h = max(1, int(h * scale))
        return h, min(int(w * scale), max_pixels // h) if h > 1 else min(w, max_pixels)
    w, h = view_size((w, h), max_pixels)
    return h, w


def shrink(image: np.ndarray, max_pixels: int) -> np.ndarray:
    """Shrink uint8 (H, W, 3) to at most ``max_pixels`` pixels, averaging areas.

    Returns the same array if it is small enough.

    Returns the same array if it is small enough.
    """
    h, w = view_size(image.shape[:2], max_pixels)
    if (h, w) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BOX))


def sample(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, ...) to ``size`` (h, w) by the nearest pixel.

    Label maps need this: a mean of labels means nothing.
    """
    rows, columns = (
        ((np.arange(n) + 0.5) * (length / n)).astype(np.intp) for n, length in zip(size, array.shape[:2], strict=True)
    )
    return array[rows[:, None], columns]
