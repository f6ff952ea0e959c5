"""The live view of a benchmark."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from fastpost.bench_view import LiveView
from fastpost.outlet import Outlet
from fastpost.timeline import Row


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def measurement(**plan: Any) -> Any:
    return SimpleNamespace(
        plan=SimpleNamespace(**{"duration": None, "count": None} | plan),
        meter=SimpleNamespace(ended=0, whole=SimpleNamespace(failed=0), begins=1.0),
        row=None,
    )


def second(ok: int) -> Row:
    blocked = {"server": 3.0, "socket": 1.0}
    return Row(0.0, 2.0, ok, 1, 0, 4_000 * ok, 0, 1.0, 2.0, 5.0, 6.0, 7.0, blocked)


def drawn(one: Any, stream: io.StringIO, moves: int = 2) -> list[str]:
    view = LiveView(Outlet(stream, "standard error"))
    view.draw(one, "", 0.0)
    for step in range(1, moves + 1):
        one.meter.ended += 1000
        view.draw(one, "1 of 2", 1.0 + step)
        one.row = second(2000)
        one.meter.whole.failed = step
    view.clear()
    return stream.getvalue().split("\r\x1b[2K" if stream.isatty() else "\n")


def test_rate_p99_and_the_present_cause() -> None:
    _, warming, first, second, cleared = drawn(measurement(duration=10.0), Terminal())
    assert warming == "warming up"
    assert first == "1 of 10 s · 1 of 2"
    assert (
        second == ("2 of 10 s · 1,000 uploads/s · p99 5.00 ms · waits for: server · 1 failed · 4.00 MB/s · 1 of 2"[:79])
    )  # 80 columns
    assert cleared == ""


def test_lines_where_nothing_can_be_redrawn() -> None:
    lines = drawn(measurement(count=5000), io.StringIO())
    assert lines[0] == "fastpost: warming up"
    assert "2,000 of 5,000" in lines[2]


def test_a_second_in_which_nothing_went_well_has_no_latency() -> None:
    one, stream = measurement(), Terminal()
    one.row = second(0)
    LiveView(Outlet(stream, "standard error")).draw(one, "", 2.0)
    assert stream.getvalue().endswith("0 uploads/s · waits for: server · 0 MB/s")
