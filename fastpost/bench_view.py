"""The live view of a benchmark: one line with rate, p99 and what uploads wait for at present. Loads no rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastpost.measurement import gained
from fastpost.progress import FRAME_INTERVAL, LINE_INTERVAL

if TYPE_CHECKING:
    from fastpost.measurement import Measured
    from fastpost.outlet import Outlet

_ERASE_LINE: Final = "\r\x1b[2K"


class LiveView:
    """Draws in place on a terminal, a line every few seconds elsewhere."""

    def __init__(self, outlet: Outlet) -> None:
        #: Seconds after which `draw` is due again.
        self.interval = FRAME_INTERVAL if outlet.terminal else LINE_INTERVAL
        self._outlet = outlet
        self._of: Measured | None = None
        self._before = (0.0, 0, 0)
        self._blocked: dict[str, float] = {}
        self._rates: list[str] = []
        self._drawn = False

    def draw(self, one: Measured, which: str, now: float) -> None:
        """Draw a measurement at `now` (monotonic seconds); `which` says which of several it is."""
        if one is not self._of or now < one.meter.begins:
            self._of, self._before, self._blocked, self._rates = one, (0.0, 0, 0), {}, []
        text = " · ".join(self._parts(one, which, now))
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

    def _parts(self, one: Measured, which: str, now: float) -> list[str]:
        plan, meter = one.plan, one.meter
        parts = [which] if which else []
        if now < meter.begins:
            return [*parts, "warming up"]
        elapsed = now - meter.begins
        ended = meter.ok + meter.failed
        if plan.duration is not None:
            parts.append(f"{min(elapsed, plan.duration):.0f} of {plan.duration:g} s")
        if plan.count is not None:
            parts.append(f"{ended:,} of {plan.count:,}")
        if meter.failed:
            parts.append(f"{meter.failed:,} failed")
        until = now if one.counted_until is None else one.counted_until
        if until > self._before[0]:
            self._rates = self._present(one, until)
        return parts + self._rates

    def _present(self, one: Measured, until: float) -> list[str]:
        """Return what has happened since the last time that something was counted."""
        meter, parts = one.meter, []
        then, ok, payload = self._before
        if then:
            parts.append(f"{(meter.ok - ok) / (until - then):,.0f} uploads/s")
            parts.append(f"{(meter.payload - payload) / (until - then) / 1e6:,.1f} MB/s")
        self._before = (until, meter.ok, meter.payload)
        if meter.second.total:
            parts.append(f"p99 {meter.second.quantile(0.99) * 1e3:,.2f} ms")
        waited = gained(self._blocked, one.tally.blocked)
        self._blocked = dict(one.tally.blocked)
        if any(waited.values()):
            parts.append(f"waits for: {max(waited, key=lambda cause: waited[cause]).replace('_', ' ')}")
        return parts
