"""Any octets as a journal: refused with a reason, or read up to what is torn, and gone on with from there.

    python tests/fuzz/fuzz_journal.py --seconds 60

What is read is compared with a reader of its own here, and written again by `_records`, octet for octet. As a file, the
journal must hold the same the second time, with nothing left to drop.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import tempfile
from collections.abc import Hashable
from pathlib import Path
from zlib import crc32

from harness import main

from fastpost._records import record
from fastpost.errors import UsageError
from fastpost.journal import Journal
from fastpost.recorded import Contents, Entry, read
from fastpost.target import parse

TARGET = parse("http://h/take")
FIRST_LINE = b"fastpost journal 1\n"
NAMES = (b"a", b"a", b"b/c.jpg", b"", b"\xff\xfe", b"a\nb", b"\0", b"x" * 300, b"y" * 0xFFFF)
NUMBERS = (0, 1, 4096, 2**31, 2**63 - 1, -1, -(2**63))
INODES = (0, 1, 2**32, 2**64 - 1)

FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-journal-")
FILE = Path(FOLDER.name) / "journal"


def check(octets: bytes) -> Hashable:
    """Try one journal; returns what came of it."""
    FILE.write_bytes(octets)
    try:
        contents = Contents(io.BytesIO(octets), "it")
        entries = list(contents.entries())
        known = read(str(FILE), TARGET)
        journal = Journal(str(FILE), TARGET)
    except UsageError as error:
        assert FILE.read_bytes() == octets, "it was refused, and changed"
        return reason(error)
    journal.close()
    target, expected, whole, damaged = model(octets)
    assert (contents.target, entries) == (target, expected)
    assert all(record(*entry) in octets for entry in entries)
    assert len(known) == len(journal.recorded) == len(set(entries))
    if target is not None:
        assert (contents.intact, contents.damaged, journal.damaged) == (whole, damaged, damaged)
        assert FILE.read_bytes() == octets[:whole]
        assert journal.dropped == len(octets) - whole
    again = Journal(str(FILE), TARGET)
    again.close()
    assert (len(again.recorded), again.dropped, again.damaged) == (len(known), 0, damaged)
    return (
        target is None,
        min(damaged, 1),
        min(len(entries), 3),
        len(set(entries)) < len(entries),
        min(journal.dropped, 30),
    )


def model(octets: bytes) -> tuple[str | None, list[Entry], int, int]:
    """Return target, entries, where the last whole one ends and octets damaged before that, read the plain way."""
    if not octets.startswith(FIRST_LINE) or (first := whole_at(octets, len(FIRST_LINE))) is None:
        return None, [], len(octets), 0
    found: list[Entry] = []
    end = at = len(FIRST_LINE) + 30 + len(first.name)
    damaged = 0
    while at < len(octets):
        entry = whole_at(octets, at)
        if entry is None or (at > end and not (entry.name and 0 <= entry.size < 2**48)):
            at += 1
            continue
        found.append(entry)
        damaged += at - end
        end = at = at + 30 + len(entry.name)
    return first.name[32:].decode("utf-8", "surrogateescape"), found, end, damaged


def whole_at(octets: bytes, at: int) -> Entry | None:
    """Return the record that begins there, if one does."""
    if len(octets) - at < 30:
        return None
    checksum, length, octets_of_file, mtime_ns, inode = struct.unpack_from("<IHqqQ", octets, at)
    end = at + 30 + length
    if end > len(octets) or crc32(octets[at + 4 : end]) != checksum:
        return None
    return Entry(octets[at + 30 : end], octets_of_file, mtime_ns, inode)


def reason(error: UsageError) -> Hashable:
    """Return where it was refused."""
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return found and found.tb_lineno


def encoded(name: bytes, numbers: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    """Return a record, as the format says it."""
    facts = struct.pack("<HqqQ", len(name), *numbers) + name
    return crc32(facts).to_bytes(4, "little") + facts


def make(rng: random.Random) -> bytes:
    """Draw a journal: a first line, a target, records; at times of another kind, damaged, cut or with more behind."""
    first = FIRST_LINE if rng.random() < 0.9 else rng.choice((b"fastpost journal 2\n", b"fastpost\n", b"\x7fELF", b""))
    other = rng.choice((b"http://other/", b"", b"\xff"))
    target = TARGET.fingerprint + b"POST http://h/take" if rng.random() < 0.9 else other
    octets = bytearray(first + encoded(target))
    for _ in range(rng.choice((0, 1, 2, 20))):
        octets += encoded(rng.choice(NAMES), (rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(INODES)))
    match rng.randrange(4):
        case 0:
            octets[rng.randrange(len(octets))] ^= 1 << rng.randrange(8)
        case 1:
            del octets[rng.randrange(len(octets)) :]
        case 2:
            octets += rng.choice((bytes(30), bytes(5000), b"\xff" * 40, rng.randbytes(60)))
    return bytes(octets)


if __name__ == "__main__":
    sys.exit(main("journal", make, check))
