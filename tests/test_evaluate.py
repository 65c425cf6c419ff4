"""Scores of a whole split."""

from types import SimpleNamespace

import numpy as np
import pytest
from bundles import small_bundle
from folders import disc

from training.evaluate import choose_working_size, evaluate, scores
from unet import Segmenter


def test_scores_name_every_class_and_absent_ones_are_none():
    bundle = small_bundle("residual-add", divisor=16)
    image, labels = disc(30, 30, 0)
    found = scores(evaluate(Segmenter(bundle), [(image, labels)], progress=False), bundle.class_names, 1)
    assert set(found["iou"]) == set(bundle.class_names)
    assert found["pictures"] == 1
    assert all(value is None or 0 <= value <= 1 for value in [*found["iou"].values(), *found["dice"].values()])


class SharpestAt:
    """A segmenter that errs the more, the further its working size is from ``best`` pixels."""

    def __init__(self, best, *, trained):
        self.bundle, self.best, self.tried = small_bundle("residual-add", working_pixels=trained), best, []

    def __call__(self, image):
        pixels = self.bundle.preprocessing.working_pixels
        self.tried.append(pixels)
        wrong = abs(round(100 * np.log2(pixels / self.best)))
        label_map = (np.arange(image[..., 0].size) < wrong).reshape(image.shape[:2])
        return SimpleNamespace(label_map=label_map.view(np.uint8))


PAIRS = [(np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8))] * 3


@pytest.mark.parametrize(("best", "chosen"), [(1000, 1000), (720, 707), (1300, 1410), (10, 500), (90_000, 2000)])
def test_the_working_size_that_val_scores_best_at_is_chosen(best, chosen):
    """By quarters of a doubling, from half to twice as many pixels as training had; and again, from there."""
    segmenter = SharpestAt(best, trained=1000)
    for _ in range(2):
        choose_working_size(segmenter, PAIRS)
        assert segmenter.bundle.preprocessing.working_pixels == chosen
        assert segmenter.bundle.training["working_pixels"] == 1000
    assert set(segmenter.tried) <= {500, 595, 707, 841, 1000, 1190, 1410, 1680, 2000}


def test_pictures_seen_as_they_are_stay_so():
    segmenter = SharpestAt(1000, trained=None)
    choose_working_size(segmenter, PAIRS)
    assert segmenter.bundle.preprocessing.working_pixels is None
    assert not segmenter.tried
