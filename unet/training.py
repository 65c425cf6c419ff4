"""Fit a U-Net, evaluate it, and survive being killed: on Hugging Face Accelerate, for CPU, GPU and many machines.

Everything a step does follows from the seed and the step's number: which pictures, how they are augmented, what dropout
drops. So a resumed run continues exactly where it stopped, and a run has no state but weights, optimizer and averages.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.nn.functional as distributed
import torch.nn.functional as F
from accelerate import Accelerator
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from training.augment import Augmentation, PixelStore

from .metrics import IGNORE_INDEX, ConfusionMatrix
from .model import BATCH_NORM_MOMENTUM, UNet
from .predict import Segmenter, has_native_bfloat16

CHECKPOINT_FOLDER = "checkpoint"
RECIPE_FILE = "recipe.json"
HISTORY_FILE = "history.jsonl"
FINISHED_FILE = "finished"
LOCK_FILE = "running.lock"


class TrainingError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


class Interrupted(TrainingError):
    """Ctrl-C: everything is saved."""


@dataclass(frozen=True)
class Recipe:
    """What a run does, apart from its data and network.

    crop: (h, w) in working pixels of what is labelled in a training crop, rounded up to what the network gives.
    validate_every: epochs between validations.
    learning_rate: AdamW's, reached after ``warmup`` (a share of the run), then lowered to 0 as (1 - progress)^decay.
    ema: the weights' exponential moving average looks back over this share of the run.
    dropout: the network's dropout rates are multiplied by this while it trains.
    dice: weight of the Dice loss beside the cross-entropy. class_weights: let rare classes weigh more in the latter.
    What each is worth: `python benchmarks/recipe.py`.
    """

    epochs: int
    batch_size: int
    crop: tuple[int, int]
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    decay: float = 0.9
    ema: float = 0.02
    dropout: float = 0.0
    dice: float = 1.0
    class_weights: bool = True
    validate_every: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step: linear warm-up, then polynomial decay (Chen et al. 2017, DeepLab)."""
        warmup = max(1, round(self.warmup * steps))
        return self.learning_rate * min((step + 1) / warmup, (1 - step / steps) ** self.decay)


