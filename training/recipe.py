"""Every number of a run that one tunes."""

from __future__ import annotations

from dataclasses import dataclass, field

from .augment import Augmentation


@dataclass(frozen=True)
class Recipe:
    """A run's settings, apart from data and network.

    epochs: times every picture is seen. minutes: of the whole run, instead of epochs.
    batch_size: pictures a step, over all processes.
    crop: (h, w) in working pixels of what is labelled in a training crop, rounded up to what the network gives.
    validate_every: epochs between validations.
    learning_rate: AdamW's, reached after ``warmup`` (a share of the run), then lowered to 0 as (1 - progress)^decay.
    ema: the weights' exponential moving average looks back over this share of the run.
    dropout: the network's dropout rates are multiplied by this while it trains.
    dice: weight of the Dice loss beside the cross-entropy. class_weights: let rare classes weigh more in the latter.
    """

    epochs: int = 60
    batch_size: int = 6
    crop: tuple[int, int] = (128, 160)
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    decay: float = 0.9
    ema: float = 0.02
    dropout: float = 0.0
    dice: float = 1.0
    class_weights: bool = True
    validate_every: int = 5
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    minutes: float | None = None

    def rate(self, progress: float, share: float) -> float:
        """Learning rate of a step.

        progress: of the run before the step, 0 to 1. share: the progress that the step makes.
        Linear warm-up, then polynomial decay (Chen et al. 2017, DeepLab).
        """
        warmup = max(self.warmup, share, 1e-9)
        return self.learning_rate * min((progress + share) / warmup, max(0.0, 1 - progress) ** self.decay)
