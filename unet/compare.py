"""Compare two segmentations, and score them against the truth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from .metrics import IGNORE_INDEX, ConfusionMatrix, boundary_score, boundary_tolerance
from .predict import Segmentation


@dataclass(frozen=True)
class Scores:
    """One label map against the truth, void left out.

    confusion: its counts; add those of many pictures to score them as one. iou: float64 (k,), NaN for a class in
    neither. dice: of class 1 of two, else the mean. boundary: see `boundary_score`, at ``tolerance`` pixels.
    """

    confusion: ConfusionMatrix
    boundary: float
    tolerance: int

    @property
    def iou(self) -> np.ndarray:
        return self.confusion.iou()

    @property
    def miou(self) -> float:
        return self.confusion.miou()

    @property
    def dice(self) -> float:
        dice = self.confusion.dice()
        return float(dice[1]) if len(dice) == 2 else self.confusion.mean_dice()

    @property
    def pixel_accuracy(self) -> float:
        return self.confusion.pixel_accuracy()


@dataclass(frozen=True)
class Comparison:
    """Two networks' answers to one picture.

    label_maps: two uint8 (H, W). shares: float64 (2, k), the part of the picture each gives to each class.
    agreement: the share of pixels to which both give the same class. scores: where a truth was given.
    """

    class_names: tuple[str, ...]
    label_maps: tuple[np.ndarray, np.ndarray]
    shares: np.ndarray
    agreement: float
    scores: tuple[Scores, Scores] | None = None

    def with_truth(self, truth: np.ndarray | None) -> Comparison:
        """The same, scored against ``truth`` if there is one. Raises as `score`."""
        if truth is None:
            return dataclasses.replace(self, scores=None)
        first, second = (score(label_map, truth, len(self.class_names)) for label_map in self.label_maps)
        return dataclasses.replace(self, scores=(first, second))


def compare(first: Segmentation, second: Segmentation) -> Comparison:
    """Compare two segmentations of one picture.

    Raises ValueError for two sizes and for two sets of classes.
    """
    if first.class_names != second.class_names:
        raise ValueError(
            f"the two networks know different classes, {', '.join(first.class_names)} and "
            f"{', '.join(second.class_names)}; compare two networks of one task"
        )
    if first.label_map.shape != second.label_map.shape:
        raise ValueError(
            f"the label maps are {first.label_map.shape} and {second.label_map.shape}; they must have one size"
        )
    agreement = float((first.label_map == second.label_map).mean())
    label_maps, shares = (first.label_map, second.label_map), np.stack([first.shares(), second.shares()])
    return Comparison(first.class_names, label_maps, shares, agreement)


def score(label_map: np.ndarray, truth: np.ndarray, num_classes: int) -> Scores:
    """Score a label map against a truth, uint8 (H, W).

    Raises ValueError for a truth of another size, with a label that is no class, or with nothing but void.
    """
    if truth.shape != label_map.shape:
        (truth_h, truth_w), (h, w) = truth.shape[:2], label_map.shape
        sizes = f"{truth_w} x {truth_h} pixels and the picture {w} x {h}"
        raise ValueError(f"The ground truth is {sizes}: they must have one size.")
    if (truth == IGNORE_INDEX).all():
        raise ValueError("The ground truth is void everywhere: there is nothing to score.")
    matrix = ConfusionMatrix(num_classes)
    matrix.update(truth, label_map)
    tolerance = boundary_tolerance(truth.shape)
    return Scores(matrix, boundary_score(truth, label_map, tolerance=tolerance), tolerance)