class SegmentationLoss(nn.Module):
    """Cross-entropy plus ``dice_weight`` times the Dice loss, over the pixels that are not void.

    class_weights (C,): for cross-entropy with C >= 3 classes; two classes share one logit and have none.
    """

    def __init__(self, num_outputs: int, class_weights: Tensor | None = None, *, dice_weight: float = 1.0) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.register_buffer("class_weights", class_weights if num_outputs > 1 else None)
        self.dice = DiceLoss("binary" if num_outputs == 1 else "multiclass", smooth=1.0, ignore_index=IGNORE_INDEX)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits (N, C, H, W), labels int64 (N, H, W) -> a scalar; 0 where all is void."""
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
    """float32 (C,): 1 / ln(1.10 + share), which favours rare classes mildly (Paszke et al. 2016, ENet)."""
    return (1 / torch.log(1.10 + shares)).float()


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the parts of a batch that all processes hold, (n, C, H, W) each: together they train as one would.

    torch's SyncBatchNorm does the same, but on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        processes = torch.distributed.get_world_size()
        values = x.to(self.running_mean)  # of bfloat16, sums would lose digits
        mean = distributed.all_reduce(values.mean(dim=(0, 2, 3), keepdim=True)) / processes
        deviation = values - mean
        variance = distributed.all_reduce(deviation.square().mean(dim=(0, 2, 3), keepdim=True)) / processes
        with torch.no_grad():
            count = processes * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.view(-1), self.momentum)
            self.running_var.lerp_(variance.view(-1) * (count / (count - 1)), self.momentum)
        weight, bias = self.weight.view(1, -1, 1, 1), self.bias.view(1, -1, 1, 1)
        return (deviation * (weight * (variance + self.eps).rsqrt()) + bias).to(x.dtype)

    @staticmethod
    def convert(net: nn.Module) -> None:
        """Make every BatchNorm2d of ``net`` one of these, in place; parameters and averages stay."""
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = GlobalBatchNorm


class _RunState:
    """What Accelerate does not know of: how far the run is, the averaged weights, and the best of them so far."""

    def __init__(self, average: AveragedModel) -> None:
        self.average = average
        self.step = 0
        self.seconds = 0.0
        self.best_score = -math.inf
        self.best_step = 0
        self.best_weights = copy.deepcopy(average.module.state_dict())

    def keep_best(self, score: float) -> None:
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            self.best_weights = copy.deepcopy(self.average.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("step", "seconds", "best_score", "best_step")}
        return {"average": self.average.state_dict(), "best_weights": self.best_weights} | numbers

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])
        for name in ("step", "seconds", "best_score", "best_step", "best_weights"):
            setattr(self, name, state[name])


@dataclass(frozen=True)
class Fit:
    """A finished run: the network with its best averaged weights, and what the record says of it."""

    net: UNet
    record: dict[str, Any]


def fit(
    net: UNet,
    store: PixelStore,
    recipe: Recipe,
    *,
    accelerator: Accelerator,
    validate: Callable[[UNet], float],
    folder: Path,
    resume: bool = False,
    save_every: int = 1,
    title: str = "training",
    names: Sequence[str] = (),
) -> Fit:
    """Train ``net`` on ``store``.

    validate: the score of a network in eval mode, higher is better; the best averaged weights by it are returned.
    folder: where the checkpoint and the history are kept; a kill at any moment loses ``save_every`` epochs at most.
    names: of the store's pictures, for the message about a loss that is not finite.
    Several processes train as one would on the same batches: BatchNorm and loss are those of the whole batch, and only
    dropout differs. Loss and score also go to the accelerator's trackers.
    Raises TrainingError where another run is going on in the folder, where it holds an unfinished one and resume is
    False, where the checkpoint cannot be written, where a batch cannot be shared out evenly, or where the loss is not
    finite, and Interrupted after Ctrl-C, with everything saved.
    """
    folder = Path(folder)
    if recipe.batch_size % accelerator.num_processes:
        raise TrainingError(
            f"a batch of {recipe.batch_size} cannot be shared out evenly among {accelerator.num_processes} processes; "
            f"--batch-size must be a multiple of {accelerator.num_processes}"
        )
    total_classes = net.config.num_classes
    steps_per_epoch = math.ceil(len(store) / recipe.batch_size)
    steps = recipe.epochs * steps_per_epoch
    weights = class_weights(store.class_shares(total_classes)) if recipe.class_weights else None
    loss_function = SegmentationLoss(net.config.num_outputs, weights, dice_weight=recipe.dice)
    loss_function.to(accelerator.device)
    net = net.to(accelerator.device, memory_format=torch.channels_last)
    if accelerator.num_processes > 1:
        GlobalBatchNorm.convert(net)
    dropouts = [module for module in net.modules() if isinstance(module, nn.Dropout)]
    rates = [module.p for module in dropouts]
    for module in dropouts:
        module.p *= recipe.dropout
    optimizer = torch.optim.AdamW(net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    average = AveragedModel(
        net, multi_avg_fn=get_ema_multi_avg_fn(math.exp(-1 / max(1, recipe.ema * steps))), use_buffers=True
    )
    state = _RunState(average)
    model, optimizer = accelerator.prepare(net, optimizer)
    accelerator.register_for_checkpointing(state)

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    losses: list[Tensor] = []
    unsaved: list[dict[str, Any]] = []  # epochs for the history
    model.train()
    with (
        _run_in(folder, accelerator, recipe, state, resume),
        _ctrl_c_is_a_flag() as interrupted,
        tqdm(
            total=steps, initial=state.step, desc=title, disable=not accelerator.is_main_process, dynamic_ncols=True
        ) as bar,
    ):
        started = time.perf_counter() - state.seconds
        while state.step < steps:
            images, labels = _batch(store, recipe, state.step, steps_per_epoch, net, accelerator)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(state.step, steps)
            # A running average of weight 0.01 alone would still be half made of its first value after 70 steps.
            for norm in norms:
                norm.momentum = max(BATCH_NORM_MOMENTUM, 10 / (state.step + 10))
            torch.manual_seed(_seed(recipe.seed, state.step) + accelerator.process_index)  # dropout
            loss = loss_function(of_all_processes(model(images).float(), accelerator), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update_parameters(accelerator.unwrap_model(model))
            losses.append(loss.detach())
            state.step += 1
            state.seconds = time.perf_counter() - started
            bar.update()
            if state.step % 20 == 0 or state.step % steps_per_epoch == 0:  # reading the loss waits for the device
                recent = torch.stack(losses[-20:]).cpu()
                if not recent.isfinite().all():
                    bad = state.step - len(recent) + int(recent.isfinite().logical_not().nonzero()[0])
                    indices = _batch_indices(len(store), recipe, bad, steps_per_epoch).tolist()
                    pictures = ", ".join(names[i] if names else str(i) for i in indices)
                    raise TrainingError(
                        f"the loss is not finite at step {bad + 1} (epoch {bad // steps_per_epoch + 1}), with the "
                        f"pictures {pictures}. The epoch before is saved. A lower --learning-rate usually mends it."
                    )
                recent = recent.mean().item()
                bar.set_postfix_str(f"loss {recent:.3f}, best {max(0, state.best_score):.3f}", refresh=False)
            if state.step % steps_per_epoch == 0:
                epoch = state.step // steps_per_epoch
                entry = {"epoch": epoch, "step": state.step, "loss": torch.stack(losses).mean().item()}
                losses.clear()
                if epoch % recipe.validate_every == 0 or epoch == recipe.epochs:
                    entry["score"] = validate(average.module)
                    state.keep_best(entry["score"])
                accelerator.log({name: entry[name] for name in ("loss", "score") if name in entry}, step=state.step)
                entry["seconds"] = state.seconds = round(time.perf_counter() - started, 1)
                unsaved.append(entry)
                if epoch % save_every == 0 or epoch == recipe.epochs:
                    _save_checkpoint(accelerator, folder, unsaved)
                    unsaved.clear()
            if interrupted():
                _save_checkpoint(accelerator, folder, unsaved)
                raise Interrupted(f"stopped at step {state.step} of {steps}; everything is saved in {folder}")

    best = accelerator.unwrap_model(model)
    best.load_state_dict(state.best_weights)
    for module, rate in zip(dropouts, rates, strict=True):
        module.p = rate
    record = {
        "recipe": dataclasses.asdict(recipe),
        "epochs": recipe.epochs,
        "steps": steps,
        "pictures_seen": steps * recipe.batch_size,
        "best_step": state.best_step,
        "seconds": round(state.seconds),
        "seed": recipe.seed,
        "precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
    }
    return Fit(best.eval(), record)


def finish(folder: Path) -> None:
    """Drop a run's checkpoint, after its bundle is saved: a new run may use the folder. The history stays."""
    (Path(folder) / FINISHED_FILE).touch()
    for path in _checkpoints(Path(folder)):
        shutil.rmtree(path, ignore_errors=True)


