"""Does it matter whether a skip connection is added or concatenated?

Both are trained with the same body, recipe and seeds, unless they are in runs/skips/ already; other options, as
--epochs 12, are train.py's. The table shows all rows of benchmarks/skips.json; those measured anew are replaced.
"""

import argparse
import json
import math
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
from training.evaluate import evaluate_each
from training.record import hardware
from unet.bundle import CARD_FILE, read_config
from unet.metrics import ConfusionMatrix
from unet.model import UNetConfig, count_parameters
from unet.predict import Segmenter

BODIES, SKIPS = ("residual", "crop"), ("add", "concat")
RESULTS = ROOT / "benchmarks" / "skips.json"
NETWORKS = ("task", "body", "channels", "skip", "epochs", "score", "parameters", "multiply-adds", "a picture")
DIFFERENCES = ("task", "body", "concat − add", "95 % interval, over seeds", "p, over seeds", "p, over pictures")
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
        found = measure(task, body, args)
        if found:
            measured = [row for row in measured if (row["task"], row["body"]) != (task, body)] + [found]
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


def score_one(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Score over val and on each picture; keep the scores."""
    kept = folder / "scores.json"
    if not kept.exists():
        segmenter = Segmenter.load(folder)
        each = list(evaluate_each(segmenter, dataset(segmenter.bundle.task, args).val))
        total = sum(each, ConfusionMatrix(len(segmenter.bundle.class_names)))
        # JSON has no NaN, which a picture without the class scores.
        pictures = [None if math.isnan(s := score(matrix)) else s for matrix in each]
        kept.write_text(json.dumps({"score": round(score(total), 4), "pictures": pictures}) + "\n", encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def measure(task: str, body: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Compare skips over the seeds of both; None for fewer than two."""
    pairs = [{skip: folder_of(task, f"{body}-{skip}", seed, args) for skip in SKIPS} for seed in range(args.seeds)]
    pairs = [pair for pair in pairs if all(map(is_trained, pair.values()))]
    if len(pairs) < 2:
        return None
    check_alike([folder for pair in pairs for folder in pair.values()])
    image = dataset(task, args).val.image(0)
    cells, pictures = {}, {}
    for skip in SKIPS:
        found = [score_one(pair[skip], args) for pair in pairs]
        pictures[skip] = np.mean(np.array([one["pictures"] for one in found], dtype=float), axis=0)
        segmenter = Segmenter.load(pairs[0][skip])
        cells[skip] = {
            "scores": [one["score"] for one in found],
            "parameters": count_parameters(segmenter.net),
            "multiply_adds": multiply_adds(segmenter.net.config),
            "seconds": round(statistics.median([segmenter(image).seconds for _ in range(8)][1:]), 4),
        }
    return {
        "task": task,
        "body": body,
        "widths": segmenter.net.config.widths,
        "metric": "Dice" if len(segmenter.bundle.class_names) == 2 else "mIoU",
        "seeds": len(pairs),
        "epochs": segmenter.bundle.training["epochs"],
        "hardware": hardware(),
        "picture": list(image.shape[:2]),
        **cells,
        "paired": paired_tests(cells["add"]["scores"], cells["concat"]["scores"], pictures["add"], pictures["concat"]),
    }


def check_alike(folders: Sequence[Path]) -> None:
    """Raise SystemExit where a row's networks are not alike."""
    found: dict[str, Path] = {}
    for folder in folders:
        config = read_config(folder)
        found.setdefault(f"widths {config['config']['widths']}, {config['training']['epochs']} epochs", folder)
    if len(found) > 1:
        raise SystemExit(
            f"Only equals are compared. {'; '.join(f'{folder}: {what}' for what, folder in found.items())}. Delete the "
            "networks that you do not want, or train the others with another folder as --runs."
        )


def score(confusion: ConfusionMatrix) -> float:
    """Dice of the second of two classes, mIoU of more."""
    return float(confusion.dice()[1]) if len(confusion.counts) == 2 else confusion.miou()


def paired_tests(
    add: Sequence[float], concat: Sequence[float], add_pictures: np.ndarray, concat_pictures: np.ndarray
) -> dict[str, Any]:
    """Is concat - add real?

    Over seeds, as if trained again: mean difference, its 95 % interval and the paired t-test's p. Over val pictures,
    each the mean of its seeds, whether these networks differ: Wilcoxon's signed-rank p.
    """
    both = np.isfinite(add_pictures) & np.isfinite(concat_pictures)  # a picture without the class has no Dice
    wilcoxon = stats.wilcoxon(concat_pictures[both], add_pictures[both])
    pictures = {"p_pictures": round(float(wilcoxon.pvalue), 4), "pictures": int(both.sum())}
    return over_seeds(add, concat) | pictures


def over_seeds(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Mean of after - before, its 95 % interval, and the paired t-test's p."""
    test = stats.ttest_rel(after, before)
    interval = test.confidence_interval(0.95)
    return {
        "difference": round(float(np.subtract(after, before).mean()), 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
        "p_seeds": round(float(test.pvalue), 4),
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


def in_words(paired: dict[str, Any]) -> tuple[str, str, str, str]:
    """The last cells of a row of DIFFERENCES."""
    chances = [paired.get(name) for name in ("p_seeds", "p_pictures")]
    shown = ("" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in chances)
    return f"{paired['difference']:+.4f}", "{:+.4f} to {:+.4f}".format(*paired["interval"]), *shown


if __name__ == "__main__":
    sys.exit(main())
