"""Is `fastpost bench` true? Its uploads a second beside h2load's, in turn: same server, size, concurrency, URL.

    python -m bench.cross_check [--seconds 5] [--rounds 3]

Exits with 1 when they differ by more than 10 % where the server is the limit: where it kept a core busy under both, and
neither client did. Where it waits for the clients, a client that takes longer for its part of the work gets less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import servers

SERVERS = ("nghttpd", "nginx", "h2corn")
#: (octets, in flight, connections)
LOADS = ((4096, 50, 1), (4096, 100, 4), (1 << 20, 20, 1))
AGREE = 0.10
BUSY = 0.9
#: Part of a core, over start-up and warm-up too, from which on a server with one thread counts as the limit.
SERVED = 0.8


class Taken(NamedTuple):
    """One measurement: uploads a second, and the parts of a core that client and server used."""

    rate: float
    busy: float
    served: float = 0.0


Measure = Callable[[str, tuple[int, int, int], float, Path], Taken]


def by_bench(url: str, load: tuple[int, int, int], seconds: float, _: Path) -> Taken:
    """Measure with fastpost."""
    size, concurrency, connections = load
    command = [sys.executable, "-m", "fastpost", "bench", url, "--size", str(size), "-c", str(concurrency)]
    command += ["--connections", str(connections), "--duration", f"{seconds}s", "--warm-up", "1s", "--method", "PUT"]
    done = subprocess.run([*command, "--output-format", "json"], capture_output=True, text=True, check=True)
    (one,) = json.loads(done.stdout)["measurements"]
    if one["uploads"]["failed"]:
        raise RuntimeError(f"{one['uploads']['failed']} uploads failed: {one['examples']}")
    return Taken(one["uploads"]["rate"], one["client"]["busy"])


def by_h2load(url: str, load: tuple[int, int, int], seconds: float, body: Path) -> Taken:
    """Measure with h2load; its streams are counted for each connection."""
    size, concurrency, connections = load
    body.write_bytes(os.urandom(size))
    command = ["h2load", "-D", str(round(seconds)), "--warm-up-time=1", "-c", str(connections), "-t", "1"]
    command += ["-m", str(concurrency // connections), "-d", str(body), "-H", ":method: PUT", url]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"finished in .*?, ([0-9.]+) req/s", done.stdout)
    statuses = re.search(r"status codes: ([0-9]+) 2xx, ([0-9]+) 3xx, ([0-9]+) 4xx, ([0-9]+) 5xx", done.stdout)
    if found is None or statuses is None or any(int(count) for count in statuses.groups()[1:]):
        raise RuntimeError(f"h2load: {done.stdout}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(float(found[1]), used / (seconds + 1))


def main() -> int:
    """Measure in turn, print a table, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare fastpost bench with h2load.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (%(default)s)")
    parser.add_argument("--servers", nargs="+", default=SERVERS, choices=SERVERS)
    options = parser.parse_args()
    print("| server | size | in flight | connections | fastpost bench | h2load | ratio | server's core | verdict |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---|")
    agreed = True
    for name in options.servers:
        for load in LOADS:
            with servers.start(name, tls=False) as server:
                url = server.url.replace("{path}", "one") if "{path}" in server.url else f"{server.url}one.bin"
                rounds = [
                    (
                        _watched(by_bench, url, load, options.seconds, server),
                        _watched(by_h2load, url, load, options.seconds, server),
                    )
                    for _ in range(options.rounds)
                ]
            agreed &= _row(name, load, rounds)
    return 0 if agreed else 1


def _watched(measure: Measure, url: str, load: tuple[int, int, int], seconds: float, server: servers.Server) -> Taken:
    """Measure, and tell how busy the server was: its part of a core, start-up and warm-up included."""
    before, began = server.cpu(), time.monotonic()
    taken = measure(url, load, seconds, server.work / "h2load-body")
    return taken._replace(served=(server.cpu() - before) / (time.monotonic() - began))


def _row(name: str, load: tuple[int, int, int], rounds: list[tuple[Taken, Taken]]) -> bool:
    """Print the medians; False when they disagree though the server was the limit."""
    ours, theirs = (statistics.median(pair[side].rate for pair in rounds) for side in (0, 1))
    busy = max(taken.busy for pair in rounds for taken in pair)
    served = [statistics.median(pair[side].served for pair in rounds) for side in (0, 1)]
    server_limits = busy < BUSY and min(served) >= SERVED
    ratio = ours / theirs
    agree = abs(ratio - 1) <= AGREE
    verdict = "agree" if agree else "**differ**"
    if not server_limits:
        verdict += "; the server was not the limit" if busy < BUSY else f"; a client was the limit ({busy:.0%})"
    size, concurrency, connections = load
    key = f"| {name} | {size:,} | {concurrency} | {connections}"
    print(
        f"{key} | {ours:,.0f} | {theirs:,.0f} | {ratio:.2f} | {served[0]:.0%}, {served[1]:.0%} | {verdict} |",
        flush=True,
    )
    return agree or not server_limits


if __name__ == "__main__":
    sys.exit(main())
