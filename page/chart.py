"""A chart of both networks' answers against the number of colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from page.formatting import percent
from page.session import Answer, requires_session, segmentations
from unet.compare import disagreement
from unet.metrics import ConfusionMatrix
from unet.resize import sample

COLORS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64)  # each is one question to both networks
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 320, 190, 40, 10, 24


def measure(answer: Answer | None, space: str) -> Iterator[str]:
    """Stream the chart.

    Gradio streams what a generator function yields, and a decorated function is none.
    """
    yield from _measure(answer, space)


@requires_session
def _measure(answer: Answer, space: str) -> Iterator[str]:
    """Ask both networks in ever more colours, yielding the chart after each.

    All is measured at the size at which the picture is shown.

    All is measured at the size at which the picture is shown.
    """
    picture, ladder = answer.picture, answer.picture.ladder(space)
    size, classes = picture.view.shape[:2], len(answer.comparison.class_names)
    truth = None if answer.truth is None else sample(answer.truth.labels, size)
    full = segmentations(answer.sides, picture.view)
    ks: list[int] = []
    lines: list[list[float]] = [[], [], []]
    for k in COLORS:
        palette = ladder[k]
        found = segmentations(answer.sides, palette.decode(palette.encode(picture.view)))
        ks.append(k)
        first, second = (segmentation.label_map for segmentation in found)
        lines[2].append(1 - disagreement(first, second).mean())
        for line, segmentation, whole in zip(lines, found, full, strict=False):
            if truth is None:
                line.append(1 - disagreement(segmentation.label_map, whole.label_map).mean())
            else:
                counts = ConfusionMatrix(classes)
                counts.update(truth, segmentation.label_map)
                line.append(counts.miou())
        yield draw(ks, lines, answer.names, scored=truth is not None)


def draw(ks: Sequence[int], lines: Sequence[Sequence[float]], names: Sequence[str], *, scored: bool) -> str:
    """Draw lines over k, on a logarithmic axis, as SVG.

    lines: of both networks, and of their agreement. scored: the networks' lines are mIoU; else the share of the picture
    that keeps the class that it has in all colours.
    """
    what = "mIoU" if scored else "same class as in all colours"
    labels = [f"{names[0]}: {what}", f"{names[1]}: {what}", "both agree"]

    def x(k: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * math.log2(k / COLORS[0]) / math.log2(COLORS[-1] / COLORS[0])

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
        f'<text x="{_LEFT - 5}" y="{y(share) + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
        for share in (0, 0.5, 1)
    )
    ticks = "".join(
        f'<text x="{x(k):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{k}</text>' for k in (2, 4, 8, 16, 32, 64)
    )
    drawn, key = "", ""
    for label, line, kind in zip(labels, lines, ("side-a", "side-b", "both"), strict=True):
        points = " ".join(f"{x(k):.1f},{y(share):.1f}" for k, share in zip(ks, line, strict=True))
        said = ", ".join(f"{k} colours {percent(share)}" for k, share in zip(ks, line, strict=True))
        drawn += f'<g class="{kind}"><title>{escape(label)}: {said}</title><polyline points="{points}"/></g>'
        key += f'<span class="key"><i class="{kind}"></i>{escape(label)}</span>'
    words = escape(f"{labels[0]}, {labels[1]} and their agreement, for {ks[0]} to {ks[-1]} colours")
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">{grid}{ticks}{drawn}'
        f'</svg><p class="chart-key">{key}</p>'
    )
