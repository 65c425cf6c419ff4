"""Measure beforehand how long a training will take."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from unet.model import UNet
from unet.predict import Segmenter

from .augment import PixelStore
from .checkpoint import TrainingError
from .dataset import Dataset
from .distributed import reduce_max
from .evaluate import MOST_TRIED_ON
from .fit import seconds_a_step
from .recipe import Recipe
from .record import duration
from .run_length import TimeSchedule
from .working_size import sample_indices

AFTERWARDS = 5.0  # seconds to save, draw the charts and end
AVERAGED_LOOKS = 6.2  # what test-time augmentation costs: two flips of 0.75, 1 and 1.25 times a side
SIZES_TRIED = 5  # working sizes that val is scored at, as a rule
SINGLE_PICTURES = 12  # segmented for the speed and the examples of the card


def budgets(minutes: float | None, networks: int, started: float) -> Iterator[float | None]:
    """Seconds for each network; None is no limit."""
    for left in range(networks, 0, -1):
        yield max(0.0, started + 60 * minutes - time.monotonic()) / left if minutes else None


@dataclass(frozen=True)
class Pace:
    """Seconds of a step and of a validation picture."""

    step: float
    picture: float

    def forecast(self, recipe: Recipe, pictures: int, val_pictures: int) -> str:
        """What ``recipe`` over ``pictures`` will take, in words."""
        steps = recipe.epochs * math.ceil(pictures / recipe.batch_size)
        validations = math.ceil(recipe.epochs / recipe.validate_every)
        validation = val_pictures * self.picture
        seconds = steps * self.step + (validations + 1) * validation
        each = f"{steps:,} steps of {self.step:.2f} s, {validations} validations of {validation:.1f} s"
        return f"about {duration(seconds)} ({each})"


def measure_pace(
    net: UNet, store: PixelStore, recipe: Recipe, accelerator: Accelerator, segmenter: Segmenter, val: Sequence
) -> Pace:
    """Time a few steps and validation pictures, reading included."""
    step = seconds_a_step(net, store, recipe)
    gc.collect()  # mixed precision wraps the copy into a circle, which would stay on the device
    segmenter(val[0][0])
    started = time.monotonic()
    chosen = sample_indices(len(val), 3)
    for i in chosen:
        segmenter(val[i][0])
    return Pace(*reduce_max([step, (time.monotonic() - started) / len(chosen)], accelerator))


def time_schedule(pace: Pace, dataset: Dataset, budget: float, *, average: bool, resized: bool) -> TimeSchedule:
    """A schedule that leaves time for the report.

    budget: seconds of both. average: the report scores val with test-time augmentation, too. resized: it tries working
    sizes.
    Raises TrainingError where not even a few steps fit in.
    """
    val = len(dataset.val)
    looks = val * (1 + AVERAGED_LOOKS * average) + len(dataset.test) + len(sample_indices(val)) + SINGLE_PICTURES
    looks += SIZES_TRIED * min(val, MOST_TRIED_ON) * resized
    schedule = TimeSchedule(budget, max(0.01, pace.picture * val), 1 + looks / val, AFTERWARDS)
    missing = schedule.validation * schedule.validations_after + AFTERWARDS + 10 * pace.step - budget
    if missing > 0:
        raise TrainingError(
            f"--minutes leaves {budget:.0f} s to a network, and scoring it takes most of that; give about "
            f"{math.ceil(2 * missing / 60)} more for each network, or fewer validation pictures"
        )
    return schedule
