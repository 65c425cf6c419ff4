"""Score whole splits: IoU, Dice, pixel accuracy, boundary F1."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

#: Label of pixels that are neither learnt nor scored (void, unlabelled, outside the picture).
IGNORE_INDEX = 255


class ConfusionMatrix:
    """Pixel counts, rows truth and columns prediction.

    Counting is kept apart from scoring: two batches count like one, whatever their sizes, and a split is scored once.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count two label maps, except where the truth is IGNORE_INDEX.

        Raises ValueError for two shapes and for a label that is no class.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth is {truth.shape} and prediction {prediction.shape}; they must have one shape")
        classes = len(self.counts)
        counted = truth != IGNORE_INDEX
        truth, prediction = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        for name, labels in (("truth", truth), ("prediction", prediction)):
            if labels.size and not 0 <= labels.min() <= labels.max() < classes:
                raise ValueError(
                    f"{name} has labels {labels.min()} to {labels.max()}; with {classes} classes they must be "
                    f"0 to {classes - 1}, or {IGNORE_INDEX} in the truth for pixels to leave out"
                )
        self.counts += np.bincount(classes * truth + prediction, minlength=classes**2).reshape(classes, classes)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The counts of both."""
        both = ConfusionMatrix(len(self.counts))
        both.counts = self.counts + other.counts
        return both

    def iou(self) -> np.ndarray:
        """IoU by class, float64 (C,), NaN without pixels."""
        hits = np.diag(self.counts)
        return _ratio(hits, self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits)

    def dice(self) -> np.ndarray:
        """Dice by class, float64 (C,), NaN without pixels."""
        return 2 * self.iou() / (1 + self.iou())

    def miou(self) -> float:
        """Mean IoU over the classes present, or NaN."""
        return _mean(self.iou())

    def mean_dice(self) -> float:
        """Mean Dice over the classes present, or NaN."""
        return _mean(self.dice())

    def pixel_accuracy(self) -> float:
        """Share of right pixels, NaN if nothing was counted."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))


def boundary_score(truth: np.ndarray, prediction: np.ndarray, *, tolerance: int = 2) -> float:
    """Boundary F1 of label maps (H, W) (Csurka et al. 2013).

    tolerance: pixels (chessboard distance) that a boundary may be off. Precision is the share of the prediction's
    boundary near one of the truth's, recall the reverse; the score is their harmonic mean, 1 where neither has any.
    Void pixels (IGNORE_INDEX in the truth) make no boundary, in either map.
    """
    void = truth == IGNORE_INDEX
    edges = [_boundary(labels, void) for labels in (truth, prediction)]
    if not edges[0].any() or not edges[1].any():
        return float(edges[0].any() == edges[1].any())
    near = [ndimage.maximum_filter(edge, 2 * tolerance + 1) for edge in edges]
    recall, precision = (edges[0] & near[1]).sum() / edges[0].sum(), (edges[1] & near[0]).sum() / edges[1].sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary_tolerance(size: tuple[int, int]) -> int:
    """0.75 % of the diagonal, in pixels (Csurka et al. 2013)."""
    return max(1, round(0.0075 * math.hypot(*size)))


def _boundary(labels: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Where the right or lower neighbour has another class."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & ~void[:, :-1] & ~void[:, 1:]
    edge[:-1] |= (labels[:-1] != labels[1:]) & ~void[:-1] & ~void[1:]
    return edge


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def _mean(scores: np.ndarray) -> float:
    return float("nan") if np.isnan(scores).all() else float(np.nanmean(scores))
