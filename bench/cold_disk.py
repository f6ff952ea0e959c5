"""Files that are not in the page cache: fastpost beside others that read them one after the other, or by threads.

    python -m bench.cold_disk [--rounds 5]

Before each run the cache is dropped: all of it as root, with inodes and names; else the files' own pages. What the
clients' own start needs is read again before they are measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from bench import clients, compare, servers, sets
from bench.measure import Contender, Run, RunFailed, check, load, note, run, spread

_ALL: Final = Path("/proc/sys/vm/drop_caches")
_SETS: Final[dict[str, sets.Set | sets.RealTree]] = {
    "4 KiB": sets.SMALL,
    "256 KiB": sets.MEDIUM,
    "real tree": sets.TREE,
}
_OTHERS: Final = ("libcurl", "go")


def drop(folder: Path) -> str:
    """Drop what is cached of the files; says what."""
    os.sync()
    if os.access(_ALL, os.W_OK):
        _ALL.write_text("3")
        return "pages, inodes and names"
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
    return "pages"


def measure(contenders: list[Contender], folder: Path, rounds: int) -> dict[str, list[Run]]:
    """Run all in turn. Raises RunFailed."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    files, octets = compare.counted(folder)
    for _ in range(rounds):
        for contender in contenders:
            drop(folder)
            load(contender)
            done = run(contender)
            check(contender, done.outcome, files, octets)
            note(f"{contender.name} {done.wall:.2f} s", done)
            runs[contender.name].append(done)
    return runs


def main() -> int:
    """Measure, print a Markdown table; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure uploads of files that are not in the page cache.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", default="nghttpd", help="(%(default)s, with TLS)")
    parser.add_argument("--data", type=Path, default=sets.default_cache(), help="folder of the files (%(default)s)")
    options = parser.parse_args()
    print("| files | client | wall s | CPU s | wall: fastpost ÷ it |")
    print("|---|---|--:|--:|--:|")
    try:
        with servers.start(options.server, tls=True) as server:
            for label, wanted in _SETS.items():
                folder = sets.ensure(wanted, options.data)
                others = [compare.RIVALS[name](folder, server) for name in _OTHERS]
                contenders = [clients.fastpost(folder, server), *others]
                _rows(label, measure(contenders, folder, options.rounds))
    except (servers.Absent, RunFailed) as error:
        print(f"cold_disk: {error}", file=sys.stderr)
        return 1
    return 0


def _rows(label: str, runs: dict[str, list[Run]]) -> None:
    walls = {name: spread([each.wall for each in found]) for name, found in runs.items()}
    for name, found in runs.items():
        ratio = "" if name == "fastpost" else f"{walls['fastpost'].median / walls[name].median:.2f}"
        cpu = spread([each.cpu for each in found])
        print(f"| {label} | {name} | {walls[name]:.2f} | {cpu:.2f} | {ratio} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
