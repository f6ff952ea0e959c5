"""How far a run is, on a terminal and in a log."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from fastpost.outlet import Outlet
from fastpost.progress import FRAME_INTERVAL, LINE_INTERVAL, Progress, clock
from fastpost.tally import Tally


class Terminal:
    """A pseudo terminal: what is written to `stream` appears on the screen."""

    def __init__(self, columns: int = 120) -> None:
        self._screen, inner = os.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream: TextIO = os.fdopen(inner, "w", encoding="utf-8")

    def shown(self) -> str:
        return os.read(self._screen, 1 << 16).decode()

    def close(self) -> None:
        os.close(self._screen)
        self.stream.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def tally() -> Tally:
    """A run that began at 100 s and is a quarter done."""
    tally = Tally()
    tally.started = 100.0
    tally.found, tally.found_octets = 1000, 4_000_000
    tally.ok, tally.failed = 248, 2
    tally.payload, tally.sent = 992_000, 1_000_000
    return tally


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text)


def test_a_terminal_gets_one_line_redrawn_in_place(terminal: Terminal, tally: Tally) -> None:
    progress = Progress(tally, Outlet(terminal.stream, "standard error"))
    assert progress.interval == FRAME_INTERVAL
    tally.walking = False
    progress.draw(102.0)
    first = terminal.shown()
    assert first.startswith("\r\x1b[2K")
    assert "\n" not in first
    assert "━" in first
    assert "250 of 1,000 files · 2 failed · ETA 0:06 · 500.0 kB/s · 1.0 MB of 4.0 MB" in without_colours(first)
    tally.ok = 498
    progress.draw(103.0)
    assert "500 of 1,000 files" in without_colours(terminal.shown())
    progress.clear()
    assert terminal.shown() == "\r\x1b[2K"


def test_a_growing_total_is_marked_and_has_no_time_left(terminal: Terminal, tally: Tally) -> None:
    Progress(tally, Outlet(terminal.stream, "standard error")).draw(102.0)
    shown = without_colours(terminal.shown())
    assert "250 of 1,000 files so far, walking…" in shown
    assert "ETA" not in shown


@pytest.mark.parametrize("columns", [1, 20, 40, 80, 109, 110, 111, 200])
def test_the_line_never_wraps(monkeypatch: pytest.MonkeyPatch, tally: Tally, columns: int) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    narrow = Terminal(columns)
    Progress(tally, Outlet(narrow.stream, "standard error")).draw(102.0)
    assert len(without_colours(narrow.shown()).strip("\r")) < max(2, columns)
    narrow.close()


def test_no_colour_is_no_colour(terminal: Terminal, tally: Tally) -> None:
    Progress(tally, Outlet(terminal.stream, "standard error", colour=False)).draw(102.0)
    shown = terminal.shown()
    assert "2 failed" in shown
    assert "\x1b" not in shown.removeprefix("\r\x1b[2K")


def test_colours_are_there_for_those_who_want_them(terminal: Terminal, tally: Tally) -> None:
    Progress(tally, Outlet(terminal.stream, "standard error")).draw(102.0)
    assert "\x1b[31m2 failed" in terminal.shown()


def test_a_log_gets_plain_lines(tally: Tally) -> None:
    log = io.StringIO()
    progress = Progress(tally, Outlet(log, "standard error"))
    assert progress.interval == LINE_INTERVAL
    progress.draw(102.0)
    progress.clear()
    assert log.getvalue() == (
        "fastpost: 250 of 1,000 files so far, walking…, 2 failed, 500.0 kB/s, 1.0 MB of 4.0 MB, 125 files/s\n"
    )


def test_a_dumb_terminal_gets_plain_lines_too(terminal: Terminal, tally: Tally) -> None:
    Progress(tally, Outlet(terminal.stream, "standard error", redraws=False)).draw(102.0)
    shown = terminal.shown()
    assert shown.startswith("fastpost: ")
    assert "\x1b" not in shown


def test_less_than_a_file_a_second_is_told_in_digits(tally: Tally) -> None:
    tally.ok, tally.failed = 1, 0
    log = io.StringIO()
    Progress(tally, Outlet(log, "standard error")).draw(108.0)
    assert log.getvalue().endswith(", 0.125 files/s\n")


def test_rates_look_back_a_few_seconds_only(tally: Tally) -> None:
    progress = Progress(tally, Outlet(io.StringIO(), "standard error"))
    tally.ok = tally.failed = tally.sent = tally.payload = 0
    for second in range(1, 60):
        progress.frame(100.0 + second)
    for second in range(60, 64):
        tally.ok += 10
        frame = progress.frame(100.0 + second)
    assert frame.file_rate == pytest.approx(10.0)


def test_the_slower_of_files_and_octets_sets_the_time_left(tally: Tally) -> None:
    tally.walking = False
    tally.ok, tally.failed, tally.sent, tally.payload = 500, 0, 400_000, 400_000
    frame = Progress(tally, Outlet(None, "standard error")).frame(102.0)
    assert frame.eta == pytest.approx(3_600_000 / 200_000)


def test_nothing_moving_has_no_time_left(tally: Tally) -> None:
    tally.walking = False
    tally.ok = tally.failed = tally.sent = tally.payload = 0
    assert Progress(tally, Outlet(None, "standard error")).frame(102.0).eta is None


def test_unknown_sizes_leave_the_number_of_files(tally: Tally) -> None:
    progress = Progress(tally, Outlet(None, "standard error"))
    progress.octets_known = False
    tally.walking = False
    frame = progress.frame(102.0)
    assert frame.eta == pytest.approx(750 / 125)
    assert frame.share == 0.25
    assert "1.0 MB" in frame.parts()


def test_a_frame_at_the_very_start_divides_by_nothing() -> None:
    frame = Progress(Tally(), Outlet(None, "standard error")).frame(100.0)
    assert (frame.file_rate, frame.share) == (0.0, 0.0)


def test_repeats_do_not_count_as_progress(tally: Tally) -> None:
    tally.sent, tally.wasted, tally.payload = 3_000_000, 2_500_000, 400_000
    assert Progress(tally, Outlet(None, "standard error")).frame(102.0).octets == 500_000


def test_verified_files_are_shown(tally: Tally) -> None:
    tally.verified = 17
    assert "17 verified" in Progress(tally, Outlet(None, "standard error")).frame(102.0).parts()


@pytest.mark.parametrize(
    ("duration", "text"), [(0.0, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_times_are_told_as_on_a_clock(duration: float, text: str) -> None:
    assert clock(duration) == text
