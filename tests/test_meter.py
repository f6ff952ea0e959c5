"""The meter: HdrHistogram's classes in C, and what counts between the two ends of the window."""

from __future__ import annotations

import pickle
import random

import pytest
from h2_judge import Judge, Wire, session
from hypothesis import given
from hypothesis import strategies as st

from fastpost import hdr
from fastpost._meter import Counted, Histogram, Meter
from fastpost._payload import Payload
from fastpost._table import Attempt


@given(st.lists(st.integers(0, 3_600_000_000), min_size=1, max_size=200))
def test_classes_are_those_of_hdrhistogram(values: list[int]) -> None:
    mine = Histogram()
    theirs = hdr.histogram(mine)
    for value in values:
        mine.record(value / 1e6)
        theirs.record_value(value)
    made = hdr.histogram(mine)
    for share in (1, 25, 50, 90, 99, 99.9, 100):
        assert made.get_value_at_percentile(share) == theirs.get_value_at_percentile(share)
    assert mine.largest == max(values)
    assert mine.total == len(values)


@given(st.lists(st.integers(0, 3_600_000_000), max_size=50), st.lists(st.integers(0, 3_600_000_000), max_size=50))
def test_two_of_other_processes_make_one(first: list[int], second: list[int]) -> None:
    whole, together = Histogram(), Histogram()
    for values in (first, second):
        part = Histogram()
        for value in values:
            part.record(value / 1e6)
            together.record(value / 1e6)
        whole.merge(pickle.loads(pickle.dumps(part)))
    assert (whole.total, whole.largest) == (together.total, together.largest)
    assert whole.counts() == together.counts()
    assert whole.mean() == pytest.approx(together.mean())


@given(st.integers(0, 3_600_000_000))
def test_a_value_is_kept_to_three_digits(value: int) -> None:
    mine = Histogram()
    mine.record(value / 1e6)
    ((kept, count),) = mine.counts()
    assert count == 1
    assert abs(kept - value) <= max(value / 1000, 0)


def test_quantiles_are_nearest_ranks() -> None:
    mine = Histogram()
    for value in range(1, 1001):
        mine.record(value / 1e3)
    assert mine.quantile(0.5) == pytest.approx(0.5, rel=1e-3)
    assert mine.quantile(0.99) == pytest.approx(0.99, rel=1e-3)
    assert mine.quantile(1.0) == pytest.approx(1.0, rel=1e-3)
    assert mine.mean() == pytest.approx(0.5005, rel=1e-6)


def test_extremes_are_kept_within_its_range() -> None:
    mine = Histogram()
    for value in (-1.0, 0.0, 1e9):
        mine.record(value)
    assert [count for _, count in mine.counts()] == [2, 1]
    assert mine.largest == 3_600_000_000
    assert mine.quantile(1.0) == pytest.approx(3600.0, rel=1e-3)


def test_of_nothing_there_is_nothing() -> None:
    mine = Histogram()
    assert (mine.quantile(0.99), mine.mean(), mine.counts()) == (0.0, 0.0, [])
    assert set(hdr.figures(mine)[0].values()) == {None}


def ended(count: int, status: bytes = b"201") -> list[Attempt]:
    """Return attempts that have gone through a session; the wire's clock begins at 1 s and steps by 1 ms."""
    payload = Payload(65_536)
    wire = Wire(session(), Judge(status=status))
    wire.client.submit([Attempt(None, b"", b"/x", content=payload.excerpt(0, 100), due=0.5) for _ in range(count)])
    wire.run()
    return wire.finished


def test_it_counts_what_ends_in_the_window() -> None:
    done = ended(10)
    at = done[0].finished
    early, right, late = Meter(), Meter(), Meter()
    early.begin(0.0)
    early.end(at)
    late.begin(at + 1)
    right.begin(at)
    for meter in (early, right, late, Meter()):
        assert meter.record(done) == []
    assert [meter.ended for meter in (early, right, late)] == [0, 10, 0]
    counted = right.cut()
    assert counted.payload == 1000
    assert counted.statuses() == {201: 10}


def test_latency_counts_from_when_it_was_due_and_the_response_from_the_last_octet() -> None:
    done = ended(1)
    meter = Meter()
    meter.begin(0.0)
    meter.record(done)
    counted = meter.cut()
    assert counted.latency.quantile(1.0) == pytest.approx(done[0].finished - 0.5, rel=1e-3)
    assert counted.response.quantile(1.0) == pytest.approx(done[0].finished - done[0].body_sent, rel=1e-3)
    assert done[0].started <= done[0].body_sent <= done[0].finished


def test_failures_are_told_and_have_no_latency() -> None:
    meter = Meter()
    meter.begin(0.0)
    assert len(meter.record(ended(3, b"404"))) == 3
    counted = meter.cut()
    assert (counted.ok, counted.failed, counted.latency.total, counted.statuses()) == (0, 3, 0, {404: 3})


def test_whole_tells_all_that_count() -> None:
    meter = Meter()
    meter.begin(0.0)
    assert len(meter.record(ended(3), True)) == 3


def test_it_stops_at_the_number_that_was_wanted() -> None:
    meter = Meter(4)
    meter.begin(0.0)
    meter.record(ended(3))
    assert not meter.full
    meter.cut()
    meter.record(ended(3))
    assert meter.full
    meter.record(ended(3))
    assert meter.ended == 4


def test_a_cut_is_what_was_counted_since_the_last_one_and_the_whole_has_all() -> None:
    meter = Meter()
    meter.begin(0.0)
    meter.record(ended(3))
    first = meter.cut()
    meter.record(ended(4, b"404"))
    second = meter.cut()
    assert [(part.ok, part.failed, part.payload, part.wasted) for part in (first, second)] == [
        (3, 0, 300, 0),
        (0, 4, 0, 400),
    ]
    assert [part.statuses() for part in (first, second, meter.cut())] == [{201: 3}, {404: 4}, {}]
    assert (meter.whole.ok, meter.whole.failed, meter.ended) == (3, 4, 7)
    assert meter.whole.statuses() == {201: 3, 404: 4}
    assert meter.whole.latency.counts() == first.latency.counts()
    assert meter.whole.response.total == 3


def test_what_was_counted_travels_as_it_is() -> None:
    meter, whole = Meter(), Counted()
    meter.begin(0.0)
    for _ in range(2):
        meter.record(ended(3))
        meter.record(ended(1, b"404"))
        whole.merge(pickle.loads(pickle.dumps(meter.cut())))
    assert (whole.ok, whole.failed, whole.payload, whole.wasted) == (6, 2, 600, 200)
    assert whole.statuses() == meter.whole.statuses() == {201: 6, 404: 2}
    for name in ("latency", "response"):
        assert getattr(whole, name).counts() == getattr(meter.whole, name).counts()
        assert getattr(whole, name).mean() == getattr(meter.whole, name).mean()


def test_the_log_of_hdrhistogram_reads_what_is_compressed() -> None:
    mine = Histogram()
    rng = random.Random(1)
    for _ in range(1000):
        mine.record(rng.expovariate(100))
    again = hdr.decoded(hdr.figures(mine)[1])
    assert again.get_total_count() == 1000
    assert again.get_value_at_percentile(50) / 1e6 == pytest.approx(mine.quantile(0.5), rel=2e-3)
    with pytest.raises(ValueError, match="no HdrHistogram"):
        hdr.decoded("nonsense")
