"""Memory of `fastpost bench` at full rate, by one process and by two: as much at the end as after ten seconds?

    python -m bench.endless [--server nghttpd] [--seconds 60]

Uploads of 4 KiB in a closed loop. Resident memory is read from /proc twice a second, of fastpost and of the processes
that it forked; what those share is counted in each. Exits with 1 when one has grown by more than 5 % and 1 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import servers

#: Seconds after which a run is what it stays.
SETTLED: Final = 10.0
GROWTH: Final = 1.05
#: Octets below which growth is no growth: an arena of the allocator.
_NOISE: Final = 1_000_000
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Grown(NamedTuple):
    """One process: octets resident after ten seconds, and at the end."""

    settled: int
    last: int

    @property
    def flat(self) -> bool:
        """True when it is as large as it was."""
        return self.last <= max(self.settled * GROWTH, self.settled + _NOISE)


def measure(url: str, processes: int, seconds: float) -> tuple[list[Grown], dict[str, Any]]:
    """Run one benchmark; returns what became of the memory of each process, the first one's first, and the report."""
    argv = [sys.executable, "-m", "fastpost", "bench", url, "--processes", str(processes), "--duration", f"{seconds}s"]
    with subprocess.Popen(
        [*argv, "--connections", "2", "--output-format", "json", "--no-progress"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=servers.ROOT,
    ) as running:
        began = time.monotonic()
        seen: dict[int, list[tuple[float, int]]] = {}
        # The warm-up takes a second; what ends is smaller than it was.
        while (passed := time.monotonic() - began) < seconds + 0.5 and running.poll() is None:
            for pid in (running.pid, *_children(running.pid)):
                seen.setdefault(pid, []).append((passed, _resident(pid)))
            time.sleep(0.5)
        out, _ = running.communicate()
    if running.returncode:
        raise RuntimeError(f"fastpost bench ended with {running.returncode}")
    return [_grown(samples) for samples in seen.values()], json.loads(out)["measurements"][0]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _grown(samples: list[tuple[float, int]]) -> Grown:
    return Grown(next(octets for at, octets in samples if at >= SETTLED), samples[-1][1])


def main() -> int:
    """Measure, print the table, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the memory of fastpost bench over time.")
    parser.add_argument("--server", choices=servers.NAMES, default="nghttpd")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run, 15 at least (%(default)s)")
    options = parser.parse_args()
    flat = True
    print("| processes | seconds | uploads | uploads/s | busy | RSS after 10 s, MB | at the end, MB | |")
    print("|--:|--:|--:|--:|--:|--:|--:|---|")
    for processes in (1, 2):
        try:
            with servers.start(options.server) as server:
                grown, report = measure(server.url, processes, max(options.seconds, 15.0))
        except (servers.Absent, RuntimeError) as error:
            print(f"endless: {error}", file=sys.stderr)
            return 1
        alike = all(each.flat for each in grown)
        flat = flat and alike
        busy = " and ".join(f"{each['busy']:.0%}" for each in report["client"]["processes"])
        print(
            f"| {processes} | {report['seconds']:.0f} | {report['uploads']['ok']:,} | {report['uploads']['rate']:,.0f} "
            f"| {busy} "
            f"| {' + '.join(f'{each.settled / 1e6:.1f}' for each in grown)} "
            f"| {' + '.join(f'{each.last / 1e6:.1f}' for each in grown)} | {'flat' if alike else '**GROWS**'} |"
        )
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
