"""The live view of a benchmark: rate, p99 and what uploads waited for in the last second. Loads no rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastpost.progress import FRAME_INTERVAL, LINE_INTERVAL

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
    plan, meter = one.plan, one.meter
    parts = [which] if which else []
    if now < meter.begins:
        return [*parts, "warming up"]
    if plan.duration is not None:
        parts.append(f"{min(now - meter.begins, plan.duration):.0f} of {plan.duration:g} s")
    if plan.count is not None:
        parts.append(f"{meter.ended:,} of {plan.count:,}")
    if meter.whole.failed:
        parts.append(f"{meter.whole.failed:,} failed")
    return parts if one.row is None else parts + _last_second(one.row)


def _last_second(row: Row) -> list[str]:
    parts = [f"{row.ok / row.seconds:,.0f} uploads/s", f"{row.payload / row.seconds / 1e6:,.1f} MB/s"]
    if row.ok:
        parts.append(f"p99 {row.p99:,.2f} ms")
    if any(row.blocked.values()):
        parts.append(f"waits for: {max(row.blocked, key=lambda cause: row.blocked[cause]).replace('_', ' ')}")
    return parts
