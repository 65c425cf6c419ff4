"""The loss: cross-entropy plus Dice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet.metrics import IGNORE_INDEX


class SegmentationLoss(nn.Module):
    """Cross-entropy plus weighted Dice, void left out.

    class_weights (C,): for cross-entropy with C >= 3 classes; two classes share one logit and have none.
    """

    def __init__(self, num_outputs: int, class_weights: Tensor | None = None, *, dice_weight: float = 1.0) -> None:
        from segmentation_models_pytorch.losses import DiceLoss  # seconds, of which reading and publishing need none

        super().__init__()
        self.dice_weight = dice_weight
        self.register_buffer("class_weights", class_weights if num_outputs > 1 else None)
        self.dice = DiceLoss("binary" if num_outputs == 1 else "multiclass", smooth=1.0, ignore_index=IGNORE_INDEX)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of (N, C, H, W) and int64 (N, H, W)."""
        counted = labels != IGNORE_INDEX
        if logits.shape[1] == 1:
            # Masked by hand: a mean over all pixels would let the void ones dilute the rest.
            pixel = F.binary_cross_entropy_with_logits(logits[:, 0], (labels == 1).float(), reduction="none")
            entropy = (pixel * counted).sum() / counted.sum().clamp(min=1)
        else:
            pixel = F.cross_entropy(logits, labels, self.class_weights, ignore_index=IGNORE_INDEX, reduction="sum")
            weight = counted if self.class_weights is None else self.class_weights[labels.where(counted, 0)] * counted
            entropy = pixel / weight.sum().clamp(min=1e-6)
        return entropy + self.dice_weight * self.dice(logits, labels)


def class_weights(shares: Tensor) -> Tensor:
    """float32 (C,): 1 / ln(1.10 + share) (Paszke et al. 2016, ENet)."""
    return (1 / torch.log(1.10 + shares)).float()
