"""Palettes: exact nearest colours, k-means as good as scikit-learn's, and classes out of colour-coded masks."""

import io
import itertools
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image
from threadpoolctl import threadpool_limits

from unet.palette import IGNORE_INDEX, LiveView, Palette, PaletteLadder

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

pictures = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
palettes = arrays(np.uint8, st.tuples(st.integers(1, 12), st.just(3)))


def photo(name: str, step: int = 3) -> np.ndarray:
    return load_sample_image(name)[::step, ::step]


def drawing() -> np.ndarray:
    """Flat shapes with smooth edges."""
    picture = Image.new("RGB", (480, 360), (135, 206, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, 230, 480, 360], fill=(86, 152, 60))
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y, r = rng.uniform([0, 0, 10], [480, 360, 60])
        draw.ellipse([x - r, y - r, x + r, y + r], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return np.asarray(picture.resize((160, 120), Image.Resampling.LANCZOS))


def error(image: np.ndarray, painted: np.ndarray) -> float:
    return float((np.subtract(image, painted, dtype=np.float64) ** 2).sum(2).mean())


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


# Palette -------------------------------------------------------------------------------------------------------------


@given(pictures, palettes)
@settings(deadline=None, max_examples=50)
def test_encode_is_the_nearest_colour_and_the_first_of_equals(image, colors):
    distances = ((image[:, :, None].astype(int) - colors) ** 2).sum(3)
    before = image.copy()
    assert np.array_equal(Palette(colors).encode(image), distances.argmin(2))
    assert np.array_equal(image, before)


def test_a_tie_goes_to_the_first():
    assert Palette([(10, 0, 0), (20, 0, 0)]).encode(np.full((1, 1, 3), (15, 0, 0), np.uint8)) == 0
    assert Palette([(20, 0, 0), (10, 0, 0)]).encode(np.full((1, 1, 3), (15, 0, 0), np.uint8)) == 0


@pytest.mark.parametrize("space", ["rgb", "oklab"])
def test_palette_colours_come_back(space):
    colors = np.unique(np.random.default_rng(0).integers(0, 256, (256, 3)), axis=0)
    labels = np.random.default_rng(1).integers(0, len(colors), (37, 53)).astype(np.uint8)
    image = colors[labels].astype(np.uint8)
    palette = Palette(colors, space=space)
    assert np.array_equal(palette.encode(image), labels)
    assert np.array_equal(palette.decode(palette.encode(image)), image)
    assert np.array_equal(palette.encode(image[::-1, ::2]), labels[::-1, ::2])  # strides make no difference


def test_ignored_pixels_are_black_and_other_unknown_labels_an_error():
    palette = Palette([(1, 2, 3), (4, 5, 6)])
    assert palette.decode(np.array([[0, IGNORE_INDEX, 1]], np.uint8)).tolist() == [[[1, 2, 3], [0, 0, 0], [4, 5, 6]]]
    with pytest.raises(ValueError, match=r"label 2 has no colour.*0\.\.1"):
        palette.decode(np.array([[0, 2]], np.uint8))
    with pytest.raises(ValueError, match="uint8 label map"):
        palette.decode(np.array([[0, 1]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"colors": [1, 2, 3]}, r"shape \(k, 3\)"),
        ({"colors": np.zeros((0, 3))}, r"1 to 256"),
        ({"colors": np.zeros((257, 3))}, r"1 to 256"),
        ({"colors": [(0, 0, 256)]}, r"0 to 255"),
        ({"colors": [(0, 0, 0.5)]}, r"whole numbers"),
        ({"colors": [(0, 0, 0)], "names": ["a", "b"]}, "as many names"),
        ({"colors": [(0, 0, 0)], "space": "hsv"}, "hsv"),
    ],
)
def test_a_wrong_palette_says_so(arguments, message):
    with pytest.raises(ValueError, match=message):
        Palette(**arguments)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_a_wrong_picture_says_so(image):
    for take in (Palette([(0, 0, 0)]).encode, PaletteLadder, LiveView):
        with pytest.raises(ValueError, match=r"uint8 RGB picture of shape \(H, W, 3\)"):
            take(image)


def test_palettes_compare_by_value_and_cannot_be_changed():
    palette = Palette([(1, 2, 3)], names=["a"])
    assert palette == Palette(np.array([[1, 2, 3]]), names=("a",))
    assert hash(palette) == hash(Palette([(1, 2, 3)], names=["a"]))
    assert palette != Palette([(1, 2, 3)])
    with pytest.raises(ValueError, match="read-only"):
        palette.colors[0] = 0


