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


CLASS_COLORS = np.array([(128, 64, 128), (70, 130, 180), (107, 142, 35), (0, 0, 142)], np.uint8)


def colour_scene(seed, size=(64, 96)):
    """A photo-like picture and its label map of four classes: road, sky, trees and a car or two."""
    rng = np.random.default_rng(seed)
    h, w = size
    rows, columns = np.mgrid[:h, :w]
    labels = np.where(rows < h * 0.4, 1, 0)
    labels[(np.abs(columns - rng.integers(w)) < 12) & (rows < h * 0.7) & (rows > 8)] = 2
    row, column = h * 0.75, rng.uniform(10, w - 20)
    labels[(np.abs(rows - row) < 7) & (np.abs(columns - column) < 11)] = 3
    image = CLASS_COLORS[labels] // 2 + rng.integers(0, 90, (h, w, 3))
    return image.astype(np.uint8), labels.astype(np.uint8)


def write_side_by_side(root, counts=(("train", 4), ("val", 2))):
    """Photo left, colours right, as one JPEG each: the Cityscapes pairs in small."""
    truths = {}
    for split, count in counts:
        (root / split).mkdir(parents=True)
        for i in range(count):
            image, labels = colour_scene(i + 10 * len(split))
            pair = np.hstack([image, CLASS_COLORS[labels]])
            Image.fromarray(pair).save(root / split / f"{i}.jpg", quality=90)
            truths[split, i] = labels
    return truths
