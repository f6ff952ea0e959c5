"""Whole processes measured from outside: wall and CPU time, peak RSS, and what they say that they did.

Contenders run in turn, A B A B …, so that a machine that slows down slows all of them; the first rounds warm caches
up and don't count. A run counts only when every file was answered with 2xx: failing fast wins nothing.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from bench.rivals import tree

ROOT = Path(__file__).resolve().parent.parent
#: Seconds after which a run is killed.
_TIMEOUT = 900.0
#: Octets of a read that only fills the page cache.
_READ = 2**20


class RunFailed(Exception):
    """A run that can't count: it failed, hung, or not every file was answered with 2xx."""


class Outcome(NamedTuple):
    """What a client reported: uploads tried and answered 2xx, octets of those, uploads by status, connections."""

    files: int
    ok: int
    octets: int
    statuses: Mapping[str, int]
    #: None where the client doesn't tell.
    connections: int | None = None


class Contender(NamedTuple):
    """A client to measure.

    Attributes:
        name: as the tables have it.
        argv: its command line.
        read: reads what it writes to stdout.
        loads: a command that loads the same program and libraries, and uploads nothing.
    """

    name: str
    argv: Sequence[str]
    read: Callable[[str], Outcome]
    loads: Sequence[str] = ()


class Run(NamedTuple):
    """One process: seconds of wall, user and system time, peak RSS in octets, and its outcome."""

    wall: float
    user: float
    system: float
    peak_rss: int
    outcome: Outcome

    @property
    def cpu(self) -> float:
        """User and system time together, in seconds."""
        return self.user + self.system


class Spread(NamedTuple):
    """Median, minimum and maximum of a measurement."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """Return it in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} – {self.high:{spec}})"


def spread(values: Sequence[float]) -> Spread:
    """Summarise a measurement."""
    return Spread(statistics.median(values), min(values), max(values))


def warm(contender: Contender, folder: Path) -> None:
    """Have the files to upload, and the client's own program, in the page cache when it is measured next.

    Once is not enough: kernels give up pages that nobody used for some seconds, where memory is shared between
    machines even while much is free; and in turn with others each client comes round once in half a minute.
    """
    for path, _ in tree.files(str(folder)):
        with open(path, "rb", buffering=0) as file:
            while file.read(_READ):
                pass
    load(contender)


def load(contender: Contender) -> None:
    """Have the client's own program in the page cache. Raises RunFailed when it can't be loaded."""
    if contender.loads:
        nul = subprocess.DEVNULL
        try:
            subprocess.run(contender.loads, check=True, cwd=ROOT, stdin=nul, stdout=nul, stderr=nul, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RunFailed(f"{contender.name} can't be loaded: {error}") from error


def run(contender: Contender, *, stderr: int | None = None, timeout: float = _TIMEOUT) -> Run:
    """Run a contender once, its stderr to the file descriptor `stderr` or, without one, kept for the error message.

    Raises RunFailed when it exits with another code than 0, prints no report or runs longer than `timeout` seconds.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            contender.argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log if stderr is None else stderr,
            cwd=ROOT,
            # As what is installed has its bytecode beside it: the warm-up may leave it there, also in a checkout.
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        )
        # Not process.kill: that would poll, and take the exit status and its resource usage away from wait4.
        alarm = threading.Timer(timeout, os.kill, (process.pid, signal.SIGKILL))
        alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        log.seek(0)
        outcome = _outcome(contender, process.returncode, out.read(), log.read())
    return Run(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024, outcome)


def _outcome(contender: Contender, code: int, out: bytes, log: bytes) -> Outcome:
    tail = log.decode(errors="replace").strip()[-800:]
    if code:
        raise RunFailed(f"{contender.name} ended with {code}: {tail}")
    try:
        return contender.read(out.decode())
    except (ValueError, LookupError, TypeError) as error:
        raise RunFailed(f"{contender.name}: its report can't be read ({error!r}): {out[:300]!r} {tail}") from error


def check(contender: Contender, outcome: Outcome, files: int, octets: int) -> None:
    """Raise RunFailed unless all of `files` and `octets` were answered with 2xx, on one connection."""
    good = sum(count for status, count in outcome.statuses.items() if status.startswith("2"))
    if (outcome.files, outcome.ok, good, outcome.octets) != (files, files, files, octets):
        raise RunFailed(f"{contender.name}: expected {files} files and {octets} octets answered 2xx, got {outcome}")
    if outcome.connections not in (None, 1):
        raise RunFailed(f"{contender.name}: used {outcome.connections} connections instead of one")


def interleave(
    contenders: Sequence[Contender], *, files: int, octets: int, rounds: int, warm_up: int = 1
) -> dict[str, list[Run]]:
    """Run every contender once a round, in turn, and return the runs that count by contender name.

    Each run is checked against `files` and `octets`: RunFailed.
    """
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for number in range(-warm_up, rounds):
        for contender in contenders:
            done = run(contender)
            check(contender, done.outcome, files, octets)
            note(f"{'warm-up' if number < 0 else f'round {number + 1}'}: {contender.name} {done.wall:.2f} s", done)
            if number >= 0:
                runs[contender.name].append(done)
    return runs


def note(what: str, done: Run) -> None:
    """Tell on stderr how a run went."""
    print(f"  {what}, CPU {done.cpu:.2f} s, peak RSS {done.peak_rss / 1e6:.0f} MB", file=sys.stderr)


def resident_floor() -> int:
    """Return the peak RSS of this process, in octets: a child's peak RSS can't be measured lower.

    Linux carries the high-water mark of the parent's memory over the child's exec.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the runs of one contender for a JSON report."""
    return {
        name: spread([getattr(one, name) for one in runs])._asdict()
        for name in ("wall", "user", "system", "cpu", "peak_rss")
    } | {"rounds": len(runs), "statuses": dict(runs[0].outcome.statuses)}


def machine() -> dict[str, str]:
    """Return what figures depend on: processor, kernel, versions. No host name."""
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **dict(_versions()),
    }


def programs() -> dict[str, str]:
    """Return the versions of the programs that are compared or compared with, beside those of `machine`."""
    versions = {}
    for name, *options in _PROGRAMS:
        program = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
        if program is None:
            versions[name] = "not installed"
            continue
        told = subprocess.run([program, *options], capture_output=True, text=True)
        found = re.search(r"\d+(\.\d+)+\w*", told.stdout + told.stderr)
        versions[name] = found[0] if found else "unknown"
    return versions


_PROGRAMS = (
    ("curl", "--version"),
    ("go", "version"),
    ("node", "--version"),
    ("h2load", "--version"),
    ("nghttpd", "--version"),
    ("nginx", "-v"),
)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("fastpost", "h2", "uvloop", "h2corn"):
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    try:
        import pycurl
    except ImportError:
        yield "pycurl", "not installed"
    else:
        yield "pycurl", " ".join(pycurl.version.split()[:3])
