"""Share of JPEG mask pixels read right, and its effect.

    python benchmarks/masks.py --data FOLDER --like JPEG            prints the table
    python benchmarks/masks.py --data FOLDER --like JPEG --write    and puts it into docs/benchmarks.md

CamVid's labels (FOLDER as `train.py --task streets` downloads it), painted in Cityscapes' colours at 256x256 and saved
with the quantisation tables of a Cityscapes pair (JPEG), are read back, and the network in weights/streets is scored
against them.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from measuring import ROOT, machine, parser, publish, table
from PIL import Image

from unet import ConfusionMatrix, Palette, Segmenter
from unet.masks import encode_mask
from unet.metrics import IGNORE_INDEX

SIZE = 256
VOID = 11
COLORS = np.array(  # of CamVid's classes, in its order, as Cityscapes paints them; void is black
    [
        (70, 130, 180), (70, 70, 70), (153, 153, 153), (128, 64, 128), (244, 35, 232), (107, 142, 35), (220, 220, 0),
        (190, 153, 153), (0, 0, 142), (220, 20, 60), (119, 11, 32), (0, 0, 0),
    ],
    np.uint8,
)  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True, help="CamVid, with val/images and val/labels")
    options.add_argument("--like", type=Path, required=True, help="a JPEG whose quality is used")
    args = options.parse_args()
    before = machine("torch", "pillow")
    with Image.open(args.like) as pair:
        tables = pair.quantization
    palette = Palette(COLORS)
    readers = {
        "exact": lambda mask, labels: labels,
        "nearest colour": lambda mask, labels: palette.encode(mask),
        "encode_mask": lambda mask, labels: encode_mask(mask, palette),
        'encode_mask, ambiguous="ignore"': lambda mask, labels: encode_mask(mask, palette, ambiguous="ignore"),
    }
    segmenter = Segmenter.load(ROOT / "weights" / "streets" / "residual-add")
    right, ignored, pixels = dict.fromkeys(readers, 0), dict.fromkeys(readers, 0), 0
    scores = {name: ConfusionMatrix(VOID) for name in readers}
    for path in sorted((args.data / "val" / "labels").glob("*.png"))[::4]:
        photo = Image.open(path.parents[1] / "images" / f"{path.stem}.jpg").convert("RGB")
        answer = Image.fromarray(segmenter(np.asarray(photo)).label_map).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        labels = np.asarray(Image.open(path).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        mask = as_jpeg_pair(np.asarray(photo.resize((SIZE, SIZE))), COLORS[labels], tables)
        pixels += labels.size
        for name, read in readers.items():
            found = read(mask, labels)
            right[name] += np.count_nonzero(found == labels)
            ignored[name] += np.count_nonzero(found == IGNORE_INDEX)
            truth = np.where(found == VOID, IGNORE_INDEX, found).astype(np.uint8)
            scores[name].update(truth, np.asarray(answer))
    rows = [
        (name, f"{ignored[name] / pixels:.2%}", f"{right[name] / (pixels - ignored[name]):.2%}",
         f"{scores[name].miou():.4f}", f"{scores[name].pixel_accuracy():.4f}")
        for name in readers
    ]  # fmt: skip
    header = ("read by", "left out", "right of the rest", "the network's mIoU", "its pixel accuracy")
    publish("masks", f"{before}.\n\n{table(header, rows)}", write=args.write)


def as_jpeg_pair(photo: np.ndarray, mask: np.ndarray, tables: dict[int, list[int]]) -> np.ndarray:
    """The mask after both halves were saved as one JPEG with 4:2:0 subsampling."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate([photo, mask], axis=1)).save(file, "JPEG", qtables=tables, subsampling="4:2:0")
    return np.asarray(Image.open(file))[:, photo.shape[1] :]


if __name__ == "__main__":
    main()
