"""Conditions under which a benchmark fails."""

from __future__ import annotations

from typing import Any

import pytest

from fastpost import thresholds
from fastpost.errors import UsageError


def measured(**changes: Any) -> dict[str, Any]:
    return {
        "concurrency": 50, "connections": 1, "processes": 1, "run": 1,
        "uploads": {"ok": 990, "failed": 10, "dropped": 5, "rate": 1000.0},
        "bytes": {"rate": 4e6},
        "latency_ms": {"p50": 2.0, "p75": 3.0, "p90": 4.0, "p99": 50.0, "p999": 80.0, "p9999": 90.0,
                       "max": 95.0, "mean": 5.0},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "p99>49ms", "p99>=50ms", "p99 > 0.049s", "p99>49999us", "p50<2.1", "p99.9>79ms", "p99.99>=90",
        "max>94", "mean>4", "rate<1001", "rate<=1000", "throughput<4.1MB/s", "throughput>3999kB/s", "failed>0",
        "failed>0.9%",         "failed>=0.01", "dropped>4",
    ],
)  # fmt: skip
def test_it_holds(text: str) -> None:
    assert thresholds.parse(text).holds(measured())


@pytest.mark.parametrize(
    "text", ["p99>50ms", "p50<2ms", "rate<1000", "throughput<4MB/s", "failed>1%", "dropped>5", "max>0.095s"]
)
def test_it_does_not_hold(text: str) -> None:
    assert not thresholds.parse(text).holds(measured())


def test_what_was_not_measured_fails() -> None:
    nothing = measured(latency_ms=dict.fromkeys(measured()["latency_ms"]), uploads={"ok": 0, "failed": 0, "rate": 0.0})
    assert thresholds.parse("p99>50ms").holds(nothing)
    assert thresholds.parse("failed>1%").holds(nothing)
    told = thresholds.judged([thresholds.parse("failed>1%")], [nothing])
    assert "nothing ended" in str(told[0]["told"])


def test_of_uploads_that_all_failed_none_went_well() -> None:
    all_failed = measured(latency_ms=dict.fromkeys(measured()["latency_ms"]), uploads={"ok": 0, "failed": 9})
    (told,) = thresholds.judged([thresholds.parse("p99>50ms")], [all_failed])
    assert told["told"] == "none went well with 50 in flight on 1 connection, run 1"


@pytest.mark.parametrize(
    ("condition", "value", "told"),
    [
        ("rate<1000", 999.7, "999.7 uploads/s"),
        ("rate<1000", 912.4, "912 uploads/s"),
        ("throughput<100MB/s", 99_980_000.0, "99.98 MB/s"),
        ("rate>=1000", 1000.0, "1,000 uploads/s"),
    ],
)
def test_what_missed_by_little_is_not_told_as_the_bound(condition: str, value: float, told: str) -> None:
    missed = measured(uploads=measured()["uploads"] | {"rate": value}, bytes={"rate": value})
    (one,) = thresholds.judged([thresholds.parse(condition)], [missed])
    assert str(one["told"]).startswith(f"{told} with ")


def test_the_first_measurement_that_missed_is_named() -> None:
    condition = thresholds.parse("p99>49ms")
    good = measured(concurrency=1, latency_ms=measured()["latency_ms"] | {"p99": 1.0})
    assert thresholds.judged([condition], [good]) == [{"condition": "p99>49ms", "missed": False, "told": ""}]
    (told,) = thresholds.judged([condition], [good, measured()])
    assert told["missed"] is True
    assert told["told"] == "50.000 ms with 50 in flight on 1 connection, run 1"


@pytest.mark.parametrize(
    "text", ["", "p99", "p98>1ms", "p99=1", "p99>", "rate<10ms", "p99>1MB/s", "p99>1%", "x>1", "p99>-1"]
)
def test_what_can_not_be_meant_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="write a figure"):
        thresholds.parse(text)
