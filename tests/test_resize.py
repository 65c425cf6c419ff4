"""Sizes, worked by hand."""

import numpy as np
import pytest

from unet.images import sample, shrink, view_size


@pytest.mark.parametrize(
    "size", [(3000, 4000), (4000, 3000), (1, 5_000_000), (5_000_000, 1), (2, 3_000_000), (999, 1001)]
)
def test_a_view_stays_within_its_limit_and_keeps_its_shape(size):
    h, w = view_size(size, 1_000_000)
    assert 1 <= h * w <= 1_000_000
    assert h <= size[0]
    assert w <= size[1]
    if min(size) > 100:
        assert w / h == pytest.approx(size[1] / size[0], rel=0.01)


def test_a_small_picture_is_its_own_view():
    image = np.zeros((10, 12, 3), np.uint8)
    assert view_size((10, 12), 120) == (10, 12)
    assert shrink(image, 120) is image


def test_shrinking_takes_means_and_sampling_takes_pixels():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, ::2] = 200
    np.testing.assert_array_equal(shrink(image, 2), np.full((1, 2, 3), 100))
    labels = np.array([[0, 0, 7, 7], [0, 0, 7, 7], [3, 3, 9, 9], [3, 3, 9, 9]], np.uint8)
    np.testing.assert_array_equal(sample(labels, (2, 2)), [[0, 7], [3, 9]])
    np.testing.assert_array_equal(sample(labels, (4, 4)), labels)
