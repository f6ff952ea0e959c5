"""How far a run is: one line, redrawn a few times a second on a terminal, or a plain line every few seconds.

It reads the tally when it is asked to draw and never sees a file, so its cost does not grow with the number of files:
about 0.3 ms a frame. Time is an argument. rich is loaded for the first frame, so a run that needs none is spared it.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, NamedTuple

from fastpost.report import octets_text, three_digits

if TYPE_CHECKING:
    from rich.console import Console

    from fastpost.outlet import Outlet
    from fastpost.tally import Tally

#: Seconds between frames on a terminal, and between lines elsewhere.
FRAME_INTERVAL: Final = 0.2
LINE_INTERVAL: Final = 5.0
#: Seconds that the shown rates look back.
_RATE_SPAN: Final = 3.0
_BAR_WIDTH: Final = 24
#: Columns below which the bar gives way to the numbers.
_BAR_NEEDS: Final = 110
_ERASE_LINE: Final = "\r\x1b[2K"


class Frame(NamedTuple):
    """What is shown at one moment.

    Rates are per second; `eta` is in seconds, None while it can't be told; `found_octets` None when nobody looked.
    """

    done: int
    found: int
    walking: bool
    octets: int
    found_octets: int | None
    file_rate: float
    octet_rate: float
    eta: float | None
    failed: int
    verified: int | None

    @property
    def share(self) -> float:
        """The part that is done, 0.0 … 1.0, of what is found so far."""
        if self.found_octets and self.done < self.found:  # the last octet is sent, the last response still due
            return min(1.0, self.octets / self.found_octets)
        return self.done / self.found if self.found else 0.0

    def parts(self) -> list[str]:
        """Return the texts, the most important first."""
        total = f"{self.found:,} files" + (" so far, walking…" if self.walking else "")
        parts = [f"{self.done:,} of {total}"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.eta is not None:
            parts.append(f"ETA {clock(self.eta)}")
        parts += [
            f"{octets_text(round(self.octet_rate))}/s",
            octets_text(self.octets) + (f" of {octets_text(self.found_octets)}" if self.found_octets else ""),
            f"{three_digits(self.file_rate)} files/s",
        ]
        if self.verified is not None:
            parts.append(f"{self.verified:,} verified")
        return parts


class Progress:
    """Draws the progress of one run.

    Args:
        tally: the counts that the uploader keeps.
        outlet: where to draw: on a terminal one line in place, else plain lines.
    """

    def __init__(self, tally: Tally, outlet: Outlet) -> None:
        #: False when the octets of some files found are not known: the time left is then told by their number.
        self.octets_known = True
        #: Seconds after which `draw` is due again.
        self.interval = FRAME_INTERVAL if outlet.terminal else LINE_INTERVAL
        self._tally = tally
        self._outlet = outlet
        self._samples: collections.deque[tuple[float, int, int]] = collections.deque()
        self._console: Console | None = None
        self._drawn = False

    def draw(self, now: float) -> None:
        """Draw the state at `now` (monotonic seconds)."""
        frame = self.frame(now)
        if not self._outlet.terminal:
            self._outlet.offer(f"fastpost: {', '.join(frame.parts())}\n")
            return
        self._outlet.offer(_ERASE_LINE + self._line(frame))
        self._drawn = True

    def clear(self) -> None:
        """Take the line off the terminal, so that other text can be written."""
        if self._drawn:
            self._outlet.offer(_ERASE_LINE)
            self._drawn = False

    def frame(self, now: float) -> Frame:
        """Return what there is to show at `now`; rates look back at the frames of the last few seconds."""
        tally = self._tally
        done = tally.ok + tally.failed
        octets = max(tally.payload, tally.sent - tally.wasted)
        found_octets = tally.found_octets if self.octets_known else None
        if found_octets is not None:
            octets = min(octets, found_octets)  # what was sent includes frame headers
        file_rate, octet_rate = self._rates(now, done, octets)
        eta = None
        if not tally.walking:
            eta = _longest((tally.found - done, file_rate), ((found_octets or 0) - octets, octet_rate))
        return Frame(
            done, tally.found, tally.walking, octets, found_octets,
            file_rate, octet_rate, eta, tally.failed, tally.verified,
        )  # fmt: skip

    def _rates(self, now: float, done: int, octets: int) -> tuple[float, float]:
        samples = self._samples
        if not samples:
            samples.append((min(now, self._tally.started or now), 0, 0))
        while len(samples) > 1 and samples[1][0] <= now - _RATE_SPAN:
            samples.popleft()
        then, done_then, octets_then = samples[0]
        samples.append((now, done, octets))
        took = now - then
        return ((done - done_then) / took, max(0, octets - octets_then) / took) if took > 0 else (0.0, 0.0)

    def _line(self, frame: Frame) -> str:
        """Return the frame as one terminal line that does not wrap."""
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        if self._console is None:
            self._console = self._outlet.console()
        console = self._console
        room = self._outlet.columns() - 1  # a full line would wrap on some terminals
        with console.capture() as captured:
            if room >= _BAR_NEEDS:
                console.print(ProgressBar(1.0, frame.share, width=_BAR_WIDTH), Text(" "), sep="", end="")
                room -= _BAR_WIDTH + 1
            text = Text(_fitted(frame.parts(), room))
            if frame.failed:
                text.highlight_words((f"{frame.failed:,} failed",), "red")
            console.print(text, end="", soft_wrap=True)
        return captured.get().replace("\n", "")


def _fitted(parts: list[str], room: int) -> str:
    """Return as many of the parts, the first first, as fit into `room` columns."""
    line = parts[0]
    for part in parts[1:]:
        longer = f"{line} · {part}"
        if len(longer) > room:
            break
        line = longer
    return line[:room]


def clock(duration: float) -> str:
    """Return seconds as 0:07, 12:34 or 1:02:03, rounded up."""
    total = -int(-duration // 1)
    minutes, secs = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def _longest(*remaining: tuple[int, float]) -> float | None:
    """Return the longest time among (amount left, rate) pairs; None when something is left and nothing moves."""
    longest = 0.0
    for left, rate in remaining:
        if left > 0:
            if rate <= 0:
                return None
            longest = max(longest, left / rate)
    return longest
