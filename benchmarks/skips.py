"""Does it matter whether a skip connection is added or concatenated? Same body, same recipe, same seeds, both skips.

python benchmarks/skips.py                               every body and task; stop it and start it again at will
python benchmarks/skips.py --tasks nuclei --bodies residual --data nuclei=FOLDER --epochs 12
python benchmarks/skips.py --no-train --write            what is trained already, into README.md
python benchmarks/skips.py --cell nuclei crop-add 0      train and score one network: task, architecture, seed

Trained networks stay in runs/skips/, so that only what is missing is trained. Beside each are its scores, which with
its config.json are all that the table needs of a network from another machine. A row of benchmarks/skips.json is
replaced when its networks are measured anew; the table shows all rows, whichever machine they come from.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import ROOT, markers, put_into_readme, task_folders
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

import train
from training.dataset import Pairs, load_dataset
from training.datasets import TASKS, fetch_dataset
from training.evaluate import evaluate_each
from training.record import hardware
from unet.bundle import Bundle, Preprocessing, read_config
from unet.metrics import ConfusionMatrix
from unet.model import UNet, UNetConfig, count_parameters
from unet.predict import Segmenter

BODIES, SKIPS = ("residual", "crop"), ("add", "concat")
BEGIN, END = markers("skips")
SCORES_FILE = "scores.json"
SIDE = 256  # multiply-adds are counted for an answer of this many pixels a side


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    if args.cell:
        task, architecture, seed = args.cell
        status = train_one(task, architecture, int(seed), args)
        if not status:
            score_one(folder_of(task, architecture, int(seed), args), args)
        return status
    measured = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else []
    for task in args.tasks:
        for body in args.bodies:
            # Seed after seed, so that a run that is cut short leaves pairs.
            for seed in range(args.seeds):
                for skip in SKIPS:
                    status = train_one(task, f"{body}-{skip}", seed, args)
                    if status:
                        return status
            found = measure(task, body, args)
            if found:
                measured = [row for row in measured if (row["task"], row["body"]) != (task, body)] + [found]
                measured.sort(key=lambda row: (row["task"], row["body"]), reverse=True)
                args.results.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(table(measured))
    if args.write:
        put_into_readme("skips", table(measured))
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tasks", nargs="+", choices=TASKS, default=["streets", "nuclei"], metavar="TASK")
    add("--bodies", nargs="+", choices=BODIES, default=list(BODIES), metavar="BODY")
    add("--cell", nargs=3, metavar=("TASK", "ARCHITECTURE", "SEED"), help="one network, and no table")
    add("--seeds", type=int, default=3, help="networks a cell (default: %(default)s)")
    add("--data", action="append", default=[], metavar="TASK=FOLDER", help="where a task's pictures are")
    add("--runs", type=Path, default=ROOT / "runs" / "skips", help="where the networks are kept")
    add("--results", type=Path, default=ROOT / "benchmarks" / "skips.json", help="where the measurements are kept")
    add("--no-train", dest="train", action="store_false", help="measure what is trained already")
    add("--write", action="store_true", help="put the table into README.md")
    args, args.flags = parser.parse_known_args(arguments)  # the rest is train.py's: --epochs, --crop, --width ...
    args.data = task_folders(args.data)
    return args


def folder_of(task: str, architecture: str, seed: int, args: argparse.Namespace) -> Path:
    return args.runs / f"seed{seed}" / "weights" / task / architecture


def is_trained(folder: Path) -> bool:
    """Its card, which train.py writes last, is here, or its scores are, from another machine."""
    return (folder / "README.md").exists() or (folder / SCORES_FILE).exists()


def train_one(task: str, architecture: str, seed: int, args: argparse.Namespace) -> int:
    """Train what is not trained yet, going on where an earlier run was cut off. Returns train.py's exit status."""
    if not args.train or is_trained(folder_of(task, architecture, seed, args)):
        return 0
    place = args.runs / f"seed{seed}"
    data = ["--data", args.data[task]] if task in args.data else []
    output = ["--output", str(place / "weights"), "--runs", str(place / "runs")]
    chosen = ["--task", task, "--architectures", architecture, "--seed", str(seed), "--resume"]
    return train.main([*chosen, *data, *output, *args.flags])


