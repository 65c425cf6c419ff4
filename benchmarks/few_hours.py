"""What helps a small network in little time?

The recipe beside two ways known to help, over seeds and for equally many steps:

few pixels first: half of the steps at half of the working pixels, the rest from there at all of them.
distilled: half of what is learnt from has the truth, half what trained networks answer together, each averaged over
flips and scales (hard distillation: Touvron et al. 2021, DeiT, arXiv 2012.12877).

Stopped, the same command goes on.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import ROOT, bundle_folders, dataset, parser, publish, table
from recipe import train_bundle
from skips import over_seeds
from tqdm import tqdm

from training.augment import Augmentation
from training.checkpoint import TrainingError
from training.dataset import Dataset
from training.datasets import TASKS
from training.evaluate import evaluate
from training.recipe import Recipe
from unet.bundle import Bundle
from unet.predict import Segmenter, TestTimeAugmentation

WAYS = ("recipe", "few pixels first", "distilled")
COLUMNS = ("", "mIoU", "points from the recipe", "95 % interval, over seeds")


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, data=True, weights=True)
    options.add_argument("--task", choices=TASKS, default="streets")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--crop", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--runs", type=Path, default=ROOT / "runs" / "few_hours", help="where everything is kept")
    args = options.parse_args(arguments)
    pictures = dataset(args.task, args)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(args.seeds):
        for way, scores in found.items():
            folder = args.runs / args.task / f"{way}, seed {seed}"
            done = folder / "score.json"
            if not done.exists():
                try:
                    trained = train(way, seed, pictures, args, folder)
                except TrainingError as error:  # interrupted, too
                    raise SystemExit(f"few_hours.py: {error}; the same command goes on") from error
                done.write_text(json.dumps(evaluate(Segmenter(trained), pictures.val).miou()), encoding="utf-8")
            scores.append(json.loads(done.read_text(encoding="utf-8")))
            print(f"{way}, seed {seed}: mIoU {scores[-1]:.4f}", flush=True)
    rows = []
    for way, scores in found.items():
        row = [way, f"{statistics.mean(scores):.4f} ± {statistics.stdev(scores):.4f}", "", ""]
        if way != "recipe":
            paired = over_seeds(found["recipe"], scores)
            low, high = (100 * end for end in paired["interval"])
            row[2:] = f"{100 * paired['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}"
        rows.append(row)
    size = "x".join(map(str, args.crop))
    trained = f"{args.epochs} epochs of {len(pictures.train)} pictures, crops of {size}, {args.seeds} seeds"
    publish("few_hours", f"{args.task}, residual-add, {trained}.", table(COLUMNS, rows), write=args.write)


def train(way: str, seed: int, pictures: Dataset, args: argparse.Namespace, folder: Path) -> Bundle:
    """Train one network ``way``, for as many steps as the others."""
    task = TASKS[args.task]

    def stage(name: str, pairs: Sequence, epochs: int, pixels: int | None, start: Bundle | None = None) -> Bundle:
        augmentation = Augmentation(rotate=task.rotate)
        recipe = Recipe(epochs, crop=tuple(args.crop), seed=seed, augmentation=augmentation)
        place = folder / name
        resume = (place / "checkpoint").exists()
        return train_bundle(pictures, pairs, pixels, recipe, start=start, folder=place, resume=resume)

    truth, half = pictures.train, args.epochs // 2
    if way == "distilled":
        return stage("run", [*truth, *answers(pictures, args)], half, task.working_pixels)
    if way == "few pixels first":
        h, w = pictures.train.size(0)
        first = stage("first", truth, half, (task.working_pixels or h * w) // 2)
        return stage("run", truth, args.epochs - half, task.working_pixels, first)
    return stage("run", truth, args.epochs, task.working_pixels)


def answers(pictures: Dataset, args: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training pictures with what the trained networks answer together."""
    kept = args.runs / args.task / "answers"
    kept.mkdir(parents=True, exist_ok=True)
    teachers = [
        Segmenter.load(folder, averaging=TestTimeAugmentation()) for folder in bundle_folders(args.weights, args.task)
    ]
    for i in tqdm(range(len(pictures.train)), "answering", leave=False, disable=None):
        image, path = pictures.train.image(i), kept / f"{i}.npy"
        if not path.exists():
            total = np.zeros((len(pictures.class_names), *image.shape[:2]), np.float32)
            for teacher in teachers:
                for rows, columns, logits in teacher.tiles(image):
                    each = torch.cat([torch.zeros_like(logits), logits])[-len(total) :]  # two classes share one logit
                    total[:, rows, columns] += each.softmax(dim=0).numpy(force=True)
            np.save(path, total.argmax(axis=0).astype(np.uint8))
        yield image, np.load(path)


if __name__ == "__main__":
    main()
