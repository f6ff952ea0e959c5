"""sums: what the policy of growth is told of the time that the thread has left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastpost.sums import Sums
from fastpost.tally import Tally


def connection(awake: float = 0.0) -> Any:
    """One that has measured nothing but how long it waited awake (seconds)."""
    plane = SimpleNamespace(
        draining=False,
        open_streams=1,
        responses=0,
        server=None,
        largest_stream_window=0,
        max_concurrent_streams=0,
        blocked=SimpleNamespace(seconds=lambda: {"stream_limit": 0.0}),
        delivery=SimpleNamespace(sent=0),
        window=SimpleNamespace(closed_for=0.0, largest=0, far=False),
        fairness=lambda: (0, 0.0, 0.0, 0.0, 0.0),
        split_time=lambda now: None,
    )
    return SimpleNamespace(awake=awake, session=SimpleNamespace(plane=plane, peer_settings={}))


def test_time_that_is_waited_awake_is_spare() -> None:
    sums, first, second = Sums(Tally()), connection(awake=3.0), connection()
    sums.begin([first, second], now=1.0, cpu=5.0)
    first.awake, second.awake = 3.1, 0.2
    assert sums.sample([first, second], now=2.0, cpu=5.7).spare == pytest.approx(0.6)
    assert sums.sample([first, second], now=3.0, cpu=6.7).spare == pytest.approx(0.0)
    assert sums.sample([first, second], now=5.0, cpu=6.8).spare == pytest.approx(0.95)


def test_it_is_a_part_of_the_time_whatever_clocks_say() -> None:
    """Who waits awake may be kept waiting for his core."""
    sums, one = Sums(Tally()), connection()
    sums.begin([one], now=1.0, cpu=5.0)
    one.awake = 0.9
    assert sums.sample([one], now=2.0, cpu=5.3).spare == 1.0
    assert sums.sample([one], now=3.0, cpu=6.6).spare == 0.0


def test_who_is_far_away_and_what_is_closed_is_told() -> None:
    sums, far, draining = Sums(Tally()), connection(), connection()
    sums.begin([far, draining], now=1.0, cpu=0.0)
    assert not sums.sample([far, draining], now=2.0, cpu=0.0).far
    draining.session.plane.draining = True
    far.session.plane.window.far = True
    far.session.plane.window.closed_for = draining.session.plane.window.closed_for = 0.9
    sample = sums.sample([far, draining], now=3.0, cpu=0.0)
    assert sample.far
    assert sample.closed == 1.0, "of the one that lives no more than all"


def test_what_a_connection_that_is_gone_has_waited_stays_known() -> None:
    sums, first, second = Sums(Tally()), connection(awake=3.0), connection()
    sums.begin([first, second], now=1.0, cpu=5.0)
    first.awake = 3.25
    sums.take(first)
    assert sums.sample([second], now=2.0, cpu=5.5).spare == pytest.approx(0.75)
