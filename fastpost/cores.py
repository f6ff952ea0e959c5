"""The cores that a run may use, and what others leave of them. Only Linux tells; elsewhere all count as idle."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Fields of a `cpu` line in /proc/stat that are not idle: user, nice, system, irq, softirq, steal (proc_stat(5)).
_BUSY: Final = (1, 2, 3, 6, 7, 8)
#: utime and stime in /proc/PID/stat, counted from what follows the name.
_OWN: Final = slice(11, 13)


class Used(NamedTuple):
    """Seconds of CPU up to a moment.

    Attributes:
        at: monotonic seconds.
        all: of all processes, on the cores that this one may use.
        ours: of the processes of this run.
    """

    at: float
    all: float
    ours: float


class Room(NamedTuple):
    """What others leave to this run.

    Attributes:
        left: cores that were idle or ours.
        idle: cores that were idle.
    """

    left: float
    idle: float


class Cores:
    """Looks at the cores from time to time.

    Args:
        pids: processes of this run beside the calling one.
    """

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._pids = tuple(pids)
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        self._before = self._look()

    def room(self) -> Room:
        """Return what others left to this run since the last call, or since the beginning."""
        before, self._before = self._before, self._look()
        return room(len(self._allowed), before, self._before)

    def _look(self) -> Used | None:
        try:
            with open("/proc/stat", encoding="ascii") as told:
                everybody = busy(told.read(), self._allowed)
        except OSError:
            return None
        ours = time.process_time() + sum(map(_used_by, self._pids))
        return Used(time.monotonic(), everybody, ours)


def room(cores: int, before: Used | None, now: Used | None) -> Room:
    """Return what was left between two looks: at most `cores`, and all of them when nobody can tell."""
    if before is None or now is None or now.at <= before.at:
        return Room(float(cores), float(cores))
    elapsed = now.at - before.at
    ours = (now.ours - before.ours) / elapsed
    idle = min(max(cores - (now.all - before.all) / elapsed, 0.0), float(cores))
    return Room(min(idle + ours, float(cores)), idle)


def busy(stat: str, allowed: set[int]) -> float:
    """Return the seconds of CPU that /proc/stat tells of the `allowed` cores."""
    ticks = 0
    for line in stat.splitlines():
        fields = line.split()
        if fields and fields[0].startswith("cpu") and fields[0][3:].isdigit() and int(fields[0][3:]) in allowed:
            ticks += sum(int(fields[place]) for place in _BUSY)
    return ticks / os.sysconf("SC_CLK_TCK")


def _used_by(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", "rb") as told:
            fields = told.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0  # it has ended
    return sum(map(int, fields[_OWN])) / os.sysconf("SC_CLK_TCK")
