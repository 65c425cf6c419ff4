"""Are nuclei counted as the data set's authors counted them?

    python benchmarks/objects.py FOLDER            a Markdown table
    python benchmarks/objects.py FOLDER --write    and into docs/benchmarks.md

FOLDER holds images/, labels/ with the true masks, and counts.json: {name of a picture: how many nuclei were outlined}.
Objects of fewer than MIN_AREA pixels are left out: no nucleus of the set is that small.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from measuring import machine, parser, publish, table

from unet import Segmentation, Segmenter, read_image
from unet.images import read_annotation
from unet.objects import find_objects

MIN_AREA = 20


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, weights=True)
    options.add_argument("folder", type=Path)
    args = options.parse_args(arguments)
    true_counts = json.loads((args.folder / "counts.json").read_text())
    pictures = {path.stem: path for path in sorted((args.folder / "images").iterdir())}
    networks = [Segmenter.load(path.parent) for path in sorted(args.weights.glob("nuclei/*/config.json"))]
    rows = []
    for network in (None, *networks):
        counts = {split: [] for split in (False, True)}
        for name in true_counts:
            image = read_image(pictures[name])
            answer = network(image) if network else true_answer(args.folder / "labels" / f"{name}.png")
            for split, counted in counts.items():
                counted.append(len(find_objects(answer, min_area=MIN_AREA, split=split)))
        rows += [
            (network.bundle.architecture if network else "true masks", *row) for row in errors(counts, true_counts)
        ]
    columns = ("masks", "touching nuclei", "all nuclei", "error a picture, mean", "median")
    text = f"{machine('torch', 'scipy')}. {sum(true_counts.values())} nuclei in {len(true_counts)} pictures."
    publish("objects", f"{text}\n\n{table(columns, rows, text=2)}", write=args.write)


def errors(counts: dict[bool, list[int]], true_counts: dict[str, int]) -> list[tuple[str, ...]]:
    """The errors of each way of counting: of the sum, mean and median."""
    true = np.array(list(true_counts.values()))
    rows = []
    for split, counted in counts.items():
        each = np.abs(np.array(counted) - true) / true
        total = sum(counted) / true.sum() - 1
        numbers = (f"{100 * total:+.1f} %", f"{100 * each.mean():.1f} %", f"{100 * np.median(each):.1f} %")
        rows.append(("parted" if split else "together", *numbers))
    return rows


def true_answer(path: Path) -> Segmentation:
    """A mask as if a network had answered with it."""
    mask = read_annotation(path, binary=True)
    sure = np.ones(mask.shape, np.float32)
    return Segmentation(mask, sure, ("background", "nucleus"), np.zeros((2, 3), np.uint8), 0.0, "cpu")


if __name__ == "__main__":
    main()
