"""The live view of a benchmark: rate, p99 and what uploads waited for in the last second. Loads no rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastpost.progress import FRAME_INTERVAL, LINE_INTERVAL
from fastpost.report import three_digits

if TYPE_CHECKING:
    from fastpost.measurement import Measured
    from fastpost.outlet import Outlet
    from fastpost.timeline import Row

_ERASE_LINE: Final = "\r\x1b[2K"


class LiveView:
    """Draws in place on a terminal, a line every few seconds elsewhere."""

    def __init__(self, outlet: Outlet) -> None:
        #: Seconds after which `draw` is due again.
        self.interval = FRAME_INTERVAL if outlet.terminal else LINE_INTERVAL
        self._outlet = outlet
        self._drawn = False

    def draw(self, one: Measured, which: str, now: float) -> None:
        """Draw a measurement at `now` (monotonic seconds); `which` says which of several it is."""
        text = " · ".join(_parts(one, which, now))
        if not self._outlet.terminal:
            self._outlet.offer(f"fastpost: {text}\n")
            return
        self._outlet.offer(_ERASE_LINE + text[: self._outlet.columns() - 1])
        self._drawn = True

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._drawn:
            self._outlet.offer(_ERASE_LINE)
            self._drawn = False


def _parts(one: Measured, which: str, now: float) -> list[str]:
    """Return what there is to see, the most telling first: a narrow terminal cuts the rest off."""
    plan, meter = one.plan, one.meter
    last = [which] if which else []
    if now < meter.begins:
        return ["warming up", *last]
    parts = []
    if plan.duration is not None:
        parts.append(f"{min(now - meter.begins, plan.duration):.0f} of {plan.duration:g} s")
    if plan.count is not None:
        parts.append(f"{meter.ended:,} of {plan.count:,}")
    if one.row is not None:
        parts += _last_second(one.row)
        last.insert(0, f"{three_digits(one.row.payload / one.row.seconds / 1e6)} MB/s")
    if meter.whole.failed:
        last.insert(0, f"{meter.whole.failed:,} failed")
    return parts + last


def _last_second(row: Row) -> list[str]:
    """Return its rate, p99 and what uploads waited for most."""
    parts = [f"{three_digits(row.ok / row.seconds)} uploads/s"]
    if row.ok:
        parts.append(f"p99 {row.p99:,.2f} ms")
    if any(row.blocked.values()):
        parts.append(f"waits for: {max(row.blocked, key=lambda cause: row.blocked[cause]).replace('_', ' ')}")
    return parts
