"""The learning-rate schedule."""

import dataclasses

import pytest
from runs import RECIPE


def test_learning_rate_rises_then_falls_to_zero():
    recipe = dataclasses.replace(RECIPE, learning_rate=1.0, warmup=0.1)
    rates = [recipe.rate(step / 100, 1 / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.91**0.9, rel=0.02)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[50] == pytest.approx(0.5**0.9)
    assert rates[99] == pytest.approx(0.01**0.9)
    held = dataclasses.replace(recipe, decay=0.0)
    assert [held.rate(step / 100, 1 / 100) for step in (9, 50, 99)] == pytest.approx([1.0, 1.0, 1.0])
