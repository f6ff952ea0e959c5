"""How many connections `auto` wants: the policy alone, fed with samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost.growth import INTERVAL, LIMIT, Growth, Sample


def sample(growth: Growth, octets: float = 0.0, **known: float) -> Sample:
    return Sample(
        **{
            "octets": octets,
            "answers": 0.0,
            "starved": 0.0,
            "closed": 0.0,
            "live": growth.wanted,
            "busy": growth.wanted,
            "open": growth.wanted,
            "spare": 1.0,
            "far": False,
            **known,
        }  # type: ignore[arg-type]
    )


def steps(growth: Growth, seconds: float, octets: float = 0.0, **known: float) -> int:
    for _ in range(round(seconds / INTERVAL)):
        growth.step(sample(growth, octets, **known))
    return growth.wanted


def in_step(growth: Growth, seconds: float, **known: float) -> list[float]:
    """Throughput is in step with the number of windows; returns after how many seconds each number came."""
    changes = []
    for step in range(1, round(seconds / INTERVAL) + 1):
        before = growth.wanted
        if growth.step(sample(growth, 1e6 * before, **known)) != before:
            changes.append(round(step * INTERVAL, 3))
    return changes


def test_one_where_nothing_waits() -> None:
    assert steps(Growth(8), 25, 1e6, closed=0.4, starved=0.4) == 1


def test_doubles_while_each_step_brings_more() -> None:
    growth = Growth(8)
    changes = in_step(growth, 5, closed=0.85)
    # 0.3 s of such a window make sure of half of half a second.
    assert changes == [0.3, 1.05, 1.8]
    assert growth.wanted == 8


def test_goes_to_the_most_at_once_where_the_window_is_hardly_ever_open() -> None:
    growth = Growth(8)
    assert in_step(growth, 1.5, closed=0.99) == [0.3]
    assert growth.wanted == 8


def test_half_a_second_decides_where_it_is_closed_for_little_more_than_half_of_it() -> None:
    growth = Growth(8)
    assert in_step(growth, 0.6, closed=0.52) == [0.5]
    assert growth.wanted == 2


def test_many_that_wait_for_a_stream_for_a_moment_are_no_reason() -> None:
    growth = Growth(8)
    steps(growth, 0.25, 1e6, starved=40.0)
    assert steps(growth, 0.5, 1e6) == 1


def test_a_leap_must_bring_what_its_doublings_would_and_is_not_tried_twice() -> None:
    growth = Growth(8)
    seen = set()
    for _ in range(5000):
        growth.step(sample(growth, 1e6 * (1.0 if growth.wanted == 1 else 1.3), closed=0.99))
        seen.add(growth.wanted)
        if growth.wanted == 2:
            break
    assert seen == {1, 8, 2}


def test_waiting_for_streams_is_a_reason_too() -> None:
    growth = Growth(8)
    changes = []
    for step in range(1, 101):
        before = growth.wanted
        growth.step(sample(growth, 1e3, answers=100.0 * growth.wanted, starved=10.0))
        changes += [step] if growth.wanted != before else []
    assert growth.wanted == 8
    # Half a second: answers are what it goes by, and they take their time.
    assert changes[0] == 10


def test_a_step_that_brings_no_octets_goes_back_though_the_first_answers_came_after_it() -> None:
    """In the first 0.3 s of a connection hardly any answer can have come: that there are some later proves nothing."""
    growth = Growth(8)
    seen = []
    for step in range(40):
        answers = 100.0 if step > 3 else 0.0
        growth.step(sample(growth, 1e6, answers=answers, closed=0.95))
        seen.append(growth.wanted)
    assert 8 in seen
    assert seen[-1] == 1


def test_goes_back_when_a_step_brings_nothing_and_tries_ever_more_rarely() -> None:
    growth = Growth(8)
    tries = 0
    for _ in range(5000):
        before = growth.wanted
        growth.step(sample(growth, 1e6, closed=0.85))
        tries += growth.wanted > before
        assert growth.wanted <= 2
    assert 3 <= tries <= 7


def test_no_verdict_before_the_new_connections_are_there() -> None:
    growth = Growth(8)
    steps(growth, 0.3, 1e6, closed=0.85)
    assert growth.wanted == 2
    assert steps(growth, 12, 0.0, closed=0.85, live=1) == 2


def test_connections_without_work_are_given_up() -> None:
    growth = Growth(8)
    in_step(growth, 3, closed=0.85)
    assert growth.wanted == 8
    assert steps(growth, 1.95, busy=1) == 8
    assert steps(growth, 0.05, busy=1) == 1


def test_never_more_than_asked_for() -> None:
    growth = Growth(3)
    in_step(growth, 10, closed=0.85)
    assert growth.wanted == 3


rates = st.floats(0, 1e12)


samples = st.builds(
    Sample, rates, rates, st.floats(0, 1e6), st.floats(0, 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99)
)


@given(st.integers(1, 50), st.lists(samples))
def test_stays_in_bounds_whatever_is_measured(most: int, samples: list[Sample]) -> None:
    growth = Growth(most)
    for one in samples:
        assert 1 <= growth.step(one) <= min(most, LIMIT)


def test_uploads_stay_free_to_move_until_it_is_decided() -> None:
    growth = Growth(8)
    ahead = [growth.windows_ahead]
    for seconds, closed in ((0.5, 0.1), (0.3, 0.85), (0.75, 0.85)):
        steps(growth, seconds, 1e6, closed=closed)
        ahead.append(growth.windows_ahead)
    assert ahead == [1, 0, 1, 0], "at first, no need, on trial, at rest"
    assert growth.wanted == 1


@pytest.mark.parametrize(
    ("spare", "begins"),
    [(0.0, 1), (0.3, 1), (0.36, 2), (0.45, 2), (0.55, 8), (1.0, 8)],
)
def test_who_has_no_time_for_more_connections_begins_none(spare: float, begins: int) -> None:
    """What they would have to bring takes that much, and several take a third more than one."""
    growth = Growth(8)
    assert steps(growth, 0.35, 1e6, closed=1.0, spare=spare) == begins
    # Nor where it is streams that are waited for.
    assert steps(Growth(8), 0.55, 1e6, starved=50.0, answers=100.0, spare=spare) == min(begins, 2)


def test_a_busy_thread_is_no_reason_over_a_long_line_or_where_answers_are_waited_for() -> None:
    """Somebody else's work may be what keeps it busy, and more connections cost hardly any time there."""
    assert steps(Growth(8), 0.35, 1e6, closed=1.0, spare=0.0, far=True) == 8
    assert steps(Growth(8), 1.0, 0.0, starved=100.0, answers=20.0, spare=0.0) == 8
    assert steps(Growth(8), 1.0, 1e6, starved=100.0, answers=20.0, spare=0.0) == 1


