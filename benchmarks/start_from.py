"""Measure what starting from another task's weights is worth.

Twenty nuclei pictures are learnt from nothing and from the weights for streets. The time is the processor's, of all its
cores together, so that a busy machine changes nothing.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import ROOT, dataset, machine, parser, publish, table
from recipe import train_bundle

from training.augment import Augmentation
from training.dataset import Dataset
from training.datasets import TASKS
from training.evaluate import evaluate
from training.recipe import Recipe
from training.run_length import TimeSchedule
from unet.bundle import Bundle
from unet.predict import Segmenter

TASK = "nuclei"


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, data=True)
    options.add_argument("--start", type=Path, default=ROOT / "weights" / "streets" / "residual-add")
    options.add_argument("--pictures", type=int, default=20)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--crop", type=int, nargs=2, default=(96, 96), metavar=("H", "W"))
    args = options.parse_args(arguments)
    pictures = dataset(TASK, args)
    rows, means = [], []
    for name, start in (("nothing", None), (f"{args.start.parent.name}, {args.start.name}", Bundle.load(args.start))):
        dice = [measure(pictures, start, seed, args) for seed in range(args.seeds)]
        means.append(statistics.mean(dice))
        rows.append((name, f"{means[-1]:.3f}", f"{min(dice):.3f} to {max(dice):.3f}"))
    text = (
        f"{machine('torch')}. residual-add, {args.pictures} pictures of {TASK}, {args.minutes:g} minutes of processor "
        f"time, {args.seeds} seeds; Dice, mean over classes, on the {len(pictures.val)} pictures of val: "
        f"{100 * (means[1] - means[0]):+.1f} points."
    )
    publish("start_from", text, table(("starts from", "Dice", "range"), rows), write=args.write)


def measure(pictures: Dataset, start: Bundle | None, seed: int, args: argparse.Namespace) -> float:
    """Train for the given time; returns the mean Dice on val."""
    chosen = np.linspace(0, len(pictures.train) - 1, args.pictures).round().astype(int).tolist()
    augmentation = Augmentation(rotate=TASKS[TASK].rotate)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_bundle(
            pictures,
            [pictures.train[i] for i in chosen],
            TASKS[TASK].working_pixels,
            Recipe(crop=tuple(args.crop), seed=seed, minutes=args.minutes, augmentation=augmentation),
            start=start,
            folder=Path(folder),
            save_every=1_000_000,
            schedule=TimeSchedule(60 * args.minutes, validation=0.01, validations_after=0, overhead=0),
            clock=time.process_time,
        )
    dice = evaluate(Segmenter(trained), pictures.val).mean_dice()
    print(f"from {start.task if start else 'nothing'}, seed {seed}: Dice {dice:.4f}", flush=True)
    return dice


if __name__ == "__main__":
    main()
