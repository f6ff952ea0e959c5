"""A million uploads to a server that treats 2 % of the requests badly: refuses, resets, delays, closes, answers 503.

    python -m bench.soak [--files 1000000] [--share 0.02]

The bars: every file arrives intact (CRC-32 of what the server took against the file on disk), resident memory at the
end is within 10 % of that at a tenth of the way, and so is the most of open descriptors. Both are read from /proc as
the run goes, each time that the server has taken another thousand. Exits with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple
from zlib import crc32

from bench.measure import machine
from bench.servers import ROOT
from bench.sets import KIB, Mixed, default_cache, ensure

#: Steps that the run is told in; memory at the end of the first is what it is judged by.
STEPS = 10
#: How much more memory and descriptors there may be at the end.
GROWTH = 0.10
#: Seconds after which the run counts as hung.
_TIMEOUT = 3600.0
#: A file meets the end of a connection more often than not: 50 are in flight, and every 250th request ends one.
_OPTIONS = ("--retries", "30", "--retry-delay", "0.05", "--no-progress", "--output-format", "json")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """One look at fastpost: seconds since its start, files at the server, octets resident, descriptors open."""

    at: float
    taken: int
    resident: int
    descriptors: int


class Step(NamedTuple):
    """A tenth of the run: its last look, and the descriptors of all of its looks."""

    last: Sample
    descriptors: float
    most_descriptors: int


class Soak(NamedTuple):
    """A whole run. `sums`: CRC-32 by path, of what the server took; `report`: fastpost's own."""

    code: int
    seconds: float
    peak: int
    steps: list[Step]
    report: dict[str, Any]
    faults: dict[str, Any]
    sums: dict[str, int]
    blamed: str


def soak(folder: Path, files: int, share: float) -> Soak:
    """Upload the folder once, to a server of its own, and watch."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as blamed:
        server = subprocess.Popen(
            [sys.executable, "-m", "bench.faulty_server", "--share", str(share)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=blamed, text=True, cwd=ROOT,
        )  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/"
        began = time.monotonic()
        client = subprocess.Popen(
            [sys.executable, "-m", "fastpost", "upload", str(folder), "--to", url, *_OPTIONS],
            stdin=subprocess.DEVNULL, stdout=out, cwd=ROOT,
        )  # fmt: skip
        ending = _Ending(client, server.stdin)
        ending.start()
        samples, rest = _watch(server.stdout, client.pid, began)
        faults = json.loads(rest)
        sums = {path: int(checksum, 16) for checksum, path in (line.split() for line in server.stdout)}
        server.wait()
        ending.join()
        out.seek(0)
        blamed.seek(0)
        report = json.loads(out.read() or "{}")
        return Soak(
            ending.code, ending.at - began, ending.peak, steps(samples, files), report, faults, sums, blamed.read()
        )


class _Ending(threading.Thread):
    """Waits for the client, and then ends the server by the end of its stdin. A client that hangs is killed."""

    def __init__(self, client: subprocess.Popen[bytes], server: IO[str]) -> None:
        super().__init__(daemon=True)
        self.code = 0
        self.at = 0.0
        self.peak = 0
        self._client = client
        self._server = server

    def run(self) -> None:
        alarm = threading.Timer(_TIMEOUT, os.kill, (self._client.pid, signal.SIGKILL))
        alarm.start()
        _, status, usage = os.wait4(self._client.pid, 0)
        alarm.cancel()
        self.at = time.monotonic()
        self.code = self._client.returncode = os.waitstatus_to_exitcode(status)
        self.peak = usage.ru_maxrss * 1024
        self._server.close()


def _watch(lines: IO[str], pid: int, began: float) -> tuple[list[Sample], str]:
    """Look at the client for each line of the server, and return that with the first line that is no number."""
    samples: list[Sample] = []
    for line in lines:
        if not line.strip().isdigit():
            return samples, line
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue  # it has just ended
        samples.append(Sample(time.monotonic() - began, int(line), resident, descriptors))
    raise RuntimeError("the server ended before the client")


def steps(samples: Sequence[Sample], files: int) -> list[Step]:
    """Return the tenths of a run of so many files, those that it came to."""
    found = []
    for number in range(STEPS):
        part = [one for one in samples if number * files < one.taken * STEPS <= (number + 1) * files]
        if part:
            opened = [one.descriptors for one in part]
            found.append(Step(part[-1], statistics.median(opened), max(opened)))
    return found


def expected(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the request path and the CRC-32 of every file."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            yield f"/{path.relative_to(folder)}", crc32(path.read_bytes())


def damage(wanted: Iterator[tuple[str, int]], sums: Mapping[str, int]) -> tuple[int, int, int]:
    """Return how many files are missing at the server, how many are other than on disk, and paths that are nobody's."""
    count = missing = other = 0
    for path, checksum in wanted:
        count += 1
        missing += path not in sums
        other += sums.get(path, checksum) != checksum
    return missing, other, len(sums) - (count - missing)


