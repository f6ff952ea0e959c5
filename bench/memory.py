"""Peak RSS of fastpost: 200,000 tiny files, and one sparse file of 8 GiB, cleartext and TLS. The bar: 150 MB each.

    python -m bench.memory [--server nghttpd] [--files 200000] [--gib 8]

Exits with 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

from bench import clients, servers
from bench.measure import Run, RunFailed, check, machine, note, resident_floor, run
from bench.sets import GIB, Set, default_cache, ensure

#: Octets; MB are 10⁶.
LIMIT = 150_000_000
_TINY = 16


class Case(NamedTuple):
    """One measured upload."""

    files: Set
    tls: bool

    @property
    def way(self) -> str:
        """How it goes."""
        return "TLS" if self.tls else "cleartext"


def measure(case: Case, data: Path, server_name: str) -> Run:
    """Upload a case once. Raises RunFailed when a file was not answered with 2xx."""
    folder = ensure(case.files, data)
    with servers.start(server_name, tls=case.tls) as server:
        contender = clients.fastpost(folder, server)
        done = run(contender)
        check(contender, done.outcome, case.files.count, case.files.octets)
    note(f"{case.files}, {case.way}: {done.wall:.1f} s", done)
    return done


def main() -> int:
    """Measure, report, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the peak RSS of fastpost.")
    parser.add_argument("--server", choices=servers.NAMES, default="h2corn")
    parser.add_argument("--files", type=int, default=200_000, help="number of tiny files (%(default)s)")
    parser.add_argument("--gib", type=int, default=8, help="size of the sparse file, GiB (%(default)s)")
    parser.add_argument("--data", type=Path, default=default_cache(), help="folder of the file sets (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="folder of the report (%(default)s)")
    options = parser.parse_args()
    many, huge = Set(options.files, _TINY), Set(1, options.gib * GIB, sparse=True)
    cases = [Case(files, tls) for files in (many, huge) for tls in (False, True)]
    try:
        runs = [measure(case, options.data, options.server) for case in cases]
    except (RunFailed, servers.Absent) as error:
        print(f"memory: {error}", file=sys.stderr)
        return 1
    floor = resident_floor()
    print("| files | way | peak RSS MB | seconds | bar | verdict |\n|---|---|---:|---:|---:|---|")
    for case, done in zip(cases, runs, strict=True):
        verdict = "**reached**" if done.peak_rss < LIMIT else "**MISSED**"
        print(
            f"| {case.files} | {case.way} | {done.peak_rss / 1e6:.1f} | {done.wall:.1f} "
            f"| < {LIMIT / 1e6:.0f} | {verdict} |"
        )
    print(f"\nThe measuring process itself has {floor / 1e6:.1f} MB: less can't be seen.")
    options.output.mkdir(parents=True, exist_ok=True)
    _write(options.output / "memory.json", cases, runs, options.server)
    return 0 if all(done.peak_rss < LIMIT for done in runs) else 1


def _write(path: Path, cases: list[Case], runs: list[Run], server: str) -> None:
    rows = [
        {"files": case.files.count, "size": case.files.size, "tls": case.tls, "peak_rss": done.peak_rss}
        | {"wall": done.wall, "cpu": done.cpu, "passed": done.peak_rss < LIMIT}
        for case, done in zip(cases, runs, strict=True)
    ]
    result = {"schema": "fastpost.bench.memory/1", "server": server, "limit": LIMIT, "machine": machine()}
    path.write_text(json.dumps(result | {"floor": resident_floor(), "runs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
