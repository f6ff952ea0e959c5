"""What --journal costs: wall and CPU time with a fresh journal against none, interleaved. The bar: 3 % of wall time.

    python -m bench.journal_cost [--server h2corn] [--rounds 15] [--journal-folder DIR]

The differences of pairs, because a pair shares the machine's mood, and their median. Also a run of which everything is
recorded already, which reads the journal, looks at every file and sends nothing. Exits with 1 when it is over the bar.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import clients, servers
from bench.measure import Contender, Run, RunFailed, check, note, run, spread
from bench.sets import SMALL, Set, default_cache, ensure

#: Share of the run's wall time.
LIMIT = 0.03


class Round(NamedTuple):
    """A run that records, one that doesn't, and one that finds everything recorded."""

    recorded: Run
    plain: Run
    resumed: Run


def rounds(folder: Path, files: Set, server: servers.Server, journals: Path, number: int) -> list[Round]:
    """Run each way `number` times after a warm-up, the order of the first two turned round each time."""
    journal = journals / "journal"
    recording = clients.fastpost(folder, server, "--journal", str(journal), name="with a journal")
    plain = clients.fastpost(folder, server, name="without")
    resuming = recording._replace(name="all recorded")
    found = []
    for turn in range(-1, number):
        journal.unlink(missing_ok=True)
        if turn % 2:
            second = _complete(plain, files)
            first = _complete(recording, files)
        else:
            first = _complete(recording, files)
            second = _complete(plain, files)
        third = _resumed(resuming)
        if turn >= 0:
            found.append(Round(first, second, third))
    return found


def _complete(contender: Contender, files: Set) -> Run:
    done = run(contender)
    check(contender, done.outcome, files.count, files.octets)
    note(contender.name, done)
    return done


def _resumed(contender: Contender) -> Run:
    done = run(contender)
    if done.outcome.files:
        raise RunFailed(f"{contender.name}: {done.outcome.files} files were uploaded again")
    note(contender.name, done)
    return done


def judge(files: Set, found: Sequence[Round]) -> int:
    """Print the figures; return the exit code."""
    wall = spread([one.plain.wall for one in found])
    cpu = spread([one.plain.cpu for one in found])
    more_wall = spread([one.recorded.wall - one.plain.wall for one in found])
    more_cpu = spread([one.recorded.cpu - one.plain.cpu for one in found])
    resumed = spread([one.resumed.wall for one in found])
    share = more_wall.median / wall.median
    print(f"{files}, {len(found)} rounds\n")
    print("| | s | of the run without |\n|---|---:|---:|")
    print(f"| wall time without | {wall:.3f} | |")
    print(f"| the journal adds | {more_wall:+.3f} | {share:+.1%} |")
    print(f"| CPU without | {cpu:.3f} | |")
    print(f"| the journal adds | {more_cpu:+.3f} | {more_cpu.median / cpu.median:+.1%} |")
    print(f"| wall time, all recorded | {resumed:.3f} | {resumed.median / wall.median:.1%} |")
    passed = share <= LIMIT
    print(f"\nBar: at most {LIMIT:.0%} of wall time: {'reached' if passed else 'MISSED'}")
    return 0 if passed else 1


def main() -> int:
    """Measure, report, judge; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what the journal costs.")
    parser.add_argument("--server", choices=servers.NAMES, default="h2corn")
    parser.add_argument("--files", type=int, default=SMALL.count, help="number of 4 KiB files (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data", type=Path, default=default_cache(), help="folder of the file sets (%(default)s)")
    parser.add_argument(
        "--journal-folder", type=Path, help="where the journal is written (default: the file sets' disk)"
    )
    options = parser.parse_args()
    many = Set(options.files, SMALL.size)
    try:
        folder = ensure(many, options.data)
        with (
            servers.start(options.server) as server,
            tempfile.TemporaryDirectory(dir=options.journal_folder or options.data) as journals,
        ):
            return judge(many, rounds(folder, many, server, Path(journals), options.rounds))
    except (RunFailed, servers.Absent) as error:
        print(f"journal_cost: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