def test_shares_and_table():
    palette = Palette([(255, 0, 0), (0, 255, 0), (0, 0, 255)], names=["red", "green", "blue"])
    shares = palette.shares(np.array([[0, 0, 0, 1], [255, 255, 255, 255]], np.uint8))
    assert shares.tolist() == [0.75, 0.25, 0]
    lines = palette.table(shares).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["0", "#ff0000", "red", "75.000%"],
        ["1", "#00ff00", "green", "25.000%"],
        ["2", "#0000ff", "blue", "0.000%"],
    ]
    assert len({len(line) for line in lines}) == 1
    assert Palette([(0, 0, 0)]).shares(np.full((2, 2), 255, np.uint8)).tolist() == [0]


def test_files_hold_the_colours():
    palette = Palette([(255, 128, 0), (1, 2, 3)], names=["Ünïcode", "b"])
    assert palette.to_gpl("mine").splitlines() == [
        "GIMP Palette",
        "Name: mine",
        "Columns: 8",
        "#",
        "255 128   0\tÜnïcode",
        "  1   2   3\tb",
    ]
    content = json.loads(palette.to_json())
    assert content["palette"] == [[255, 128, 0], [1, 2, 3]]
    assert content["class_names"] == ["Ünïcode", "b"]
    assert content["hex"] == palette.hex == ["#ff8000", "#010203"]
    assert "--color-1: #010203;" in palette.to_css()

    file = io.BytesIO(palette.to_ase())
    assert file.read(12) == b"ASEF" + struct.pack(">HHI", 1, 0, 2)
    for color, name in zip(palette.colors, palette.names, strict=True):
        kind, length = struct.unpack(">HI", file.read(6))
        block = io.BytesIO(file.read(length))
        (letters,) = struct.unpack(">H", block.read(2))
        assert (kind, block.read(2 * letters).decode("utf-16-be")) == (1, name + "\0")
        assert block.read(4) == b"RGB "
        assert np.allclose(np.array(struct.unpack(">3f", block.read(12))) * 255, color, atol=1e-4)
        assert block.read() == b"\0\0"
    assert not file.read()


@pytest.mark.parametrize("k", [2, 5, 64])
def test_the_indexed_png_is_the_quantised_picture(k):
    image = photo("flower.jpg")
    palette = PaletteLadder(image)[k]
    png = Image.open(io.BytesIO(palette.palette_png(image)))
    assert (png.format, png.mode) == ("PNG", "P")
    assert np.array_equal(png.convert("RGB"), palette.decode(palette.encode(image)))


# PaletteLadder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["china", "flower", "drawing", "grey"])
def test_as_good_as_scikit_learn_on_all_pixels(name):
    image = {
        "china": lambda: photo("china.jpg"),
        "flower": lambda: photo("flower.jpg"),
        "drawing": drawing,
        "grey": lambda: np.repeat(photo("china.jpg")[..., :1], 3, axis=2),
    }[name]()
    ladder = PaletteLadder(image)
    pixels = image.reshape(-1, 3).astype(np.float64)
    for k in (2, 3, 4, 6, 8, 12, 16, 24, 32):
        with threadpool_limits(1):
            centers = KMeans(k, n_init=4, random_state=0).fit(pixels).cluster_centers_
        theirs, ours = Palette(centers.round()), ladder[k]
        ratio = error(image, ours.decode(ours.encode(image))) / error(image, theirs.decode(theirs.encode(image)))
        assert ratio <= 1.01, f"{k} colours"


def test_grey_palettes_are_optimal():
    levels = np.array([3, 4, 10, 11, 12, 40, 41, 90, 200], np.uint8)
    counts = np.array([5, 1, 7, 2, 3, 1, 6, 2, 4])
    image = np.repeat(np.repeat(levels, counts)[None, :, None], 3, axis=2)

    def cost(interval: slice) -> int:
        return min(int((counts[interval] * (levels[interval].astype(int) - c) ** 2).sum() * 3) for c in range(256))

    ladder = PaletteLadder(image)
    for k in range(1, len(levels)):
        best = min(
            sum(cost(slice(a, b)) for a, b in itertools.pairwise((0, *cuts, len(levels))))
            for cuts in itertools.combinations(range(1, len(levels)), k - 1)
        )
        assert error(image, ladder[k].decode(ladder[k].encode(image))) * counts.sum() == pytest.approx(best)


@given(pictures, st.sampled_from(["rgb", "oklab"]))
@settings(deadline=None, max_examples=40)
def test_rungs_have_k_different_colours_until_the_picture_is_unchanged(image, space):
    ladder = PaletteLadder(image, max_colors=90, space=space)
    distinct = len(np.unique(image.reshape(-1, 3), axis=0))
    assert ladder.distinct_colors == distinct
    for k in {1, 2, 3, 5, 8, distinct - 1, distinct, distinct + 1, 90} - {0}:
        palette = ladder[k]
        assert len(np.unique(palette.colors, axis=0)) == len(palette) == min(k, distinct)
    assert np.array_equal(palette.decode(palette.encode(image)), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (30, 40)])
