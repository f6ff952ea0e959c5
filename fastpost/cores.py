"""The cores that this process may use, how much of them is idle, and how much of one a thread uses or would.

What is idle only Linux tells; elsewhere all count as idle.
"""

from __future__ import annotations

import os
import time
from typing import Final

#: Fields of a `cpu` line in /proc/stat that are not idle: user, nice, system, irq, softirq, steal (proc_stat(5)).
_BUSY: Final = (1, 2, 3, 6, 7, 8)


class Cores:
    """Looks at the cores from time to time."""

    def __init__(self) -> None:
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        self._before = self._look()

    def idle(self) -> float:
        """Return how many cores were idle since the last call, or since the beginning."""
        before, self._before = self._before, self._look()
        return idle(len(self._allowed), before, self._before)

    def _look(self) -> tuple[float, float] | None:
        try:
            with open("/proc/stat", encoding="ascii") as told:
                return time.monotonic(), busy(told.read(), self._allowed)
        except OSError:
            return None


class ThisThread:
    """Looks from time to time at how busy the calling thread is; it is to be the same one each time."""

    def __init__(self) -> None:
        self._before = self._look()

    def busy(self) -> float:
        """Return the part of a core that it used since the last call, or since the beginning."""
        before, self._before = self._before, self._look()
        return (self._before[1] - before[1]) / max(self._before[0] - before[0], 1e-6)

    def _look(self) -> tuple[float, float]:
        return time.monotonic(), time.thread_time()


def asked_of_a_core() -> float:
    """Return the seconds of CPU that the calling thread has used, with those for which it waited for a core.

    The latter only where Linux tells them (proc_pid_schedstat, in nanoseconds): 15 microseconds.
    """
    used = time.thread_time()
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as told:
            return used + int(told.read(128).split()[1]) * 1e-9
    except (OSError, ValueError, LookupError):
        return used


def idle(cores: int, before: tuple[float, float] | None, now: tuple[float, float] | None) -> float:
    """Return how many of the cores were idle between two looks: all of them when nobody can tell.

    Args:
        cores: how many there are.
        before: monotonic seconds, and seconds of CPU that were used till then.
        now: the same, later.
    """
    if before is None or now is None or now[0] <= before[0]:
        return float(cores)
    return min(max(cores - (now[1] - before[1]) / (now[0] - before[0]), 0.0), float(cores))


def busy(stat: str, allowed: set[int]) -> float:
    """Return the seconds of CPU that /proc/stat tells of the `allowed` cores."""
    ticks = 0
    for line in stat.splitlines():
        fields = line.split()
        if fields and fields[0].startswith("cpu") and fields[0][3:].isdigit() and int(fields[0][3:]) in allowed:
            ticks += sum(int(fields[place]) for place in _BUSY)
    return ticks / os.sysconf("SC_CLK_TCK")
