"""Ground truths as people keep them, and what is refused."""

import io

import numpy as np
import pytest
from bundles import COLORS, NAMES, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unet.ground_truth import TruthError, read_truth
from unet.images import ImageError, save_png
from unet.metrics import IGNORE_INDEX

CLASSES = len(NAMES)
VOID = IGNORE_INDEX
NUCLEI = (("background", "nucleus"), np.array([(0, 0, 0), (255, 200, 0)], np.uint8))


def blocks(values, side=12):
    """uint8 (rows * side, columns * side): a label map of squares."""
    return np.kron(np.array(values, np.uint8), np.ones((side, side), np.uint8))


LABELS = blocks([[1, 2, 3], [4, 1, 2]])


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(file, kind, **options)
    return file.getvalue()


def with_palette(labels, palette):
    file = io.BytesIO()
    save_png(labels, file, palette=palette)
    return file.getvalue()


def painted(labels, palette=COLORS, void=(0, 0, 0)):
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)], table[VOID] = palette, void
    return table[labels]


@pytest.mark.parametrize(
    ("source", "how"),
    [
        (encoded(LABELS), "class numbers"),
        (encoded(np.dstack([LABELS] * 3)), "class numbers"),  # as OpenCV writes them
        (with_palette(LABELS, COLORS), "class numbers"),  # as this project does
        (with_palette(LABELS, np.random.default_rng(0).integers(0, 256, (5, 3))), "class numbers"),  # in any colours
        (encoded(painted(LABELS)), "the classes’ colours"),
        (encoded(Image.fromarray(painted(LABELS)).quantize(4)), "the classes’ colours"),  # in any order
        (encoded(painted(LABELS) + np.uint8(3)), "the classes’ colours"),  # another colour profile
        (encoded(painted(LABELS), "JPEG", quality=75), "the classes’ colours"),
        (LABELS, "class numbers"),
    ],
)
def test_one_truth_in_every_guise(source, how):
    truth = read_truth(source, NAMES, COLORS)
    assert (truth.how, truth.notes, truth.void) == (how, (), 0)
    assert truth.labels.dtype == np.uint8
    np.testing.assert_array_equal(truth.labels, LABELS)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_numbers_and_colours_come_back_whatever_they_are(data):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    values = st.lists(st.sampled_from([1, 2, 3, 4, VOID]), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    labels = np.array(data.draw(values), np.uint8).reshape(shape)
    if (labels == VOID).all():
        labels[0, 0] = 1
    for source in (labels, encoded(labels), with_palette(labels, COLORS)):
        np.testing.assert_array_equal(read_truth(source, NAMES, COLORS).labels, labels)
    palette = np.array([(250, 250, 250), *COLORS[1:]], np.uint8)  # one without black, which is void then
    np.testing.assert_array_equal(read_truth(encoded(painted(labels, palette)), NAMES, palette).labels, labels)


def test_the_number_after_the_last_class_is_void():
    """CamVid has eleven classes, 0 to 10, and 11 where nobody knows."""
    truth = read_truth(np.array([[0, 3], [5, 255]], np.uint8), NAMES, COLORS)
    np.testing.assert_array_equal(truth.labels, [[0, 3], [VOID, VOID]])
    assert truth.void == 0.5
    assert "The number 5 in the ground truth is taken for void: the 5 classes have 0 to 4." in truth.notes[0]


@pytest.mark.parametrize(
    "mask",
    [
        blocks([[0, 1], [1, 0]]),
        blocks([[0, 255], [255, 0]]),
        blocks([[0, 1], [1, 0]]).astype(bool),  # one bit a pixel
        np.dstack([blocks([[0, 255], [255, 0]])] * 3),
        painted(blocks([[0, 1], [1, 0]]), NUCLEI[1]),
        painted(blocks([[0, 1], [1, 0]]), [(0, 0, 0), (255, 0, 0)]),  # red on black: the object, in whatever colour
    ],
)
def test_two_classes_have_masks(mask):
    truth = read_truth(encoded(mask), *NUCLEI)
    np.testing.assert_array_equal(truth.labels, blocks([[0, 1], [1, 0]]))
    blank = np.zeros_like(mask)
    assert not read_truth(encoded(blank), *NUCLEI).labels.any()


def test_a_mask_saved_as_jpeg():
    mask = blocks([[0, 255], [255, 0]], side=16)
    np.testing.assert_array_equal(read_truth(encoded(mask, "JPEG"), *NUCLEI).labels, mask > 0)


def test_colours_of_no_class_are_void_and_named():
    labels = blocks([[1, 2, 3], [4, 1, VOID]])
    truth = read_truth(encoded(painted(labels, void=(255, 0, 255))), NAMES, COLORS)
    np.testing.assert_array_equal(truth.labels, labels)
    assert truth.notes == ("Colours of no class in the ground truth are left out as void: #ff00ff, 17 % of it.",)
    blurred = read_truth(encoded(painted(labels, void=(255, 0, 255)), "JPEG", quality=80), NAMES, COLORS)
    assert (blurred.labels == labels).mean() > 0.98


@pytest.mark.parametrize(
    ("truth", "task", "message"),
    [
        (blocks([[0, 1], [7, 2]]), (NAMES, COLORS), "numbers 0, 1, 2, 7: with 5 classes they are 0 to 4, and 255 or"),
        (blocks([[0, 255]]), (NAMES, COLORS), "is black and white, but there are 5 classes"),
        (blocks([[0, 90, 180]]), NUCLEI, "numbers 0, 90, 180: a mask has 0 and 1, or 0 and 255, so save it without"),
        (photo(60, 80), (NAMES, COLORS), "not in the classes’ colours"),
        (painted(LABELS, COLORS[:, ::-1] // 2 + 100), (NAMES, COLORS), "of no class, most of that #a484a4"),
    ],
)
def test_what_is_no_truth_of_these_classes_is_refused(truth, task, message):
    with pytest.raises(TruthError, match=message):
        read_truth(encoded(truth), *task)


def test_of_several_pages_the_first_is_read_and_said():
    page = Image.fromarray(LABELS)
    truth = read_truth(encoded(page, "TIFF", save_all=True, append_images=[page]), NAMES, COLORS)
    assert truth.notes == ("The file has several pages or frames: only the first is read.",)
    np.testing.assert_array_equal(truth.labels, LABELS)


def test_broken_files_are_the_readers_sentence():
    with pytest.raises(ImageError, match="no picture of a known kind"):
        read_truth(b"0123456789" * 9 + bytes(9), NAMES, COLORS)


def test_object_is_white_wherever_white_stands_in_a_palette():
    mask = np.zeros((24, 24), bool)
    mask[3:11, 3:11] = True
    white_first = Image.fromarray((~mask).astype(np.uint8))
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    on_transparent = Image.fromarray(np.repeat(np.uint8(mask)[..., None] * 255, 4, axis=2))
    for picture in (white_first, on_transparent):
        truth = read_truth(encoded(picture), ["background", "hand"], np.uint8([[0, 0, 0], [255, 170, 120]]))
        assert np.array_equal(truth.labels == 1, mask)
        assert truth.how == "a mask: white is hand"
