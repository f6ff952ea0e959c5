"""Is `fastpost bench` true? Its uploads a second beside h2load's, in turn: same server, size, concurrency, URL.

    python -m bench.cross_check [--seconds 3] [--rounds 5] [--servers nginx]

The server has one core to itself, the clients another: on cores that they share, a client that needs less CPU leaves
the server more, and neither is cleanly the limit. How busy each is, is read from outside in the middle of each
measurement, for both clients alike.

The server is the limit where it kept its core BUSY under both clients and neither client kept its own so. There the
rates must agree within 10 %, and on each server there must be such a load, or nothing was checked. Where a client was
the limit rates may differ, but fastpost must have called its own a lower bound. Exits with 1 when any of this does
not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import servers

#: (octets, in flight, connections): small uploads, and large ones on as many connections as the windows need. The
#: servers are set up so that they are the limit, and that both clients send the same frames (see bench.servers).
LOADS = {
    "nghttpd-verbose": ((4096, 50, 2), (4096, 100, 4), (1 << 20, 32, 8)),
    "nginx": ((4096, 50, 1), (4096, 100, 4)),
    "nginx-passing": ((65536, 50, 1), (131072, 50, 1), (65536, 100, 4)),
    "h2corn-16k-frames": ((4096, 50, 1), (4096, 100, 4), (1 << 20, 20, 1)),
}
AGREE = 0.10
#: Part of a core from which on a process is the limit; the same as for bench's own "lower bound".
BUSY = 0.9
#: Above this no rounding of ours explains that bench didn't say it.
SURELY_BUSY = 0.95
WARM_UP = 1.0
#: Seconds that a client may take to start, and by which CPU is read before its window ends.
MARGIN = 0.7
SERVERS_CORE, CLIENTS_CORE = 0, 1


class Taken(NamedTuple):
    """One measurement: uploads a second, and the parts of their cores that client and server used.

    `lower_bound` is what bench says of its own rate.
    """

    rate: float
    client: float
    server: float
    lower_bound: bool = False


def by_bench(url: str, load: tuple[int, int, int], seconds: int, server: servers.Server) -> Taken:
    """Measure with fastpost."""
    size, in_flight, connections = load
    command = [sys.executable, "-m", "fastpost", "bench", url, "--size", str(size), "-c", str(in_flight)]
    command += ["--connections", str(connections), "--duration", f"{seconds}s", "--warm-up", f"{WARM_UP}s"]
    told, client, served = _watched([*command, "--method", "PUT", "--output-format", "json"], seconds, server)
    (one,) = json.loads(told)["measurements"]
    if one["uploads"]["failed"]:
        raise RuntimeError(f"{one['uploads']['failed']} uploads failed: {one['examples']}")
    return Taken(one["uploads"]["rate"], client, served, one["client"]["lower_bound"])


def by_h2load(url: str, load: tuple[int, int, int], seconds: int, server: servers.Server) -> Taken:
    """Measure with h2load; its streams are counted for each connection."""
    size, in_flight, connections = load
    body = server.work / "h2load-body"
    body.write_bytes(os.urandom(size))
    command = ["h2load", "-D", str(seconds), f"--warm-up-time={WARM_UP:.0f}", "-c", str(connections), "-t", "1"]
    command += ["-m", str(in_flight // connections), "-d", str(body), "-H", ":method: PUT", url]
    told, client, served = _watched(command, seconds, server)
    found = re.search(r"finished in .*?, ([0-9.]+) req/s", told)
    statuses = re.search(r"status codes: ([0-9]+) 2xx, ([0-9]+) 3xx, ([0-9]+) 4xx, ([0-9]+) 5xx", told)
    if found is None or statuses is None or any(int(count) for count in statuses.groups()[1:]):
        raise RuntimeError(f"h2load: {told}")
    return Taken(float(found[1]), client, served)


def main() -> int:
    """Measure in turn, print a table, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare fastpost bench with h2load.")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement, 2 at least (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (%(default)s)")
    parser.add_argument("--servers", nargs="+", default=list(LOADS), choices=list(LOADS))
    options = parser.parse_args()
    if not {SERVERS_CORE, CLIENTS_CORE} <= os.sched_getaffinity(0):
        parser.error("this needs two cores, one for the server and one for the clients")
    print("| server | size | in flight | connections | fastpost bench | h2load | ratio | server | clients | verdict |")
    print("|---|---:|---:|---:|---:|---:|---:|---|---|---|")
    good = True
    for name in options.servers:
        checked = False
        for load in LOADS[name]:
            try:
                ours, theirs = _measured(name, load, options.rounds, max(options.seconds, 2))
            except (servers.Absent, OSError, RuntimeError) as error:
                print(f"cross_check: {name}: {error}", file=sys.stderr)
                good = False
                break
            limits, right, verdict = judged(ours, theirs)
            checked |= limits
            good &= right
            _print_row(name, load, ours, theirs, verdict)
        good &= checked
    return 0 if good else 1


