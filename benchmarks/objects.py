"""Are nuclei counted as their authors counted them?

FOLDER holds images/, labels/ with the true masks, and counts.json: {name of a picture: how many nuclei were outlined}.
"""

import json
from pathlib import Path

import numpy as np
from measuring import bundle_folders, machine, parser, publish, table

from unet import Segmentation, Segmenter, read_image
from unet.images import read_annotation
from unet.objects import find_objects

MIN_AREA = 20  # no nucleus of the set is smaller


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, weights=True)
    options.add_argument("folder", type=Path)
    args = options.parse_args(arguments)
    counts = json.loads((args.folder / "counts.json").read_text())
    pictures = {path.stem: path for path in sorted((args.folder / "images").iterdir())}
    true, rows = np.array(list(counts.values())), []
    for network in (None, *map(Segmenter.load, bundle_folders(args.weights, "nuclei"))):
        masks = "true masks"
        if network:
            masks, answers = network.bundle.architecture, [network(read_image(pictures[name])) for name in counts]
        else:
            answers = [true_answer(args.folder / "labels" / f"{name}.png") for name in counts]
        for touching, split in (("together", False), ("parted", True)):
            found = np.array([len(find_objects(answer, min_area=MIN_AREA, split=split)) for answer in answers])
            each = np.abs(found - true) / true
            shares = f"{found.sum() / true.sum() - 1:+.1%}", f"{each.mean():.1%}", f"{np.median(each):.1%}"
            rows.append((masks, touching, *(share.replace("%", " %") for share in shares)))
    columns = ("masks", "touching nuclei", "all nuclei", "error a picture, mean", "median")
    text = f"{machine('torch', 'scipy')}. {true.sum()} nuclei in {len(true)} pictures."
    publish("objects", text, table(columns, rows, text=2), write=args.write)


def true_answer(path: Path) -> Segmentation:
    """A mask as if a network had answered with it."""
    mask = read_annotation(path, binary=True)
    sure = np.ones(mask.shape, np.float32)
    return Segmentation(mask, sure, ("background", "nucleus"), np.zeros((2, 3), np.uint8), 0.0, "cpu")


if __name__ == "__main__":
    main()
