"""What each part of the training recipe is worth.

On one task, the recipe is trained as it is and with one thing changed:

python benchmarks/recipe.py --write                               a short training for each; stop it, start it again
python benchmarks/recipe.py --task nuclei --only recipe "no Dice"       some of them, on another task

The recipe is trained with three seeds: what they differ by is noise, and so is a change that makes no more of a
difference. Runs stay in runs/recipe/; --write puts the table into docs/results.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from measuring import ROOT, dataset, parser, publish, table

from training.augment import Augmentation, PixelStore
from training.checkpoint import Interrupted, TrainingError
from training.dataset import Dataset
from training.datasets import TASKS
from training.distributed import make_accelerator
from training.evaluate import evaluate, scores
from training.fit import fit
from training.recipe import Recipe
from unet.bundle import Bundle
from unet.model import ARCHITECTURES, UNet
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


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    size = "x".join(map(str, args.crop))
    folder = args.runs / args.task / f"{args.epochs} epochs, {size}"
    pictures = dataset(args.task, dict(args.data).get(args.task))
    measured: dict[str, dict[str, Any]] = {}
    for name in args.only or VARIANTS:
        done = folder / f"{name}.json"
        if not done.exists():
            try:
                found = train_and_score(VARIANTS[name], pictures, args, folder / name)
            except Interrupted as stop:
                print(f"\n{stop}; the same command goes on", file=sys.stderr)
                return 130
            except TrainingError as error:
                print(f"recipe.py: {error}", file=sys.stderr)
                return 2
            done.write_text(json.dumps(found) + "\n", encoding="utf-8")
        measured[name] = json.loads(done.read_text(encoding="utf-8"))
        print(f"{name}: mIoU {measured[name]['miou']:.4f}", flush=True)
    words = (
        f"{args.task}, residual-add, {args.epochs} epochs of {len(pictures.train)} pictures, crops of {size}, seed 0."
    )
    publish("recipe", f"{words}\n\n{recipe_table(measured)}", write=args.write)
    return 0


def train_and_score(
    changes: dict[str, Any], pictures: Dataset, args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Train once; the scores of the last weights on the validation split.

    Raises as `fit`.
    """
    task, classes = TASKS[args.task], len(pictures.class_names)
    accelerator = make_accelerator()  # a new one each time: a checkpoint holds all that it has ever prepared
    recipe = Recipe(
        args.epochs, 6, tuple(args.crop), validate_every=args.epochs, augmentation=Augmentation(rotate=task.rotate)
    )
    recipe = changed(recipe, {name: value for name, value in changes.items() if name != "working_pixels"})
    working_pixels = task.working_pixels and round(task.working_pixels * changes.get("working_pixels", 1))
    store = PixelStore(pictures.train, working_pixels, accelerator.device)
    torch.manual_seed(recipe.seed)
    net = UNet(dataclasses.replace(ARCHITECTURES["residual-add"], num_outputs=1 if classes == 2 else classes))
    finished = fit(
        net,
        store,
        recipe,
        accelerator=accelerator,
        validate=lambda net: 0.0,
        folder=folder,
        resume=(folder / "checkpoint").exists(),
        title=folder.name,
    )
    bundle = Bundle(
        finished.net, args.task, "residual-add", pictures.class_names, pictures.palette, store.preprocessing
    )
    return scores(evaluate(Segmenter(bundle), pictures.val), pictures.class_names, len(pictures.val))


def changed(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """``recipe`` with the fields replaced, whether they are its own or its augmentation's."""
    own = {name: value for name, value in fields.items() if name in {f.name for f in dataclasses.fields(Recipe)}}
    augmentation = {name: value for name, value in fields.items() if name not in own}
    return dataclasses.replace(recipe, **own, augmentation=dataclasses.replace(recipe.augmentation, **augmentation))


def recipe_table(measured: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: scores, and the difference from the recipe in points."""
    rows = []
    for name, found in measured.items():
        compared = name != "recipe" and "recipe" in measured
        points = f"{100 * (found['miou'] - measured['recipe']['miou']):+.1f}" if compared else ""
        rows.append((name, f"{found['miou']:.3f}", points, f"{found['mean_dice']:.3f}"))
    return table(("", "mIoU", "points from the recipe", "Dice, mean over classes"), rows)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    options = parser(__doc__, data=True)
    options.add_argument("--task", choices=TASKS, default="streets")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--crop", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    options.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help=", ".join(VARIANTS))
    options.add_argument("--runs", type=Path, default=ROOT / "runs" / "recipe", help="where everything is kept")
    return options.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
