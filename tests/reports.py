"""Reports of `fastpost bench` as it writes them, for those who read them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from fastpost import causes, hdr
from fastpost._meter import Histogram


def report(*measurements: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return a report of schema fastpost.bench/1."""
    return {
        "schema": "fastpost.bench/1",
        "fastpost": "0.1.0",
        "began": "2026-01-01T00:00:00+00:00",
        "machine": {"cores": 2, "kernel": "6.1", "python": "3.11.2"},
        "target": "http://store.example/dav/",
        "method": "PUT",
        "load": {
            "loop": "closed", "rate": None, "count": None, "duration_s": 5.0, "warm_up_s": 1.0, "size": "4KiB",
            "from": None, "with_content": False, "runs": max(one["run"] for one in measurements),
        },
        "measurements": list(measurements),
        "knee": None,
        "thresholds": [],
        "interrupted": False,
    } | changed  # fmt: skip


def measured(
    concurrency: int = 50,
    run: int = 1,
    *,
    connections: int | str = 1,
    rate: int = 1000,
    seconds: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0),
    **changed: Any,
) -> dict[str, Any]:
    """Return a measurement: so many uploads of 4 KiB in each second, latencies from 1 to some 100 ms."""
    rng = random.Random(concurrency + run)
    latency, response = Histogram(), Histogram()
    ok = sum(round(rate * took) for took in seconds)
    for _ in range(ok):
        took = 0.001 + rng.expovariate(100)
        latency.record(took)
        response.record(0.8 * took)
    blocked = dict.fromkeys(causes.CAUSES, 0.0) | {"server": 150.0, "connection_window": 100.0}
    return {
        "concurrency": concurrency,
        "connections": connections,
        "processes": 1,
        "run": run,
        "seconds": sum(seconds),
        "uploads": {"ok": ok, "failed": 0, "dropped": 0, "unfinished": 0, "rate": float(rate)},
        "bytes": {"payload": 4096 * ok, "sent": 4200 * ok, "wasted": 0, "rate": 4096.0 * rate},
        "latency_ms": hdr.figures(latency)[0],
        "response_ms": hdr.figures(response)[0],
        "histogram": {"latency": hdr.figures(latency)[1], "response": hdr.figures(response)[1]},
        "status": {"201": ok},
        "errors": {},
        "examples": {},
        "attempts": {"retried": 0, "replayed": 0},
        "connections_opened": 1,
        "peer": {
            "server": "nginx/1.22.1",
            "settings": {"MAX_CONCURRENT_STREAMS": 128},
            "stream_window": 65535,
            "connection_window": 65535,
        },
        "blocked_s": blocked,
        "limited_by": {"cause": "server", "share": 0.6, "sentence": "60% of the time the server had not answered yet"},
        "fairness": {"jain": None},
        "client": {
            "cpu_s": 2.0,
            "busy": 0.4,
            "queued": 0.0,
            "lower_bound": False,
            "sentence": None,
            "processes": [{"cpu_s": 2.0, "busy": 0.4, "queued": 0.0}],
        },
        "timeline": [
            {
                "at": sum(seconds[:place]), "seconds": took, "ok": round(rate * took), "failed": 0, "dropped": 0,
                "payload": 4096 * round(rate * took), "sent": 4200 * round(rate * took),
                "p50": 5.0, "p90": 20.0, "p99": 40.0, "p999": 60.0, "max": 90.0,
                "blocked": {cause: waited * took / sum(seconds) for cause, waited in blocked.items()},
            }
            for place, took in enumerate(seconds)
        ],
    } | changed  # fmt: skip
