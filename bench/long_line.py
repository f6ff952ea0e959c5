"""What `--connections auto` is worth over a long line: a relay that delays, servers with windows of 64 KiB.

    python -m bench.long_line [--rtt 20 50 100] [--servers nghttpd h2corn-64k] [--seconds 20] [--size 256]

For each round trip (ms) and server: fixed 1, 2, 4 and 8 connections and auto, in turn, on the same files. The bars:
auto at least 3 times the throughput of one connection, and at least 0.9 of the best fixed number; and on loopback
without a relay no slower than one connection (0.95 at least, for the noise), with 50,000 files of 4 KiB too. Exits with
1 when one is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from urllib.parse import urlsplit

from bench import clients, servers
from bench.measure import RunFailed, check, run, warm
from bench.relay import Relay
from bench.sets import KIB, MIB, SMALL, Set, default_cache, ensure

_FIXED = ("1", "2", "4", "8")
_WINDOW = 65_535
#: Rounds on loopback, at least.
_ROUNDS = 5
#: Octets that there are at least: with 256 KiB, 64 files.
_LEAST = 16 * MIB


def main() -> int:
    """Measure, print a Markdown table, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure --connections auto over long lines.")
    parser.add_argument("--rtt", type=float, nargs="+", default=[20, 50, 100], help="ms (%(default)s)")
    parser.add_argument("--servers", nargs="+", default=["nghttpd", "hypercorn", "h2corn-64k"])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long one connection would take (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="KiB of a file (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path, default=default_cache(), help="folder of the file sets (%(default)s)")
    options = parser.parse_args()
    missed = 0
    print(f"| server | RTT ms | files | {' | '.join(_FIXED)} | auto | auto ÷ 1 | auto ÷ best | verdict |")
    print("|---|--:|--:|" + "--:|" * (len(_FIXED) + 3) + "---|")
    try:
        for name in options.servers:
            for rtt in options.rtt:
                missed += not _line(name, rtt / 1000, options)
            for files in (Set(1000 * 256 // options.size, options.size * KIB), SMALL):
                missed += not _loopback(name, files, options)
    except (RunFailed, servers.Absent) as error:
        print(f"long_line: {error}", file=sys.stderr)
        return 1
    return 1 if missed else 0


def _line(name: str, rtt: float, options: argparse.Namespace) -> bool:
    """Measure one server behind one line; MB/s."""
    size = options.size * KIB
    files = Set(int(max(_LEAST, options.seconds * _WINDOW / rtt) / size), size)
    with servers.start(name) as server:
        port = urlsplit(server.url).port or 0
        with Relay(port, rtt) as relay:
            far = server._replace(url=server.url.replace(f":{port}/", f":{relay.port}/"))
            rates = _rates(files, far, (*_FIXED, "auto"), options)
    best = max(rates[number] for number in _FIXED)
    passed = rates["auto"] >= 3 * rates["1"] and rates["auto"] >= 0.9 * best
    _row(name, f"{rtt * 1000:g}", files, rates, rates["auto"] / best, passed)
    return passed


def _loopback(name: str, files: Set, options: argparse.Namespace) -> bool:
    """Measure both numbers without a relay, more often: a run takes but a second."""
    options = argparse.Namespace(**{**vars(options), "rounds": max(options.rounds, _ROUNDS)})
    with servers.start(name) as server:
        rates = _rates(files, server, ("1", "auto"), options)
    passed = rates["auto"] >= 0.95 * rates["1"]
    _row(name, "loopback", files, rates, rates["auto"] / rates["1"], passed)
    return passed


def _rates(
    files: Set, server: servers.Server, numbers: tuple[str, ...], options: argparse.Namespace
) -> dict[str, float]:
    folder = ensure(files, options.data)
    found: dict[str, list[float]] = {number: [] for number in numbers}
    for _ in range(options.rounds):
        for number in numbers:
            contender = clients.fastpost(folder, server, "--connections", number, name=f"fastpost, {number}")
            warm(contender, folder)
            done = run(contender)
            check(contender, done.outcome._replace(connections=None), files.count, files.octets)
            found[number].append(files.octets / done.wall / 1e6)
    return {number: statistics.median(rates) for number, rates in found.items()}


def _row(name: str, line: str, files: Set, rates: dict[str, float], to_best: float, passed: bool) -> None:
    fixed = " | ".join(f"{rates[number]:.1f}" if number in rates else "" for number in _FIXED)
    ends = f"{rates['auto'] / rates['1']:.2f} | {to_best:.2f} | {'**reached**' if passed else '**MISSED**'}"
    print(f"| {name} | {line} | {files} | {fixed} | {rates['auto']:.1f} | {ends} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
