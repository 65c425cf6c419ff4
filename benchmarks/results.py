"""The table of what the bundles in weights/ score, from the bundles themselves.

python benchmarks/results.py           print it
python benchmarks/results.py --write   and put it into README.md, between its markers
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measuring import ROOT, markers, put_into_readme

from unet.bundle import Bundle
from unet.model import count_parameters

BEGIN, END = markers("results")


def table(weights: Path) -> str:
    """A Markdown table, one row a bundle, from the scores stored in it."""
    rows = [
        "| task | network | channels | parameters | mIoU | Dice | pixel accuracy | pictures seen | trained for |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for config in sorted(weights.glob("*/*/config.json")):
        bundle = Bundle.load(config.parent)
        val = bundle.scores["val"]
        # Of two classes the second is the one looked for; its Dice is what papers report.
        dice = val["mean_dice"] if len(bundle.class_names) > 2 else val["dice"][bundle.class_names[1]]
        training, widths = bundle.training, bundle.net.config.widths
        rows.append(
            f"| {bundle.task} | {bundle.architecture} | {widths[0]} to {widths[-1]} "
            f"| {count_parameters(bundle.net) / 1e6:.2f} M | {val['miou']:.3f} | {dice:.3f} "
            f"| {val['pixel_accuracy']:.3f} | {training['pictures_seen']:,} "
            f"| {training['seconds'] / 60:.0f} min on {training['hardware']} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    made = table(ROOT / "weights")
    print(made)
    if arguments.write:
        put_into_readme("results", made)


if __name__ == "__main__":
    main()
