"""What the progress bar costs: CPU with it drawn on a terminal against --no-progress, interleaved. The bar: 2 %.

    python -m bench.progress_cost [--rounds 9]

Of the whole run, loading what draws it included; runs of less than a second draw nothing and pay nothing. The median
over rounds of pairs, because a pair shares the machine's mood. Exits with 1 when it is over the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import clients, servers
from bench.measure import Contender, Run, RunFailed, check, note, run, spread
from bench.sets import SMALL, Set, default_cache, ensure

#: Share of the run's CPU.
LIMIT = 0.02


class Pair(NamedTuple):
    """A run with the bar drawn and one without, one after the other."""

    drawn: Run
    plain: Run
    #: Octets that reached the terminal.
    painted: int


@contextlib.contextmanager
def terminal(rows: int = 40, columns: int = 120) -> Iterator[tuple[int, list[int]]]:
    """Yield a terminal's file descriptor and a list that gets the sizes of what is drawn on it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    sizes: list[int] = []
    reader = threading.Thread(target=_swallow, args=(ours, sizes))
    reader.start()
    try:
        yield theirs, sizes
    finally:
        os.close(theirs)  # the reader gets EIO when the last writer is gone
        reader.join()
        os.close(ours)


def _swallow(descriptor: int, sizes: list[int]) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 65536):
            sizes.append(len(data))


def pairs(folder: Path, files: Set, server: servers.Server, rounds: int) -> list[Pair]:
    """Run both ways `rounds` times after a warm-up, the order turned round each time."""
    drawn = clients.fastpost(folder, server, "--progress", name="with progress")
    plain = clients.fastpost(folder, server, name="without")
    found = []
    for number in range(-1, rounds):
        if number % 2:
            second = _plain(plain, files)
            first, painted = _drawn(drawn, files)
        else:
            first, painted = _drawn(drawn, files)
            second = _plain(plain, files)
        if number >= 0:
            found.append(Pair(first, second, painted))
    return found


def _drawn(contender: Contender, files: Set) -> tuple[Run, int]:
    with terminal() as (descriptor, sizes):
        done = run(contender, stderr=descriptor)
    check(contender, done.outcome, files.count, files.octets)
    if not sizes:
        raise RunFailed("nothing was drawn on the terminal, so there is nothing to measure")
    note(contender.name, done)
    return done, sum(sizes)


def _plain(contender: Contender, files: Set) -> Run:
    done = run(contender)
    check(contender, done.outcome, files.count, files.octets)
    note(contender.name, done)
    return done


def cost(found: Sequence[Pair]) -> float:
    """Return the median CPU seconds that the bar adds."""
    return spread([pair.drawn.cpu - pair.plain.cpu for pair in found]).median


def main() -> int:
    """Measure, report, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what the progress bar costs.")
    parser.add_argument("--server", choices=servers.NAMES, default="h2corn")
    parser.add_argument("--files", type=int, default=4 * SMALL.count, help="number of 4 KiB files (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", type=Path, default=default_cache(), help="folder of the file sets (%(default)s)")
    options = parser.parse_args()
    many = Set(options.files, SMALL.size)
    try:
        with servers.start(options.server) as server:
            whole = pairs(ensure(many, options.data), many, server, options.rounds)
    except (RunFailed, servers.Absent) as error:
        print(f"progress_cost: {error}", file=sys.stderr)
        return 1
    return judge(many, whole)


def judge(files: Set, whole: Sequence[Pair]) -> int:
    """Print the figures; return the exit code."""
    cpu = spread([pair.plain.cpu for pair in whole])
    wall = spread([pair.drawn.wall - pair.plain.wall for pair in whole])
    added = cost(whole)
    share = added / cpu.median
    print(f"{files}, CPU without progress: {cpu:.3f} s; {whole[-1].painted:,} octets drawn in the last run\n")
    print("| | CPU s | of the run |\n|---|---:|---:|")
    print(f"| progress, whole run | {added:+.3f} | {share:+.1%} |")
    print(f"| wall time | {wall:+.3f} | |")
    passed = share < LIMIT
    print(f"\nBar: under {LIMIT:.0%} of the run: {'reached' if passed else 'MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
