"""Does it matter whether a skip connection is added or concatenated?

Both are trained with the same body, recipe and seeds, unless they are in runs/skips/ already; other options, as
--epochs 12, are train.py's. The table shows all that is in benchmarks/skips.json, where a row keeps the scores of seeds
that were trained elsewhere, of the same widths and epochs.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, dataset, flops, parser, publish, table
from scipy import stats

import train
from training.datasets import TASKS
from training.record import hardware
from unet.bundle import CARD_FILE, read_config
from unet.model import UNetConfig, count_parameters
from unet.predict import Segmenter

BODIES, SKIPS = ("residual", "crop"), ("add", "concat")
RESULTS = ROOT / "benchmarks" / "skips.json"
NETWORKS = ("task", "body", "channels", "skip", "epochs", "score", "parameters", "multiply-adds", "a picture")
DIFFERENCES = ("task", "body", "concat − add", "95 % interval, over seeds", "p, over seeds")
SIDE = 256  # multiply-adds are counted for an answer of this many pixels a side


def main(arguments: list[str] | None = None) -> int:
    options = parser(__doc__, data=True)
    options.add_argument("--tasks", nargs="+", choices=TASKS, default=["streets", "nuclei"], metavar="TASK")
    options.add_argument("--bodies", nargs="+", choices=BODIES, default=list(BODIES), metavar="BODY")
    options.add_argument("--seeds", type=int, default=3, help="networks of each kind (default: %(default)s)")
    options.add_argument("--runs", type=Path, default=ROOT / "runs" / "skips", help="where the networks are kept")
    options.add_argument("--results", type=Path, default=RESULTS, help="where the measurements are kept")
    options.add_argument("--no-train", dest="train", action="store_false", help="measure what is trained already")
    args, args.flags = options.parse_known_args(arguments)  # the rest is train.py's: --epochs, --crop, --width ...
    measured = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else []
    for task, body in product(args.tasks, args.bodies):
        # Seed after seed, so that a run that is cut short leaves pairs.
        for seed, skip in product(range(args.seeds), SKIPS):
            if args.train and (status := train_one(task, f"{body}-{skip}", seed, args)):
                return status
        before = next((row for row in measured if (row["task"], row["body"]) == (task, body)), None)
        if found := measure(task, body, args, before):
            measured = [row for row in measured if row is not before] + [found]
            measured.sort(key=lambda row: (row["task"], row["body"]), reverse=True)
            args.results.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    publish("skips", skips(measured), write=args.write)
    return 0


def folder_of(task: str, architecture: str, seed: int, args: argparse.Namespace) -> Path:
    return args.runs / f"seed{seed}" / "weights" / task / architecture


def is_trained(folder: Path) -> bool:
    """Whether the card is there, which train.py writes last."""
    return (folder / CARD_FILE).exists()


def train_one(task: str, architecture: str, seed: int, args: argparse.Namespace) -> int:
    """Train what is not trained; returns train.py's exit status."""
    if is_trained(folder_of(task, architecture, seed, args)):
        return 0
    place, data = args.runs / f"seed{seed}", dict(args.data).get(task)
    given = ["--task", task, "--architectures", architecture, "--seed", str(seed), "--resume"]
    given += ["--output", str(place / "weights"), "--runs", str(place / "runs"), *(["--data", data] if data else [])]
    return train.main([*given, *args.flags])


