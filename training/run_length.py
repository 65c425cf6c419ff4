"""How long a run is: so many epochs, or so many minutes."""

from __future__ import annotations

from dataclasses import dataclass

from .checkpoint import RunState


@dataclass(frozen=True)
class EpochSchedule:
    """A run of a fixed number of steps.

    progress: 0 at the first step, 1 after the last. share: of the progress, what one step makes.
    """

    epochs: int
    steps_per_epoch: int
    validate_every: int
    budget = validation = None  # what a TimeSchedule has

    def steps(self, state: RunState) -> int:
        return self.epochs * self.steps_per_epoch

    def progress(self, state: RunState) -> float:
        return state.step / self.steps(state)

    def share(self, state: RunState) -> float:
        return 1 / self.steps(state)

    def is_over(self, state: RunState) -> bool:
        return state.step >= self.steps(state)

    def is_validation_due(self, state: RunState) -> bool:
        """Whether to validate now that an epoch ends."""
        return state.step // self.steps_per_epoch % self.validate_every == 0 or self.is_over(state)


@dataclass(frozen=True)
class TimeSchedule:
    """A run of a given time, whatever its steps take.

    budget: seconds, with what follows the last step; a resumed run has that of its beginning.
    validation: seconds of one validation, an estimate until one was made. validations_after: how many validations the
    work after the last step is worth: the last one, and the report. overhead: further seconds after the last step.
    """

    budget: float
    validation: float
    validations_after: float
    overhead: float

    def _seconds(self, state: RunState) -> float:
        """For steps and the validations between them."""
        return max(1e-3, state.budget - state.validation * self.validations_after - self.overhead)

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
        wait = max(self._seconds(state) / 12, 8 * state.validation)
        return self.is_over(state) or state.seconds - state.validated >= wait


Schedule = EpochSchedule | TimeSchedule
