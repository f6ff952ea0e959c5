"""Is `fastpost bench` true? Its uploads a second beside h2load's, in turn: same server, size, concurrency, URL.

    python -m bench.cross_check [--seconds 5] [--rounds 5]

The server has one core to itself and the client another one: on cores that they share, a client that needs less CPU
leaves the server more, and neither is cleanly the limit. The server is the limit where it kept its core busy under both
clients, and neither client did: there they have to agree within 10 %. Where a client was the limit they need not; but
when that was fastpost, it must have called its rate a lower bound. Exits with 1 when either does not hold, or when a
server was the limit nowhere: then nothing was checked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench import servers

#: (octets, in flight, connections): small uploads, and large ones on as many connections as the windows need.
LOADS = {
    "nghttpd": ((4096, 50, 1), (4096, 100, 4), (1 << 20, 32, 8)),
    "nginx": ((4096, 50, 1), (4096, 100, 4), (1 << 20, 20, 1)),
    "h2corn": ((4096, 50, 1), (4096, 100, 4), (1 << 20, 20, 1)),
}
AGREE = 0.10
BUSY = 0.9
#: Part of its core, over the client's start-up too, from which on a server counts as the limit.
SERVED = 0.85
SERVERS_CORE, CLIENTS_CORE = 0, 1


class Taken(NamedTuple):
    """One measurement: uploads a second, and the parts of their cores that client and server used.

    `lower_bound` is what bench says of its own rate.
    """

    rate: float
    busy: float
    lower_bound: bool = False
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
    return Taken(one["uploads"]["rate"], one["client"]["busy"], one["client"]["lower_bound"])


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
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (%(default)s)")
    parser.add_argument("--servers", nargs="+", default=list(LOADS), choices=list(LOADS))
    options = parser.parse_args()
    if not {SERVERS_CORE, CLIENTS_CORE} <= os.sched_getaffinity(0):
        raise SystemExit("bench.cross_check needs the first two cores: one for the server, one for the clients")
    print("| server | size | in flight | connections | fastpost bench | h2load | ratio | server's core | verdict |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---|")
    good = True
    for name in options.servers:
        judged = [_row(name, load, _rounds(name, load, options)) for load in LOADS[name]]
        good &= all(true for true, _ in judged) and any(limits for _, limits in judged)
    return 0 if good else 1


def _rounds(name: str, load: tuple[int, int, int], options: argparse.Namespace) -> list[tuple[Taken, Taken]]:
    """Measure with both in turn."""
    with contextlib.ExitStack() as stack:
        with _on_core(SERVERS_CORE):
            server = stack.enter_context(servers.start(name, tls=False))
        url = server.url.replace("{path}", "one") if "{path}" in server.url else f"{server.url}one.bin"
        with _on_core(CLIENTS_CORE):
            return [
                (
                    _watched(by_bench, url, load, options.seconds, server),
                    _watched(by_h2load, url, load, options.seconds, server),
                )
                for _ in range(options.rounds)
            ]


@contextlib.contextmanager
def _on_core(core: int) -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _watched(measure: Measure, url: str, load: tuple[int, int, int], seconds: float, server: servers.Server) -> Taken:
    """Measure, and tell how busy the server was: its part of a core, start-up and warm-up included."""
    before, began = server.cpu(), time.monotonic()
    taken = measure(url, load, seconds, server.work / "h2load-body")
    return taken._replace(served=(server.cpu() - before) / (time.monotonic() - began))


def _row(name: str, load: tuple[int, int, int], rounds: list[tuple[Taken, Taken]]) -> tuple[bool, bool]:
    """Print the medians; returns whether all is as it has to be, and whether the server was the limit."""
    ours, theirs = (statistics.median(pair[side].rate for pair in rounds) for side in (0, 1))
    busy = [statistics.median(pair[side].busy for pair in rounds) for side in (0, 1)]
    served = [statistics.median(pair[side].served for pair in rounds) for side in (0, 1)]
    ratio = ours / theirs
    true = True
    if limits := max(busy) < BUSY and min(served) >= SERVED:
        true = abs(ratio - 1) <= AGREE
        verdict = "agree" if true else "**differ**"
    elif max(busy) < BUSY:
        verdict = "neither was the limit"
    else:
        true = busy[0] < BUSY or all(pair[0].lower_bound for pair in rounds if pair[0].busy >= BUSY)
        which = " and ".join(who for who, part in zip(("bench", "h2load"), busy, strict=True) if part >= BUSY)
        verdict = f"{which} was the limit" + ("" if true else ", **and bench did not say so**")
    size, concurrency, connections = load
    key = f"| {name} | {size:,} | {concurrency} | {connections}"
    print(
        f"{key} | {ours:,.0f} | {theirs:,.0f} | {ratio:.2f} | {served[0]:.0%}, {served[1]:.0%} | {verdict} |",
        flush=True,
    )
    return true, limits


if __name__ == "__main__":
    sys.exit(main())
