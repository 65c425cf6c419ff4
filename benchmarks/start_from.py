"""Measure what starting from another task's weights is worth.

python benchmarks/start_from.py --write                                   5 CPU minutes each, three seeds
python benchmarks/start_from.py --data nuclei=FOLDER --minutes 1 --seeds 1

Twenty nuclei pictures are learnt from nothing and from the weights for streets; both networks are scored on the whole
validation split. The time is the processor's, of all its cores together, so that a busy machine changes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import ROOT, dataset, machine, parser, publish, table

from training.augment import Augmentation, PixelStore
from training.dataset import Dataset
from training.datasets import TASKS
from training.distributed import make_accelerator
from training.evaluate import evaluate
from training.fit import fit
from training.recipe import Recipe
from training.schedule import TimeSchedule
from training.start_from import build_network, published, start_from
from unet.bundle import Bundle
from unet.predict import Segmenter

TASK = "nuclei"


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    before = machine("torch")
    pictures = dataset(TASK, dict(args.data).get(TASK))
    rows, dice = [], {}
    for name, start in (("nothing", None), (f"{args.start.parent.name}, {args.start.name}", Bundle.load(args.start))):
        dice[name] = []
        for seed in range(args.seeds):
            dice[name].append(train_and_score(pictures, start, seed, args))
            print(f"from {name}, seed {seed}: Dice {dice[name][-1]:.4f}", flush=True)
        spread = f"{min(dice[name]):.3f} to {max(dice[name]):.3f}"
        rows.append((name, f"{statistics.mean(dice[name]):.3f}", spread))
    mean, other = (statistics.mean(values) for values in dice.values())
    text = (
        f"{before}. residual-add, {args.pictures} pictures of {TASK}, {args.minutes:g} minutes of processor time, "
        f"{args.seeds} seeds; Dice, mean over classes, on the {len(pictures.val)} pictures of val: "
        f"{100 * (other - mean):+.1f} points."
    )
    publish("start_from", f"{text}\n\n{table(('starts from', 'Dice', 'range'), rows)}", write=args.write)


def train_and_score(pictures: Dataset, start: Bundle | None, seed: int, args: argparse.Namespace) -> float:
    """Train for the given time; returns the mean Dice on val."""
    chosen = np.linspace(0, len(pictures.train) - 1, args.pictures).round().astype(int).tolist()
    accelerator = make_accelerator()
    store = PixelStore([pictures.train[i] for i in chosen], TASKS[TASK].working_pixels, accelerator.device)
    net = build_network("residual-add", len(pictures.class_names), width=args.width, seed=seed, start=start)
    if start:
        start_from(net, start, pictures.class_names, store)
    recipe = Recipe(
        crop=tuple(args.crop), seed=seed, minutes=args.minutes, augmentation=Augmentation(rotate=TASKS[TASK].rotate)
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(
            net,
            store,
            recipe,
            accelerator=accelerator,
            validate=None,
            folder=Path(folder),
            save_every=1_000_000,
            schedule=TimeSchedule(validation=0.01, validations_after=0, overhead=0),
            budget=60 * args.minutes,
            clock=time.process_time,
        ).net
    bundle = Bundle(
        published(trained, "residual-add"), TASK, "residual-add", pictures.class_names, pictures.palette,
        store.preprocessing,
    )  # fmt: skip
    return evaluate(Segmenter(bundle), pictures.val).mean_dice()


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    options = parser(__doc__, data=True)
    options.add_argument("--start", type=Path, default=ROOT / "weights" / "streets" / "residual-add")
    options.add_argument("--pictures", type=int, default=20)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--width", type=float, help="(default: that of the weights)")
    options.add_argument("--crop", type=int, nargs=2, default=(96, 96), metavar=("H", "W"))
    return options.parse_args(arguments)


if __name__ == "__main__":
    main()
