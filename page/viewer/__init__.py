"""The viewer: one component, drawn in the browser."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from page.components import classes, percent
from page.session import Answer, Picture, hand_over, new_file
from unet.colors import srgb_to_linear
from unet.images import sample
from unet.objects import Counted
from unet.overlay import OPACITY

HERE = Path(__file__).parent
MAX_NUMBERS = 5000  # objects that are numbered in one picture

# What each kind of colour blindness sees, in linear RGB (Machado, Oliveira, Fernandes 2009, severity 1).
_COLOR_VISION = np.array(
    [
        np.eye(3),
        [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
        [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
        [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)],
    ]
)
_LINEAR_TO_XYZ = np.array(
    [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
)
_ALIKE = 20  # CIE76 distance in Lab below which two colours lying apart are easily mistaken for one


def build() -> gr.HTML:
    """Draw the viewer; events: save_labels {side}, all_colours, again."""
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in ("draw.js", "words.js", "hands.js")]
    return gr.HTML(
        html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
        js_on_load="\n".join(scripts),
        opacity=round(100 * OPACITY),
        elem_id="viewer",
        apply_default_css=False,
    )


def waiting(picture: Picture) -> dict[str, Any]:
    """The value that shows a picture without answers."""
    facts = {"key": picture.key, "size": picture.view.shape[:2]}
    return {"facts": facts, "picture": picture.view_file()}


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
    return {"facts": facts, "picture": answer.shown.view_file(), "planes": hand_over(path)}


def numbered(counted: Counted, full_size: tuple[int, int], size: tuple[int, int]) -> list[list[float]]:
    """[x, y, radius] of each object in the view."""
    scale = np.array(size[::-1]) / full_size[::-1]
    radii = np.sqrt(counted.areas / np.pi) * scale.mean()
    return np.column_stack([counted.centroids * scale, radii])[:MAX_NUMBERS].round(1).tolist()


def planes(
    size: tuple[int, int],
    label_maps: Sequence[np.ndarray],
    confidences: Sequence[np.ndarray],
    truth: np.ndarray | None = None,
) -> bytes:
    """Label maps, confidences and truth at ``size``, gzipped."""
    # No PNGs, because browsers that guard against fingerprinting change what a page reads back from a picture.
    every = [
        *(sample(label_map, size) for label_map in label_maps),
        *(np.rint(255 * confidence).astype(np.uint8) for confidence in confidences),
        *([] if truth is None else [sample(truth, size)]),
    ]
    return gzip.compress(np.stack(every).tobytes(), 1)


# ---- patterns for classes whose colours are easily confused ----------------------------------------------------------


def perceived_distances(palette: np.ndarray) -> np.ndarray:
    """How far colours seem apart to the worst eyes.

    palette: uint8 (k, 3). Returns float64 (k, k), CIE76.
    """
    linear = srgb_to_linear(palette / 255)
    t = (_COLOR_VISION @ linear.T).clip(0, 1).transpose(0, 2, 1) @ _LINEAR_TO_XYZ.T / _LINEAR_TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2)
    return np.linalg.norm(lab[:, :, None] - lab[:, None], axis=3).min(axis=0)


def pattern_numbers(palette: np.ndarray) -> list[int]:
    """A pattern for each class, as few as do.

    As few as do, and never the same for two classes that somebody's eyes take for one.
    """
    alike = perceived_distances(palette) < _ALIKE
    numbers: list[int] = []
    for i in range(len(palette)):
        taken = {number for j, number in enumerate(numbers) if alike[i, j]}
        numbers.append(next(n for n in range(len(palette)) if n not in taken))
    return numbers