def is_finished(folder: Path) -> bool:
    """Has the last run in ``folder`` come to its end?"""
    return (Path(folder) / FINISHED_FILE).exists()


def make_accelerator(tracker: str | None = None) -> Accelerator:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere; `accelerate launch` may say otherwise.

    tracker: "trackio" or "tensorboard", which then gets loss and score. Raises TrainingError where it is not installed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION") or ("bf16" if has_native_bfloat16(device) else "no")
    if tracker and importlib.util.find_spec(tracker) is None:
        raise TrainingError(f"{tracker} is not installed; get it with `pip install {tracker}`, or leave --track out")
    return Accelerator(mixed_precision=precision, log_with=tracker, project_dir="runs" if tracker else None)


def evaluate(
    segmenter: Segmenter,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> ConfusionMatrix:
    """Count over a whole split, void left out.

    size: (h, w) to which pictures and truths are brought first, to stand beside a result that was measured so; None for
    each picture's own.
    """
    empty = ConfusionMatrix(len(segmenter.bundle.class_names))
    return sum(evaluate_each(segmenter, pairs, size=size, progress=progress), empty)


def evaluate_each(
    segmenter: Segmenter,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> Iterator[ConfusionMatrix]:
    """The counts of one picture after the other, as ``evaluate`` sums them."""
    for image, truth in tqdm(pairs, "evaluating", leave=False, disable=None if progress else True):
        if size is not None:
            h, w = size
            image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
            truth = np.asarray(Image.fromarray(truth).resize((w, h), Image.Resampling.NEAREST))
        confusion = ConfusionMatrix(len(segmenter.bundle.class_names))
        confusion.update(truth, segmenter(image).label_map)
        yield confusion


def scores(confusion: ConfusionMatrix, class_names: Sequence[str], pictures: int) -> dict[str, Any]:
    """What a bundle stores of an evaluation; a class that never occurs has None."""

    def by_class(values: np.ndarray) -> dict[str, float | None]:
        return {n: None if math.isnan(v) else round(float(v), 4) for n, v in zip(class_names, values, strict=True)}

    return {
        "miou": round(confusion.miou(), 4),
        "mean_dice": round(confusion.mean_dice(), 4),
        "pixel_accuracy": round(confusion.pixel_accuracy(), 4),
        "iou": by_class(confusion.iou()),
        "dice": by_class(confusion.dice()),
        "pictures": pictures,
    }


def _seed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step


def _batch_indices(pictures: int, recipe: Recipe, step: int, steps_per_epoch: int) -> Tensor:
    """int64 (batch_size,): which pictures a step learns from; over an epoch every one comes up."""
    epoch, position = divmod(step, steps_per_epoch)
    order = torch.randperm(pictures, generator=torch.Generator().manual_seed(_seed(recipe.seed, epoch)))
    # The last batch of an epoch is filled from its start, so that every batch has the same size.
    return order[torch.arange(position * recipe.batch_size, (position + 1) * recipe.batch_size) % pictures]


def _batch(
    store: PixelStore, recipe: Recipe, step: int, steps_per_epoch: int, net: UNet, accelerator: Accelerator
) -> tuple[Tensor, Tensor]:
    """The step's batch: this process's part of the normalised images, and the labels of all of them."""
    generator = torch.Generator().manual_seed(_seed(recipe.seed, step) + 1)
    crop = net.config.output_size(net.config.input_size(recipe.crop))
    indices = _batch_indices(len(store), recipe, step, steps_per_epoch)
    images, labels = store.batch(
        indices, crop, margin=net.config.margin, augmentation=recipe.augmentation, generator=generator
    )
    part = images.chunk(accelerator.num_processes)[accelerator.process_index]
    return store.preprocessing.normalise(part).contiguous(memory_format=torch.channels_last), labels


def of_all_processes(x: Tensor, accelerator: Accelerator) -> Tensor:
    """The parts (n, ...) that the processes hold, one after the other; the gradient finds its way back to each.

    Every process then has the whole batch's loss, whose gradient is the mean over processes, which is what DDP takes.
    """
    return torch.cat(distributed.all_gather(x)) if accelerator.num_processes > 1 else x


@contextmanager
def _run_in(folder: Path, accelerator: Accelerator, recipe: Recipe, state: _RunState, resume: bool) -> Iterator[None]:
    """Have ``folder`` for this run alone, begun anew or, with ``resume``, where its checkpoint left off."""
    lock = FileLock(folder / LOCK_FILE, timeout=0)  # the system lets go of it however the process ends
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise TrainingError(
                f"another run is going on in {folder}; wait for its end, stop it, or name another place with --runs"
            ) from error
    try:
        _start_or_resume(accelerator, folder, recipe, state, resume)
        yield
    finally:
        lock.release()


def _start_or_resume(accelerator: Accelerator, folder: Path, recipe: Recipe, state: _RunState, resume: bool) -> None:
    checkpoint, _, previous = _checkpoints(folder)
    if accelerator.is_main_process:
        if is_finished(folder):
            finish(folder)  # what a kill left of it
        elif previous.exists() and not checkpoint.exists():
            previous.rename(checkpoint)  # a kill fell between the two renames of _save_checkpoint
    accelerator.wait_for_everyone()
    written = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if checkpoint.exists():
        if not resume:
            raise TrainingError(f"{folder} holds an unfinished run; go on with --resume, or delete the folder")
        begun = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
        changed = [f"{n}: {begun.get(n)} then, {written[n]} now" for n in written if begun.get(n) != written[n]]
        if changed:
            raise TrainingError(
                f"the run in {folder} was begun with other settings ({'; '.join(changed)}); resume it with the same "
                "flags, or delete the folder to begin anew"
            )
        accelerator.load_state(str(checkpoint))
        if accelerator.is_main_process:
            _forget_epochs_after(state.step, folder / HISTORY_FILE)
    elif accelerator.is_main_process:
        for leftover in (HISTORY_FILE, FINISHED_FILE):
            (folder / leftover).unlink(missing_ok=True)
        (folder / RECIPE_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    accelerator.wait_for_everyone()


def _forget_epochs_after(step: int, history: Path) -> None:
    """Drop lines written after the checkpoint was, and half a line: those epochs are trained again."""
    kept = []
    for line in history.read_text(encoding="utf-8").splitlines() if history.exists() else ():
        with suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    partial = history.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(history)


def _checkpoints(folder: Path) -> tuple[Path, Path, Path]:
    """The checkpoint, the one being written, and the one before it."""
    return tuple(folder / f"{CHECKPOINT_FOLDER}{suffix}" for suffix in ("", ".partial", ".previous"))


def _save_checkpoint(accelerator: Accelerator, folder: Path, epochs: Sequence[dict[str, Any]]) -> None:
    """Write beside the old checkpoint, then swap: at every moment one complete checkpoint has a name.

    epochs: lines for the history. Raises TrainingError where the disk does not take them.
    """
    checkpoint, partial, previous = _checkpoints(folder)
    if accelerator.is_main_process:
        for leftover in (partial, previous):
            shutil.rmtree(leftover, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        if accelerator.is_main_process:
            with (folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in epochs)
        accelerator.save_state(str(partial))
    except (OSError, SafetensorError, RuntimeError) as error:  # torch's writer raises the last
        raise TrainingError(
            f"the checkpoint could not be written to {folder} ({str(error).splitlines()[0]}); is the disk full? What "
            "was saved before is whole: free some space, then go on with --resume"
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if checkpoint.exists():
            checkpoint.rename(previous)
        partial.rename(checkpoint)
        shutil.rmtree(previous, ignore_errors=True)
    accelerator.wait_for_everyone()


@contextmanager
def _ctrl_c_is_a_flag() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of the step, so that what is saved is whole; a second one stops at once."""
    pressed: list[int] = []

    def handler(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, previous)