def test_one_colour(shape):
    image = np.full((*shape, 3), (10, 200, 30), np.uint8)
    ladder = PaletteLadder(image)
    assert ladder.distinct_colors == 1
    assert ladder[2].colors.tolist() == ladder[64].colors.tolist() == [[10, 200, 30]]


def test_more_colours_never_make_the_error_larger():
    image = photo("flower.jpg")
    ladder = PaletteLadder(image)
    errors = [error(image, ladder[k].decode(ladder[k].encode(image))) for k in range(1, 65)]
    assert all(after < before for before, after in itertools.pairwise(errors))


def test_same_palettes_on_every_run_thread_count_and_arrangement_of_the_pixels():
    image = photo("china.jpg", 4)
    shuffled = np.random.default_rng(0).permutation(image.reshape(-1, 3)).reshape(1, -1, 3)
    for space in ("rgb", "oklab"):
        with threadpool_limits(1):
            expected = PaletteLadder(image, space=space)
        for other in (image, shuffled, np.tile(image, (2, 1, 1))):
            ladder = PaletteLadder(other, space=space)
            assert all(ladder[k] == expected[k] for k in range(1, 65))


def test_colours_keep_their_order_when_k_moves_by_one():
    ladder = PaletteLadder(photo("china.jpg"))
    for k in range(1, 64):
        fewer, more = ladder[k].colors.astype(int), ladder[k + 1].colors.astype(int)
        moved = [np.linalg.norm(np.delete(more, new, axis=0) - fewer, axis=1) for new in range(k + 1)]
        # With the new colour taken out, most stay where they were, and a few that it relieved move.
        assert min(np.median(distances) for distances in moved) <= 16 or k < 6
    dark, light = ladder[2].colors.sum(1, dtype=int)
    assert dark < light


def test_each_space_is_best_in_its_own_measure():
    image = photo("flower.jpg")
    rgb, oklab = (PaletteLadder(image, space=space)[12] for space in ("rgb", "oklab"))
    assert error(image, rgb.decode(rgb.encode(image))) < error(image, oklab.decode(oklab.encode(image)))

    def perceived(color):  # Ottosson's own listing, one colour at a time
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.asarray(color) / 255)
        long = np.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
        medium = np.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
        short = np.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
        return (
            0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
            1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
            0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
        )

    colors, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    points = np.array([perceived(color) for color in colors])
    off = [
        (((points[:, None] - np.array([perceived(c) for c in palette.colors])) ** 2).sum(2).min(1) * counts).sum()
        for palette in (rgb, oklab)
    ]
    assert off[1] < off[0]
    labels = oklab.encode(colors[None])[0]
    nearest = ((points[:, None] - np.array([perceived(c) for c in oklab.colors])) ** 2).sum(2).argmin(1)
    assert np.mean(labels == nearest) > 0.9999  # ties in the last digit aside


@pytest.mark.parametrize("arguments", [{"max_colors": 0}, {"max_colors": 257}, {"space": "lab"}])
def test_a_wrong_ladder_says_so(arguments):
    with pytest.raises(ValueError, match=r"max_colors|space"):
        PaletteLadder(np.zeros((2, 2, 3), np.uint8), **arguments)
    with pytest.raises(ValueError, match="1 to 64 colours, got k = 65"):
        PaletteLadder(np.zeros((2, 2, 3), np.uint8))[65]


# LiveView ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["rgb", "oklab"])
def test_the_live_view_is_exact_for_a_hundred_thousand_colours(space):
    image = load_sample_image("china.jpg")
    view, palette = LiveView(image), PaletteLadder(image, space=space)[20]
    assert np.mean(view.encode(palette) != palette.encode(image)) < 1e-4  # equally near colours aside
    painted = palette.decode(view.encode(palette))
    assert view.mean_squared_error(palette) == pytest.approx(error(image, painted), rel=1e-9)


def test_the_live_view_is_within_half_a_percent_of_the_exact_error():
    image = np.random.default_rng(0).integers(0, 256, (500, 700, 3)).astype(np.uint8)  # the most colours there can be
    palette = Palette(np.random.default_rng(1).integers(0, 256, (64, 3)))
    view = LiveView(image)
    painted = palette.decode(view.encode(palette))
    exact = error(image, palette.decode(palette.encode(image)))
    assert exact < error(image, painted) <= 1.005 * exact
    assert view.mean_squared_error(palette) == pytest.approx(error(image, painted), rel=1e-9)


