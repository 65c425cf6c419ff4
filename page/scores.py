"""The section *Score*: both networks against a ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from page.components import TRUTH_FILES, FileBox, html, render
from page.session import Answer, Picture, requires_session, scored
from unet.compare import Comparison

TITLE = """
<h2>Who is right?</h2>
<p>A ground truth is a picture labelled by hand. Add one, and both networks are scored.</p>
"""
TRUTH_INFO = """
<p>Same size as the picture. Grey class numbers, or the legend’s colours; a black-and-white mask if there are two
classes. 255 and unlabelled pixels do not count.</p>
"""
NO_TRUTH = '<p class="no-truth">No ground truth for this picture. Add one to see who is right.</p>'


def build() -> tuple[gr.File, list[gr.HTML]]:
    """Draw the section -> (ground truth, what `show` fills)."""
    html("score-title", TITLE)
    with gr.Row(elem_id="score"):
        with gr.Column(scale=4, min_width=300, elem_id="truth"):
            truth = FileBox(label="Ground truth", file_types=TRUTH_FILES, height=132, elem_id="truth-file")
            html("truth-info", TRUTH_INFO)
            table = html("scores")
        with gr.Column(scale=8, min_width=300):
            bars = html("ious")
    return truth, [table, bars]


@requires_session
def take_truth(picture: Picture, answer: Answer | None, path: str | None) -> tuple[Picture, Any]:
    """Score against a new ground truth, or none."""
    picture = replace(picture, truth=Path(path) if path else None)
    if answer is None or answer.picture.key != picture.key:  # the networks are still to be asked
        return picture, gr.skip()
    comparison, truth = scored(answer.comparison, answer.palette, picture.truth)
    return picture, replace(answer, comparison=comparison, truth=truth)


@requires_session
def show(answer: Answer) -> tuple[str, str]:
    """Show who is right -> (scores, bars)."""
    read = render("truth_line", how=answer.truth.how, void=answer.truth.void) if answer.truth else ""
    bars = iou_bars(answer.names, answer.comparison, answer.palette)
    return read + score_table(answer.names, answer.comparison), bars


def score_table(names: Sequence[str], comparison: Comparison) -> str:
    """Scores of both networks, as an HTML table."""
    if comparison.scores is None:
        return NO_TRUTH
    names_of_classes, tolerance = comparison.class_names, comparison.scores[0].tolerance
    of_what = f"of “{names_of_classes[1]}”" if len(names_of_classes) == 2 else "mean over the classes that occur"
    pixels = "pixel" if tolerance == 1 else "pixels"
    rows = (
        ("mIoU", "overlap / union, mean over the classes that occur", "miou"),
        ("Dice", f"2 × overlap / (drawn + true), {of_what}", "dice"),
        ("Pixel accuracy", "share of pixels that are right", "pixel_accuracy"),
        ("Boundary F1", f"outlines in the right place, give or take {tolerance} {pixels}", "boundary"),
    )
    return render("scores", names=names, rows=rows, scores=comparison.scores)


def iou_bars(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """IoU of each class, as a table of bars."""
    if comparison.scores is None:
        return ""
    true_pixels = comparison.scores[0].confusion.counts.sum(axis=1)
    shares, ious = true_pixels / max(true_pixels.sum(), 1), [scores.iou for scores in comparison.scores]
    rows = zip(comparison.class_names, palette, shares, zip(*ious, strict=True), strict=True)
    return render("ious", names=names, rows=rows)
