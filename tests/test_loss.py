"""The loss counts what it should."""

import math

import pytest
import torch

from training.loss import SegmentationLoss, class_weights
from unet.metrics import IGNORE_INDEX


@pytest.mark.parametrize("outputs", [1, 3])
def test_void_pixels_do_not_count(outputs):
    torch.manual_seed(0)
    loss = SegmentationLoss(outputs, torch.ones(3))
    logits = torch.randn(2, outputs, 4, 5)
    labels = torch.randint(0, 2, (2, 4, 5))
    labels[:, 1:3] = IGNORE_INDEX
    changed = logits.clone()
    changed[:, :, 1:3] = 50 * torch.randn(2, outputs, 2, 5)
    torch.testing.assert_close(loss(logits, labels), loss(changed, labels))
    # ... and do not dilute either: the same as if they had been cut out.
    kept = [0, 3]
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, :, kept], labels[:, kept]))


@pytest.mark.parametrize("outputs", [1, 3])
def test_right_costs_nothing_wrong_costs_much_and_void_alone_costs_nothing(outputs):
    loss = SegmentationLoss(outputs, torch.ones(3))
    labels = torch.tensor([[[0, 1, 1], [0, 1, 0]]])
    one_hot = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    right = 40 * (labels[:, None] - 0.5) if outputs == 1 else 40 * one_hot
    assert loss(right, labels) < 0.2  # Dice's smoothing leaves a little
    assert loss(-right, labels) > 5
    assert loss(right, torch.full_like(labels, IGNORE_INDEX)) == pytest.approx(0, abs=1e-6)


def test_cross_entropy_is_weighted_by_class():
    """Two pixels, one of each class, equally wrong by log 2: a weighted mean of equal numbers is that number."""
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    weighted = SegmentationLoss(2, torch.tensor([1.0, 3.0]))
    entropy = weighted(logits, labels) - weighted.dice(logits, labels)
    assert entropy == pytest.approx(math.log(2))
    logits[0, 0, 0, 1] = 5.0  # now the pixel of class 1, of weight 3, is wrong by log(1 + e^5)
    entropy = weighted(logits, labels) - weighted.dice(logits, labels)
    assert entropy == pytest.approx((math.log(2) + 3 * math.log(1 + math.exp(5))) / 4)


def test_rare_classes_weigh_more_but_not_without_limit():
    weights = class_weights(torch.tensor([0.9, 0.1, 0.0]))
    assert weights.tolist() == pytest.approx([1 / math.log(2.0), 1 / math.log(1.2), 1 / math.log(1.1)])
