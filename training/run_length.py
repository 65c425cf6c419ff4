"""How long a run is: so many epochs, or so many minutes."""

from __future__ import annotations

from dataclasses import dataclass

from .checkpoint import RunState


@dataclass
class EpochSchedule:
    """A run of a fixed number of steps."""

    epochs: int
    steps_per_epoch: int
    validate_every: int

    def steps(self, state: RunState) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def progress(self, state: RunState) -> float:
        """0 at the first step, 1 after the last."""
        return state.step / self.steps(state)

    def share(self, state: RunState) -> float:
        """The progress that one step makes."""
        return 1 / self.steps(state)

    def is_over(self, state: RunState) -> bool:
        """Whether the last step was made."""
        return state.step >= self.steps(state)

    def is_validation_due(self, state: RunState) -> bool:
        """Whether to validate at the end of the epoch that ends now."""
        return state.step // self.steps_per_epoch % self.validate_every == 0 or self.is_over(state)

    def note_validation(self, seconds: float, state: RunState) -> None:
        """Learn what a validation takes."""


@dataclass
class TimeSchedule:
    """A run that ends after a given time, whatever its steps take.

    Progress is the share of the time that has passed, so the learning rate reaches 0 in time without a guess at the
    number of steps. ``state.budget`` holds the seconds of the run and of what follows its last step.

    validation: seconds of one validation, an estimate until one was made. validations_after: how many validations the
    work after the last step is worth: the last one, and the report. overhead: further seconds after the last step.
    """

    validation: float
    validations_after: float
    overhead: float
    last: float = 0.0  # validation, in seconds of the run

    def _seconds(self, state: RunState) -> float:
        """For steps and the validations between them."""
        return max(1e-3, state.budget - self.validation * self.validations_after - self.overhead)

    def steps(self, state: RunState) -> int:
        return max(state.step, round(state.step / max(1e-6, self.progress(state))))

    def progress(self, state: RunState) -> float:
        return min(1.0, state.seconds / self._seconds(state))

    def share(self, state: RunState) -> float:
        return min(1.0, state.seconds / max(1, state.step) / self._seconds(state))

    def is_over(self, state: RunState) -> bool:
        return state.step > 0 and state.seconds + state.seconds / state.step >= self._seconds(state)

    def is_validation_due(self, state: RunState) -> bool:
        # About twelve in a run, but at most an eighth of the time.
        wait = max(self._seconds(state) / 12, 8 * self.validation)
        return self.is_over(state) or state.seconds - self.last >= wait

    def note_validation(self, seconds: float, state: RunState) -> None:
        self.validation, self.last = seconds, state.seconds


Schedule = EpochSchedule | TimeSchedule
