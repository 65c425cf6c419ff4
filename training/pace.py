"""How long a training will take, measured before it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from unet.model import UNet
from unet.predict import Segmenter

from .augment import PixelStore
from .checkpoint import TrainingError
from .dataset import Dataset
from .distributed import agree
from .fit import seconds_a_step
from .recipe import Recipe
from .record import duration
from .run_length import TimeSchedule
from .working_size import sample_indices

FEW_STEPS = 1500  # below this, more epochs still help: 20 nuclei pictures go on learning until about here
AFTERWARDS = 5.0  # seconds to save, draw the charts and end
AVERAGED_LOOKS = 6.2  # what test-time augmentation costs: two flips of 0.75, 1 and 1.25 times a side
SINGLE_PICTURES = 12  # segmented for the speed and the examples of the card


class Deadline:
    """The end of a timed run, shared by its networks."""

    def __init__(self, minutes: float, networks: int, started: float) -> None:
        self.end, self.networks = started + 60 * minutes, networks

    def next_budget(self) -> float:
        """Seconds that the next network may take, with its report."""
        seconds = max(0.0, self.end - time.monotonic()) / self.networks
        self.networks -= 1
        return seconds


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step and of segmenting a validation picture."""

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
    """Time a few training steps and validation pictures, reading included."""
    step = seconds_a_step(net, store, recipe, accelerator)
    segmenter(val[0][0])
    started = time.monotonic()
    chosen = sample_indices(len(val), 3)
    for i in chosen:
        segmenter(val[i][0])
    return Pace(*agree([step, (time.monotonic() - started) / len(chosen)], accelerator))


def time_schedule(pace: Pace, dataset: Dataset, budget: float, *, average: bool) -> TimeSchedule:
    """A schedule that leaves time for the report.

    budget: seconds of all that together.
    average: the report scores val with test-time augmentation, too.
    Raises TrainingError where not even a few steps fit in.
    """
    val = len(dataset.val)
    looks = val * (1 + AVERAGED_LOOKS * average) + len(dataset.test) + len(sample_indices(val)) + SINGLE_PICTURES
    schedule = TimeSchedule(max(0.01, pace.picture * val), 1 + looks / val, AFTERWARDS)
    missing = schedule.validation * schedule.validations_after + AFTERWARDS + 10 * pace.step - budget
    if missing > 0:
        raise TrainingError(
            f"--minutes leaves {budget:.0f} s to a network, and scoring it takes most of that; give about "
            f"{math.ceil(2 * missing / 60)} more for each network, or fewer validation pictures"
        )
    return schedule


def default_epochs(pictures: int, batch_size: int) -> tuple[int, str]:
    """Epochs for an own folder, and why so many."""
    steps, usual = math.ceil(pictures / batch_size), Recipe().epochs
    if usual * steps >= FEW_STEPS:
        return usual, f"{usual} epochs, the default"
    epochs = math.ceil(FEW_STEPS / steps)
    why = f"because {pictures} pictures make {steps} steps an epoch and {FEW_STEPS:,} are needed"
    return epochs, f"{epochs} epochs, {why}"
