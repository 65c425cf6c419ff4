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
    shorter = max(1, int(min(size) * scale))
    # The longer side gives way, so that a strip of one pixel's height stays within the limit too.
    longer = min(int(max(size) * scale) if shorter > 1 else max(size), max_pixels // shorter)
    return (shorter, longer) if h <= w else (longer, shorter)


def shrink(image: np.ndarray, max_pixels: int) -> np.ndarray:
    """Shrink uint8 (H, W, 3) to at most ``max_pixels`` pixels, averaging areas."""
    h, w = view_size(image.shape[:2], max_pixels)
    if (h, w) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BOX))


def sample(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, ...), such as a label map, to the nearest pixels."""
    rows, columns = (
        ((np.arange(n) + 0.5) * (length / n)).astype(np.intp) for n, length in zip(size, array.shape[:2], strict=True)
    )
    return array[rows[:, None], columns]
