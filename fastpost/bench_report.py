"""What a benchmark came to, as JSON for programs; nothing here prints. schemas/bench-1.json describes it.

The text for people and `compare` read this JSON, so there is one place where a figure gets its name.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastpost import __version__, causes, hdr
from fastpost.measurement import gained
from fastpost.report import safe
from fastpost.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastpost.measurement import Measured, Plan, Reading

    #: A report, or a part of one.
    Json = Mapping[str, Any]

SCHEMA: Final = "fastpost.bench/1"

#: Part of a core above which this process was the limit.
BUSY: Final = 0.9
_IDLE: Final = {"cpu_s": 0.0, "busy": 0.0, "queued": 0.0}
#: The knee of a sweep: the fewest in flight that reach this part of the best rate.
_KNEE: Final = 0.95


class Setting(NamedTuple):
    """What tells a measurement from others of a sweep; several runs have the same one."""

    processes: int
    connections: int | str
    concurrency: int

    @classmethod
    def of(cls, one: Json) -> Setting:
        """Return that of a measurement, a knee or a comparison, as JSON has it."""
        # The first reports did not tell the processes: there was one.
        return cls(one.get("processes", 1), one["connections"], one["concurrency"])

    @classmethod
    def asked(cls, plan: Plan) -> Setting:
        """Return that of a plan."""
        return cls(plan.processes, plan.settings.connections, plan.settings.concurrency)

    def in_words(self) -> str:
        """Return it in words; of one process nothing is said."""
        by = "" if self.processes == 1 else f" by {self.processes} processes"
        return f"{self.concurrency:,} in flight on {connections(self.connections)}{by}"


def report(
    measurements: Sequence[tuple[Measured, int]],
    load: dict[str, object],
    began: str,
    *,
    interrupted: bool,
) -> dict[str, Any]:
    """Return the report of schema fastpost.bench/1.

    Args:
        measurements: each with the number of its run, from 1 on.
        load: what was asked for.
        began: when, ISO 8601.
        interrupted: True when less was measured than was asked for.
    """
    first = measurements[0][0]
    taken = [measured(one, run) for one, run in measurements]
    return {
        "schema": SCHEMA,
        "fastpost": __version__,
        "began": began,
        "machine": {"cores": os.cpu_count() or 1, "kernel": platform.release(), "python": platform.python_version()},
        "target": safe(first.target.template),
        "method": first.target.method.decode(),
        "load": load,
        "measurements": taken,
        "knee": knee(taken),
        "thresholds": [],
        "interrupted": interrupted,
    }


def grouped(measurements: Iterable[Json]) -> dict[Setting, list[Json]]:
    """Return measurements by their settings: several runs of one stand together."""
    groups: dict[Setting, list[Json]] = {}
    for one in measurements:
        groups.setdefault(Setting.of(one), []).append(one)
    return groups


def connections(number: int | str) -> str:
    """Return a number of connections in words."""
    return f"{number} connection{'' if number == 1 else 's'}"


def measured(one: Measured, run: int) -> dict[str, Any]:
    """Return the figures of one measurement. Sizes in octets, times in seconds but for those in ms."""
    counted, tally = one.meter.whole, one.tally
    first, last = one.first, one.last
    elapsed = max(min(last.at, one.meter.ends) - first.at, 1e-9) if first and last else 0.0
    blocked = gained(first.blocked, last.blocked) if first and last else {}
    limit = causes.verdict(_windowed(one, blocked), one.plan.processes, scheduled=one.plan.rate is not None)
    jain = last.shares.jain(first.shares) if first and last else None
    latency, latencies = hdr.figures(counted.latency)
    response, responses = hdr.figures(counted.response)
    return {
        **Setting.asked(one.plan)._asdict(),
        "run": run,
        "seconds": round(elapsed, 6),
        "uploads": {
            "ok": counted.ok,
            "failed": counted.failed,
            "dropped": last.dropped - first.dropped if first and last else 0,
            "unfinished": last.unfinished if last else 0,
            "rate": round(counted.ok / elapsed, 3) if elapsed else 0.0,
        },
        "bytes": {
            "payload": counted.payload,
            "sent": last.sent - first.sent if first and last else 0,
            "wasted": counted.wasted,
            "rate": round(counted.payload / elapsed, 1) if elapsed else 0.0,
        },
        "latency_ms": latency,
        "response_ms": response,
        "histogram": {"latency": latencies, "response": responses},
        "status": {str(status): count for status, count in counted.statuses().items()},
        "errors": dict(sorted(tally.errors.items())),
        "examples": {cause: safe(found[0][1]) for cause, found in sorted(tally.first_failures.items())},
        "attempts": {"retried": counted.retried, "replayed": counted.replayed},
        "connections_opened": tally.connections,
        "peer": {
            "server": tally.peer.server,
            "settings": dict(tally.peer.settings),
            "stream_window": tally.peer.stream_window,
            "connection_window": tally.peer.connection_window,
        },
        "blocked_s": {cause: round(blocked.get(cause, 0.0), 6) for cause in causes.CAUSES},
        "limited_by": None if limit is None else limit._asdict(),
        "fairness": {"jain": None if jain is None else round(jain, 6)},
        "client": _client(one, first, last),
        "timeline": [_rounded(row._asdict()) for row in one.timeline.rows],
    }


def _windowed(one: Measured, blocked: dict[str, float]) -> Tally:
    """Return what `causes` looks at, of the window alone."""
    tally, windowed = one.tally, Tally(one.plan.settings.concurrency)
    windowed.blocked = blocked
    windowed.found, windowed.peer = one.plan.count or sys.maxsize, tally.peer
    windowed.connections, windowed.at_once, windowed.refused = tally.connections, tally.at_once, tally.refused
    return windowed


def _client(one: Measured, first: Reading | None, last: Reading | None) -> dict[str, object]:
    """Return how busy each process was, and whether the figures are a lower bound therefore."""
    processes = [_process(*readings) for readings in one.clients]
    busiest = max(processes, key=lambda each: each["busy"] + each["queued"], default=_IDLE)
    sentence = _lower_bound(processes)
    return {
        "cpu_s": round(last.cpu - first.cpu, 6) if first and last else 0.0,
        "busy": busiest["busy"],
        "queued": busiest["queued"],
        "processes": processes,
        "lower_bound": sentence is not None,
        "sentence": sentence,
    }


def _process(first: Reading, last: Reading) -> dict[str, float]:
    elapsed = last.at - first.at
    if elapsed <= 0:
        return _IDLE
    return {
        "cpu_s": round(last.cpu - first.cpu, 6),
        "busy": round((last.busy - first.busy) / elapsed, 4),
        "queued": round((last.queued - first.queued) / elapsed, 4),
    }


def _lower_bound(processes: Sequence[dict[str, float]]) -> str | None:
    """Return why the rate is a lower bound, in a sentence; None when it isn't."""
    told = [(number, text) for number, each in enumerate(processes, 1) if (text := _limiting(each)) is not None]
    if not told:
        return None
    if len(processes) == 1:
        which = f"its thread {told[0][1]}"
    else:
        which = f"of its {len(processes)} processes {', '.join(f'number {number} {text}' for number, text in told)}"
    return f"fastpost itself was the limit: {which}. The rate is a lower bound of what the server takes"


