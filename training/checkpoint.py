"""A run's folder always has one complete checkpoint."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch.optim.swa_utils import AveragedModel

CHECKPOINT_FOLDER = "checkpoint"
PREVIOUS_FOLDER = "checkpoint.previous"  # complete, too: a kill may fall between two renames
SETTINGS_FILE = "recipe.json"
HISTORY_FILE = "history.jsonl"
FINISHED_FILE = "finished"
LOCK_FILE = "running.lock"


class TrainingError(RuntimeError):
    """A run cannot start or continue."""


class Interrupted(TrainingError):
    """The run was asked to stop, and everything is saved."""


class RunState:
    """Step, time, averaged weights: Accelerate saves the rest."""

    def __init__(self, average: AveragedModel, budget: float | None, validation: float | None) -> None:
        self.average = average
        self.step = 0
        self.seconds = 0.0
        self.budget = budget  # seconds, of a run that ends after a given time
        self.validation = validation  # seconds that one takes
        self.validated = 0.0  # when that was, in seconds of the run
        self.best_score = -math.inf
        self.best_step = 0
        self.best_weights = copy.deepcopy(average.module.state_dict())

    def keep_best(self, score: float) -> None:
        """Copy the averaged weights if none scored higher."""
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            self.best_weights = copy.deepcopy(self.average.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return vars(self) | {"average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])
        vars(self).update(state | {"average": self.average})


class RunFolder:
    """A run's checkpoint, settings and history on disk."""

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = Path(path), accelerator
        self.checkpoint = self.path / CHECKPOINT_FOLDER
        self.partial, self.previous = self.checkpoint.with_suffix(".partial"), self.path / PREVIOUS_FOLDER

    @contextmanager
    def open(self, settings: Mapping[str, Any], state: RunState, *, resume: bool) -> Iterator[None]:
        """Lock the folder, then start or resume.

        settings: what a resumed run must share with its beginning. state: loaded from the checkpoint.
        Raises TrainingError for another run there, an unfinished one without ``resume``, and other settings.
        """
        lock = FileLock(self.path / LOCK_FILE, timeout=0)  # the system releases it however the process ends
        if self.accelerator.is_main_process:
            self.path.mkdir(parents=True, exist_ok=True)
            _acquire(lock, self.path)
        try:
            self._start_or_resume(settings, state, resume)
            yield
        finally:
            lock.release()

    def _start_or_resume(self, settings: Mapping[str, Any], state: RunState, resume: bool) -> None:
        main = self.accelerator.is_main_process
        if main:
            if is_finished(self.path):
                finish(self.path)  # a kill may have left its checkpoint
            elif self.previous.exists() and not self.checkpoint.exists():
                self.previous.rename(self.checkpoint)  # a kill fell between the two renames of `save`
        self.accelerator.wait_for_everyone()
        if not resume:
            _check_no_checkpoint(self.path)
        if self.checkpoint.exists():
            check_settings(self.path, settings)
            try:
                self.accelerator.load_state(str(self.checkpoint))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # other tensors than the run's, or those of one network more
                raise TrainingError(
                    f"{self.checkpoint} is damaged or of another version; delete {self.path} to start again"
                ) from error
            if main:  # epochs after the checkpoint are trained again
                kept = [json.dumps(entry) + "\n" for entry in read_history(self.path) if entry["step"] <= state.step]
                partial = self.path / (HISTORY_FILE + ".partial")
                partial.write_text("".join(kept), encoding="utf-8")
                partial.replace(self.path / HISTORY_FILE)
        elif main:
            for leftover in (HISTORY_FILE, FINISHED_FILE):
                (self.path / leftover).unlink(missing_ok=True)
            (self.path / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        self.accelerator.wait_for_everyone()

    def save(self, epochs: Sequence[dict[str, Any]]) -> None:
        """Extend the history and swap the checkpoint. Raises TrainingError."""
        main = self.accelerator.is_main_process
        if main:
            for leftover in (self.partial, self.previous):
                shutil.rmtree(leftover, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            if main:
                with (self.path / HISTORY_FILE).open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(entry) + "\n" for entry in epochs)
            self.accelerator.save_state(str(self.partial))
        except (OSError, SafetensorError, RuntimeError) as error:  # torch's writer raises the last
            raise TrainingError(
                f"the checkpoint could not be written to {self.path} ({str(error).splitlines()[0]}); is the disk full? "
                "The checkpoint before it is intact: free some space, then continue with --resume"
            ) from error
        self.accelerator.wait_for_everyone()
        if main:
            if self.checkpoint.exists():
                self.checkpoint.rename(self.previous)
            self.partial.rename(self.checkpoint)
            shutil.rmtree(self.previous, ignore_errors=True)
        self.accelerator.wait_for_everyone()


def check_no_run(folder: Path) -> None:
    """Raise TrainingError where a run goes on or was not finished."""
    if (folder / LOCK_FILE).exists():
        lock = FileLock(folder / LOCK_FILE, timeout=0)
        _acquire(lock, folder)
        lock.release()
    _check_no_checkpoint(folder)


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire()
    except Timeout as error:
        raise TrainingError(
            f"another run is going on in {folder}; wait for its end, stop it, or choose another folder with --runs"
        ) from error


def _check_no_checkpoint(folder: Path) -> None:
    if any((folder / name).exists() for name in (CHECKPOINT_FOLDER, PREVIOUS_FOLDER)) and not is_finished(folder):
        raise TrainingError(f"{folder} holds an unfinished run; add --resume, or delete the folder")


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise TrainingError where a run began with other settings."""
    begun, settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")), json.loads(json.dumps(settings))
    begun.setdefault("training pictures", settings.get("training pictures"))  # runs begun earlier did not note it
    changed = [f"{n}: {begun.get(n)} then, {settings[n]} now" for n in settings if begun.get(n) != settings[n]]
    if changed:
        raise TrainingError(
            f"the run in {folder} was begun with other settings ({'; '.join(changed)}); resume it with the same flags "
            "and pictures, or delete the folder to start again"
        )


def finish(folder: Path) -> None:
    """Delete the checkpoint; the history stays."""
    (folder / FINISHED_FILE).touch()
    for path in folder.glob(f"{CHECKPOINT_FOLDER}*"):
        shutil.rmtree(path, ignore_errors=True)


def is_finished(folder: Path) -> bool:
    """Whether the last run in ``folder`` was completed."""
    return (folder / FINISHED_FILE).exists()


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Of each epoch: epoch, step, loss, seconds, perhaps score."""
    path, entries = folder / HISTORY_FILE, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):  # a kill may have cut a line off
            entries.append(json.loads(line))
    return entries
