"""A chart of both answers against the number of colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from page.components import render
from page.networks import segmentations
from page.session import Answer, requires_session
from unet.compare import disagreement
from unet.images import sample
from unet.metrics import ConfusionMatrix
from unet.palette import MAX_COLORS

COLORS = (2, 3, 4, 6, 8, 12, 16, 24, 32, MAX_COLORS)  # each is one question to both networks


def measure(answer: Answer | None, space: str) -> Iterator[str]:
    """Stream the chart: Gradio wants a generator function, undecorated."""
    yield from _measure(answer, space)


@requires_session
def _measure(answer: Answer, space: str) -> Iterator[str]:
    """Ask both networks in ever more colours, charting each answer."""
    view, size, classes = answer.picture.view, answer.picture.view.shape[:2], len(answer.comparison.class_names)
    truth = None if answer.truth is None else sample(answer.truth.labels, size)
    full = segmentations(answer.sides, view)
    lines: list[list[float]] = [[], [], []]
    for k in COLORS:
        found = segmentations(answer.sides, answer.picture.in_colors(view, k, space))
        lines[2].append(1 - disagreement(*(segmentation.label_map for segmentation in found)).mean())
        for line, segmentation, whole in zip(lines, found, full, strict=False):
            if truth is None:
                line.append(1 - disagreement(segmentation.label_map, whole.label_map).mean())
            else:
                counts = ConfusionMatrix(classes)
                counts.update(truth, segmentation.label_map)
                line.append(counts.miou())
        yield draw(lines, answer.names, scored=truth is not None)


def draw(lines: Sequence[Sequence[float]], names: Sequence[str], *, scored: bool) -> str:
    """Draw lines over the first of COLORS, on a logarithmic axis, as SVG.

    lines: of both networks, and of their agreement. scored: the networks' lines are mIoU; else the share of the picture
    that keeps the class that it has in all colours.
    """
    what = "mIoU" if scored else "same class as in all colours"
    labels = [f"{names[0]}: {what}", f"{names[1]}: {what}", "both agree"]
    return render(
        "chart",
        ticks=(*COLORS[:-1:2], COLORS[-1]),
        lines=[
            {"label": label, "kind": kind, "points": list(zip(COLORS, line, strict=False))}
            for label, kind, line in zip(labels, ("side-a", "side-b", "both"), lines, strict=True)
        ],
        x=lambda k: f"{40 + 272 * math.log2(k / COLORS[0]) / math.log2(COLORS[-1] / COLORS[0]):.1f}",
        y=lambda share, below=0: f"{10 + 156 * (1 - share) + below:.1f}",
    )
