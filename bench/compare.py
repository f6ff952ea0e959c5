"""The comparison: fastpost and its rivals in turn, on the same files, against the same server on loopback.

    python -m bench.compare [--servers h2corn nginx-tls ...] [--sets small tree ...] [--rivals go node ...] [--quick]
    python -m bench.compare --report

A cell is one server with one set of files. Each is kept as JSON in a file of its own under --output, so that a long
comparison can be run in pieces: a cell that is run again replaces its file, or with --merge adds its rounds to it.
`--report` runs nothing and writes all cells on disk into docs/performance.md.

All clients of a cell run in turn, after a warm-up; whole processes are measured from outside; the server is started
for the cell, and its CPU read before and after each run. A run in which not every file was answered 2xx, on one
connection, counts for nothing: the client is reported as failed and leaves the cell.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import clients, comparison_page, servers, sets
from bench.bars import OURS, Sample
from bench.cells import Cell, Record
from bench.measure import Contender, RunFailed, check, machine, note, programs, resident_floor, run, warm
from bench.rivals import tree

SETS: dict[str, sets.Set | sets.RealTree] = {
    "small": sets.SMALL,
    "medium": sets.MEDIUM,
    "large": sets.LARGE,
    "tree": sets.TREE,
}
#: A tenth or so: enough to see that everything works, too little to judge by.
QUICK: dict[str, sets.Set | sets.RealTree] = {
    "small": sets.Set(5_000, sets.SMALL.size),
    "medium": sets.Set(200, sets.MEDIUM.size),
    "large": sets.Set(sets.LARGE.count, 32 * sets.MIB),
    "tree": sets.RealTree(500),
}
#: Rounds that a cell needs to stand on the page.
ROUNDS = 5
SERVERS = ("h2corn", "h2corn-tls", "nghttpd", "nghttpd-tls", "nginx-tls")
RIVALS: dict[str, Callable[[Path, servers.Server], Contender]] = {
    "libcurl": clients.curl_multi,
    "curl-Z": clients.curl_parallel,
    "go": clients.go,
    "node": clients.node,
    "plain-h2": clients.plain_h2,
    "h2load": clients.h2load,
    "raw": clients.raw_limit,
}


class Entry(NamedTuple):
    """A contender of a cell, its files, and the server that it sends to: the raw limit has one of its own."""

    contender: Contender
    folder: Path
    server: servers.Server


def measure(entry: Entry, files: int, octets: int) -> Sample:
    """Run a contender once, with the server's CPU. Raises RunFailed when the run can't count."""
    server = entry.server
    warm(entry.contender, entry.folder)
    cpu, threads = server.cpu(), server.thread_cpu()
    done = run(entry.contender)
    used = server.cpu() - cpu
    busiest = max((after - threads.get(name, 0.0) for name, after in server.thread_cpu().items()), default=0.0)
    try:
        check(entry.contender, done.outcome, files, octets)
        if server.store:
            _check_store(entry.contender, server.store, files, octets)
    finally:
        if server.store:
            _empty(server.store)
    note(f"{entry.contender.name} {done.wall:.2f} s, server CPU {used:.2f} s", done)
    return Sample(done.wall, done.user, done.system, done.peak_rss, used, busiest, dict(done.outcome.statuses))


def _check_store(contender: Contender, store: Path, files: int, octets: int) -> None:
    stored = counted(store)
    if stored != (files, octets):
        raise RunFailed(
            f"{contender.name}: {stored[0]} files and {stored[1]} octets were stored of {files} and {octets}"
        )


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def counted(folder: Path) -> tuple[int, int]:
    """Return the number of files in `folder` and of their octets."""
    files = octets = 0
    for path, _ in tree.files(str(folder)):
        files += 1
        octets += os.stat(path).st_size
    return files, octets


def rounds(entries: Sequence[Entry], record: Record, count: int) -> None:
    """Run all contenders in turn, once to warm up and `count` times for the record; who fails leaves."""
    left = list(entries)
    for number in range(-1, count):
        print(f" {'warm-up' if number < 0 else f'round {number + 1} of {count}'}", file=sys.stderr)
        for entry in list(left):
            name = entry.contender.name
            try:
                sample = measure(entry, record.files, record.octets)
            except RunFailed as error:
                print(f"  {error}", file=sys.stderr)
                record.failed[name] = str(error)
                record.runs.pop(name, None)
                left.remove(entry)
                continue
            if number >= 0:
                record.runs.setdefault(name, []).append(sample)


@contextlib.contextmanager
def raw_sink(cell: Cell, wanted: Sequence[str]) -> Iterator[servers.Server | None]:
    """Start the sink of the raw limit, where that is a yardstick: for the large files."""
    if cell.kind != "large" or "raw" not in wanted:
        yield None
        return
    with servers.start("raw", tls=cell.tls) as server:
        yield server


def compete(cell: Cell, options: argparse.Namespace) -> Record:
    """Measure one cell against a server that is started for it. Raises Absent without the server."""
    wanted = (QUICK if options.quick else SETS)[cell.kind]
    folder = sets.ensure(wanted, options.data)
    files, octets = counted(folder)
    record = Record(
        cell.server, cell.tls, cell.kind, str(wanted), files, octets, options.quick, clients.CONCURRENCY,
        time.strftime("%Y-%m-%d"), machine() | programs(), resident_floor(),
    )  # fmt: skip
    with servers.start(cell.server, tls=cell.tls) as server, raw_sink(cell, options.rivals) as sink:
        entries = [Entry(clients.fastpost(folder, server), folder, server)]
        for name in options.rivals:
            target = sink if name == "raw" else server
            if target is None:
                continue
            try:
                entries.append(Entry(RIVALS[name](folder, target), folder, target))
            except servers.Absent as reason:
                print(f" {name} is absent: {reason}", file=sys.stderr)
                record.absent[name] = str(reason)
        rounds(entries, record, options.rounds)
    return record


def keep(record: Record, folder: Path, merge: bool) -> Record:
    """Write a cell to its file, with `merge` together with the rounds that the file has; return what was written.

    Raises ValueError when those are of other files, or were measured on another machine or with other versions.
    """
    path = folder / f"{record.cell.name}.json"
    if merge and path.exists():
        record = record.merged(Record.from_json(json.loads(path.read_text())))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record.to_json(), indent=1) + "\n")
    return record


def cells(chosen_servers: Sequence[str], kinds: Sequence[str]) -> list[Cell]:
    """Return the cells of some servers and kinds of sets, server by server."""
    return [Cell(name.removesuffix("-tls"), name.endswith("-tls"), kind) for name in chosen_servers for kind in kinds]


def stored_records(folder: Path) -> list[Record]:
    """Return the cells on disk, in the order of the table."""
    paths = [folder / f"{cell.name}.json" for cell in cells(SERVERS, list(SETS))]
    return [Record.from_json(json.loads(path.read_text())) for path in paths if path.exists()]


def report(folder: Path, quick: bool) -> int:
    """Write all cells on disk into the page (quick ones to stdout only); return the exit code."""
    records = stored_records(folder)
    if not records:
        print(f"compare: no cell was run yet: {folder} holds none", file=sys.stderr)
        return 1
    few = [record.cell.name for record in records if any(len(each) < ROUNDS for each in record.runs.values())]
    if few and not quick:
        print(f"compare: fewer than {ROUNDS} rounds in {', '.join(few)}: --merge adds to them", file=sys.stderr)
        return 1
    text = comparison_page.tables(records, cells(SERVERS, list(SETS)))
    if quick:
        print(text)
    else:
        comparison_page.write(text)
        print(f"{len(records)} cells are in {comparison_page.PAGE}", file=sys.stderr)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare fastpost with its rivals.")
    many: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--servers", choices=SERVERS, default=SERVERS, help=", ".join(SERVERS), **many)
    parser.add_argument("--sets", choices=list(SETS), default=list(SETS), help=", ".join(SETS), **many)
    parser.add_argument("--rivals", choices=list(RIVALS), default=list(RIVALS), help=", ".join(RIVALS), **many)
    parser.add_argument("--rounds", type=int, help=f"rounds that count (default: {ROUNDS}, quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the files: does it run at all?")
    parser.add_argument("--merge", action="store_true", help="add the rounds to those that a cell has on disk")
    parser.add_argument("--report", action="store_true", help="run nothing; write the cells on disk to the page")
    parser.add_argument("--data", type=Path, default=sets.default_cache(), help="folder of the files (%(default)s)")
    parser.add_argument("--output", type=Path, help="folder of the cells (build/bench/compare, quick: compare-quick)")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.output = options.output or Path("build/bench", "compare-quick" if options.quick else "compare")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen cells and print their tables; return 1 when fastpost or a whole server was missing."""
    options = _options(arguments)
    if options.report:
        return report(options.output, options.quick)
    code = 0
    for cell in cells(options.servers, options.sets):
        print(cell.name, file=sys.stderr)
        try:
            record = keep(compete(cell, options), options.output, options.merge)
        except (servers.Absent, ValueError) as error:
            print(f"compare: {cell.name}: {error}", file=sys.stderr)
            code = 1
            continue
        print(comparison_page.details(record), flush=True, end="\n\n")
        code = code if OURS in record.runs else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
