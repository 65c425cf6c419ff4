"""Draw a card's curves, confusion matrix and examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unet.metrics import IGNORE_INDEX

LEFT, RIGHT = "#2b6cb0", "#c2620e"  # blue and orange: colour-blind eyes keep them apart
MANY_CLASSES = 14  # from here on the numbers in the cells would not be legible


def draw_curves(history: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw loss and score over the epochs, see `read_history`."""
    figure = new_figure(7, 3.2)
    losses = figure.add_subplot(xlabel="epoch")
    losses.plot([entry["epoch"] for entry in history], [entry["loss"] for entry in history], color=LEFT)
    losses.set_ylabel("training loss", color=LEFT)
    losses.set_ylim(bottom=0)
    scores = losses.twinx()
    scored = [(entry["epoch"], entry["score"]) for entry in history if "score" in entry]
    scores.plot(*np.reshape(scored, (-1, 2)).T, color=RIGHT, marker="o", markersize=4)
    scores.set_ylabel("mIoU on val, averaged weights", color=RIGHT)
    scores.set_ylim(0, 1)
    for axes in (losses, scores):
        axes.spines["top"].set_visible(False)
    save_figure(figure, path)


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], path: str | Path) -> None:
    """Draw counts (C, C), rows truth, in percent of each row."""
    size = len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.4 + 0.42 * min(size, 24)
    figure = new_figure(side + 0.6, side)
    axes = figure.add_subplot(xlabel="prediction", ylabel="truth")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), class_names)
    axes.spines[:].set_visible(False)
    if size <= MANY_CLASSES:
        for row, column in np.ndindex(size, size):
            ink = "white" if shares[row, column] > 0.5 else "#333333"
            axes.text(column, row, f"{shares[row, column]:.0%}"[:-1], ha="center", va="center", color=ink, fontsize=8)
    save_figure(figure, path)


def draw_examples(
    rows: Sequence[tuple[str, np.ndarray | None, np.ndarray, np.ndarray]], palette: np.ndarray, path: str | Path
) -> None:
    """Draw pictures, truths, answers and mistakes.

    rows: title; picture uint8 (H, W, 3), None in all where it may not be shown; truth and answer, uint8 (H, W).
    """
    columns = ["picture", "truth", "answer", "mistakes"]
    if rows[0][1] is None:
        columns.remove("picture")
    figure = new_figure(2.3 * len(columns), 1.9 * len(rows))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    colors = np.full((256, 3), 255, np.uint8)
    colors[: len(palette)] = palette
    for (title, picture, truth, answer), axes_of_row in zip(rows, grid, strict=True):
        mistakes = (truth != answer) & (truth != IGNORE_INDEX)
        panels = [picture, colors[truth], colors[answer], np.where(mistakes[..., None], 0, 235).repeat(3, axis=2)]
        for panel, axes in zip(panels[-len(columns) :], axes_of_row, strict=True):
            axes.imshow(panel, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        axes_of_row[0].set_ylabel(title, fontsize=8)
    for name, axes in zip(columns, grid[0], strict=True):
        axes.set_title(name, fontsize=9)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, width and height in inches."""
    # No window and no global state: pyplot would keep both.
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG, the same bytes for the same numbers."""
    figure.savefig(path, metadata={"Software": None})
