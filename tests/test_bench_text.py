"""A benchmark as text for people."""

from __future__ import annotations

import re

import pytest
from reports import measured, report
from rich.console import Console

from fastpost import bench_text


@pytest.mark.parametrize("width", [1, 20, 80, 200])
def test_no_figure_is_cut_where_there_is_no_room_for_the_table(width: int) -> None:
    one = measured(1_000, connections=64, rate=1_234_567, seconds=(0.01,))
    one["client"]["lower_bound"] = True
    told = bench_text.drawn(report(one, measured(50)), Console(width=width))
    rows = [re.split(" {2,}", line.strip()) for line in told.splitlines()]
    assert ["conns", "in flight", "run", "uploads/s", "MB/s", "p50 ms", "p99 ms", "max ms", "failed"] in rows
    assert any(row[:5] == ["64", "1,000", "1", "1,234,567", "5,056.8"] and row[-1] == "lower bound" for row in rows)
    assert "…" not in told
