"""How many connections `auto` wants: the policy alone, fed with samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastpost.growth import LIMIT, Growth, Sample


def sample(growth: Growth, octets: float = 0.0, **known: float) -> Sample:
    return Sample(
        **{
            "octets": octets,
            "answers": 0.0,
            "starved": 0.0,
            "closed": 0.0,
            "live": growth.wanted,
            "busy": growth.wanted,
            **known,
        }  # type: ignore[arg-type]
    )


def steps(growth: Growth, count: int, octets: float = 0.0, **known: float) -> int:
    for _ in range(count):
        growth.step(sample(growth, octets, **known))
    return growth.wanted


def test_one_where_nothing_waits() -> None:
    assert steps(Growth(8), 100, 1e6, closed=0.4, starved=0.4) == 1


def test_doubles_while_each_step_brings_more() -> None:
    growth = Growth(8)
    seen = []
    for _ in range(20):
        # Throughput is in step with the number of windows.
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.9))
        seen.append(growth.wanted)
    assert seen[:12] == [1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8]
    assert set(seen[12:]) == {8}


def test_goes_to_the_most_at_once_where_the_window_is_hardly_ever_open() -> None:
    growth = Growth(8)
    seen = []
    for _ in range(6):
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.99))
        seen.append(growth.wanted)
    assert seen == [1, 8, 8, 8, 8, 8]


def test_a_leap_must_bring_what_its_doublings_would_and_is_not_tried_twice() -> None:
    growth = Growth(8)
    seen = set()
    for _ in range(1000):
        growth.step(sample(growth, 1e6 * (1.0 if growth.wanted == 1 else 1.3), closed=0.99))
        seen.add(growth.wanted)
        if growth.wanted == 2:
            break
    assert seen == {1, 8, 2}


def test_waiting_for_streams_is_a_reason_too() -> None:
    growth = Growth(8)
    for _ in range(20):
        growth.step(sample(growth, 1e3, answers=100.0 * growth.wanted, starved=10.0))
    assert growth.wanted == 8


def test_goes_back_when_a_step_brings_nothing_and_tries_ever_more_rarely() -> None:
    growth = Growth(8)
    tries = 0
    for _ in range(1000):
        before = growth.wanted
        growth.step(sample(growth, 1e6, closed=0.9))
        tries += growth.wanted > before
        assert growth.wanted <= 2
    assert 3 <= tries <= 7


def test_no_verdict_before_the_new_connections_are_there() -> None:
    growth = Growth(8)
    steps(growth, 2, 1e6, closed=0.9)
    assert growth.wanted == 2
    assert steps(growth, 50, 0.0, closed=0.9, live=1) == 2


def test_connections_without_work_are_given_up() -> None:
    growth = Growth(8)
    for _ in range(12):
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.9))
    assert growth.wanted == 8
    assert steps(growth, 7, busy=1) == 8
    assert steps(growth, 1, busy=1) == 1


def test_never_more_than_asked_for() -> None:
    growth = Growth(3)
    for _ in range(40):
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.9))
    assert growth.wanted == 3


rates = st.floats(0, 1e12)


@given(
    st.integers(1, 50),
    st.lists(st.builds(Sample, rates, rates, st.floats(0, 1e6), st.floats(0, 1), st.integers(0, 9), st.integers(0, 9))),
)
def test_stays_in_bounds_whatever_is_measured(most: int, samples: list[Sample]) -> None:
    growth = Growth(most)
    for one in samples:
        assert 1 <= growth.step(one) <= min(most, LIMIT)


def test_streams_are_spared_until_it_is_decided() -> None:
    growth = Growth(8)
    assert growth.sparing
    steps(growth, 2, 1e6, closed=0.1)
    assert not growth.sparing
    steps(growth, 2, 1e6, closed=0.9)
    assert growth.wanted == 2
    assert growth.sparing, "on trial"
    steps(growth, 3, 1e6, closed=0.9)
    assert growth.wanted == 1
    assert not growth.sparing, "it rests"


def test_nothing_is_spared_at_the_most_where_windows_open() -> None:
    growth = Growth(2)
    for _ in range(20):
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.9))
    assert growth.wanted == 2
    assert not growth.sparing


def test_uploads_stay_free_to_move_where_several_connections_wait_for_their_windows() -> None:
    growth = Growth(8)
    for _ in range(20):
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.99))
    assert growth.wanted == 8
    assert growth.sparing
    steps(growth, 2, 1e6, closed=0.5)
    assert not growth.sparing


def test_a_lower_limit_holds_at_once_and_for_good() -> None:
    growth = Growth(8)
    for _ in range(20):
        growth.step(sample(growth, 1e6 * growth.wanted, closed=0.9))
    growth.limit(3)
    assert growth.wanted == 3
    for _ in range(100):
        assert growth.step(sample(growth, 1e6 * growth.wanted, closed=0.9)) <= 3
