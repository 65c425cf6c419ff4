"""What each part of the training recipe is worth.

The recipe is trained shortly as it is and with one thing changed; stopped, the same command goes on. What three seeds
differ by is noise, and so is a change that makes no more of a difference.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, dataset, parser, publish, table

from training.augment import Augmentation, PixelStore
from training.checkpoint import TrainingError
from training.dataset import Dataset
from training.datasets import TASKS
from training.distributed import make_accelerator
from training.evaluate import evaluate, scores
from training.fit import fit
from training.recipe import Recipe
from training.start_from import as_bundle, build_network, start_from
from unet.bundle import Bundle
from unet.predict import Segmenter

#: Name -> fields of Recipe, or of its Augmentation, that are changed; working_pixels is a factor.
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "recipe, seed 1": {"seed": 1},
    "recipe, seed 2": {"seed": 2},
    "no Dice": {"dice": 0.0},
    "no class weights": {"class_weights": False},
    "no averaging of weights": {"ema": 1e-9},
    "the network's own dropout": {"dropout": 1.0},
    "twice the learning rate": {"learning_rate": 4e-3},
    "no decay of the learning rate": {"decay": 0.0},
    "no colour changes": {"color": 0.0},
    "no zoom": {"scale": (1.0, 1.0)},
    "no mirroring": {"flip": False},
    "half as many working pixels": {"working_pixels": 0.5},
    "twice as many working pixels": {"working_pixels": 2.0},
}


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, data=True)
    options.add_argument("--task", choices=TASKS, default="streets")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--crop", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    options.add_argument("--runs", type=Path, default=ROOT / "runs" / "recipe", help="where everything is kept")
    args = options.parse_args(arguments)
    size = "x".join(map(str, args.crop))
    folder = args.runs / args.task / f"{args.epochs} epochs, {size}"
    pictures = dataset(args.task, args)
    rows, points = [], ""
    for name, changes in VARIANTS.items():
        done = folder / f"{name}.json"
        if not done.exists():
            try:
                found = measure(changes, pictures, args, folder / name)
            except TrainingError as error:  # interrupted, too
                raise SystemExit(f"recipe.py: {error}; the same command goes on") from error
            done.write_text(json.dumps(found) + "\n", encoding="utf-8")
        found = json.loads(done.read_text(encoding="utf-8"))
        if name == "recipe":
            recipe_miou = found["miou"]
        else:
            points = f"{100 * (found['miou'] - recipe_miou):+.1f}"
        rows.append((name, f"{found['miou']:.3f}", points, f"{found['mean_dice']:.3f}"))
        print(f"{name}: mIoU {found['miou']:.4f}", flush=True)
    trained = f"{args.epochs} epochs of {len(pictures.train)} pictures, crops of {size}, seed 0"
    columns = ("", "mIoU", "points from the recipe", "Dice, mean over classes")
    publish("recipe", f"{args.task}, residual-add, {trained}.", table(columns, rows), write=args.write)


def measure(changes: dict[str, Any], pictures: Dataset, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train once -> the last weights' validation scores."""
    task = TASKS[args.task]
    own = {name: value for name, value in changes.items() if name in Recipe.__dataclass_fields__}
    other = {name: value for name, value in changes.items() if name not in own}
    working_pixels = task.working_pixels and round(task.working_pixels * other.pop("working_pixels", 1))
    recipe = Recipe(args.epochs, 6, tuple(args.crop), augmentation=Augmentation(rotate=task.rotate, **other), **own)
    resume = (folder / "checkpoint").exists()
    trained = train_bundle(pictures, pictures.train, working_pixels, recipe, folder=folder, resume=resume)
    return scores(evaluate(Segmenter(trained), pictures.val), pictures.class_names, len(pictures.val))


def train_bundle(
    pictures: Dataset,
    train: Sequence[tuple[np.ndarray, np.ndarray]],
    working_pixels: int | None,
    recipe: Recipe,
    *,
    start: Bundle | None = None,
    **options: Any,
) -> Bundle:
    """Train a residual-add; returns a bundle of its last weights.

    train: the pairs to train on. start: the bundle to start from. options: of `fit`.
    """
    names, accelerator = pictures.class_names, make_accelerator()  # a checkpoint holds all that one has ever prepared
    store = PixelStore(train, working_pixels, accelerator.device)
    net = build_network("residual-add", len(names), width=None, seed=recipe.seed, start=start)
    if start:
        start_from(net, start, names, store)
    trained = fit(net, store, recipe, accelerator=accelerator, validate=None, **options).net
    return as_bundle(trained, "benchmark", "residual-add", pictures, store.preprocessing)


if __name__ == "__main__":
    main()