# Colour-coded masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [75, 85, 95])
@pytest.mark.parametrize("classes", [10, 19])
def test_classes_come_back_from_jpeg_pairs(quality, classes):
    truths = [street(seed, classes) for seed in range(3)]
    masks = [jpeg_mask(labels, quality) for labels in truths]
    palette = Palette.of_masks(masks)
    assert len(palette) == classes, palette.reason
    assert f"found {classes} classes" in palette.reason

    distances = np.linalg.norm(palette.colors[:, None].astype(float) - COLORS[:classes], axis=2)
    true_class = distances.argmin(1)
    assert sorted(true_class) == list(range(classes))
    assert distances.min(1).max() < 6
    named = Palette.of_masks(masks, names=CITYSCAPES)
    assert dict(zip(named.names, named.colors.tolist(), strict=True)) == {
        name: list(color) for name, color in list(CITYSCAPES.items())[:classes]
    }

    for mask, truth in zip(masks, truths, strict=True):
        assert np.mean(true_class[palette.encode_mask(mask)] == truth) >= 0.995
        kept = palette.encode_mask(mask, ambiguous="ignore")
        sure = kept != IGNORE_INDEX
        assert 0.97 < sure.mean() < 1
        assert np.mean(true_class[kept[sure]] == truth[sure]) >= 0.998


def test_exact_masks_are_looked_up_and_ordered_by_area():
    labels = street(0)
    thin = labels.copy()
    thin[labels == 5] = 0
    thin[:, 100] = 5  # a class that is one pixel wide wherever it is
    palette = Palette.of_masks([COLORS[thin]])
    assert "exact" in palette.reason
    areas = np.bincount(thin.reshape(-1), minlength=19)
    assert palette.colors.tolist() == COLORS[np.argsort(-areas)].tolist()
    assert np.array_equal(palette.decode(palette.encode_mask(COLORS[thin])), COLORS[thin])


def test_neighbouring_colours_of_exact_masks_are_different_classes():
    mask = np.repeat(np.arange(4, dtype=np.uint8), 50).reshape(1, -1, 1) * np.ones((20, 1, 3), np.uint8)
    assert Palette.of_masks([mask]).colors[:, 0].tolist() == [0, 1, 2, 3]  # of equal area: by colour


def test_blended_edges_are_no_classes():
    small = Image.fromarray(COLORS[street(1, 4)])
    resized = np.asarray(small.resize((500, 500), Image.Resampling.BILINEAR))
    assert len(np.unique(resized.reshape(-1, 3), axis=0)) > 100
    palette = Palette.of_masks([resized])
    assert sorted(palette.colors.tolist()) == sorted(np.unique(np.array(small).reshape(-1, 3), axis=0).tolist())


def test_a_blend_of_two_classes_is_not_a_third():
    rows, columns = np.mgrid[:128, :128]
    truth = ((rows - 60) ** 2 + (columns - 70) ** 2 < 45**2).astype(np.uint8)
    palette = Palette([(200, 30, 30), (30, 30, 200), (115, 30, 115)])  # the third is half the first, half the second
    file = io.BytesIO()
    Image.fromarray(palette.decode(truth)).save(file, "JPEG", quality=85, subsampling="4:2:0")
    mask = np.asarray(Image.open(file))
    assert np.mean(palette.encode(mask) != truth) > 0.02
    assert np.mean(palette.encode_mask(mask) != truth) < 0.003


def test_neither_the_order_of_the_masks_nor_the_run_matters():
    masks = [jpeg_mask(street(seed), 80) for seed in range(3)]
    assert Palette.of_masks(masks) == Palette.of_masks(iter(masks[::-1]))


def test_k_takes_the_largest_and_ignores_the_rest_where_asked():
    masks = [jpeg_mask(street(seed), 90) for seed in range(2)]
    every, largest = Palette.of_masks(masks), Palette.of_masks(masks, 3)
    assert np.array_equal(largest.colors, every.colors[:3])
    assert "3 classes asked for, 19 found" in largest.reason
    assert IGNORE_INDEX not in largest.encode_mask(masks[0])
    ignored = largest.encode_mask(masks[0], ambiguous="ignore") == IGNORE_INDEX
    others = ~np.isin(street(0), [np.linalg.norm(COLORS - c.astype(float), axis=1).argmin() for c in largest.colors])
    assert np.mean(ignored[others]) > 0.6


def test_what_is_no_mask_says_so():
    with pytest.raises(ValueError, match="no mask with a flat area"):
        Palette.of_masks([])
    with pytest.raises(ValueError, match="no mask with a flat area"):
        Palette.of_masks([np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)])
    with pytest.raises(ValueError, match="5 classes were asked for, but only 2 colours"):
        Palette.of_masks([np.repeat(np.array([[[0, 0, 0], [9, 9, 9]]], np.uint8), 20, axis=1).repeat(20, axis=0)], 5)
    with pytest.raises(ValueError, match='"nearest" or "ignore"'):
        Palette([(0, 0, 0)]).encode_mask(np.zeros((2, 2, 3), np.uint8), ambiguous="drop")