def test_growth_ends_where_the_time_does() -> None:
    growth = Growth(8)
    in_step(growth, 1.2, closed=0.85)
    assert growth.wanted == 4
    in_step(growth, 5, closed=0.85, spare=0.1)
    assert growth.wanted == 4, "that step has brought what it should: it is kept"
    in_step(growth, 2, closed=0.85, spare=0.14)
    assert growth.wanted == 8, "beyond one, more are no dearer"


def test_all_begin_at_the_most_where_windows_open() -> None:
    growth = Growth(2)
    in_step(growth, 5, closed=0.85)
    assert growth.wanted == 2
    steps(growth, 0.5, 1e6, closed=0.5)
    assert not growth.windows_ahead


def test_uploads_stay_free_to_move_where_several_connections_wait_for_their_windows() -> None:
    growth = Growth(8)
    in_step(growth, 5, closed=0.99)
    assert growth.wanted == 8
    assert growth.windows_ahead == 4
    steps(growth, 0.15, 1e6, closed=0.05)
    assert growth.windows_ahead == 4, "files that end at the same time are no reason"
    steps(growth, 0.5, 1e6, closed=0.5)
    assert not growth.windows_ahead


def test_a_lower_limit_holds_at_once_and_for_good() -> None:
    growth = Growth(8)
    in_step(growth, 5, closed=0.85)
    growth.limit(3)
    assert growth.wanted == 3
    for _ in range(100):
        assert growth.step(sample(growth, 1e6 * growth.wanted, closed=0.85)) <= 3


