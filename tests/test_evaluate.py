"""Scores of a whole split."""

from bundles import small_bundle
from folders import disc

from training.evaluate import evaluate, scores
from unet import Segmenter


def test_scores_name_every_class_and_absent_ones_are_none():
    bundle = small_bundle("residual-add", divisor=16)
    image, labels = disc(30, 30, 0)
    found = scores(evaluate(Segmenter(bundle), [(image, labels)], progress=False), bundle.class_names, 1)
    assert set(found["iou"]) == set(bundle.class_names)
    assert found["pictures"] == 1
    assert all(value is None or 0 <= value <= 1 for value in [*found["iou"].values(), *found["dice"].values()])
