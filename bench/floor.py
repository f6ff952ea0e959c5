"""How low fastpost's CPU and wall time could fall in a cell, with the same system calls: the floor beside each bar.

The floor is what the profile says of the kernel's and OpenSSL's work, as the run asked for it, and a start that loads
the packages which fastpost is made of (click, uvloop, h2) and nothing else. All of Python, of fastpost's own code and
of copying is taken away. So a bar below the floor can't be reached by faster code, with these packages and as many
calls; one above it is not shown to be out of reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bench.bars import OURS, bars, median, opponent, server_limits
from bench.cells import Record

#: What stays, beside the start.
KEPT = ("send", "receive, wait", "files", "encrypt")


class Floor(NamedTuple):
    """A bar for one measure: who against, what it allows, what fastpost took and what it could not do without (s)."""

    opponent: str
    measure: str
    allowed: float
    taken: float
    floor: float

    @property
    def missed(self) -> bool:
        """Fastpost took more than is allowed."""
        return self.taken > self.allowed

    @property
    def reachable(self) -> bool:
        """The bar is above the floor."""
        return self.floor <= self.allowed


def share(spent: Mapping[str, float], packages: float) -> float:
    """Return what part of a run's CPU time stays.

    Args:
        spent: milliseconds by kind, as the profile has them, "start-up" among them.
        packages: milliseconds of a process that only loads the packages.
    """
    kept = min(packages, spent["start-up"]) + sum(spent[kind] for kind in KEPT)
    return kept / sum(spent.values())


def floors(record: Record, kept: float) -> Iterator[Floor]:
    """Yield each bar of a measured cell, of which a part `kept` of the CPU time stays.

    Wall time falls by no more than the CPU time does. Where the server limits it, it isn't judged.
    """
    ours = record.runs.get(OURS)
    if not ours:
        return
    taken = {what: median(ours, what) for what in ("wall", "cpu")}
    saved = taken["cpu"] * (1 - kept)
    for bar in bars(record.kind, record.tls):
        for what, most in (("wall", bar.wall), ("cpu", bar.cpu)):
            against = opponent(bar, record.runs, what)
            if most is None or against is None or (what == "wall" and server_limits(ours)):
                continue
            allowed = most * median(record.runs[against], what)
            yield Floor(against, what, allowed, taken[what], taken[what] - saved)
