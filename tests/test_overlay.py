"""Class colours over a picture."""

import numpy as np
import pytest

from unet.overlay import overlay, unpainted_classes

PALETTE = np.array([(0, 0, 0), (200, 100, 0), (0, 50, 250)], np.uint8)


@pytest.mark.parametrize(
    ("opacity", "expected"), [(0.0, (100, 50, 10)), (0.25, (125, 63, 8)), (0.5, (150, 75, 5)), (1.0, (200, 100, 0))]
)
def test_overlay_mixes_picture_and_colour(opacity, expected):
    image = np.full((1, 1, 3), (100, 50, 10), np.uint8)
    mixed = overlay(image, np.array([[1]], np.uint8), PALETTE, opacity=opacity)
    np.testing.assert_array_equal(mixed[0, 0], expected)
    assert mixed.dtype == np.uint8


def test_overlay_leaves_unpainted_classes_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    labels = np.zeros((4, 5), np.uint8)
    labels[1, 2] = 1
    drawn = overlay(image, labels, PALETTE, opacity=1, unpainted=unpainted_classes(("background", "x", "y")))
    changed = (drawn != image).any(axis=2)
    assert changed[1, 2]
    assert changed.sum() == 1


def test_inputs_are_not_changed():
    image, labels = np.full((2, 2, 3), 9, np.uint8), np.ones((2, 2), np.uint8)
    overlay(image, labels, PALETTE)
    assert (image == 9).all()
    assert (labels == 1).all()


def test_two_sizes_are_refused():
    with pytest.raises(ValueError, match="must be one size"):
        overlay(np.zeros((2, 3, 3), np.uint8), np.zeros((2, 2), np.uint8), PALETTE)