def judge(run: Soak, files: int, damaged: tuple[int, int, int]) -> list[str]:
    """Return what is missed."""
    missed = []
    counted = run.report.get("files", {})
    if run.code or counted.get("ok") != files:
        missed.append(f"exit code {run.code}, {counted}, {run.report.get('errors')}")
    if any(damaged):
        missed.append("missing {}, damaged {}, unknown {}".format(*damaged))
    if run.blamed:
        missed.append(f"the client broke the protocol: {run.blamed[:500]}")
    if len(run.steps) < STEPS:
        return [*missed, f"only {len(run.steps)} of {STEPS} steps"]
    first, last = run.steps[0], run.steps[-1]
    if last.last.resident > first.last.resident * (1 + GROWTH):
        missed.append("memory grew")
    if last.most_descriptors > first.most_descriptors * (1 + GROWTH):
        missed.append("descriptors grew")
    return missed


def tell(run: Soak, wanted: Mixed, damaged: tuple[int, int, int]) -> None:
    """Print the figures as Markdown."""
    facts = machine()
    print(f"{wanted}; " + ", ".join(f"{name} {facts[name]}" for name in ("processor", "kernel", "python", "fastpost")))
    print()
    print("| files | seconds | RSS MB | descriptors: median | most |\n|---:|---:|---:|---:|---:|")
    for step in run.steps:
        last = step.last
        print(
            f"| {last.taken:,} | {last.at:.0f} | {last.resident / 1e6:.1f} "
            f"| {step.descriptors:.0f} | {step.most_descriptors} |"
        )
    print(f"\n{run.seconds:.0f} s to the end of the process, peak RSS {run.peak / 1e6:.1f} MB")
    if len(run.steps) == STEPS:
        print(f"RSS at the end / at a tenth: {run.steps[-1].last.resident / run.steps[0].last.resident:.3f}")
    print(f"{json.dumps(run.faults)}; {json.dumps(run.report.get('attempts'))}")
    print("{:,} files at the server; missing {}, damaged {}, unknown {}".format(len(run.sums), *damaged))


def main() -> int:
    """Upload, compare, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Upload a million files to a server that misbehaves at random.")
    parser.add_argument("--files", type=int, default=1_000_000, help="of 100 octets to 4 KiB (%(default)s)")
    parser.add_argument("--share", type=float, default=0.02, help="of the requests that meet a fault (%(default)s)")
    parser.add_argument("--data", type=Path, default=default_cache(), help="folder of the file sets (%(default)s)")
    options = parser.parse_args()
    wanted = Mixed(options.files, 100, 4 * KIB)
    folder = ensure(wanted, options.data)
    run = soak(folder, options.files, options.share)
    damaged = damage(expected(folder), run.sums)
    tell(run, wanted, damaged)
    missed = judge(run, options.files, damaged)
    print("\n" + ("; ".join(f"MISSED: {one}" for one in missed) or "Every bar is reached."))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
