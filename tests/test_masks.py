"""The classes of colour-coded masks are found and read, exact ones and JPEGs."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from unet.masks import encode_mask, palette_of_masks
from unet.metrics import IGNORE_INDEX
from unet.palette import Palette

CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
COLORS = np.array(list(CITYSCAPES.values()), np.uint8)


def street(seed: int, classes: int = 19, size: int = 256) -> np.ndarray:
    """A label map: large areas, two shapes of every other class, and poles 1 to 3 pixels thin."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (size, size), 10 % classes)
    draw = ImageDraw.Draw(picture)
    draw.polygon([(0, size * 0.55), (size, size * 0.5), (size, size), (0, size)], fill=0)
    draw.polygon([(0, size * 0.62), (size * 0.3, size * 0.55), (0, size)], fill=1)
    draw.rectangle([0, size * 0.15, size * 0.4, size * 0.56], fill=2)
    for label in range(3, classes):
        for _ in range(2):
            x, y, w, h = rng.uniform([0, size * 0.2, 15, 15], [size - 15, size * 0.9, 45, 45])
            shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
            shape([x, y, x + w, y + h], fill=label)
    for width in (1, 2, 3, 3):
        x = rng.uniform(0, size)
        draw.line([x, rng.uniform(0, size * 0.4), x, size * 0.7], fill=5, width=width)
    return np.asarray(picture)


def jpeg_mask(labels: np.ndarray, quality: int) -> np.ndarray:
    """The right half of a pair, photo left and colours right, that has been one JPEG file with 4:2:0 subsampling."""
    left = load_sample_image("china.jpg")[: len(labels), : labels.shape[1]]
    file = io.BytesIO()
    pair = np.concatenate([left, COLORS[labels]], axis=1)
    Image.fromarray(pair).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))[:, labels.shape[1] :]


# Colour-coded masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [75, 85, 95])
@pytest.mark.parametrize("classes", [10, 19])
def test_classes_come_back_from_jpeg_pairs(quality, classes):
    truths = [street(seed, classes) for seed in range(3)]
    masks = [jpeg_mask(labels, quality) for labels in truths]
    palette, reason = palette_of_masks(masks)
    assert len(palette) == classes, reason
    assert f"found {classes} classes" in reason

    distances = np.linalg.norm(palette.colors[:, None].astype(float) - COLORS[:classes], axis=2)
    true_class = distances.argmin(1)
    assert sorted(true_class) == list(range(classes))
    assert distances.min(1).max() < 6
    named, _ = palette_of_masks(masks, names=CITYSCAPES)
    assert dict(zip(named.names, named.colors.tolist(), strict=True)) == {
        name: list(color) for name, color in list(CITYSCAPES.items())[:classes]
    }

    for mask, truth in zip(masks, truths, strict=True):
        assert np.mean(true_class[encode_mask(mask, palette)] == truth) >= 0.995
        kept = encode_mask(mask, palette, ambiguous="ignore")
        sure = kept != IGNORE_INDEX
        assert 0.97 < sure.mean() < 1
        assert np.mean(true_class[kept[sure]] == truth[sure]) >= 0.998


def test_exact_masks_are_looked_up_and_ordered_by_area():
    labels = street(0)
    thin = labels.copy()
    thin[labels == 5] = 0
    thin[:, 100] = 5  # a class that is one pixel wide wherever it is
    palette, reason = palette_of_masks([COLORS[thin]])
    assert "exact" in reason
    areas = np.bincount(thin.reshape(-1), minlength=19)
    assert palette.colors.tolist() == COLORS[np.argsort(-areas)].tolist()
    assert np.array_equal(palette.decode(encode_mask(COLORS[thin], palette)), COLORS[thin])


def test_neighbouring_colours_of_exact_masks_are_different_classes():
    mask = np.repeat(np.arange(4, dtype=np.uint8), 50).reshape(1, -1, 1) * np.ones((20, 1, 3), np.uint8)
    assert palette_of_masks([mask])[0].colors[:, 0].tolist() == [0, 1, 2, 3]  # of equal area: by colour


def test_blended_edges_are_no_classes():
    small = Image.fromarray(COLORS[street(1, 4)])
    resized = np.asarray(small.resize((500, 500), Image.Resampling.BILINEAR))
    assert len(np.unique(resized.reshape(-1, 3), axis=0)) > 100
    palette, _ = palette_of_masks([resized])
    assert sorted(palette.colors.tolist()) == sorted(np.unique(np.array(small).reshape(-1, 3), axis=0).tolist())


def test_a_blend_of_two_classes_is_not_a_third():
    rows, columns = np.mgrid[:128, :128]
    truth = ((rows - 60) ** 2 + (columns - 70) ** 2 < 45**2).astype(np.uint8)
    palette = Palette([(200, 30, 30), (30, 30, 200), (115, 30, 115)])  # the third is half the first, half the second
    file = io.BytesIO()
    Image.fromarray(palette.decode(truth)).save(file, "JPEG", quality=85, subsampling="4:2:0")
    mask = np.asarray(Image.open(file))
    assert np.mean(palette.encode(mask) != truth) > 0.02
    assert np.mean(encode_mask(mask, palette) != truth) < 0.003


def test_neither_the_order_of_the_masks_nor_the_run_matters():
    masks = [jpeg_mask(street(seed), 80) for seed in range(3)]
    assert palette_of_masks(masks) == palette_of_masks(iter(masks[::-1]))


def test_k_takes_the_largest_and_ignores_the_rest_where_asked():
    masks = [jpeg_mask(street(seed), 90) for seed in range(2)]
    every, _ = palette_of_masks(masks)
    largest, reason = palette_of_masks(masks, 3)
    assert np.array_equal(largest.colors, every.colors[:3])
    assert "3 classes asked for, 19 found" in reason
    assert IGNORE_INDEX not in encode_mask(masks[0], largest)
    ignored = encode_mask(masks[0], largest, ambiguous="ignore") == IGNORE_INDEX
    others = ~np.isin(street(0), [np.linalg.norm(COLORS - c.astype(float), axis=1).argmin() for c in largest.colors])
    assert np.mean(ignored[others]) > 0.6


def test_what_is_no_mask_says_so():
    with pytest.raises(ValueError, match="no mask with a flat area"):
        palette_of_masks([])
    with pytest.raises(ValueError, match="no mask with a flat area"):
        palette_of_masks([np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)])
    with pytest.raises(ValueError, match="5 classes were asked for, but only 2 colours"):
        palette_of_masks([np.repeat(np.array([[[0, 0, 0], [9, 9, 9]]], np.uint8), 20, axis=1).repeat(20, axis=0)], 5)
    with pytest.raises(ValueError, match='"nearest" or "ignore"'):
        encode_mask(np.zeros((2, 2, 3), np.uint8), Palette([(0, 0, 0)]), ambiguous="drop")
