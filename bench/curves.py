"""How cost grows: files a second, CPU and RSS against the number of files, their size, concurrency and connections.

    python -m bench.curves [--server h2corn] [--rounds 3] [--quick] [--axes files size concurrency connections]

Each point is the median of whole processes, run in turn after a warm-up; CPU a file is beyond what one file costs,
which is measured in the same turn: start-up would hide everything else where files are few. Writes docs/curves.png and
build/bench/curves.json, prints a table, and exits with 1 when CPU a file is not flat or falls off at many streams.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import clients, servers, sets
from bench.measure import ROOT, Run, RunFailed, check, machine, note, run, warm
from bench.sets import GIB, KIB, MIB, Set

PNG: Final = ROOT / "docs" / "curves.png"
#: CPU a file may grow by so much from 10,000 to 1,000,000 files; that it falls is no fault.
FLAT: Final = 0.15
#: CPU a file at 1,000 streams may be so many times that at 50.
CLIFF: Final = 1.5
#: And files a second at 50 so many times those at 1,000: less, as both hold the same start-up, some two fifths.
SLOWER: Final = 1.2
#: Octets of one point of the axis of sizes, and most files of it.
_OCTETS: Final = GIB
_FILES: Final = 10_000
_SPARSE: Final = 16 * MIB
_AXES: Final = ("files", "size", "concurrency", "connections")
_LABELS: Final = {
    "files": "files of 1 KiB",
    "size": "octets of a file",
    "concurrency": "uploads in flight (10,000 × 1 KiB)",
    "connections": "connections (10,000 × 1 KiB)",
}


class Point(NamedTuple):
    """One value on one axis: what is uploaded, and how."""

    axis: str
    value: int
    files: Set
    options: tuple[str, ...] = ()


class Figures(NamedTuple):
    """Medians of one point: seconds, microseconds of CPU a file beyond start-up, peak RSS in octets."""

    axis: str
    value: int
    files: int
    octets: int
    wall: float
    cpu_us: float
    peak_rss: int

    @property
    def rate(self) -> float:
        """Files a second, start-up included."""
        return self.files / self.wall


def points(quick: bool) -> list[Point]:
    """Return all points."""
    base = Set(1_000 if quick else _FILES, KIB)
    counts = (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    streams = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    sizes = (1, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 256 * MIB, GIB)
    return [
        *(Point("files", count, Set(count, KIB)) for count in counts),
        *(Point("size", size, _of(size)) for size in (sizes[:4] if quick else sizes)),
        *(Point("concurrency", many, base, ("--concurrency", str(many))) for many in streams),
        *(Point("connections", many, base, ("--connections", str(many))) for many in (1, 2, 4, 8, 16)),
    ]  # fmt: skip


def _of(size: int) -> Set:
    return Set(max(min(_OCTETS // size, _FILES), 1), size, sparse=size >= _SPARSE)


def measure(chosen: list[Point], server_name: str, rounds: int, data: Path) -> list[Figures]:
    """Run all points in turn. Raises RunFailed when a file was not answered with 2xx."""
    alone = Point("start", 1, Set(1, KIB))
    runs: dict[Point, list[Run]] = {point: [] for point in (alone, *chosen)}
    folders = {point: sets.ensure(point.files, data) for point in runs}
    with servers.start(server_name) as server:
        for number in range(-1, rounds):
            for point, folder in folders.items():
                contender = clients.fastpost(folder, server, *point.options)
                warm(contender, folder)
                done = run(contender)
                check(contender, done.outcome._replace(connections=None), point.files.count, point.files.octets)
                note(f"{point.axis} {point.value:,}: {done.wall:.2f} s", done)
                if number >= 0:
                    runs[point].append(done)
    start = statistics.median(one.cpu for one in runs[alone])
    return [_figures(point, runs[point], start) for point in chosen]


def _figures(point: Point, runs: list[Run], start: float) -> Figures:
    cpu = statistics.median(one.cpu for one in runs) - start
    return Figures(
        point.axis, point.value, point.files.count, point.files.octets,
        statistics.median(one.wall for one in runs), max(cpu, 0.0) / point.files.count * 1e6,
        int(statistics.median(one.peak_rss for one in runs)),
    )  # fmt: skip


def verdicts(found: list[Figures]) -> list[str]:
    """Return what does not hold."""
    by = {(one.axis, one.value): one for one in found}
    missed = []
    few = by.get(("files", 10_000))
    for one in found:
        # That it falls is no cost.
        if few and one.axis == "files" and one.value > few.value and one.cpu_us > (1 + FLAT) * few.cpu_us:
            missed.append(f"CPU a file: {few.cpu_us:.1f} µs at 10,000 files, {one.cpu_us:.1f} µs at {one.value:,}")
    usual, wide = by.get(("concurrency", 50)), by.get(("concurrency", 1000))
    if usual and wide and wide.cpu_us > CLIFF * usual.cpu_us:
        missed.append(f"CPU a file: {usual.cpu_us:.1f} µs at 50 streams, {wide.cpu_us:.1f} µs at 1,000")
    if usual and wide and usual.rate > SLOWER * wide.rate:
        missed.append(f"files/s: {usual.rate:,.0f} at 50 streams, {wide.rate:,.0f} at 1,000")
    return missed


def table(found: list[Figures]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| axis | value | files/s | MB/s | CPU µs a file, beyond start-up | peak RSS MB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {one.axis} | {one.value:,} | {one.rate:,.0f} | {one.octets / one.wall / 1e6:,.0f} | {one.cpu_us:,.1f} "
        f"| {one.peak_rss / 1e6:.0f} |"
        for one in found
    ]
    return "\n".join(lines) + "\n"


def draw(found: list[Figures], path: Path) -> None:
    """Draw one column for each axis: files/s above, CPU a file in the middle, RSS below."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows: tuple[tuple[str, Any], ...] = (
        ("files a second", lambda one: one.rate),
        ("CPU µs a file, beyond start-up", lambda one: one.cpu_us),
        ("peak RSS, MB", lambda one: one.peak_rss / 1e6),
    )
    axes = [axis for axis in _AXES if any(one.axis == axis for one in found)]
    figure, panels = pyplot.subplots(len(rows), len(axes), figsize=(4 * len(axes), 9), squeeze=False, sharex="col")
    for column, axis in enumerate(axes):
        of_axis = [one for one in found if one.axis == axis]
        for row, (label, value) in enumerate(rows):
            panel = panels[row][column]
            panel.plot([one.value for one in of_axis], [value(one) for one in of_axis], marker="o")
            panel.set_xscale("log", base=2 if axis in ("size", "connections") else 10)
            if axis == "size" and row < 2:
                panel.set_yscale("log")
            else:
                panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
            panel.set_ylabel(label if column == 0 else "")
        panels[-1][column].set_xlabel(_LABELS[axis])
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> int:
    """Measure, draw, print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure how the cost of an upload grows.")
    parser.add_argument("--server", choices=servers.NAMES, default="h2corn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--axes", nargs="+", choices=_AXES, default=_AXES)
    parser.add_argument("--quick", action="store_true", help="few and small points; the drawing goes to build/bench")
    parser.add_argument("--data", type=Path, default=sets.default_cache(), help="folder of the files (%(default)s)")
    options = parser.parse_args()
    chosen = [point for point in points(options.quick) if point.axis in options.axes]
    try:
        found = measure(chosen, options.server, options.rounds, options.data)
    except (servers.Absent, RunFailed) as error:
        print(f"curves: {error}", file=sys.stderr)
        return 1
    output = ROOT / "build" / "bench"
    output.mkdir(parents=True, exist_ok=True)
    (output / "curves.json").write_text(
        json.dumps({"machine": machine(), "points": [one._asdict() for one in found]}, indent=1)
    )
    draw(found, output / "curves.png" if options.quick else PNG)
    missed = verdicts(found)
    print(table(found), *(f"MISSED: {one}" for one in missed), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
