"""Train a U-Net on CPUs or GPUs, with checkpoints.

Everything a step does follows from the seed and the step's number, so a resumed run continues exactly where it stopped.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from unet.model import BATCH_NORM_MOMENTUM, UNet, UNetConfig

from .augment import PixelStore
from .checkpoint import Interrupted, RunFolder, RunState, TrainingError
from .distributed import GlobalBatchNorm, gather, make_accelerator, reduce_max
from .loss import SegmentationLoss, class_weights
from .recipe import Recipe
from .run_length import EpochSchedule, Schedule

RECENT = 20  # steps between two looks at the loss: each look waits for the device


class Fit(NamedTuple):
    """A finished run: its best weights and record."""

    net: UNet
    record: dict[str, Any]


def fit(
    net: UNet,
    store: PixelStore,
    recipe: Recipe,
    *,
    accelerator: Accelerator,
    validate: Callable[[UNet], float] | None,
    folder: Path,
    resume: bool = False,
    save_every: int = 1,
    schedule: Schedule | None = None,
    clock: Callable[[], float] = time.perf_counter,
    title: str = "training",
    identity: Mapping[str, Any] | None = None,
) -> Fit:
    """Train ``net`` on ``store``; returns its best averaged weights.

    validate: the score of a network in eval mode, higher is better, by which weights are kept; None keeps the last.
    folder: of the checkpoint and the history; a kill at any moment loses ``save_every`` epochs at most.
    schedule: how long the run is, in seconds of ``clock`` or in steps; None for the recipe's epochs.
    identity: what else, beside recipe, network and pictures, a resumed run must have in common with its beginning.
    Several processes train as one would on the same batches, but for dropout.
    Raises TrainingError where the folder is in use or holds an unfinished run (without resume), where the checkpoint
    cannot be written, where the batch does not suit, or where the loss is not finite, and Interrupted after Ctrl-C or
    SIGTERM, with everything saved.
    """
    run = _Run(net, store, recipe, accelerator, schedule, clock)
    state = run.state
    run_folder = RunFolder(folder, accelerator)
    with (
        run_folder.open(run_settings(run.config, store, recipe) | dict(identity or {}), state, resume=resume),
        _stop_signals_as_a_flag() as stopped,
        tqdm(total=run.steps or None, initial=state.step, desc=title, disable=not accelerator.is_main_process,
             dynamic_ncols=True) as bar,
    ):  # fmt: skip
        run.start_clock()
        while not run.is_over:
            run.train_step()
            bar.total = run.steps
            bar.update()
            (stop,) = reduce_max([stopped()], accelerator)
            epoch_ends = state.step % run.steps_per_epoch == 0 or run.is_over
            if epoch_ends or state.step % RECENT == 0:
                bar.set_postfix_str(f"loss {run.recent_loss():.3f}, best {max(0, state.best_score):.3f}")
            if epoch_ends:
                run.end_epoch(validate)
            if stop or run.is_over or (epoch_ends and run.epoch % save_every == 0):
                run_folder.save(run.unsaved)
                run.unsaved.clear()
            if stop:
                raise Interrupted(f"stopped at step {state.step} of {run.steps}; everything is saved in {folder}")
    return run.result()


def run_settings(config: UNetConfig, store: PixelStore, recipe: Recipe) -> dict[str, Any]:
    """What decides every step: recipe, network and pictures."""
    network = {f"network.{name}": value for name, value in asdict(config).items()}
    seen = asdict(store.preprocessing)
    pictures = {"pictures": len(store), "working_pixels": seen.pop("working_pixels")}
    return asdict(recipe) | network | pictures | {f"pictures.{name}": value for name, value in seen.items()}


def seconds_a_step(net: UNet, store: PixelStore, recipe: Recipe) -> float:
    """Time a training step on a copy of ``net``."""
    # An accelerator of its own: checkpoints hold all that one ever prepared.
    run = _Run(copy.deepcopy(net), store, recipe, make_accelerator())
    run.start_clock()
    run.train_step()
    first = run.state.seconds
    for _ in range(2):
        run.train_step()
    return (run.state.seconds - first) / 2


class _Run:
    """A run's network, optimizer, averages and steps."""

    def __init__(
        self,
        net: UNet,
        store: PixelStore,
        recipe: Recipe,
        accelerator: Accelerator,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        _check_batch(net, recipe, accelerator)
        self.store, self.recipe, self.accelerator, self.clock = store, recipe, accelerator, clock
        self.config = net.config
        self.steps_per_epoch = math.ceil(len(store) / recipe.batch_size)
        self.schedule = schedule or EpochSchedule(recipe.epochs, self.steps_per_epoch, recipe.validate_every)
        weights = class_weights(store.class_shares(self.config.num_classes)) if recipe.class_weights else None
        self.loss = SegmentationLoss(self.config.num_outputs, weights, dice_weight=recipe.dice).to(accelerator.device)
        net = net.to(accelerator.device, memory_format=torch.channels_last)
        if accelerator.num_processes > 1:
            GlobalBatchNorm.convert(net)
        self.dropout_rates = {module: module.p for module in net.modules() if isinstance(module, nn.Dropout)}
        for module, rate in self.dropout_rates.items():
            module.p = rate * recipe.dropout
        self.norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        # Its learning rate is set at every step.
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=recipe.weight_decay, fused=True)
        self.average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(), use_buffers=True)
        self.state = RunState(self.average, self.schedule.budget, self.schedule.validation)
        self.model, self.optimizer = accelerator.prepare(net, optimizer)
        accelerator.register_for_checkpointing(self.state)
        self.losses: list[Tensor] = []  # of this epoch's steps
        self.unsaved: list[dict[str, Any]] = []  # epochs for the history
        self.model.train()

    @property
    def steps(self) -> int:
        """Of the whole run; an estimate in a timed one."""
        return self.schedule.steps(self.state)

    @property
    def epoch(self) -> int:
        """Epochs begun, with the one ending now."""
        return math.ceil(self.state.step / self.steps_per_epoch)

    def start_clock(self) -> None:
        """Count seconds on from those of the checkpoint."""
        self.started = self.clock() - self.state.seconds
        self.is_over = self.schedule.is_over(self.state)

    def _read_clock(self) -> None:
        (self.state.seconds,) = reduce_max([self.clock() - self.started], self.accelerator)
        self.is_over |= self.schedule.is_over(self.state)

    def train_step(self) -> None:
        """One batch: forward, backward, update, average."""
        step, recipe, accelerator = self.state.step, self.recipe, self.accelerator
        images, labels = self._batch(step)
        progress, share = self.schedule.progress(self.state), self.schedule.share(self.state)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(progress, share)
        # A running average of weight 0.01 alone would still be half made of its first value after 70 steps.
        for norm in self.norms:
            norm.momentum = max(BATCH_NORM_MOMENTUM, 10 / (step + 10))
        torch.manual_seed(_seed(recipe.seed, step) + accelerator.process_index)  # dropout
        loss = self.loss(gather(self.model(images).float(), accelerator), labels)
        accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.multi_avg_fn = get_ema_multi_avg_fn(math.exp(-min(1.0, share / recipe.ema)))
        self.average.update_parameters(accelerator.unwrap_model(self.model))
        self.losses.append(loss.detach())
        self.state.step += 1
        self._read_clock()

    def recent_loss(self) -> float:
        """Mean of the last losses; TrainingError if not finite."""
        recent = torch.stack(self.losses[-RECENT:]).cpu()
        if not recent.isfinite().all():
            bad = self.state.step - len(recent) + int(recent.isfinite().logical_not().nonzero()[0])
            pictures = ", ".join(self.store.names[i] for i in self._indices(bad))
            raise TrainingError(
                f"the loss is not finite at step {bad + 1} (epoch {bad // self.steps_per_epoch + 1}), with the "
                f"pictures {pictures}. The epoch before is saved. A lower --learning-rate usually helps."
            )
        return recent.mean().item()

    def end_epoch(self, validate: Callable[[UNet], float] | None) -> None:
        """Validate if due; note the epoch for the history."""
        state = self.state
        entry = {"epoch": self.epoch, "step": state.step, "loss": torch.stack(self.losses).mean().item()}
        self.losses.clear()
        if validate is None:
            if self.is_over:
                state.keep_best(math.inf)
        elif self.schedule.is_validation_due(state):
            before = state.seconds
            entry["score"] = validate(self.average.module)
            state.keep_best(entry["score"])
            self._read_clock()
            state.validation, state.validated = state.seconds - before, state.seconds
        self.accelerator.log({name: entry[name] for name in ("loss", "score") if name in entry}, step=state.step)
        self._read_clock()
        self.unsaved.append(entry | {"seconds": round(state.seconds, 1)})

    def result(self) -> Fit:
        best = self.accelerator.unwrap_model(self.model)
        best.load_state_dict(self.state.best_weights)
        for module, rate in self.dropout_rates.items():
            module.p = rate
        record = {
            "recipe": asdict(self.recipe),
            "epochs": self.epoch,
            "steps": self.state.step,
            "pictures_seen": self.state.step * self.recipe.batch_size,
            "best_step": self.state.best_step,
            "seconds": round(self.state.seconds),
            "seed": self.recipe.seed,
            "precision": self.accelerator.mixed_precision,
            "processes": self.accelerator.num_processes,
        }
        return Fit(best.eval(), record)

    def _indices(self, step: int) -> Tensor:
        """Pictures of a step, int64 (batch_size,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        pictures, batch_size = len(self.store), self.recipe.batch_size
        order = torch.randperm(pictures, generator=torch.Generator().manual_seed(_seed(self.recipe.seed, epoch)))
        # The last batch of an epoch is filled from its start, so that every batch has the same size.
        return order[torch.arange(position * batch_size, (position + 1) * batch_size) % pictures]

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's normalised images, and all labels."""
        images, labels = self.store.batch(
            self._indices(step),
            self.config.output_size(self.config.input_size(self.recipe.crop)),
            margin=self.config.margin,
            augmentation=self.recipe.augmentation,
            generator=torch.Generator().manual_seed(_seed(self.recipe.seed, step) + 1),
        )
        part = images.chunk(self.accelerator.num_processes)[self.accelerator.process_index]
        return self.store.preprocessing.normalise(part).contiguous(memory_format=torch.channels_last), labels


def _check_batch(net: UNet, recipe: Recipe, accelerator: Accelerator) -> None:
    """Refuse a batch that cannot be shared or normalised."""
    if recipe.batch_size % accelerator.num_processes:
        raise TrainingError(
            f"a batch of {recipe.batch_size} cannot be shared out evenly among {accelerator.num_processes} processes; "
            f"--batch-size must be a multiple of {accelerator.num_processes}"
        )
    _, height, width = net.config.level_shapes(net.config.input_size(recipe.crop))[-1].encoder
    if recipe.batch_size * height * width < 2:
        raise TrainingError(
            f"a crop of {recipe.crop[0]}x{recipe.crop[1]} and a batch of 1 leave one pixel at the deepest level, which "
            "BatchNorm cannot learn from; give a larger --crop or --batch-size"
        )


def _seed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step


@contextmanager
def _stop_signals_as_a_flag() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM wait for the step.

    A second one, more than a second later, stops at once.
    """
    received: list[float] = []

    def handler(number: int, frame: Any) -> None:
        # torchrun passes on a Ctrl-C that the terminal has sent to every process already.
        if received and time.monotonic() - received[0] > 1:
            raise KeyboardInterrupt
        received.append(time.monotonic())

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
