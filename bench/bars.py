"""The bars of the comparison, and the arithmetic of their verdicts. No process is run here."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.measure import Spread, spread

OURS = "fastpost"
#: These open no file for each upload, so that they are no uploaders: yardsticks.
H2LOAD = "h2load"
RAW = "raw limit"
BEST = "best uploader"

#: From this share of one core on, the server is what limits the wall time.
SATURATED = 0.9


class Sample(NamedTuple):
    """One run that counts: times in seconds, the client's peak RSS in octets, uploads by status.

    `server_cpu` and `server_thread` are the CPU seconds of the server and of its busiest thread meanwhile.
    """

    wall: float
    user: float
    system: float
    peak_rss: int
    server_cpu: float
    server_thread: float
    statuses: Mapping[str, int]

    @property
    def cpu(self) -> float:
        """User and system time together, in seconds."""
        return self.user + self.system

    @property
    def server_cores(self) -> float:
        """How many cores the server kept busy."""
        return self.server_cpu / self.wall

    @property
    def server_thread_cores(self) -> float:
        """What part of a core the server's busiest thread used."""
        return self.server_thread / self.wall


Samples = Mapping[str, Sequence[Sample]]


class Bar(NamedTuple):
    """The most that fastpost's medians may be, divided by those of its opponent. None: not judged."""

    opponent: str
    wall: float | None
    cpu: float


class Verdict(enum.Enum):
    """How fastpost stands against one opponent, in the words of the table."""

    REACHED = "reached"
    BY_CPU = "reached by CPU, the server limits the wall"
    MISSED = "MISSED"
    FAILED = "MISSED: fastpost failed"
    OPEN = "no opponent"


class Judgement(NamedTuple):
    """A bar, who the opponents were (by wall, by CPU), the ratios of medians, and the verdict."""

    bar: Bar
    wall_of: str | None
    cpu_of: str | None
    wall: float | None
    cpu: float | None
    verdict: Verdict


def bars(kind: str, tls: bool) -> list[Bar]:
    """Return the bars of a kind of set: small, medium, large or tree."""
    many = kind in ("small", "tree")
    found = [Bar(BEST, 0.67, 0.5) if many else Bar(BEST, 1.0, 0.6)]
    if kind != "tree":
        found.append(Bar(H2LOAD, 1.1, 2.0) if many else Bar(H2LOAD, 1.0, 0.8))
    if kind == "large":
        found.append(Bar(RAW, None, 1.2 if tls else 1.25))
    return found


def median(samples: Sequence[Sample], what: str) -> float:
    """Return the median of one of the samples' attributes."""
    return measured(samples, what).median


def measured(samples: Sequence[Sample], what: str) -> Spread:
    """Return median, minimum and maximum of one of the samples' attributes."""
    return spread([getattr(sample, what) for sample in samples])


def server_limits(samples: Sequence[Sample]) -> bool:
    """Tell whether a thread of the server used about a core: then a faster client could not have been faster.

    All threads together may use more than that and still wait for the client.
    """
    return median(samples, "server_thread_cores") >= SATURATED


def best(runs: Samples, what: str) -> str | None:
    """Return the uploader, other than fastpost, with the least median of `what`; None when there is none."""
    rivals = [name for name, samples in runs.items() if samples and name not in (OURS, H2LOAD, RAW)]
    return min(rivals, key=lambda name: median(runs[name], what), default=None)


def opponent(bar: Bar, runs: Samples, what: str) -> str | None:
    """Return who a bar is against in one measure; None when there is no run of it."""
    name = best(runs, what) if bar.opponent == BEST else bar.opponent
    return name if name and runs.get(name) else None


def judge(bar: Bar, runs: Samples) -> Judgement:
    """Judge one bar. The best uploader by wall and the one by CPU may be two."""
    wall_of, cpu_of = (opponent(bar, runs, what) for what in ("wall", "cpu"))
    if not runs.get(OURS):
        return Judgement(bar, wall_of, cpu_of, None, None, Verdict.FAILED)
    if wall_of is None or cpu_of is None:
        return Judgement(bar, wall_of, cpu_of, None, None, Verdict.OPEN)
    wall = median(runs[OURS], "wall") / median(runs[wall_of], "wall")
    cpu = median(runs[OURS], "cpu") / median(runs[cpu_of], "cpu")
    return Judgement(bar, wall_of, cpu_of, wall, cpu, _verdict(bar, wall, cpu, server_limits(runs[OURS])))


def _verdict(bar: Bar, wall: float, cpu: float, limited: bool) -> Verdict:
    if cpu > bar.cpu:
        return Verdict.MISSED
    if bar.wall is None or wall <= bar.wall:
        return Verdict.REACHED
    return Verdict.BY_CPU if limited else Verdict.MISSED


def overall(judgements: Iterable[Judgement]) -> Verdict:
    """Return the verdict of a whole cell: the worst one; bars without an opponent count only when all are without."""
    verdicts = {one.verdict for one in judgements}
    order = (Verdict.FAILED, Verdict.MISSED, Verdict.BY_CPU, Verdict.REACHED)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.OPEN)
