"""The viewer: one component, drawn in the browser."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from page.formatting import classes, percent
from page.session import Answer, Picture, hand_over, new_file
from page.viewer.patterns import pattern_numbers
from unet.images import sample
from unet.objects import Counted
from unet.overlay import OPACITY

HERE = Path(__file__).parent
MAX_NUMBERS = 5000  # objects that are numbered in one picture


def build() -> gr.HTML:
    """Draw the viewer. Its events are ``save_labels`` {side} and ``all_colours``."""
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in ("draw.js", "words.js", "hands.js")]
    return gr.HTML(
        html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
        js_on_load="\n".join(scripts),
        opacity=round(100 * OPACITY),
        elem_id="viewer",
        apply_default_css=False,
    )


def waiting(picture: Picture) -> dict[str, Any]:
    """The value that shows a picture before the networks answer."""
    facts = {"key": picture.key, "size": picture.view.shape[:2]}
    return {"facts": facts, "picture": picture.view_file.hand_over()}


def answered(answer: Answer) -> dict[str, Any]:
    """The value that shows an answer."""
    comparison, truth = answer.comparison, answer.truth.labels if answer.truth else None
    size, named = answer.view.shape[:2], classes(comparison.class_names, answer.palette)
    path = new_file("planes.bin")
    path.write_bytes(planes(size, comparison.label_maps, answer.confidences, truth))
    patterns = pattern_numbers(answer.palette)
    facts = {
        "key": answer.picture.key,
        "size": size,
        "full_size": answer.size,
        "sides": answer.names,
        "classes": [each | {"pattern": pattern} for each, pattern in zip(named, patterns, strict=True)],
        "truth": truth is not None,
        "colors": answer.colors,
        "agreement": percent(comparison.agreement),
        "objects": answer.objects and [numbered(counted, answer.size, size) for counted in answer.objects],
        "miou": comparison.scores and [percent(scores.miou) for scores in comparison.scores],
    }
    return {"facts": facts, "picture": answer.view_file.hand_over(), "planes": hand_over(path)}


def numbered(counted: Counted, full_size: tuple[int, int], size: tuple[int, int]) -> list[list[float]]:
    """[x, y, radius] of each object, in pixels of the view."""
    scale = np.array(size[::-1]) / full_size[::-1]
    radii = np.sqrt(counted.areas / np.pi) * scale.mean()
    return np.column_stack([counted.centroids * scale, radii])[:MAX_NUMBERS].round(1).tolist()


def planes(
    size: tuple[int, int],
    label_maps: Sequence[np.ndarray],
    confidences: Sequence[np.ndarray],
    truth: np.ndarray | None = None,
) -> bytes:
    """Pack label maps, confidences and truth at ``size`` (h, w).

    label_maps, truth: uint8 (H, W). confidences: float32 (h, w). Returns uint8 (h, w) one after the other, gzipped:
    no PNGs, because browsers that guard against fingerprinting change what a page reads back from a picture.
    """
    every = [
        *(sample(label_map, size) for label_map in label_maps),
        *(np.rint(255 * confidence).astype(np.uint8) for confidence in confidences),
        *([] if truth is None else [sample(truth, size)]),
    ]
    return gzip.compress(np.stack(every).tobytes(), 1)
