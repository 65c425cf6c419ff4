"""Hand-worked numbers, and the laws that counting obeys."""

import numpy as np
import pytest

from unet.metrics import IGNORE_INDEX, ConfusionMatrix, boundary_score, boundary_tolerance

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 1, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1, 1], [0, 2, 2, 0]], np.uint8)


def test_worked_numbers():
    matrix = ConfusionMatrix(4)
    matrix.update(TRUTH, PREDICTION)
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(matrix.iou(), [2 / 3, 2 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(matrix.dice(), [4 / 5, 4 / 6, 2 / 3, np.nan])
    assert matrix.miou() == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert matrix.mean_dice() == pytest.approx((4 / 5 + 2 / 3 + 2 / 3) / 3)
    assert matrix.pixel_accuracy() == pytest.approx(5 / 7)


def test_two_batches_count_like_one():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 30, 40), dtype=np.uint8)
    together, apart = ConfusionMatrix(5), ConfusionMatrix(5)
    together.update(truth, prediction)
    for part in (slice(0, 7), slice(7, 30)):
        apart.update(truth[part], prediction[part])
    assert (together.counts == apart.counts).all()


def test_a_class_that_is_predicted_but_never_true_counts_as_zero():
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    assert matrix.iou().tolist() == [0.75, 0.0]


def test_nothing_counted_is_nan_not_zero():
    matrix = ConfusionMatrix(2)
    matrix.update(np.full((2, 2), IGNORE_INDEX, np.uint8), np.zeros((2, 2), np.uint8))
    assert np.isnan([matrix.miou(), matrix.mean_dice(), matrix.pixel_accuracy()]).all()


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="truth has labels 0 to 7"):
        ConfusionMatrix(3).update(np.array([[0, 7]], np.uint8), np.zeros((1, 2), np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        ConfusionMatrix(3).update(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_boundary_score():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    assert boundary_score(truth, truth) == 1
    assert boundary_score(truth, np.roll(truth, 2, axis=0), tolerance=2) == 1
    assert boundary_score(truth, np.zeros_like(truth)) == 0
    assert boundary_score(np.zeros_like(truth), np.zeros_like(truth)) == 1
    shifted = np.roll(truth, 4, axis=1)
    assert 0 < boundary_score(truth, shifted, tolerance=1) < boundary_score(truth, shifted, tolerance=3) < 1.0001


@pytest.mark.parametrize("tolerance", range(1, 9))
def test_a_boundary_may_be_off_by_the_tolerance_and_no_more(tolerance):
    truth = np.zeros((3, 40), np.uint8)
    truth[:, 20:] = 1
    near, far = (np.where(np.arange(40) >= 20 + tolerance + more, 1, 0) * np.ones((3, 1)) for more in (0, 1))
    assert boundary_score(truth, near, tolerance=tolerance) == 1
    assert boundary_score(truth, far, tolerance=tolerance) == 0


def test_the_tolerance_grows_with_the_picture():
    assert [boundary_tolerance(size) for size in ((2, 2), (360, 480), (3000, 4000))] == [1, 4, 38]


def test_void_makes_no_boundary():
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = IGNORE_INDEX
    assert boundary_score(truth, np.zeros((10, 10), np.uint8)) == 1
