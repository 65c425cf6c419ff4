"""Draw class colours over a picture."""

from collections.abc import Collection, Sequence

import numpy as np

#: The class that stands for "nothing here": an overlay leaves its pixels as they are.
BACKGROUND = "background"
#: How opaque class colours are over a picture: 0 is the picture alone, 1 the colours alone.
OPACITY = 0.55


def overlay(
    image: np.ndarray,
    label_map: np.ndarray,
    palette: np.ndarray,
    *,
    opacity: float = OPACITY,
    unpainted: Collection[int] = (),
) -> np.ndarray:
    """Lay class colours over a picture.

    image: uint8 (H, W, 3). label_map: uint8 (H, W). palette: uint8 (k, 3). unpainted: classes left as they are.
    Returns uint8 (H, W, 3). Raises ValueError if the sizes differ.
    """
    if image.shape[:2] != label_map.shape:
        raise ValueError(f"the picture is {image.shape[:2]} and its label map {label_map.shape}; they must be one size")
    weights = np.full(len(palette), round(256 * min(max(opacity, 0.0), 1.0)), np.uint16)
    weights[list(unpainted)] = 0
    weight = weights[label_map][..., None]
    tint = (palette.astype(np.uint16) * weights[:, None])[label_map]
    return ((image * (256 - weight) + tint + 128) >> 8).astype(np.uint8)


def unpainted_classes(class_names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the classes that an overlay leaves unpainted."""
    return tuple(i for i, name in enumerate(class_names) if name == BACKGROUND)
