"""Scores of the bundles in weights/, and their CPU hours."""

import re
from pathlib import Path
from typing import Any

from measuring import ROOT, bundle_folders, parser, publish, table

from unet.bundle import Bundle
from unet.model import count_parameters

HEADER = ["task", "network", "mIoU", "CPU hours", "mIoU per CPU hour", "Dice", "pixel accuracy", "parameters"]
HEADER += ["pictures seen", "trained on"]


def results(weights: Path) -> str:
    """A Markdown table, most accuracy per CPU hour first."""
    rows = sorted((row(Bundle.load(folder)) for folder in bundle_folders(weights)), key=lambda row: row[0])
    return table(HEADER, [cells for _, cells in rows], text=2)


def row(bundle: Bundle) -> tuple[tuple[str, float], tuple[str, ...]]:
    """What to sort by, and the cells."""
    val, training = bundle.scores["val"], bundle.training
    # Of two classes the second is the one looked for; its Dice is what papers report.
    dice = val["mean_dice"] if len(bundle.class_names) > 2 else val["dice"][bundle.class_names[1]]
    hours, seen = cpu_hours(training), f"{training['pictures_seen']:,}"
    if before := training.get("started_from"):
        seen += f" after {before.get('pictures_seen') or 0:,} of {before['task']}"
    rate = val["miou"] / hours if hours else 0.0
    return (bundle.task, -rate), (
        bundle.task,
        bundle.architecture,
        f"{val['miou']:.3f}",
        f"{hours:.2f}" if hours else f"{training['seconds'] / 3600:.2f} h" + " after others" * bool(before),
        f"{rate:.2f}" if hours else "–",
        f"{dice:.3f}",
        f"{val['pixel_accuracy']:.3f}",
        f"{count_parameters(bundle.net) / 1e6:.2f} M",
        seen,
        training["hardware"],
    )


def cpu_hours(training: dict[str, Any]) -> float | None:
    """Hours times threads, with those before; None if not recorded."""
    threads = re.match(r"(\d+) CPU thread", training.get("hardware") or "")
    before = cpu_hours(training["started_from"]) if training.get("started_from") else 0.0
    if not threads or before is None:
        return None
    return before + training["seconds"] * int(threads[1]) * (training.get("processes") or 1) / 3600


if __name__ == "__main__":
    publish("results", results(ROOT / "weights"), write=parser(__doc__).parse_args().write)
