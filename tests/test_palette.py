"""Palettes: exact nearest colours, and k-means as good as on all pixels."""

import io
import itertools
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image
from threadpoolctl import threadpool_limits

from unet.metrics import IGNORE_INDEX
from unet.palette import LiveView, Palette, PaletteLadder

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


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("L", (4, 4)),
        [[[0, 0, 0]]],
        "street.jpg",
        None,
    ],
)
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


def microscope(seed: int, levels: int = 110) -> np.ndarray:
    """Dark grey with a few bright spots: nearly all pixels have a few of the levels, as in fluorescence."""
    grey = np.random.default_rng(seed).gamma(0.6, levels / 9, (120, 160)).clip(0, levels)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["china", "flower", "drawing", "grey", "dark grey"])
def test_error_is_within_3_percent_of_kmeans_on_all_pixels(name):
    image = {
        "china": lambda: photo("china.jpg"),
        "flower": lambda: photo("flower.jpg"),
        "drawing": drawing,
        "grey": lambda: np.repeat(photo("china.jpg")[..., :1], 3, axis=2),
        "dark grey": lambda: microscope(0),
    }[name]()
    ladder = PaletteLadder(image)
    pixels = image.reshape(-1, 3).astype(np.float64)
    for k in (2, 3, 4, 6, 8, 12, 16, 24, 32):
        with threadpool_limits(1):
            centers = KMeans(k, n_init=4, random_state=0).fit(pixels).cluster_centers_
        theirs, ours = Palette(centers.round()), ladder[k]
        ratio = error(image, ours.decode(ours.encode(image))) / error(image, theirs.decode(theirs.encode(image)))
        assert ratio <= 1.03, f"{k} colours"


@given(pictures, st.sampled_from(["rgb", "oklab"]))
@settings(deadline=None, max_examples=40)
def test_rungs_have_k_different_colours_until_the_picture_is_unchanged(image, space):
    ladder = PaletteLadder(image, max_colors=90, space=space)
    distinct = len(np.unique(image.reshape(-1, 3), axis=0))
    assert ladder.distinct_colors == distinct
    for k in {1, 2, 3, 5, 8, distinct - 1, distinct, distinct + 1, 90} - {0}:
        palette = ladder[k]
        assert len(np.unique(palette.colors, axis=0)) == len(palette) == min(k, distinct)
    assert np.array_equal(ladder[90].decode(ladder[90].encode(image)), image)


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


def test_palettes_do_not_depend_on_which_was_asked_for_first():
    image = photo("china.jpg", 6)
    up, down = PaletteLadder(image), PaletteLadder(image)
    expected = [up[k] for k in range(1, 65)]
    assert [down[k] for k in range(64, 0, -1)] == expected[::-1]


def test_two_requests_at_once_get_the_same_palettes():
    ladder, alone = PaletteLadder(photo("flower.jpg", 6)), PaletteLadder(photo("flower.jpg", 6))
    with ThreadPoolExecutor(8) as pool:
        palettes = list(pool.map(ladder.__getitem__, [20, 3, 17, 20, 8, 12, 20, 1]))
    assert palettes == [alone[k] for k in (20, 3, 17, 20, 8, 12, 20, 1)]


def test_same_palettes_on_every_run_thread_count_and_arrangement_of_the_pixels():
    image = photo("china.jpg", 8)
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
    palette = PaletteLadder(image, space=space)[20]
    quantized = LiveView(image).quantize(palette)
    assert np.mean(quantized.label_map != palette.encode(image)) < 1e-4  # equally near colours aside
    assert quantized.error == pytest.approx(error(image, palette.decode(quantized.label_map)), rel=1e-9)
    assert np.allclose(
        quantized.shares, np.bincount(quantized.label_map.reshape(-1), minlength=20) / image[..., 0].size
    )


def test_the_live_view_is_within_half_a_percent_of_the_exact_error():
    image = np.random.default_rng(0).integers(0, 256, (500, 700, 3)).astype(np.uint8)  # the most colours there can be
    palette = Palette(np.random.default_rng(1).integers(0, 256, (64, 3)))
    quantized = LiveView(image).quantize(palette)
    painted = palette.decode(quantized.label_map)
    exact = error(image, palette.decode(palette.encode(image)))
    assert exact < error(image, painted) <= 1.005 * exact
    assert quantized.error == pytest.approx(error(image, painted), rel=1e-9)


def test_pillow_images_are_taken_as_arrays_are():
    image = photo("flower.jpg", 8)
    pillow, palette = Image.fromarray(image), PaletteLadder(image)[5]
    assert PaletteLadder(pillow)[5] == palette
    assert np.array_equal(palette.encode(pillow), palette.encode(image))
    assert np.array_equal(LiveView(pillow).quantize(palette).label_map, palette.encode(image))
