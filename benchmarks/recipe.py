"""What each part of the training recipe is worth: the recipe, and the recipe with one thing changed, on one task.

python benchmarks/recipe.py --task nuclei                  a short training for each; stop it and start it again at will
python benchmarks/recipe.py --only recipe "no Dice"        some of them

One seed and a short training: differences of a point are noise, what stands out is not. Runs stay in runs/recipe/.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from unet.bundle import Bundle  # noqa: E402
from unet.data import TASKS, Augmentation, PixelStore, load_dataset  # noqa: E402
from unet.download import fetch_dataset  # noqa: E402
from unet.model import ARCHITECTURES, UNet  # noqa: E402
from unet.predict import Segmenter  # noqa: E402
from unet.training import Interrupted, Recipe, TrainingError, evaluate, fit, make_accelerator, scores  # noqa: E402

#: Name -> fields of Recipe, or of its Augmentation, that are changed.
VARIANTS = {
    "recipe": {},
    "the network's own dropout": {"dropout": 1.0},
    "no Dice": {"dice": 0.0},
    "no class weights": {"class_weights": False},
    "no averaging of weights": {"ema": 1e-9},
    "twice the learning rate": {"learning_rate": 4e-3},
    "twice the batch, half the steps": {"batch_size": 12},
    "no colour changes": {"color": 0.0},
    "no zoom": {"scale": (1.0, 1.0)},
    "no mirroring": {"flip": False},
}


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    folder = ROOT / "runs" / "recipe" / args.task
    dataset = load_dataset(args.data or fetch_dataset(args.task), task=TASKS[args.task])
    accelerator = make_accelerator()
    store = PixelStore(dataset.train, TASKS[args.task].working_pixels, accelerator.device)
    val = [dataset.val[i] for i in range(len(dataset.val))]
    base = Recipe(args.epochs, 6, tuple(args.crop), augmentation=Augmentation(turn=TASKS[args.task].turn))
    print(f"{args.task}, residual-add, {args.epochs} epochs, crops of {args.crop[0]}x{args.crop[1]}, seed 0")
    print("| | mIoU | Dice, mean over classes |\n|---|--:|--:|")
    for name in args.only or VARIANTS:
        done = folder / f"{name}.json"
        if not done.exists():
            recipe = changed(base, VARIANTS[name])
            torch.manual_seed(recipe.seed)
            classes = len(dataset.class_names)
            net = UNet(dataclasses.replace(ARCHITECTURES["residual-add"], num_outputs=1 if classes == 2 else classes))
            recipe = dataclasses.replace(recipe, validate_every=recipe.epochs)  # the last weights, not the best
            try:
                finished = fit(
                    net,
                    store,
                    recipe,
                    accelerator=accelerator,
                    validate=lambda net: 0.0,
                    folder=folder / name,
                    resume=(folder / name / "checkpoint").exists(),
                    title=name,
                )
            except Interrupted as stop:
                print(f"\n{stop}; the same command goes on", file=sys.stderr)
                return 130
            except TrainingError as error:
                print(f"recipe.py: {error}", file=sys.stderr)
                return 2
            bundle = Bundle(
                finished.net, args.task, "residual-add", dataset.class_names, dataset.palette, store.preprocessing
            )
            found = scores(evaluate(Segmenter(bundle), val), dataset.class_names, len(val))
            done.write_text(json.dumps(found) + "\n", encoding="utf-8")
        found = json.loads(done.read_text(encoding="utf-8"))
        print(f"| {name} | {found['miou']:.4f} | {found['mean_dice']:.4f} |", flush=True)
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="streets")
    parser.add_argument("--data", type=Path, help="where its pictures are (default: downloaded once)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--crop", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME")
    return parser.parse_args(arguments)


def changed(recipe: Recipe, fields: dict) -> Recipe:
    """``recipe`` with the fields replaced, whether they are its own or its augmentation's."""
    own = {name: value for name, value in fields.items() if name in {f.name for f in dataclasses.fields(Recipe)}}
    augmentation = {name: value for name, value in fields.items() if name not in own}
    return dataclasses.replace(recipe, **own, augmentation=dataclasses.replace(recipe.augmentation, **augmentation))


if __name__ == "__main__":
    sys.exit(main())
