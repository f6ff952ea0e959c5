"""The folder that the real servers are sent: many files, many sizes, and names that break careless encoders.

The content follows from a seed: a slab of pseudo-random octets, turned by another amount for each
file, so that 360 MB are made at the speed of the disk and two files of one size still differ.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB

SEED = 20_260_101
#: Prime, so that no two blocks of a large file are alike, whatever power of two a server reads by.
SLAB = 1_048_583

#: Sizes where something changes: empty, one octet, the default frame and window, the border between pread and map.
EDGES = (0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB - 1, MIB, MIB + 1)
LARGE = (2 * MIB, 3 * MIB + 17, 5 * MIB, 8 * MIB + 1, 12 * MIB - 3)
HUGE = 300 * MIB

#: File names, as octets, that need encoding, tempt a server to decode twice, or look like something else.
NAMES = (
    b"two words.txt",
    b" leading and trailing space ",
    b"100%.txt",
    b"%",
    b"%%",
    b"%41",
    b"%2F",
    b"%00",
    b"%2e%2e",
    b"%zz.bin",
    b"#fragment.html",
    b"a#b",
    b"?query=1",
    b"what?.txt",
    b"a?b#c%20d",
    b"one+two.csv",
    b"+",
    b"it's.txt",
    b'"quoted".txt',
    b"a&b=c.json",
    b"semi;colon;v=1",
    b"line\nbreak.txt",
    b"\n",
    b"carriage\rreturn",
    b"tab\tstop",
    b"\x01control\x1f",
    b"delete\x7f",
    b"back\\slash.txt",
    b"\\",
    b"colon:name",
    b"user@host",
    b"a,b",
    b"[brackets]",
    b"{name}",
    b"{path}",
    b"<angle>",
    b"pipe|caret^tick`",
    b"$HOME",
    b"!bang*star",
    b"~",
    b"-",
    b"--to",
    b"-rf",
    b".hidden",
    b"...",
    b"..two",
    b"two..",
    b"http:",
    "caf\u00e9-nfc.txt".encode(),
    "cafe\u0301-nfc.txt".encode(),
    "\u5199\u771f.jpg".encode(),
    "\U0001f680.png".encode(),
    "\u202eright-to-left".encode(),
    b"latin-1-\xe9.txt",
    b"\xff\xfe\x80",
    b"cut-short-\xe2\x82",
    b"n" * 255,
    "\u00e9".encode() * 127 + b"x",
)

#: Folder names of the same kind; each holds a file and a folder.
FOLDERS = (
    b"with space",
    b"50%",
    b"#",
    b"?",
    b"a+b;c",
    b"new\nline",
    b".dot",
    b"-dash",
    b'quote\'s "folder"',
    b"back\\slash",
    "m\u00fc\u0308nchen".encode(),
    b"\xe9\xff",
)

SMALL = 1_900
DEPTH = 24


@dataclasses.dataclass(frozen=True)
class Tree:
    """A folder that is only read, and what it holds.

    `sizes` maps each file's path below `root`, as octets with "/" between, to its size in octets.
    """

    root: Path
    sizes: dict[bytes, int]

    @functools.cached_property
    def digests(self) -> dict[bytes, str]:
        """SHA-256 of every file in hex, by the same names as `sizes`. Read from the disk once."""
        return {name: digest(os.fsencode(self.root) + b"/" + name) for name in self.sizes}

    @property
    def octets(self) -> int:
        """Octets of all files together."""
        return sum(self.sizes.values())


def make(root: Path, *, small: int = SMALL, huge: int = HUGE) -> Tree:
    """Write the whole tree into `root`, an empty folder, and return what was written."""
    slab = random.Random(SEED).randbytes(SLAB)
    sizes = dict(_plan(small, huge))
    base = os.fsencode(root)
    for index, (name, size) in enumerate(sizes.items()):
        path = base + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            for part in _parts(slab, index * 7919 % SLAB, size):
                file.write(part)
    return Tree(root, sizes)


def read(root: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (relative path, path to open) of every file below `root`, as octets."""
    base = os.fsencode(root)
    for folder, _, names in os.walk(base):
        for name in names:
            path = folder + b"/" + name
            yield path[len(base) + 1 :], path


def digest(path: bytes) -> str:
    """Return the SHA-256 of a file in hex."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while part := file.read(MIB):
            found.update(part)
    return found.hexdigest()


def same(first: bytes, second: bytes) -> bool:
    """Tell whether two files hold the same octets; reads both, at most up to the first difference."""
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as other:
        while True:
            left, right = one.read(MIB), other.read(MIB)
            if left != right:
                return False
            if not left:
                return True


def _plan(small: int, huge: int) -> Iterator[tuple[bytes, int]]:
    """Yield (name, size)."""
    chance = random.Random(SEED)
    yield b"huge.bin", huge
    for size in EDGES:
        for copy in range(4):
            yield b"edges/%d-%d.dat" % (size, copy), size
    for size in LARGE:
        yield b"large/%d.bin" % size, size
    for name in NAMES:
        yield b"names/" + name, chance.randrange(1, 3 * KIB)
    for name in FOLDERS:
        yield b"folders/" + name + b"/file", chance.randrange(1, 3 * KIB)
        yield b"folders/" + name + b"/" + name + b"/" + name, chance.randrange(1, 3 * KIB)
    for depth in range(DEPTH):
        yield b"deep/" + b"down/" * depth + b"here.txt", chance.randrange(1, KIB)
    for number in range(small):
        yield b"small/%02d/%04d.txt" % (number % 40, number), int(chance.paretovariate(1.2) * 400) % (48 * KIB)


def _parts(slab: bytes, start: int, size: int) -> Iterator[bytes]:
    """Yield `size` octets: the slab over and over, from offset `start` on."""
    part = slab[start : start + size]
    while size > 0:
        yield part
        size -= len(part)
        part = slab[:size]