def judged(ours: Sequence[Taken], theirs: Sequence[Taken]) -> tuple[bool, bool, str]:
    """Return whether the server was the limit, whether all is as it must be, and that in words."""
    served = min(_median(taken, "server") for taken in (ours, theirs))
    silent = any(one.client >= SURELY_BUSY and not one.lower_bound for one in ours)
    busy = {"fastpost": _median(ours, "client"), "h2load": _median(theirs, "client")}
    ratio = _median(ours, "rate") / _median(theirs, "rate")
    limits = served >= BUSY and max(busy.values()) < BUSY
    agree = abs(ratio - 1) <= AGREE
    words = ["agree" if agree else "**differ**" if limits else "differ"]
    if not limits:
        words += [f"{name} was the limit" for name, part in busy.items() if part >= BUSY] or ["neither was the limit"]
    if any(one.lower_bound for one in ours):
        words.append(f"bench: lower bound ({sum(one.lower_bound for one in ours)} of {len(ours)})")
    if silent:
        words.append("**bench did not say that it was the limit**")
    return limits, not silent and (agree or not limits), "; ".join(words)


def _measured(name: str, load: tuple[int, int, int], rounds: int, seconds: int) -> tuple[list[Taken], list[Taken]]:
    """Measure with both clients in turn."""
    ours, theirs = [], []
    with contextlib.ExitStack() as stack:
        with _on_core(SERVERS_CORE):
            server = stack.enter_context(servers.start(name))
        stack.enter_context(_on_core(CLIENTS_CORE))
        url = server.url.replace("{path}", "one") if "{path}" in server.url else f"{server.url}one.bin"
        for _ in range(rounds):
            ours.append(by_bench(url, load, seconds, server))
            theirs.append(by_h2load(url, load, seconds, server))
    return ours, theirs


@contextlib.contextmanager
def _on_core(core: int) -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _watched(command: Sequence[str], seconds: int, server: servers.Server) -> tuple[str, float, float]:
    """Run a client; return what it says, and the parts of a core that it and the server used amid its window."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        time.sleep(WARM_UP + MARGIN)
        first = (time.monotonic(), servers.process_cpu(client.pid), server.cpu())
        time.sleep(max(seconds - 2 * MARGIN, MARGIN))
        last = (time.monotonic(), servers.process_cpu(client.pid), server.cpu())
        told, complaint = client.communicate()
    if client.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {complaint or told}")
    elapsed, used, served = (after - before for before, after in zip(first, last, strict=True))
    return told, used / elapsed, served / elapsed


def _median(taken: Sequence[Taken], field: str) -> float:
    return float(statistics.median(getattr(one, field) for one in taken))


def _print_row(
    name: str, load: tuple[int, int, int], ours: Sequence[Taken], theirs: Sequence[Taken], verdict: str
) -> None:
    size, in_flight, connections = load
    cells = [name, f"{size:,}", str(in_flight), str(connections), _rates(ours), _rates(theirs)]
    cells.append(f"{_median(ours, 'rate') / _median(theirs, 'rate'):.2f}")
    cells += [f"{_median(ours, field):.0%}, {_median(theirs, field):.0%}" for field in ("server", "client")]
    print(f"| {' | '.join([*cells, verdict])} |", flush=True)


def _rates(taken: Sequence[Taken]) -> str:
    rates = [one.rate for one in taken]
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


if __name__ == "__main__":
    sys.exit(main())
