"""A measured run by the second, in bounded memory: when there are too many rows, two become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Rows of twenty minutes; a longer run has rows of two seconds, of four, and so on.
LIMIT: Final = 1200


class Row(NamedTuple):
    """What happened from `at` on, for `seconds`. Latencies are in milliseconds, of uploads that ended in it.

    Sizes are in octets; `blocked` are stream-seconds by cause.
    """

    at: float
    seconds: float
    ok: int
    failed: int
    dropped: int
    payload: int
    sent: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    blocked: dict[str, float]

    def plus(self, later: Row) -> Row:
        """Return both as one. Percentiles can't be added: the larger one stands for both."""
        return Row(
            at=self.at,
            seconds=self.seconds + later.seconds,
            ok=self.ok + later.ok,
            failed=self.failed + later.failed,
            dropped=self.dropped + later.dropped,
            payload=self.payload + later.payload,
            sent=self.sent + later.sent,
            p50=max(self.p50, later.p50),
            p90=max(self.p90, later.p90),
            p99=max(self.p99, later.p99),
            p999=max(self.p999, later.p999),
            max=max(self.max, later.max),
            blocked={
                cause: self.blocked.get(cause, 0.0) + later.blocked.get(cause, 0.0)
                for cause in self.blocked | later.blocked
            },
        )


def read(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of a report; a sliver at the end, less than half of the first, belongs to the row before it."""
    found = [Row(**row) for row in rows]
    if len(found) > 1 and found[-1].seconds < 0.5 * found[0].seconds:
        found[-2:] = [found[-2].plus(found[-1])]
    return found


class Timeline:
    """Rows in order, at most LIMIT of them; each stands for `width` seconds."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.width = 1
        self._held: list[Row] = []

    def add(self, row: Row) -> None:
        """Take the next second."""
        self._held.append(row)
        if len(self._held) == self.width:
            self._settle()
        if len(self.rows) > LIMIT:
            self.rows = [_joined(self.rows[at : at + 2]) for at in range(0, len(self.rows), 2)]
            self.width *= 2

    def finish(self) -> None:
        """Make a row of what is held, however short."""
        if self._held:
            self._settle()

    def _settle(self) -> None:
        self.rows.append(_joined(self._held))
        self._held = []


def _joined(rows: list[Row]) -> Row:
    whole = rows[0]
    for row in rows[1:]:
        whole = whole.plus(row)
    return whole
