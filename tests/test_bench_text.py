"""A benchmark as text for people."""

from __future__ import annotations

import re

import pytest
from reports import measured, report
from rich.console import Console

from fastpost import bench_report, bench_text


@pytest.mark.parametrize("width", [1, 20, 80, 200])
def test_no_figure_is_cut_where_there_is_no_room_for_the_table(width: int) -> None:
    one = measured(1_000, connections=64, rate=1_234_567, seconds=(0.01,))
    one["client"]["lower_bound"] = True
    told = bench_text.drawn(report(one, measured(50)), Console(width=width))
    rows = [re.split(" {2,}", line.strip()) for line in told.splitlines()]
    assert ["conns", "in flight", "run", "uploads/s", "MB/s", "p50 ms", "p99 ms", "max ms", "failed"] in rows
    assert any(row[:5] == ["64", "1,000", "1", "1,234,567", "5,057"] and row[-1] == "lower bound" for row in rows)
    assert "…" not in told


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (0.0042, "0.0042"),
        (0.0142, "0.014"),
        (0.5, "0.500"),
        (3.21, "3.21"),
        (37.25, "37.2"),
        (99.96, "100"),
        (29_557.3, "29,557"),
        (0, "0"),
    ],
)
def test_rates_have_three_digits_below_100(rate: float, told: str) -> None:
    one = measured(rate=1000, seconds=(1.0, 1.0))
    one["uploads"]["rate"] = rate
    text = bench_text.drawn(report(one, measured(10, rate=0)), Console(width=120))
    assert f"{told} uploads/s" in text
    assert any(line.split()[3:4] == [told] for line in text.splitlines() if line.split()[:2] == ["1", "50"])


@pytest.mark.parametrize(("rate", "told"), [(1e6, "1,000,000"), (123456.5, "123,456.5"), (0.001, "0.001")])
def test_a_rate_that_was_asked_for_is_told_in_all_its_digits(rate: float, told: str) -> None:
    made = report(measured())
    made["load"] |= {"loop": "open", "rate": rate}
    assert f"open loop, {told} uploads/s" in bench_text.load(made)


def test_of_several_measurements_it_is_said_which_one_is_told_in_detail() -> None:
    """Of five runs the figures of the best one would else stand there as those of all."""
    runs = [measured(50, run, rate=rate) for run, rate in ((1, 900), (2, 1000), (3, 950))]
    detail = "in detail   50 in flight on 1 connection, run"
    assert f"{detail} 2: with the best rate\n" in bench_text.drawn(report(*runs), Console(width=120))
    knee = bench_report.knee([measured(10, rate=100), *runs])
    assert f"{detail} 1: of the knee\n" in bench_text.drawn(report(*runs, knee=knee), Console(width=120))
    assert "in detail" not in bench_text.drawn(report(runs[0]), Console(width=120))


@pytest.mark.parametrize("sliver", [0.01, 0.0])
def test_a_sliver_at_the_end_is_no_second_of_its_own(sliver: float) -> None:
    one = measured(rate=1000, seconds=(1.0, 1.0, 1.0, sliver))
    one["timeline"][-1]["ok"] = 0
    told = bench_text.drawn(report(one), Console(width=120))
    assert f"by second   {'█' * 3} {'990' if sliver else '1,000'} to 1,000 uploads/s\n" in told


def test_of_uploads_that_all_failed_it_is_not_said_that_nothing_ended() -> None:
    none = dict.fromkeys(measured()["latency_ms"])
    one = measured() | {"latency_ms": none, "response_ms": none}
    one["uploads"] |= {"ok": 0, "failed": 50}
    told = bench_text.drawn(report(one), Console(width=120))
    assert "latency     none\n" in told
    assert "nothing ended" not in told