def _limiting(process: dict[str, float]) -> str | None:
    busy, queued = process["busy"], process["queued"]
    if busy >= BUSY:
        return f"kept a core {min(busy, 1.0):.0%} busy"
    if busy + queued >= BUSY:
        return f"was busy {busy:.0%} of the time and waited {queued:.0%} for a core that something else had"
    return None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {cause: round(waited, 4) for cause, waited in value.items()}
        if name == "blocked"
        else round(value, 6)
        if isinstance(value, float)
        else value
        for name, value in row.items()
    }


def empty(taken: Iterable[Json]) -> list[str]:
    """Return a sentence for each measurement in which no upload ended: which one, and why, as far as that is known."""
    return [_empty(one) for one in taken if not one["uploads"]["ok"] + one["uploads"]["failed"]]


def _empty(one: Json) -> str:
    which = f"with {Setting.of(one).in_words()}, run {one['run']}"
    limit = one["limited_by"]
    if not one["connections_opened"]:
        why = "no connection was ready"
    elif one["peer"]["settings"].get("MAX_CONCURRENT_STREAMS") == 0:
        why = causes.NO_STREAM
    elif limit is not None:
        why = f"{limit['share']:.0%} of the time they waited for the {limit['cause'].replace('_', ' ')}"
    else:
        why = "hardly any was begun"
    return (
        f"no upload ended in {one['seconds']:,.1f} s {which}: {why}; measure longer (--duration), or look at the server"
    )


def knee(taken: Sequence[Json]) -> dict[str, object] | None:
    """Return the fewest uploads in flight that reach 95 % of the best rate; None without several to choose from.

    Of several runs the mean rate stands for them. Each number of processes and connections has its own row: the knee is
    that of the row that reached the best rate; where no upload went well there is none.
    """
    means = {
        setting: math.fsum(one["uploads"]["rate"] for one in runs) / len(runs)
        for setting, runs in grouped(taken).items()
    }
    if len({setting.concurrency for setting in means}) < 2:
        return None
    best = max(means, key=lambda setting: means[setting])
    if not means[best]:
        return None
    row = [setting for setting in means if setting._replace(concurrency=best.concurrency) == best]
    chosen = min(
        (setting for setting in row if means[setting] >= _KNEE * means[best]), key=lambda setting: setting.concurrency
    )
    return chosen._asdict() | {"rate": round(means[chosen], 3)}
