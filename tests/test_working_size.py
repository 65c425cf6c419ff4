"""Pictures are looked at where what is labelled in them fits into what the network sees."""

import numpy as np
import pytest

from training.working_size import sample_indices, suitable_pixels
from unet.metrics import IGNORE_INDEX


def discs(size, radius, n=1, label=1):
    """uint8 (size, size): background 0, and n discs side by side."""
    y, x = np.mgrid[:size, :size]
    label_map = np.zeros((size, size), np.uint8)
    for i in range(n):
        label_map[(y - size / 2) ** 2 + (x - (i + 0.5) * size / n) ** 2 < radius**2] = label
    return label_map


@pytest.mark.parametrize("radius", [34, 90])
def test_a_disc_becomes_as_large_as_what_the_network_sees(radius):
    pixels = suitable_pixels([discs(1000, 200)], radius)
    side = (np.pi * 200**2) ** 0.5 / 1000  # of the square of the same area, beside the picture's
    assert side * pixels**0.5 == pytest.approx(2 * radius + 1, rel=0.02)


def test_a_large_set_is_known_by_some_of_it():
    assert sample_indices(3) == [0, 1, 2]
    some = sample_indices(1000)
    assert (len(some), some[0], some[-1]) == (50, 0, 999)


def test_it_is_the_same_for_pictures_of_more_pixels():
    small, large = (suitable_pixels([discs(size, size // 5)], 34) for size in (400, 1600))
    assert small == pytest.approx(large, rel=0.03)


def test_what_is_small_or_thin_stays_as_it_is():
    assert suitable_pixels([discs(500, 12, n=9)], 34) is None
    vessels = np.zeros((500, 500), np.uint8)
    vessels[:, 20::60] = vessels[240:246] = 1
    vessels[:, 21::60] = vessels[:, 22::60] = 1
    assert suitable_pixels([vessels], 34) is None, "one region of 400 pixels across, three pixels wide"


def test_of_several_sizes_the_typical_one_counts():
    both = np.concatenate([discs(600, 150), discs(600, 20, n=5)])
    specks = np.random.default_rng(0).random((1200, 600)) < 0.001
    both[specks] = 2
    pixels = suitable_pixels([both], 34)
    assert (np.pi * 150**2 / both.size * pixels) ** 0.5 == pytest.approx(69, rel=0.05), "more is labelled by the large"


def test_void_and_what_covers_most_are_no_regions():
    inverted = np.where(discs(800, 60) == 1, 0, 1).astype(np.uint8)  # the background has the higher number
    assert suitable_pixels([inverted], 34) == suitable_pixels([discs(800, 60)], 34)
    blank = np.full((800, 800), IGNORE_INDEX, np.uint8)
    assert suitable_pixels([discs(800, 60), blank], 34) == suitable_pixels([discs(800, 60)], 34)
    assert suitable_pixels([blank], 34) is None
    assert suitable_pixels([np.zeros((800, 800), np.uint8)], 34) is None
