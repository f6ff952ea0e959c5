"""What `--processes 2` brings beside one process: small files, medium and large ones, and over TLS.

    python -m bench.processes [--rounds 5] [--servers nghttpd h2corn nginx discard] [--connections 2 auto]

Both have as many connections and 50 uploads in flight, and run in turn after a warm-up; whole processes are measured
from outside. Exits with 1 when two processes lose anywhere, or gain nothing on large files over TLS where the server
leaves a core free: discard does, as one on another machine would; one that decrypts needs as much of it as the client.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Final, NamedTuple

from bench import clients, compare, servers, sets
from bench.measure import Run, RunFailed, check, note, run, spread, warm

#: Wall time of two processes by that of one: what still counts as not losing on a noisy machine.
LOSES: Final = 1.05
#: What is a gain beyond the noise.
GAINS: Final = 0.95
#: A server that used less than this many cores while one process sent leaves one free: most of the second one.
FREE: Final = 0.25
_SETS: Final = {
    "4 KiB": (sets.SMALL, False),
    "256 KiB": (sets.MEDIUM, False),
    "256 KiB, TLS": (sets.MEDIUM, True),
    "256 MiB": (sets.LARGE, False),
    "256 MiB, TLS": (sets.LARGE, True),
}
#: Servers that are for some of them only.
_ONLY: Final = {"discard": ["256 MiB, TLS"]}


class Row(NamedTuple):
    """One server with one set and as many connections: the runs by number of processes, and the server's cores.

    The latter while one process sent.
    """

    server: str
    files: str
    connections: str
    runs: dict[int, list[Run]]
    cores: float

    @property
    def ratio(self) -> float:
        """Wall time of two processes by that of one, the median over the rounds: what slows a round down slows both."""
        return spread([two.wall / one.wall for one, two in zip(self.runs[1], self.runs[2], strict=True)]).median

    @property
    def verdict(self) -> str:
        """What the ratio means here."""
        if self.ratio > LOSES:
            return "**LOSES**"
        if self.files == "256 MiB, TLS" and self.cores < FREE:
            return "gains" if self.ratio < GAINS else "**GAINS NOTHING**"
        return "does not lose"


def measure(name: str, label: str, connections: str, rounds: int, data: Path) -> Row:
    """Run both in turn. Raises RunFailed, Absent."""
    wanted, tls = _SETS[label]
    folder = sets.ensure(wanted, data)
    runs: dict[int, list[Run]] = {1: [], 2: []}
    used = 0.0
    with servers.start(name, tls=tls) as server:
        for number in range(-1, rounds):
            for count in runs:
                options = ("--connections", connections, "--processes", str(count))
                contender = clients.fastpost(folder, server, *options)
                warm(contender, folder)
                before = server.cpu()
                done = run(contender)
                outcome = done.outcome._replace(connections=None)
                check(contender, outcome, wanted.count, wanted.octets)
                note(f"{name}, {label}, {connections}: {count} of {rounds} {done.wall:.2f} s", done)
                if server.store:
                    compare._empty(server.store)
                if number >= 0:
                    runs[count].append(done)
                    used += server.cpu() - before if count == 1 else 0.0
    return Row(name, label, connections, runs, used / sum(each.wall for each in runs[1]))


def main() -> int:
    """Measure, print the table, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what several processes bring.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--servers", nargs="+", default=["nghttpd", "h2corn", "discard"])
    parser.add_argument("--connections", nargs="+", default=["2", "auto"])
    parser.add_argument("--data", type=Path, default=sets.default_cache(), help="folder of the files (%(default)s)")
    options = parser.parse_args()
    try:
        chosen = itertools.product(options.servers, options.connections, _SETS)
        rows = [
            measure(name, label, connections, options.rounds, options.data)
            for name, connections, label in chosen
            if label in _ONLY.get(name, _SETS)
        ]
    except (servers.Absent, RunFailed) as error:
        print(f"processes: {error}", file=sys.stderr)
        return 1
    figured = "1 process: wall s | CPU s | 2 processes: wall s | CPU s | wall 2 ÷ 1 | server cores"
    print(f"| server | files | connections | {figured} | |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|---|")
    for row in rows:
        figures = [[getattr(each, what) for each in row.runs[count]] for count in (1, 2) for what in ("wall", "cpu")]
        cells = [f"{spread(values):.2f}" for values in figures]
        print(
            f"| {row.server} | {row.files} | {row.connections} | {' | '.join(cells)} | {row.ratio:.2f} | "
            f"{row.cores:.2f} | {row.verdict} |"
        )
    return 1 if any("**" in row.verdict for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
