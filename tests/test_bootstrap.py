"""Changes with confidence intervals: how often the alarm is false, and what is found."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from fastpost import bootstrap

PAIRS = 400

Draw = Callable[[random.Random], float]

DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng: math.exp(rng.gauss(0, 0.05)),
    "skewed": lambda rng: math.exp(rng.gammavariate(1, 0.05)),
    "two modes": lambda rng: math.exp(rng.gauss(0, 0.02) + rng.choice((0, 0.1))),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_RESAMPLES", 400)


def alarms(draw: Draw, runs: int, shift: float = 1.0) -> float:
    """Return how often a difference is shown between two sides of so many runs."""
    rng = random.Random(2026)
    shown = 0
    for _ in range(PAIRS):
        change = bootstrap.change([draw(rng) for _ in range(runs)], [shift * draw(rng) for _ in range(runs)])
        assert change is not None
        shown += change.shown
    return shown / PAIRS


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_of_one_distribution_at_most_a_twentieth_are_called_different(name: str, runs: int) -> None:
    assert alarms(DISTRIBUTIONS[name], runs) <= 0.05


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_shifted_ones_are_found(name: str) -> None:
    assert alarms(DISTRIBUTIONS[name], 5, shift=1.25) > 0.9
    assert alarms(DISTRIBUTIONS[name], 10, shift=0.8) > 0.95


def test_the_change_is_relative_and_inside_its_interval() -> None:
    change = bootstrap.change([100, 101, 99, 100], [110, 111, 109, 110])
    assert change is not None
    assert change.change == pytest.approx(0.1, abs=0.001)
    assert 0 < change.low < change.change < change.high
    assert change.shown


def test_both_ways_it_is_the_same() -> None:
    one, other = [100.0, 103.0, 98.0, 101.0], [90.0, 93.0, 88.0, 94.0]
    forth, back = bootstrap.change(one, other), bootstrap.change(other, one)
    assert forth is not None
    assert back is not None
    assert (1 + forth.change) * (1 + back.change) == pytest.approx(1)
    assert forth == bootstrap.change(one, other)


def test_equal_values_have_no_spread() -> None:
    assert bootstrap.change([5.0] * 3, [5.0] * 3) == (0.0, 0.0, 0.0)
    change = bootstrap.change([5.0] * 3, [6.0] * 3)
    assert change is not None
    assert change.shown


@pytest.mark.parametrize("few", [[], [1.0], [1.0, 2.0], [1.0, 2.0, 0.0]])
def test_too_few_say_nothing(few: list[float]) -> None:
    assert bootstrap.change(few, [1.0, 2.0, 3.0]) is None
    assert bootstrap.change([1.0, 2.0, 3.0], few) is None
