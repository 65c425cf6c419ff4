"""The scores of the bundles in weights/, as they are stored in them.

python benchmarks/results.py           print the table
python benchmarks/results.py --write   and put it into README.md
"""

from __future__ import annotations

from pathlib import Path

from measuring import ROOT, parser, publish, table

from unet.bundle import Bundle
from unet.model import count_parameters

HEADER = ("task", "network", "channels", "parameters", "mIoU", "Dice", "pixel accuracy", "pictures seen", "trained for")


def results(weights: Path) -> str:
    """A Markdown table, one row a bundle."""
    return table(HEADER, [row(Bundle.load(path.parent)) for path in sorted(weights.glob("*/*/config.json"))], text=3)


def row(bundle: Bundle) -> tuple[str, ...]:
    val, training, widths = bundle.scores["val"], bundle.training, bundle.net.config.widths
    # Of two classes the second is the one looked for; its Dice is what papers report.
    dice = val["mean_dice"] if len(bundle.class_names) > 2 else val["dice"][bundle.class_names[1]]
    return (
        bundle.task,
        bundle.architecture,
        f"{widths[0]} to {widths[-1]}",
        f"{count_parameters(bundle.net) / 1e6:.2f} M",
        f"{val['miou']:.3f}",
        f"{dice:.3f}",
        f"{val['pixel_accuracy']:.3f}",
        f"{training['pictures_seen']:,}",
        f"{training['seconds'] / 60:.0f} min on {training['hardware']}",
    )


if __name__ == "__main__":
    publish("results", results(ROOT / "weights"), write=parser(__doc__).parse_args().write)
