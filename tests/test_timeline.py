"""The timeline: every second in some row, in bounded memory."""

from __future__ import annotations

import itertools

import pytest

from fastpost.timeline import LIMIT, Row, Timeline


def row(at: int, ok: int = 10, p99: float = 1.0) -> Row:
    return Row(float(at), 1.0, ok, 1, 2, ok * 100, ok * 110, 0.5, 0.9, p99, p99, p99, {"server": 0.25, "socket": 0.5})


@pytest.mark.parametrize("seconds", [1, 7, LIMIT, LIMIT + 1, 5 * LIMIT + 3])
def test_nothing_is_lost_and_memory_is_bounded(seconds: int) -> None:
    timeline = Timeline()
    for at in range(seconds):
        timeline.add(row(at))
        assert len(timeline.rows) <= LIMIT + 1
    timeline.finish()
    rows = timeline.rows
    assert sum(one.seconds for one in rows) == seconds
    assert [sum(getattr(one, name) for one in rows) for name in ("ok", "failed", "dropped", "payload", "sent")] == [
        10 * seconds, seconds, 2 * seconds, 1000 * seconds, 1100 * seconds,
    ]  # fmt: skip
    assert sum(one.blocked["server"] for one in rows) == pytest.approx(0.25 * seconds)
    for before, after in itertools.pairwise(rows):
        assert before.at + before.seconds == after.at


def test_the_worst_second_stands_for_what_was_joined() -> None:
    joined = row(0, p99=3.0).plus(row(1, p99=70.0)).plus(row(2))
    assert (joined.at, joined.seconds, joined.p99, joined.max) == (0.0, 3.0, 70.0, 70.0)


def test_a_cause_that_comes_later_is_not_lost() -> None:
    early, late = row(0), row(1)._replace(blocked={"server": 0.25, "retry": 0.75})
    assert early.plus(late).blocked == {"server": 0.5, "socket": 0.5, "retry": 0.75}
