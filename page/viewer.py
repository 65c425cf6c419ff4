"""What the viewer in the browser is handed of an answer; assets/viewer.js reads it."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from page.patterns import pattern_numbers
from unet.compare import Comparison
from unet.overlay import unpainted_classes
from unet.resize import sample

PIXELS = 1_000_000  # what a screen shows of a picture, and what the palette's slider repaints


def files(
    view: np.ndarray,
    comparison: Comparison,
    confidences: Sequence[np.ndarray],
    palette: np.ndarray,
    sides: Sequence[str],
    truth: np.ndarray | None = None,
) -> dict[str, bytes]:
    """Facts, planes and picture, in this order, by the names of their files.

    view: uint8 (h, w, 3), the picture as it is shown. confidences: two float32 (h, w). palette: uint8 (k, 3).
    sides: what the two networks are called. truth: uint8 (H, W), of the size of the comparison's label maps.

    Planes are uint8 (h, w), one after the other, gzipped: both label maps, both confidences (255 is certainty), and the
    truth where there is one. They are no PNGs because browsers that guard against fingerprinting change what a page
    reads back from a picture.
    """
    size = view.shape[:2]
    planes = [
        *(sample(label_map, size) for label_map in comparison.label_maps),
        *(np.rint(255 * confidence).astype(np.uint8) for confidence in confidences),
        *([] if truth is None else [sample(truth, size)]),
    ]
    unpainted = unpainted_classes(comparison.class_names)
    patterns = pattern_numbers(palette)
    facts = {
        "picture_key": zlib.crc32(view),
        "size": size,
        "full_size": comparison.label_maps[0].shape,
        "sides": sides,
        "classes": [
            {"name": name, "color": color, "painted": i not in unpainted, "pattern": patterns[i]}
            for i, (name, color) in enumerate(zip(comparison.class_names, palette.tolist(), strict=True))
        ],
        "truth": truth is not None,
    }
    picture = io.BytesIO()
    # Of photographs, run lengths make smaller files in less time than deflate's quickest level.
    Image.fromarray(view).save(picture, "PNG", compress_type=zlib.Z_RLE)
    return {
        "facts.json": json.dumps(facts).encode(),
        "planes.bin": gzip.compress(np.stack(planes).tobytes(), 1),
        "picture.png": picture.getvalue(),
    }
