"""What each part of the training recipe is worth: the recipe, and the recipe with one thing changed, on one task.

python benchmarks/recipe.py --write                               a short training for each; stop it, start it again
python benchmarks/recipe.py --task nuclei --only recipe "no Dice"       some of them, on another task

The recipe is trained with three seeds: what they differ by is noise, and so is a change that makes no more of a
difference. Runs stay in runs/recipe/; --write puts the table into README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from measuring import ROOT, put_into_readme

from training.augment import Augmentation, PixelStore
from training.checkpoint import Interrupted, TrainingError
from training.dataset import Dataset, load_dataset
from training.datasets import TASKS, fetch_dataset
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
    dataset = load_dataset(args.data or fetch_dataset(args.task), task=TASKS[args.task])
    measured: dict[str, dict[str, Any]] = {}
    for name in args.only or VARIANTS:
        done = folder / f"{name}.json"
        if not done.exists():
            try:
                found = train_and_score(VARIANTS[name], dataset, args, folder / name)
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
        f"{args.task}, residual-add, {args.epochs} epochs of {len(dataset.train)} pictures, crops of {size}, seed 0."
    )
    made = f"{words}\n\n{table(measured)}"
    print(made)
    if args.write:
        put_into_readme("recipe", made)
    return 0


def train_and_score(
    changes: dict[str, Any], dataset: Dataset, args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """The scores of the last weights, not of the best, on the whole validation split. Raises as `fit`."""
    task, classes = TASKS[args.task], len(dataset.class_names)
    accelerator = make_accelerator()  # a new one each time: a checkpoint holds all that it has ever prepared
    recipe = Recipe(
        args.epochs, 6, tuple(args.crop), validate_every=args.epochs, augmentation=Augmentation(rotate=task.rotate)
    )
    recipe = changed(recipe, {name: value for name, value in changes.items() if name != "working_pixels"})
    working_pixels = task.working_pixels and round(task.working_pixels * changes.get("working_pixels", 1))
    store = PixelStore(dataset.train, working_pixels, accelerator.device)
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
    bundle = Bundle(finished.net, args.task, "residual-add", dataset.class_names, dataset.palette, store.preprocessing)
    return scores(evaluate(Segmenter(bundle), dataset.val), dataset.class_names, len(dataset.val))


def changed(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """``recipe`` with the fields replaced, whether they are its own or its augmentation's."""
    own = {name: value for name, value in fields.items() if name in {f.name for f in dataclasses.fields(Recipe)}}
    augmentation = {name: value for name, value in fields.items() if name not in own}
    return dataclasses.replace(recipe, **own, augmentation=dataclasses.replace(recipe.augmentation, **augmentation))


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Scores by variant -> Markdown, with what each change makes of the recipe's mIoU, in points."""
    rows = ["| | mIoU | points from the recipe | Dice, mean over classes |", "|---|--:|--:|--:|"]
    for name, found in measured.items():
        beside = name != "recipe" and "recipe" in measured
        points = f"{100 * (found['miou'] - measured['recipe']['miou']):+.1f}" if beside else ""
        rows.append(f"| {name} | {found['miou']:.3f} | {points} | {found['mean_dice']:.3f} |")
    return "\n".join(rows)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="streets")
    parser.add_argument("--data", type=Path, help="where its pictures are (default: downloaded once)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--crop", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "recipe", help="where everything is kept")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
