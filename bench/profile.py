"""Where a client's CPU time goes, cell by cell of the comparison: by perf, start-up apart.

    python -m bench.profile [--servers h2corn nghttpd-tls ...] [--sets small ...] [--clients fastpost libcurl ...]

Each client uploads a set, and one file alone, both sampled by `perf record` (5,000 times a second of CPU time). What
one file costs is its start-up; the rest of each kind is what the set costs more than that. Kernel time is told by what
was asked of it. Needs perf (Debian: linux-perf) and the right to see the kernel's symbols. Prints a Markdown table:
milliseconds, medians of --rounds. Where the comparison has measured the cell, a second table follows: each bar that is
missed, the floor for the same work with the same packages (bench.floor), and what fastpost spends more on than the
client that the bar is against, where that one was profiled too.
"""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import clients, servers, sets
from bench.bars import OURS
from bench.cells import Cell
from bench.compare import RIVALS, SERVERS, SETS, stored_records
from bench.floor import floors, share
from bench.measure import ROOT, Contender, RunFailed, warm

#: Milliseconds by kind, by client.
Spent = Mapping[str, Mapping[str, float]]

KINDS = ("start-up", "send", "receive, wait", "files", "encrypt", "copy", "Python", "own code", "rest")
_CLIENTS: dict[str, Callable[[Path, servers.Server], Contender]] = {"fastpost": clients.fastpost, **RIVALS}
#: What is compared between two clients: files are read by read(2) or pread(2), and read(2) receives, too.
_COMPARED = {
    "start-up": ("start-up",),
    "send": ("send",),
    "files, receive, wait": ("files", "receive, wait"),
    "encrypt": ("encrypt",),
    "copy": ("copy",),
    "Python, own code, rest": ("Python", "own code", "rest"),
}
_FREQUENCY = 5000
#: A process that loads what fastpost is made of, and ends as it does.
_PACKAGES = (
    sys.executable,
    "-c",
    "import os; from fastpost.collector import spare_loading; spare_loading(); "
    "import click, uvloop, h2.connection; os._exit(0)",
)
#: By the function of the C library or the system call, the first that fits: also what the kernel does there.
_CALLS = (
    ("files", r"open|stat|pread|close|getdents|readdir|syscall|fadvise|mmap|munmap|lseek|fdopendir"),
    ("send", r"send|write"),
    ("receive, wait", r"recv|read|poll|epoll|cond|mutex|futex|sem_|nanosleep|asynccancel"),
    ("copy", r"memmove|memcpy"),
)
_SYSTEM_CALL = re.compile(r" (?:__x64_sys_|__arm64_sys_|ksys_|__sys_|do_sys_)(\w+)")
#: By the function that was executing, in programs that bring all with them (Go).
_FUNCTIONS = (("encrypt", r"^(vendor/golang.org/x/)?crypto[/.]"), ("copy", r"^runtime\.memmove"))
#: By the object that was executing, in user space; the first that fits.
_OBJECTS = (
    ("encrypt", r"libcrypto|libssl"),
    ("own code", r"/fastpost/_|libcurl|libnghttp2|/h2load|/curl$|/go_client|/node$"),
    ("Python", r"libpython|python3|site-packages|lib-dynload"),
)


def main() -> int:
    """Profile, print a table; return the exit code."""
    parser = argparse.ArgumentParser(description="Say where the CPU time of uploads goes.")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--clients", nargs="+", choices=_CLIENTS, default=["fastpost", "libcurl"])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--data", type=Path, default=sets.default_cache(), help="folder of the file sets (%(default)s)")
    options = parser.parse_args()
    if shutil.which("perf") is None:
        print("profile: perf is not installed (Debian: linux-perf)", file=sys.stderr)
        return 1
    print(f"| server | files | client | CPU ms | {' | '.join(KINDS)} |")
    print(f"|---|---|---|--:|{'--:|' * len(KINDS)}")
    found, packages = {}, {}
    for name in options.servers:
        for kind in options.sets:
            cell = Cell(name.removesuffix("-tls"), name.endswith("-tls"), kind)
            found[cell] = _profile_cell(cell, options)
            packages[cell] = _packages()
    _print_floors(found, packages)
    return 0


def _packages() -> float:
    """Return what the packages alone take, milliseconds; in each cell anew, as the machine has its moods."""
    with tempfile.TemporaryDirectory() as work:
        return statistics.median(sum(_sampled(_PACKAGES, Path(work, "data")).values()) for _ in range(5))