def score_one(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Scores over val and picture by picture of the bundle in ``folder``, kept beside it."""
    kept = folder / SCORES_FILE
    if not kept.exists():
        segmenter = Segmenter.load(folder)
        val = val_of(segmenter.bundle.task, args.data.get(segmenter.bundle.task))
        each = list(evaluate_each(segmenter, val))
        total = sum(each, ConfusionMatrix(val.num_classes))
        # JSON has no NaN, which a picture without the class scores.
        pictures = [None if math.isnan(s := score(matrix)) else s for matrix in each]
        found = {"score": round(score(total), 4), "pictures": pictures}
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps(found) + "\n", encoding="utf-8")
        partial.replace(kept)
    return json.loads(kept.read_text(encoding="utf-8"))


@functools.cache  # every annotation is read for it
def val_of(task: str, folder: str | None) -> Pairs:
    return load_dataset(folder or fetch_dataset(task), task=TASKS[task]).val


def measure(task: str, body: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Both skips of a body on a task, over the seeds for which both are trained; None for fewer than two seeds."""
    seeds = [
        seed
        for seed in range(args.seeds)
        if all(is_trained(folder_of(task, f"{body}-{skip}", seed, args)) for skip in SKIPS)
    ]
    if len(seeds) < 2:
        return None
    check_alike([folder_of(task, f"{body}-{skip}", seed, args) for seed in seeds for skip in SKIPS])
    image = val_of(task, args.data.get(task)).image(0)
    cells, pictures = {}, {}
    for skip in SKIPS:
        folders = [folder_of(task, f"{body}-{skip}", seed, args) for seed in seeds]
        found = [score_one(folder, args) for folder in folders]
        pictures[skip] = np.mean(np.array([one["pictures"] for one in found], dtype=float), axis=0)
        segmenter = Segmenter(untrained(folders[0]))
        seconds = [segmenter(image).seconds for _ in range(8)][1:]
        cells[skip] = {
            "scores": [one["score"] for one in found],
            "parameters": count_parameters(segmenter.net),
            "multiply_adds": multiply_adds(segmenter.net),
            "seconds": round(statistics.median(seconds), 4),
        }
    return {
        "task": task,
        "body": body,
        "widths": segmenter.net.config.widths,
        "metric": "Dice" if len(segmenter.bundle.class_names) == 2 else "mIoU",
        "seeds": len(seeds),
        "epochs": segmenter.bundle.training["epochs"],
        "hardware": hardware(),
        "picture": list(image.shape[:2]),
        **cells,
        "paired": paired_tests(cells["add"]["scores"], cells["concat"]["scores"], pictures["add"], pictures["concat"]),
    }


def check_alike(folders: Sequence[Path]) -> None:
    """Raises SystemExit where networks of one row differ in more than skip and seed, after runs with other flags."""
    found: dict[str, Path] = {}
    for folder in folders:
        config = read_config(folder)
        found.setdefault(f"widths {config['config']['widths']}, {config['training']['epochs']} epochs", folder)
    if len(found) > 1:
        raise SystemExit(
            f"Only equals are compared. {'; '.join(f'{folder}: {what}' for what, folder in found.items())}. Delete the "
            "networks that you do not want, or train the others with another folder as --runs."
        )


def untrained(folder: Path) -> Bundle:
    """The bundle that config.json in ``folder`` describes, with random weights: as fast as with any others."""
    config = read_config(folder)
    fields = {name: config[name] for name in ("task", "architecture", "class_names", "palette", "training")}
    net = UNet(UNetConfig(**config["config"])).eval()
    return Bundle(net=net, preprocessing=Preprocessing(**config["preprocessing"]), **fields)


def score(confusion: ConfusionMatrix) -> float:
    """Dice of the class looked for where there are two, mIoU where there are more."""
    return float(confusion.dice()[1]) if len(confusion.counts) == 2 else confusion.miou()


def paired_tests(
    add: Sequence[float], concat: Sequence[float], add_pictures: np.ndarray, concat_pictures: np.ndarray
) -> dict[str, Any]:
    """Is concat - add real?

    Over seeds, which says what training again would give: mean difference, its 95 % interval and the paired t-test's p.
    Over val pictures, each the mean of its seeds, which says whether these networks differ: Wilcoxon's signed-rank p.
    """
    difference = np.subtract(concat, add)
    test = stats.ttest_rel(concat, add)
    interval = test.confidence_interval(0.95)
    both = np.isfinite(add_pictures) & np.isfinite(concat_pictures)  # a picture without the class has no Dice
    wilcoxon = stats.wilcoxon(concat_pictures[both], add_pictures[both])
    return {
        "difference": round(float(difference.mean()), 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
        "p_seeds": round(float(test.pvalue), 4),
        "p_pictures": round(float(wilcoxon.pvalue), 4),
        "pictures": int(both.sum()),
    }


def multiply_adds(net: UNet) -> int:
    """Of convolutions, for an answer of SIDE x SIDE pixels (a size that fits, if SIDE does not)."""
    size = net.config.input_size((SIDE, SIDE))
    device = net.head.weight.device
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(1, net.config.in_channels, *size, device=device))
    return counter.get_total_flops() // 2


def table(measured: Sequence[dict[str, Any]]) -> str:
    """Two Markdown tables: each network, and each difference with its tests."""
    networks = [
        "| task | body | channels | skip | epochs | score | parameters | multiply-adds | a picture |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    differences = [
        "| task | body | concat − add | 95 % interval, over seeds | p, over seeds | p, over pictures |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in measured:
        for skip in SKIPS:
            cell = row[skip]
            spread = statistics.stdev(cell["scores"])
            networks.append(
                f"| {row['task']} | {row['body']} | {row['widths'][0]} to {row['widths'][-1]} | {skip} "
                f"| {row['epochs']} | {row['metric']} {statistics.mean(cell['scores']):.4f} ± {spread:.4f} "
                f"| {cell['parameters'] / 1e6:.2f} M | {cell['multiply_adds'] / 1e9:.1f} G "
                f"| {1000 * cell['seconds']:.0f} ms on {row['hardware']} |"
            )
        paired = row["paired"]
        low, high = paired["interval"]
        differences.append(
            f"| {row['task']} | {row['body']} | {paired['difference']:+.4f} | {low:+.4f} to {high:+.4f} "
            f"| {p_value(paired['p_seeds'])} | {p_value(paired['p_pictures'])} |"
        )
    return "\n".join([*networks, "", *differences])


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


if __name__ == "__main__":
    sys.exit(main())
