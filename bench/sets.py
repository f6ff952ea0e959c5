"""File sets to measure with, made once and kept under a cache folder.

Nested folders of incompressible files, of one size or of mixed ones, and a real tree: copies of the running Python's
own files.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import random
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: Files in one folder, folders in one folder: a photo library's order of magnitude.
_FAN = 100
#: Made and written this much at a time: what this process has resident is a floor of what its children
#: are measured with (see bench.measure).
_PIECE = MIB


@dataclasses.dataclass(frozen=True, slots=True)
class Set:
    """`count` files of `size` octets. `sparse` files hold no data on disk and read as zeros."""

    count: int
    size: int
    sparse: bool = False

    @property
    def octets(self) -> int:
        """All octets of the set."""
        return self.count * self.size

    def __str__(self) -> str:
        return f"{self.count:,} × {_size(self.size)}" + (" (sparse)" if self.sparse else "")

    @property
    def folder(self) -> str:
        """The name of its folder under the cache folder."""
        return f"{self.count}x{self.size}" + ("-sparse" if self.sparse else "")


@dataclasses.dataclass(frozen=True, slots=True)
class Mixed:
    """`count` files, each of a size drawn evenly from `least` to `most` octets."""

    count: int
    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.count:,} × {_size(self.least)} to {_size(self.most)}"

    @property
    def folder(self) -> str:
        """The name of its folder under the cache folder."""
        return f"{self.count}x{self.least}-{self.most}"


@dataclasses.dataclass(frozen=True, slots=True)
class RealTree:
    """At most `limit` files of Python's standard library and of the packages beside it, in sizes and folders as are."""

    limit: int

    def __str__(self) -> str:
        return "real tree"

    @property
    def folder(self) -> str:
        """The name of its folder under the cache folder."""
        return f"tree-{self.limit}"


SMALL = Set(50_000, 4 * KIB)
MEDIUM = Set(1_000, 256 * KIB)
LARGE = Set(4, 256 * MIB)
TREE = RealTree(5_000)


def _size(octets: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if octets >= unit and octets % unit == 0:
            return f"{octets // unit} {name}"
    return f"{octets} octets"


def default_cache() -> Path:
    """Return the cache folder that is used without --data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastpost-bench"


def ensure(wanted: Set | Mixed | RealTree, data: Path) -> Path:
    """Return the folder of `wanted` under `data`; make it first if it isn't there whole."""
    folder = data / wanted.folder
    if not folder.is_dir():
        data.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="making-", dir=data))
        try:
            if isinstance(wanted, RealTree):
                _copy(scratch, wanted)
            else:
                _fill(scratch, wanted)
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    return folder


def _fill(folder: Path, wanted: Set | Mixed) -> None:
    content = random.Random(f"{wanted}")
    for index in range(wanted.count):
        place = folder / f"{index // (_FAN * _FAN):03}" / f"{index // _FAN % _FAN:03}"
        if index % _FAN == 0:
            place.mkdir(parents=True)
        with open(place / f"file-{index:07}.bin", "wb") as file:
            if isinstance(wanted, Mixed):
                file.write(content.randbytes(content.randint(wanted.least, wanted.most)))
            elif wanted.sparse:
                file.truncate(wanted.size)
            else:
                for piece in _pieces(wanted.size):
                    file.write(content.randbytes(piece))


def _copy(folder: Path, wanted: RealTree) -> None:
    """Copy the files whose relative paths have the smallest hashes: a choice that is no choice of ours."""
    found = {
        f"{name}/{path.relative_to(root)}": path
        for name in ("stdlib", "purelib")
        for root in [Path(sysconfig.get_path(name))]
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }
    for relative in sorted(found, key=lambda relative: hashlib.sha256(os.fsencode(relative)).digest())[: wanted.limit]:
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[relative], target)


def _pieces(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, _PIECE)
        size -= _PIECE


def main() -> None:
    """Make the standard sets."""
    parser = argparse.ArgumentParser(description="Make the file sets of the benchmarks.")
    parser.add_argument("--data", type=Path, default=default_cache(), help="cache folder (default: %(default)s)")
    data = parser.parse_args().data
    for wanted in (SMALL, MEDIUM, LARGE, TREE):
        print(f"{wanted}: {ensure(wanted, data)}")


if __name__ == "__main__":
    main()