def measure(task: str, body: str, args: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any] | None:
    """Compare skips over the seeds of both; None for fewer than two.

    before: the row so far. Where its networks are alike, it keeps the scores of the seeds that are not measured now.
    """
    pairs = {}
    for seed in range(args.seeds):
        pair = {skip: folder_of(task, f"{body}-{skip}", seed, args) for skip in SKIPS}
        if all(map(is_trained, pair.values())):
            pairs[seed] = pair
    if not pairs:
        return None
    kind = kind_of([folder for pair in pairs.values() for folder in pair.values()])
    scores: dict[str, dict[int, float]] = {skip: {} for skip in SKIPS}
    if before and kind == {name: before[name] for name in kind}:
        scores = {skip: dict(zip(before["seeds"], before[skip]["scores"], strict=True)) for skip in SKIPS}
    for (seed, pair), skip in product(pairs.items(), SKIPS):
        scores[skip][seed] = score(pair[skip])
    seeds = sorted(scores["add"])
    if len(seeds) < 2:
        return None
    image = dataset(task, args).val.image(0)
    cells = {}
    for skip in SKIPS:
        segmenter = Segmenter.load(next(iter(pairs.values()))[skip])
        cells[skip] = {
            "scores": [scores[skip][seed] for seed in seeds],
            "parameters": count_parameters(segmenter.net),
            "multiply_adds": multiply_adds(segmenter.net.config),
            "seconds": round(statistics.median([segmenter(image).seconds for _ in range(8)][1:]), 4),
        }
    return {
        "task": task,
        "body": body,
        **kind,
        "metric": "Dice" if len(segmenter.bundle.class_names) == 2 else "mIoU",
        "seeds": seeds,
        "hardware": hardware(),
        "picture": list(image.shape[:2]),
        **cells,
        "paired": over_seeds(cells["add"]["scores"], cells["concat"]["scores"]),
    }


def kind_of(folders: Sequence[Path]) -> dict[str, Any]:
    """Widths and epochs of a row's networks; SystemExit where they differ."""
    found = {}
    for folder in folders:
        config = read_config(folder)
        kind = {"widths": config["config"]["widths"], "epochs": config["training"]["epochs"]}
        found.setdefault(f"widths {kind['widths']}, {kind['epochs']} epochs", folder)
    if len(found) > 1:
        raise SystemExit(
            f"Only equals are compared. {'; '.join(f'{folder}: {what}' for what, folder in found.items())}. Delete the "
            "networks that you do not want, or train the others with another folder as --runs."
        )
    return kind


def score(folder: Path) -> float:
    """Dice on val of the second of two classes, mIoU of more."""
    val = read_config(folder)["scores"]["val"]
    _, *others = val["dice"].values()
    return (others[0] if len(others) == 1 else val["miou"]) or 0.0  # None: the class was never there, nor found


def over_seeds(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Mean of after - before, its 95 % interval, and the paired t-test's p."""
    test = stats.ttest_rel(after, before)
    interval = test.confidence_interval(0.95)
    return {
        "difference": round(float(np.subtract(after, before).mean()), 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
        "p": round(float(test.pvalue), 4),
    }


def multiply_adds(config: UNetConfig) -> int:
    """Multiply-adds for SIDE x SIDE pixels, or the next valid size."""
    return flops(config, config.input_size((SIDE, SIDE))) // 2


def skips(measured: Sequence[dict[str, Any]]) -> str:
    """Two Markdown tables: networks, and differences."""
    networks, differences = [], []
    for row in measured:
        for skip in SKIPS:
            cell = row[skip]
            networks.append((
                row["task"],
                row["body"],
                f"{row['widths'][0]} to {row['widths'][-1]}",
                skip,
                row["epochs"],
                f"{row['metric']} {statistics.mean(cell['scores']):.4f} ± {statistics.stdev(cell['scores']):.4f}",
                f"{cell['parameters'] / 1e6:.2f} M",
                f"{cell['multiply_adds'] / 1e9:.1f} G",
                f"{1000 * cell['seconds']:.0f} ms on {row['hardware']}",
            ))  # fmt: skip
        differences.append((row["task"], row["body"], *in_words(row["paired"])))
    if len(measured) > 1:
        add, concat = ([score for row in measured for score in row[skip]["scores"]] for skip in SKIPS)
        differences.append(("all", f"{len(add)} pairs", *in_words(over_seeds(add, concat))))
    return f"{table(NETWORKS, networks, text=4)}\n\n{table(DIFFERENCES, differences, text=2)}"


def in_words(paired: dict[str, Any]) -> tuple[str, str, str]:
    """The last cells of a row of DIFFERENCES."""
    chance = "< 0.001" if paired["p"] < 0.001 else f"{paired['p']:.3f}"
    return f"{paired['difference']:+.4f}", "{:+.4f} to {:+.4f}".format(*paired["interval"]), chance


if __name__ == "__main__":
    sys.exit(main())
