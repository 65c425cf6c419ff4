"""Small data sets on disk: bright discs on dark ground, learnable in seconds."""

import json

import numpy as np
from PIL import Image


def disc(height, width, seed):
    """A picture of one disc (uint8 (H, W, 3)) and its label map (uint8 (H, W), 0 and 1)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    row, column = rng.uniform(0.3, 0.7, 2) * (height, width)
    labels = ((rows - row) ** 2 + (columns - column) ** 2 < (min(height, width) / 4) ** 2).astype(np.uint8)
    image = np.where(labels[..., None], (220, 180, 90), (40, 60, 80)) + rng.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def write_pairs(folder, sizes, *, annotations="labels", scale=1, first_seed=0):
    """folder/images/*.png and folder/<annotations>/*.png, one disc for each (h, w)."""
    for kind in ("images", annotations):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i, (h, w) in enumerate(sizes):
        image, labels = disc(h, w, first_seed + i)
        Image.fromarray(image).save(folder / "images" / f"{i:03}.png")
        Image.fromarray(labels * scale).save(folder / annotations / f"{i:03}.png")
    return folder


def write_dataset(root, *, train=6, val=2, size=(40, 48), classes=None, **options):
    """A folder with train/ and val/, and classes.json if given."""
    write_pairs(root / "train", [size] * train, **options)
    write_pairs(root / "val", [size] * val, first_seed=100, **options)
    if classes:
        (root / "classes.json").write_text(json.dumps(classes))
    return root
