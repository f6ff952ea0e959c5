"""The live view of a benchmark."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from fastpost._meter import Histogram
from fastpost.bench_view import LiveView
from fastpost.outlet import Outlet


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def measurement(**plan: Any) -> Any:
    second = Histogram()
    second.record(0.005)
    return SimpleNamespace(
        plan=SimpleNamespace(**{"duration": None, "count": None} | plan),
        meter=SimpleNamespace(ok=0, failed=0, payload=0, second=second, begins=1.0),
        tally=SimpleNamespace(blocked={}),
        counted_until=None,
    )


def drawn(one: Any, stream: io.StringIO, moves: int = 2) -> list[str]:
    view = LiveView(Outlet(stream, "standard error"))
    view.draw(one, "", 0.0)
    for step in range(1, moves + 1):
        one.meter.ok += 1000
        one.meter.payload += 4_000_000
        one.meter.failed = step - 1
        one.tally.blocked = {"server": 3.0 * step, "socket": 1.0}
        view.draw(one, "1 of 2: 50 in flight on 1", 1.0 + step)
    view.clear()
    return stream.getvalue().split("\r\x1b[2K" if stream.isatty() else "\n")


def test_rate_p99_and_the_present_cause() -> None:
    _, warming, first, second, cleared = drawn(measurement(duration=10.0), Terminal())
    assert warming == "warming up"
    assert first == "1 of 2: 50 in flight on 1 · 1 of 10 s · p99 5.00 ms · waits for: server"
    for part in ("2 of 10 s", "1,000 uploads/s", "4.0 MB/s", "1 failed"):
        assert part in second
    assert cleared == ""


def test_lines_where_nothing_can_be_redrawn() -> None:
    lines = drawn(measurement(count=5000), io.StringIO())
    assert lines[0] == "fastpost: warming up"
    assert "2,001 of 5,000" in lines[2]


def test_between_two_words_of_other_processes_the_last_rate_stands() -> None:
    one, stream = measurement(), Terminal()
    view = LiveView(Outlet(stream, "standard error"))
    one.counted_until = 1.0
    view.draw(one, "", 1.2)
    one.counted_until, one.meter.ok = 2.0, 500
    view.draw(one, "", 2.1)
    view.draw(one, "", 2.3)
    lines = stream.getvalue().split("\r\x1b[2K")
    assert "uploads/s" not in lines[1]
    assert lines[2] == lines[3]
    assert "500 uploads/s" in lines[3]
