"""Calibrate by one temperature (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from unet.metrics import IGNORE_INDEX
from unet.predict import Segmenter, decide

from .working_size import sample_indices

PIXELS = 4000  # looked at of each picture
BINS = 15


def calibrate(segmenter: Segmenter, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Fit and set the temperature of the segmenter's bundle.

    Returns it with the expected calibration error (ECE) before and after, and with the mean confidence that 95 % of the
    pictures reach: below it, a picture is unlike them. Label maps stay as they are.
    """
    pictures = _sample(segmenter, pairs)
    logits, truth = (torch.cat(parts) for parts in zip(*pictures, strict=True))
    temperature = segmenter.bundle.temperature = fit_temperature(logits, truth)
    return {
        "temperature": temperature,
        "ece_before": round(calibration_error(logits, truth), 4),
        "ece": round(calibration_error(logits / temperature, truth), 4),
        "usual_confidence": usual_confidence([part / temperature for part, _ in pictures]),
        "pixels": len(truth),
    }


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """Divisor, 0.1 to 10, of logits (N, C) for truth (N,)."""

    def loss(log_temperature: float) -> float:
        scaled = logits / float(np.exp(log_temperature))
        if scaled.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(scaled[:, 0], truth.float()).item()
        return F.cross_entropy(scaled, truth).item()

    if not len(truth):
        return 1.0
    limit = float(np.log(10))
    return round(float(np.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x)), 4)


def calibration_error(logits: Tensor, truth: Tensor) -> float:
    """Expected calibration error of logits (N, C), in BINS bins."""
    confidence, label = decide(logits.T)
    right = (label.long() == truth).double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.double).index_add_(0, bins, right - confidence.double())
    return (gaps.abs().sum() / max(1, len(truth))).item()


def usual_confidence(pictures: Sequence[Tensor]) -> float:
    """Mean confidence that 95 % of pictures, logits (N, C), reach."""
    means = [decide(logits.T)[0].mean().item() for logits in pictures if len(logits)]
    return round(float(np.quantile(means, 0.05)), 4) if means else 0.0


def _sample(segmenter: Segmenter, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[Tensor, Tensor]]:
    """Of each picture logits (N, C) and classes (N,) of some pixels."""
    draw = np.random.default_rng(0)
    pictures = []
    for image, truth in map(pairs.__getitem__, sample_indices(len(pairs))):
        chosen = np.zeros(truth.shape, bool)
        chosen.flat[draw.permutation(np.flatnonzero(truth != IGNORE_INDEX))[:PIXELS]] = True
        logits, truths = [], []
        for rows, columns, part in segmenter.tiles(image):
            mask = torch.from_numpy(chosen[rows, columns])
            logits.append(part.cpu()[:, mask].T)
            truths.append(torch.from_numpy(truth[rows, columns]).long()[mask])
        pictures.append((torch.cat(logits), torch.cat(truths)))
    return pictures
