"""What a benchmark came to, as JSON for programs; nothing here prints. schemas/bench-1.json describes it.

The text for people and `compare` read this JSON, so there is one place where a figure gets its name.
"""

from __future__ import annotations

import math
import os
import platform
from typing import TYPE_CHECKING, Any, Final

from fastpost import __version__, causes, hdr
from fastpost.measurement import gained
from fastpost.report import safe
from fastpost.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpost.measurement import Measurement, Reading

SCHEMA: Final = "fastpost.bench/1"

#: Part of a core above which this process was the limit.
BUSY: Final = 0.9
#: The knee of a sweep: the fewest in flight that reach this part of the best rate.
_KNEE: Final = 0.95


def report(
    measurements: Sequence[tuple[Measurement, int]],
    load: dict[str, object],
    began: str,
) -> dict[str, Any]:
    """Return the report of schema fastpost.bench/1.

    Args:
        measurements: each with the number of its run, from 1 on.
        load: what was asked for.
        began: when, ISO 8601.
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
        "interrupted": any(one.interrupted for one, _ in measurements),
    }


def connections(number: int | str) -> str:
    """Return a number of connections in words."""
    return f"{number} connection{'' if number == 1 else 's'}"


def measured(one: Measurement, run: int) -> dict[str, Any]:
    """Return the figures of one measurement. Sizes in octets, times in seconds but for those in ms."""
    meter, tally, settings = one.meter, one.tally, one.plan.settings
    first, last = one.first, one.last
    elapsed = max(min(last.at, meter.ends) - first.at, 1e-9) if first and last else 0.0
    blocked = gained(first.blocked, last.blocked) if first and last else {}
    limit = causes.verdict(_windowed(tally, blocked))
    jain = causes.jain(tally)
    return {
        "concurrency": settings.concurrency,
        "connections": settings.connections,
        "run": run,
        "seconds": round(elapsed, 6),
        "uploads": {
            "ok": meter.ok,
            "failed": meter.failed,
            "dropped": last.dropped - first.dropped if first and last else 0,
            "rate": round(meter.ok / elapsed, 3) if elapsed else 0.0,
        },
        "bytes": {
            "payload": meter.payload,
            "sent": last.sent - first.sent if first and last else 0,
            "wasted": meter.wasted,
            "rate": round(meter.payload / elapsed, 1) if elapsed else 0.0,
        },
        "latency_ms": hdr.summary(meter.latency),
        "response_ms": hdr.summary(meter.response),
        "histogram": {"latency": hdr.compressed(meter.latency), "response": hdr.compressed(meter.response)},
        "status": {str(status): count for status, count in meter.statuses().items()},
        "errors": dict(sorted(tally.errors.items())),
        "examples": {cause: safe(found[0][1]) for cause, found in sorted(tally.first_failures.items())},
        "attempts": {"retried": meter.retried, "replayed": meter.replayed},
        "connections_opened": tally.connections,
        "peer": {
            "server": tally.peer.server,
            "settings": one.peer_settings,
            "stream_window": tally.peer.stream_window,
            "connection_window": tally.peer.connection_window,
        },
        "blocked_s": {cause: round(blocked.get(cause, 0.0), 6) for cause in causes.CAUSES},
        "limited_by": None if limit is None else limit._asdict(),
        "fairness": {"jain": None if jain is None else round(jain, 6)},
        "client": _client(first, last),
        "timeline": [_rounded(row._asdict()) for row in one.timeline.rows],
    }


def _windowed(tally: Tally, blocked: dict[str, float]) -> Tally:
    """Return what `causes` looks at, of the window alone."""
    windowed = Tally()
    windowed.blocked = blocked
    windowed.peer = tally.peer
    windowed.connections = tally.connections
    return windowed


def _client(first: Reading | None, last: Reading | None) -> dict[str, object]:
    """Return how busy this process was, and whether the figures are a lower bound therefore."""
    elapsed = last.at - first.at if first and last else 0.0
    if not first or not last or elapsed <= 0:
        return {"cpu_s": 0.0, "busy": 0.0, "queued": 0.0, "lower_bound": False, "sentence": None}
    busy = (last.busy - first.busy) / elapsed
    queued = (last.queued - first.queued) / elapsed
    sentence = None
    if busy >= BUSY:
        sentence = (
            f"fastpost itself was the limit: its thread kept a core {min(busy, 1.0):.0%} busy. "
            "The rate is a lower bound of what the server takes"
        )
    elif busy + queued >= BUSY:
        sentence = (
            f"fastpost itself was the limit: its thread was busy {busy:.0%} of the time and waited {queued:.0%} for a "
            "core that something else had. The rate is a lower bound of what the server takes"
        )
    return {
        "cpu_s": round(last.cpu - first.cpu, 6),
        "busy": round(busy, 4),
        "queued": round(queued, 4),
        "lower_bound": sentence is not None,
        "sentence": sentence,
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {cause: round(waited, 4) for cause, waited in value.items()}
        if name == "blocked"
        else round(value, 4)
        if isinstance(value, float)
        else value
        for name, value in row.items()
    }


def knee(taken: Sequence[dict[str, Any]]) -> dict[str, object] | None:
    """Return the fewest uploads in flight that reach 95 % of the best rate; None without several to choose from.

    Of several runs the mean rate stands for them. Of several numbers of connections each has its own row: the knee is
    that of the number that reached the best rate.
    """
    rates: dict[tuple[object, int], list[float]] = {}
    for one in taken:
        rates.setdefault((one["connections"], one["concurrency"]), []).append(one["uploads"]["rate"])
    means = {key: math.fsum(several) / len(several) for key, several in rates.items()}
    if len({concurrency for _, concurrency in means}) < 2:
        return None
    best = max(means, key=lambda key: means[key])
    reached = [key for key in means if key[0] == best[0] and means[key] >= _KNEE * means[best]]
    chosen = min(reached, key=lambda key: key[1])
    return {"connections": chosen[0], "concurrency": chosen[1], "rate": round(means[chosen], 3)}
