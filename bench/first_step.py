"""The bars of the first step, in one run: small files against plain h2, large files against libcurl.

50,000 files of 4 KiB: at least 4 times the files/s of the plain h2 client. 4 files of 256 MiB: no more CPU per GB than
libcurl. Prints a Markdown table with the verdicts, writes it and a JSON report, and exits with 1 when a bar is missed.

    python -m bench.first_step [--server nghttpd] [--tls] [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import clients, servers
from bench.measure import Contender, Run, RunFailed, Spread, interleave, machine, spread, summary
from bench.sets import LARGE, MIB, SMALL, Set, default_cache, ensure

_QUICK_SMALL = Set(5_000, SMALL.size)
_QUICK_LARGE = Set(LARGE.count, 32 * MIB)


class Cell(NamedTuple):
    """One set of files, fastpost and one rival on it, and the bar between their medians."""

    files: Set
    rival: Callable[[Path, servers.Server], Contender]
    unit: str
    measure: Callable[[Run], float]
    #: fastpost's median divided by the rival's: at least this, or at most.
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, ratio: float) -> bool:
        """Tell whether the bar is reached."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)

    @property
    def bar(self) -> str:
        """The bar in words."""
        return f"≥ {self.at_least:g} ×" if self.at_least is not None else f"≤ {self.at_most:g} ×"


class Result(NamedTuple):
    """The runs of a cell, by contender; fastpost is the first."""

    cell: Cell
    runs: dict[str, list[Run]]
    server_cpu: float

    def spreads(self) -> dict[str, Spread]:
        """Return the cell's measurement of each contender."""
        return {name: spread([self.cell.measure(one) for one in runs]) for name, runs in self.runs.items()}

    @property
    def ratio(self) -> float:
        """The median of fastpost divided by the rival's."""
        ours, theirs = self.spreads().values()
        return ours.median / theirs.median

    @property
    def passed(self) -> bool:
        """Whether the bar is reached."""
        return self.cell.holds(self.ratio)


def files_per_second(done: Run) -> float:
    """Return files a second of wall time, start-up of the process included."""
    return done.outcome.files / done.wall


def cpu_per_gb(done: Run) -> float:
    """Return CPU seconds for each 10⁹ octets."""
    return done.cpu / done.outcome.octets * 1e9


def cells(quick: bool) -> tuple[Cell, Cell]:
    """Return the two cells; the quick ones are too small to judge by: start-up weighs in them."""
    small, large = (_QUICK_SMALL, _QUICK_LARGE) if quick else (SMALL, LARGE)
    return (
        Cell(small, clients.plain_h2, "files/s", files_per_second, at_least=4),
        Cell(large, clients.curl_multi, "CPU-s/GB", cpu_per_gb, at_most=1),
    )


def compare(cell: Cell, data: Path, server_name: str, tls: bool, rounds: int) -> Result:
    """Measure a cell against a server of its own."""
    folder = ensure(cell.files, data)
    print(f"{cell.files}, {server_name}{' TLS' if tls else ''}", file=sys.stderr)
    with servers.start(server_name, tls=tls) as server:
        contenders = [clients.fastpost(folder, server), cell.rival(folder, server)]
        runs = interleave(contenders, files=cell.files.count, octets=cell.files.octets, rounds=rounds)
        return Result(cell, runs, server.cpu())


def table(results: list[Result]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| files | client | measured | wall s | CPU s | peak RSS MB | ratio | bar | verdict |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for result in results:
        for name, measured in result.spreads().items():
            runs = result.runs[name]
            wall, cpu = (spread([getattr(one, what) for one in runs]) for what in ("wall", "cpu"))
            peak = max(one.peak_rss for one in runs) / 1e6
            row = f"| {result.cell.files} | {name} | {measured:,.4g} {result.cell.unit} | {wall:.2f} | {cpu:.2f} |"
            verdict = "**reached**" if result.passed else "**MISSED**"
            ends = f"{result.ratio:.2f} | {result.cell.bar} | {verdict}" if name == "fastpost" else " | | "
            lines.append(f"{row} {peak:.0f} | {ends} |")
    return "\n".join(lines)


def report(results: list[Result], options: argparse.Namespace) -> dict[str, Any]:
    """Return the results for the JSON file."""
    return {
        "schema": "fastpost.bench.first_step/1",
        "server": options.server,
        "tls": options.tls,
        "quick": options.quick,
        "concurrency": clients.CONCURRENCY,
        "machine": machine(),
        "cells": [
            {
                "files": result.cell.files.count,
                "size": result.cell.files.size,
                "measured": result.cell.unit,
                "clients": {
                    name: summary(runs) | {"measured": result.spreads()[name]._asdict()}
                    for name, runs in result.runs.items()
                },
                "server_cpu": result.server_cpu,
                "ratio": result.ratio,
                "bar": result.cell.bar,
                "passed": result.passed,
            }
            for result in results
        ],
    }


def _heading(options: argparse.Namespace) -> str:
    machine_line = " · ".join(f"{name} {value}" for name, value in machine().items())
    way = "TLS" if options.tls else "cleartext"
    quick = "; quick, too small to judge by" if options.quick else ""
    return (
        f"Server {options.server}, {way}, one connection, concurrency {clients.CONCURRENCY}, "
        f"{options.rounds} interleaved rounds after a warm-up; median (min – max){quick}.\n\n{machine_line}\n"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure fastpost against the bars of the first step.")
    parser.add_argument("--server", choices=servers.NAMES, default="h2corn")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--rounds", type=int, help="rounds that count (default: 5, quick: 2)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the files: does it run at all?")
    parser.add_argument("--data", type=Path, default=default_cache(), help="folder of the file sets (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="folder of the report (%(default)s)")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def main() -> int:
    """Measure, report, judge; return the exit code."""
    options = _options()
    try:
        results = [
            compare(cell, options.data, options.server, options.tls, options.rounds) for cell in cells(options.quick)
        ]
    except (RunFailed, servers.Absent) as error:
        print(f"first_step: {error}", file=sys.stderr)
        return 1
    text = f"{_heading(options)}\n{table(results)}\n"
    print(text, end="")
    options.output.mkdir(parents=True, exist_ok=True)
    stem = f"first_step-{options.server}{'-tls' if options.tls else ''}{'-quick' if options.quick else ''}"
    (options.output / f"{stem}.md").write_text(text)
    (options.output / f"{stem}.json").write_text(json.dumps(report(results, options), indent=2) + "\n")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
