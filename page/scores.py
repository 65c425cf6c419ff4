"""The section *Score*: both networks against a ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np

from page.components import TRUTH_FILES, FileBox, html
from page.formatting import percent
from page.session import Answer, Picture, requires_session, scored
from unet.compare import Comparison
from unet.images import hex_code

TITLE = """
<h2>Who is right?</h2>
<p>A ground truth is a picture labelled by hand. Add one, and both networks are scored.</p>
"""
TRUTH_INFO = """
<p>Same size as the picture. Grey class numbers, or the legend’s colours; a black-and-white mask if there are two
classes. 255 and unlabelled pixels do not count.</p>
"""


class Section(NamedTuple):
    truth: gr.File
    shown: list[gr.HTML]  # what `show` fills


def build() -> Section:
    """Draw the section where it is called, inside gr.Blocks."""
    html("score-title", TITLE)
    with gr.Row(elem_id="score"):
        with gr.Column(scale=4, min_width=300, elem_id="truth"):
            truth = FileBox(label="Ground truth", file_types=TRUTH_FILES, height=132, elem_id="truth-file")
            html("truth-info", TRUTH_INFO)
            table = html("scores")
        with gr.Column(scale=8, min_width=300):
            bars = html("ious")
    return Section(truth, [table, bars])


@requires_session
def take_truth(answer: Answer, picture: Picture, path: str | None) -> tuple[Picture, Answer]:
    """A ground truth was added or removed -> (picture, answer), scored again."""
    picture = replace(picture, truth=Path(path) if path else None)
    comparison, truth = scored(answer.comparison, answer.palette, picture.truth)
    return picture, replace(answer, comparison=comparison, truth=truth)


@requires_session
def show(answer: Answer) -> tuple[str, str]:
    """Show who is right -> (table of scores, bars class by class)."""
    read = truth_line(answer.truth.how, answer.truth.void) if answer.truth else ""
    bars = iou_bars(answer.names, answer.comparison, answer.palette)
    return read + score_table(answer.names, answer.comparison), bars


# ---- HTML ------------------------------------------------------------------------------------------------------------


def score_table(names: Sequence[str], comparison: Comparison) -> str:
    """Scores of both networks, as an HTML table.

    A quiet line where there is no ground truth.
    """
    if comparison.scores is None:
        return '<p class="no-truth">No ground truth for this picture. Add one to see who is right.</p>'
    classes = comparison.class_names
    of_what = f"of “{classes[1]}”" if len(classes) == 2 else "mean over the classes that occur"
    tolerance = comparison.scores[0].tolerance
    pixels = "pixel" if tolerance == 1 else "pixels"
    rows = (
        ("mIoU", "overlap / union, mean over the classes that occur", "miou"),
        ("Dice", f"2 × overlap / (drawn + true), {of_what}", "dice"),
        ("Pixel accuracy", "share of pixels that are right", "pixel_accuracy"),
        ("Boundary F1", f"outlines in the right place, give or take {tolerance} {pixels}", "boundary"),
    )
    body = "".join(
        f'<tr><th scope="row">{label}<small>{escape(what)}</small></th>'
        f"{score_cells([getattr(scores, attribute) for scores in comparison.scores])}</tr>"
        for label, what, attribute in rows
    )
    return (
        '<table class="scores"><caption>Against the ground truth</caption>'
        f"<thead><tr><td></td>{side_headers(names)}</tr></thead><tbody>{body}</tbody></table>"
    )


def iou_bars(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """IoU of each class and network, as bars.

    A table for those who hear it. Classes in neither truth nor answer have no IoU, and a dash.
    """
    if comparison.scores is None:
        return ""
    true_pixels = comparison.scores[0].confusion.counts.sum(axis=1)
    true_shares = true_pixels / max(true_pixels.sum(), 1)
    rows = []
    for i, name in enumerate(comparison.class_names):
        ious = [float(scores.iou[i]) for scores in comparison.scores]
        absent = ' class="absent"' if all(map(math.isnan, ious)) else ""
        rows.append(
            f'<tr{absent}><th scope="row"><i class="swatch" style="--c:{hex_code(palette[i])}"></i>'
            f"<span>{escape(name)}<small>{percent(true_shares[i])} of the truth</small></span></th>"
            + "".join(_bar_cell(side, iou) for side, iou in zip("ab", ious, strict=True))
            + "</tr>"
        )
    return (
        '<table class="ious"><caption>IoU, class by class <small>overlap / union, from 0 to 100 %</small></caption>'
        f'<thead><tr><th scope="col">Class</th>{side_headers(names)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def truth_line(how: str, void: float) -> str:
    """How a ground truth was read, and the share that is left out."""
    left_out = f"{percent(void)} of it is not labelled and left out." if void else "No pixel is left out."
    return f'<p class="truth-line">Read as {escape(how)}. {left_out}</p>'


def side_headers(names: Sequence[str]) -> str:
    return "".join(
        f'<th scope="col" class="side-{side}"><i></i>{escape(name)}</th>'
        for side, name in zip("ab", names, strict=True)
    )


def _bar_cell(side: str, share: float) -> str:
    width, text = (0.0, "–") if math.isnan(share) else (100 * share, percent(share))
    return f'<td class="side-{side}"><i style="width:{width:.2f}%"></i><span>{text}</span></td>'


def score_cells(values: Sequence[float]) -> str:
    best = max((value for value in values if value == value), default=None)
    cells = []
    for value in values:
        text = "–" if value != value else percent(value)
        cells.append(f"<td><b>{text}</b></td>" if value == best else f"<td>{text}</td>")
    return "".join(cells)
