"""Cross-validation, where pictures are few."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from .dataset import Dataset

FEW_PICTURES = 40


def fold(dataset: Dataset, number: int, folds: int, seed: int) -> Dataset:
    """Split anew; each picture is in one fold's val."""
    pairs = sorted(dataset.train.pairs + dataset.val.pairs, key=lambda pair: pair.image)
    held_out = set(np.random.default_rng(seed).permutation(len(pairs))[number::folds].tolist())
    train, val = (tuple(p for i, p in enumerate(pairs) if (i in held_out) == held) for held in (False, True))
    train = dataclasses.replace(dataset.train, pairs=train, _known={})
    return dataclasses.replace(dataset, train=train, val=dataclasses.replace(dataset.val, pairs=val, _known={}))


def summarise(scores: Sequence[float], pictures: int) -> dict[str, Any]:
    """Mean mIoU and its 95 % interval, by Student's t."""
    mean = statistics.mean(scores)
    half = float(stats.t.ppf(0.975, len(scores) - 1)) * statistics.stdev(scores) / len(scores) ** 0.5
    return {
        "folds": len(scores),
        "pictures": pictures,
        "miou": round(mean, 4),
        "interval": [round(max(0.0, mean - half), 4), round(min(1.0, mean + half), 4)],
        "each": [round(score, 4) for score in scores],
    }
