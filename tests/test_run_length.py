"""A run of given minutes ends in time, whatever its steps and validations turn out to take."""

import dataclasses
import json

import pytest
from folders import disc
from runs import RECIPE, Killed, train

from training.augment import PixelStore
from training.run_length import TimeSchedule


class Clock:
    """Time that passes only where a step or a validation says so."""

    now = 1000.0

    def run(self, folder, *, step, validation, budget, guess, after=2.0, overhead=5.0, **options):
        """A run whose steps take ``step(t)`` seconds at time t; returns its result and the seconds with the report."""
        store = PixelStore([disc(36, 44, i) for i in range(6)], None, "cpu")
        batch, started = store.batch, self.now

        def slow_batch(*arguments, **named):
            self.now += step(self.now - started)
            return batch(*arguments, **named)

        def validate(net):
            self.now += validation
            return 0.5

        store.batch = slow_batch
        recipe = dataclasses.replace(RECIPE, minutes=5)
        schedule = TimeSchedule(budget, guess, after, overhead)
        run = train(
            folder,
            store=store,
            recipe=recipe,
            validate=validate,
            schedule=schedule,
            clock=lambda: self.now,
            **options,
        )
        return run, self.now - started + (after - 1) * validation + overhead


@pytest.mark.parametrize(("slower", "guess"), [(1, 30.0), (3, 30.0), (3, 1.0), (0.3, 1.0)])
def test_a_run_of_given_time_ends_within_five_percent(tmp_path, guess, slower):
    """Steps that become three times as slow half-way, and a validation that takes 8 s, whatever was guessed."""
    step = lambda t: 8 * (slower if t > 200 else 1)  # noqa: E731
    fitted, seconds = Clock().run(tmp_path, step=step, validation=8, budget=600, guess=guess)
    assert seconds == pytest.approx(600, rel=0.05)
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert "score" in history[-1], "the last weights are scored"
    validated = sum("score" in entry for entry in history)
    assert 3 <= validated <= 13
    assert fitted.record["steps"] == history[-1]["step"]


def test_an_epoch_longer_than_the_time_is_cut_short_and_scored(tmp_path):
    fitted, seconds = Clock().run(tmp_path, step=lambda t: 50, validation=3, budget=120, guess=3)
    assert fitted.record["steps"] in (1, 2)
    assert seconds <= 126


def test_the_learning_rate_reaches_zero_when_the_time_is_over(tmp_path, monkeypatch):
    rates = []
    rate = type(RECIPE).rate
    monkeypatch.setattr(type(RECIPE), "rate", lambda recipe, *given: rates.append(rate(recipe, *given)) or rates[-1])
    Clock().run(tmp_path, step=lambda t: 5, validation=4, budget=300, guess=4)
    assert max(rates) > 0.9 * RECIPE.learning_rate
    assert rates[-1] < 0.1 * RECIPE.learning_rate
    assert rates.index(max(rates)) < len(rates) / 4


def test_a_killed_run_of_given_time_uses_up_what_is_left(tmp_path):
    clock = Clock()

    def step(seconds):
        if seconds > 150:
            raise Killed
        return 6

    with pytest.raises(Killed):
        clock.run(tmp_path, step=step, validation=4, budget=300, guess=4)
    clock.now += 10_000  # the machine was off
    _, seconds = clock.run(tmp_path, step=lambda t: 6, validation=4, budget=1, guess=4, resume=True)
    assert 130 <= seconds <= 175, "the budget is the one it was begun with"