def test_a_limit_is_never_raised() -> None:
    growth = Growth(8)
    growth.limit(2)
    growth.limit(5)
    in_step(growth, 5, closed=0.85)
    assert growth.wanted == 2


def test_a_step_that_is_taken_back_stays_within_the_limit() -> None:
    growth = Growth(8)
    in_step(growth, 1.2, closed=0.85)
    assert growth.wanted == 4, "on trial: from 2"
    growth.limit(1)
    assert steps(growth, 5, 1.0, closed=0.85) == 1


def test_a_share_holds_at_once_and_until_the_next_one() -> None:
    """What another process was to have comes back; what the server refuses does not."""
    growth = Growth(8)
    in_step(growth, 5, closed=0.85)
    assert growth.wanted == 8
    growth.share(3)
    assert growth.wanted == 3
    in_step(growth, 10, closed=0.85)
    assert growth.wanted == 3
    growth.share(8)
    in_step(growth, 10, closed=0.85)
    assert growth.wanted == 8
    growth.limit(5)
    growth.share(8)
    in_step(growth, 10, closed=0.85)
    assert growth.wanted == 5


# --- streams that wait for answers which take long ------------------------------------------------


class Slow:
    """A server with so many streams a connection, each answered after `seconds`; `at_once`: so many in all."""

    def __init__(self, seconds: float, streams: int = 1, at_once: int = 1000, files: int = 200) -> None:
        self.growth = Growth(8)
        self.takes = round(seconds / INTERVAL)
        self.streams = streams
        self.at_once = at_once
        self.waiting = files
        self.open: list[int] = []
        self.now = 0
        self.seen: list[tuple[float, int]] = []

    def run(self, seconds: float) -> int:
        for _ in range(round(seconds / INTERVAL)):
            self.now += 1
            done = [due for due in self.open if due <= self.now]
            self.open = [due for due in self.open if due > self.now]
            begun = min(self.growth.wanted * self.streams - len(self.open), self.waiting)
            self.waiting -= begun
            for _ in range(max(begun, 0)):
                # The server works at so many of them at a time, in the order in which they came.
                earlier = self.open[-self.at_once] if len(self.open) >= self.at_once else self.now
                self.open.append(max(earlier, self.now) + self.takes)
            before = self.growth.wanted
            self.growth.step(
                sample(
                    self.growth,
                    1e5 * max(begun, 0),
                    answers=len(done) / INTERVAL,
                    starved=float(min(self.waiting, 50)),
                    open=len(self.open),
                )
            )
            if self.growth.wanted != before:
                self.seen.append((round(self.now * INTERVAL, 2), self.growth.wanted))
        return self.growth.wanted


@pytest.mark.parametrize("seconds", [0.8, 2.0, 5.0])
@pytest.mark.parametrize("streams", [1, 4, 10])
def test_a_step_for_streams_waits_for_the_answers_of_the_new_connections(seconds: float, streams: int) -> None:
    server = Slow(seconds, streams, files=2000)
    assert server.run(8 * seconds) == 8, server.seen
    numbers = [number for _, number in server.seen]
    assert numbers == sorted(numbers), "and none was taken back"


@pytest.mark.parametrize("seconds", [0.8, 2.0])
def test_a_server_that_does_one_thing_at_a_time_is_not_asked_by_more_connections(seconds: float) -> None:
    server = Slow(seconds, at_once=1)
    assert server.run(40 * seconds) == 1, server.seen


def test_all_at_once_where_all_can_be_filled() -> None:
    server = Slow(2.0)
    server.run(5.0)
    assert server.seen == [(2.05, 8)]


def test_no_step_before_it_is_known_what_it_must_bring() -> None:
    server = Slow(30.0)
    assert server.run(29.0) == 1
    assert server.run(3.0) > 1


def test_a_step_that_is_never_answered_is_taken_back() -> None:
    growth = Growth(8)
    for step in range(2000):
        one = sample(growth, 0.0, answers=20.0 * (step == 20), starved=50.0)
        if growth.step(one) == 1 and step > 100:
            break
    assert 40 < step < 700, "after twice what the first answer took, half a minute at most"
