"""How many pixels of JPEG masks are read right, and what it changes.

CamVid's labels, painted in Cityscapes' colours at 256x256 and saved as a Cityscapes pair (JPEG) is, are read back; the
network in weights/streets is scored against them.
"""

import io
from collections import Counter
from pathlib import Path

import numpy as np
from measuring import ROOT, dataset, machine, parser, publish, table
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


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, data=True)
    options.add_argument("--like", type=Path, required=True, help="a JPEG whose quality is used")
    args = options.parse_args(arguments)
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
    right, ignored, pixels = Counter(), Counter(), 0
    scores = {name: ConfusionMatrix(VOID) for name in readers}
    val = dataset("streets", args).val
    for image, truth in (val[i] for i in range(0, len(val), 4)):
        answer = resized(segmenter(image).label_map)
        labels = np.minimum(resized(truth), VOID)
        photo = np.asarray(Image.fromarray(image).resize((SIZE, SIZE)))
        mask = as_jpeg_pair(photo, COLORS[labels], tables)
        pixels += labels.size
        for name, read in readers.items():
            found = read(mask, labels)
            right[name] += np.count_nonzero(found == labels)
            ignored[name] += np.count_nonzero(found == IGNORE_INDEX)
            scores[name].update(np.where(found == VOID, IGNORE_INDEX, found).astype(np.uint8), answer)
    rows = [
        (name, f"{ignored[name] / pixels:.2%}", f"{right[name] / (pixels - ignored[name]):.2%}",
         f"{scores[name].miou():.4f}", f"{scores[name].pixel_accuracy():.4f}")
        for name in readers
    ]  # fmt: skip
    header = ("read by", "left out", "right of the rest", "the network's mIoU", "its pixel accuracy")
    publish("masks", f"{machine('torch', 'pillow')}.", table(header, rows), write=args.write)


def resized(labels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(labels).resize((SIZE, SIZE), Image.Resampling.NEAREST))


def as_jpeg_pair(photo: np.ndarray, mask: np.ndarray, tables: dict[int, list[int]]) -> np.ndarray:
    """The mask after both were saved as one JPEG (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate([photo, mask], axis=1)).save(file, "JPEG", qtables=tables, subsampling="4:2:0")
    return np.asarray(Image.open(file))[:, photo.shape[1] :]


if __name__ == "__main__":
    main()
