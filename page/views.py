"""Pictures that the page draws on the server."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from typing import Any

import numpy as np
from PIL import Image

from unet.overlay import overlay

# Below zero, zero, above zero: two hues that colour-blind eyes keep apart, on a ground that is dark on any page.
_SIGNED_RAMP = np.array([(84, 214, 200), (20, 22, 28), (255, 196, 77)], np.float32)
# Agreement is shown as a fog over the picture: grey, pulled this far towards this level.
_FOG, _FOG_LEVEL = 0.72, 236
# Rec. 601 luma, as Pillow's "L".
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def disagreement_view(
    image: np.ndarray, label_map: np.ndarray, other: np.ndarray, palette: np.ndarray, *, unpainted: Collection[int] = ()
) -> np.ndarray:
    """Draw a network's classes where the other differs.

    unpainted: classes drawn as the clear picture. Raises ValueError for two sizes.
    """
    grey = image.astype(np.float32) @ _LUMA
    fog = np.rint(grey * (1 - _FOG) + _FOG * _FOG_LEVEL).astype(np.uint8)
    said = overlay(image, label_map, palette, opacity=1.0, unpainted=unpainted)
    return np.where((label_map != other)[..., None], said, fog[..., None])


def signed_view(values: np.ndarray, scale: float) -> np.ndarray:
    """Draw float (H, W), brightest from ``scale`` on."""
    share = np.clip(values / (scale or 1.0), -1, 1)[..., None]
    below, zero, above = _SIGNED_RAMP
    shade = zero + np.maximum(share, 0) * (above - zero) + np.maximum(-share, 0) * (below - zero)
    return np.rint(shade).astype(np.uint8)


def data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """A picture as an address; options: of saving it."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
