"""Agreement, disagreement and scores, worked by hand."""

import numpy as np
import pytest

from unet.compare import Comparison, compare, score
from unet.metrics import IGNORE_INDEX
from unet.predict import Segmentation

NAMES = ("sky", "road", "tree")


def segmentation(labels, names=NAMES):
    labels = np.array(labels, np.uint8)
    palette = np.zeros((len(names), 3), np.uint8)
    return Segmentation(labels, np.ones(labels.shape, np.float32), names, palette, seconds=0.1, device="cpu")


FIRST = segmentation([[0, 0, 1, 1], [0, 0, 1, 2]])
SECOND = segmentation([[0, 0, 1, 2], [0, 1, 1, 2]])


def test_agreement_and_shares_are_counted_over_all_pixels():
    comparison = compare(FIRST, SECOND)
    assert comparison.agreement == pytest.approx(6 / 8)
    np.testing.assert_allclose(comparison.shares, [[4 / 8, 3 / 8, 1 / 8], [3 / 8, 3 / 8, 2 / 8]])
    assert comparison.label_maps[0] is FIRST.label_map
    assert comparison.scores is None


def test_equal_answers_agree_everywhere():
    assert compare(FIRST, FIRST).agreement == 1


def test_scores_against_a_truth():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    first, second = compare(FIRST, SECOND).with_truth(truth).scores
    assert first.pixel_accuracy == pytest.approx(7 / 8)
    np.testing.assert_allclose(first.iou, [1, 3 / 4, 0])
    assert first.miou == pytest.approx(7 / 12)
    assert second.pixel_accuracy == pytest.approx(5 / 8)
    np.testing.assert_allclose(second.iou, [3 / 4, 2 / 5, 0])
    assert first.dice == pytest.approx((1 + 2 * 3 / (4 + 3) + 0) / 3)  # the mean over sky, road and tree
    assert first.tolerance == 1
    assert first.boundary == pytest.approx(2 * 1 * (3 / 4) / (1 + 3 / 4))  # 3 of its 4 edges are true


def test_void_is_left_out_and_absent_classes_too():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, IGNORE_INDEX]], np.uint8)
    scores = score(FIRST.label_map, truth, 3)
    assert scores.pixel_accuracy == 1
    assert scores.miou == 1
    assert np.isnan(scores.iou[2])


def test_two_classes_have_the_dice_of_the_second():
    drawn = np.array([[0, 1, 1, 1]], np.uint8)
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    assert score(drawn, truth, 2).dice == pytest.approx(2 * 2 / (3 + 2))
    nothing = np.zeros((1, 4), np.uint8)
    assert np.isnan(score(nothing, nothing, 2).dice)


def test_truth_can_be_taken_away_again():
    comparison = compare(FIRST, SECOND).with_truth(FIRST.label_map)
    assert isinstance(comparison, Comparison)
    assert comparison.scores[0].miou == 1
    assert comparison.with_truth(None).scores is None
    assert comparison.scores is not None  # a new comparison, the old one unchanged


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.zeros((3, 5), np.uint8), "The ground truth is 5 x 3 pixels and the picture 4 x 2"),
        (np.full((2, 4), 3, np.uint8), "truth has labels 3 to 3; with 3 classes they must be 0 to 2, or 255"),
        (np.full((2, 4), IGNORE_INDEX, np.uint8), "void everywhere"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(truth, message):
    with pytest.raises(ValueError, match=message):
        compare(FIRST, SECOND).with_truth(truth)


def test_other_classes_and_sizes_are_refused():
    with pytest.raises(ValueError, match="different classes, sky, road, tree and background, hand"):
        compare(FIRST, segmentation([[0, 0, 1, 1], [0, 0, 1, 1]], ("background", "hand")))
    with pytest.raises(ValueError, match="must have one size"):
        compare(FIRST, segmentation([[0, 0]]))