def _print_floors(found: Mapping[Cell, Spent], packages: Mapping[Cell, float]) -> None:
    """Print the bars that fastpost misses in these cells, with its floors."""
    print(f"\nThe packages alone: {min(packages.values()):.0f} to {max(packages.values()):.0f} ms.\n")
    columns = ("against", "measure", "allowed s", "taken s", "floor s", "above it", "more CPU ms than theirs for")
    print(f"| server | files | {' | '.join(columns)} |")
    print("|---|---|---|---|--:|--:|--:|---|---|")
    for record in stored_records(Path("build/bench/compare")):
        spent = found.get(record.cell, {})
        if OURS not in spent:
            continue
        for one in floors(record, share(spent[OURS], packages[record.cell])):
            if one.missed:
                figures = f"{one.allowed:.2f} | {one.taken:.2f} | {one.floor:.2f} | {'yes' if one.reachable else 'no'}"
                more = excess(spent[OURS], spent[one.opponent]) if one.opponent in spent else "–"
                print(f"| {record.cell.way} | {record.what} | {one.opponent} | {one.measure} | {figures} | {more} |")


def excess(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Say on what the first spends more than the second, milliseconds; a twentieth of all that it spends at least."""
    more = {label: sum(ours[kind] - theirs[kind] for kind in together) for label, together in _COMPARED.items()}
    worth = sorted(((spent, label) for label, spent in more.items() if spent * 20 >= sum(ours.values())), reverse=True)
    return " · ".join(f"{label} {spent:.0f}" for spent, label in worth)


def _profile_cell(cell: Cell, options: argparse.Namespace) -> Spent:
    """Profile the clients in a cell, print their rows; return what each spent."""
    found: dict[str, Mapping[str, float]] = {}
    folder = sets.ensure(SETS[cell.kind], options.data)
    one_file = sets.ensure(sets.Set(1, 4096), options.data)
    with servers.start(cell.server, tls=cell.tls) as server:
        for name in options.clients:
            try:
                contender = _CLIENTS[name](folder, server)
                whole = _medians(contender, folder, server, options.rounds)
                alone = _medians(_CLIENTS[name](one_file, server), one_file, server, options.rounds)
            except (servers.Absent, RunFailed, subprocess.CalledProcessError) as reason:
                print(f"{name} is absent: {reason}", file=sys.stderr)
                continue
            spent = {kind: max(whole[kind] - alone[kind], 0.0) for kind in KINDS}
            spent["start-up"] = sum(alone.values())
            found[contender.name] = spent
            cells = " | ".join(f"{spent[kind]:.0f}" for kind in KINDS)
            label = f"{cell.server}, {'TLS' if cell.tls else 'cleartext'} | {SETS[cell.kind]}"
            print(f"| {label} | {contender.name} | {sum(whole.values()):.0f} | {cells} |", flush=True)
    return found


def _medians(contender: Contender, folder: Path, server: servers.Server, rounds: int) -> Mapping[str, float]:
    """Return milliseconds by kind, after a run that warms up."""
    found = []
    for number in range(-1, rounds):
        warm(contender, folder)
        sampled = _sampled(contender.argv, server.work / "perf.data")
        if number >= 0:
            found.append(sampled)
        if server.store is not None:
            shutil.rmtree(server.store)
            server.store.mkdir()
    return {kind: statistics.median(sample[kind] for sample in found) for kind in KINDS}


def _sampled(argv: Sequence[str], data: Path) -> dict[str, float]:
    """Run once; return milliseconds by kind. Raises CalledProcessError when the client or perf fails."""
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(_FREQUENCY), "-g", "-o", str(data), "--"]
    subprocess.run([*record, *argv], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    told = subprocess.run(
        ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"], check=True, capture_output=True, text=True
    ).stdout
    spent = collections.defaultdict[str, float](float)
    for frames in _stacks(told):
        spent[_kind(frames)] += 1000 / _FREQUENCY
    return spent


def _stacks(told: str) -> Iterator[list[str]]:
    """Yield the frames of each sample, the innermost first."""
    for sample in told.split("\n\n"):
        frames = [line.strip() for line in sample.splitlines() if line.strip()]
        if frames:
            yield frames


def _kind(frames: list[str]) -> str:
    """Say what a sample was spent on; the kernel works for the first frame outside of it."""
    outside = next((frame for frame in frames if "[kernel" not in frame), "")
    _, symbol, where = (*outside.split(" ", 2), "", "")[:3]
    if re.search(r"/libc[.-]|\[vdso\]", where) is not None:
        called = symbol
    elif outside is frames[0]:
        told = [(kind, pattern, symbol) for kind, pattern in _FUNCTIONS]
        told += [(kind, pattern, where) for kind, pattern in _OBJECTS]
        return next((kind for kind, pattern, text in told if re.search(pattern, text)), "rest")
    else:
        called = next((call[1] for call in map(_SYSTEM_CALL.search, frames) if call), "")
    return next((kind for kind, pattern in _CALLS if re.search(pattern, called)), "rest")


if __name__ == "__main__":
    sys.exit(main())
