"""What a journal holds: its format, and what is uploaded already, in little memory.

The file is a line that names the format, then a record of the target, then one of each success, in order:

    CRC-32 of what follows · length of the name · size · mtime in ns · inode · name

in little-endian, without padding; that of the target has for a name 32 octets that tell it from any other, then method
and URL for people, without secrets. A record says itself whether it is whole, so a torn tail is known as one, and
damage costs the records that it is in. Why it is so: docs/decisions/0007-journal.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from array import array
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple
from zlib import crc32

from fastpost._records import record
from fastpost.errors import UsageError
from fastpost.sources import mtime_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastpost.sources import Batch, Upload
    from fastpost.target import Target

FORMAT: Final = 1
_KIND: Final = b"fastpost journal "
_FIRST_LINE: Final = b"%b%d\n" % (_KIND, FORMAT)
#: Length of the name, size, mtime in ns, inode. No path that can be opened is as long as the length can say.
_FACTS: Final = struct.Struct("<HqqQ")
_CHECKSUM: Final = 4
_FINGERPRINT: Final = 32
_LONGEST: Final = _CHECKSUM + _FACTS.size + 0xFFFF
#: Where a record may begin: it has a name, and the file is below 2⁴⁸ octets. The zeros that this needs are in no name,
#: so no name can pose as a record; and a long stretch of zeros is passed over quickly.
_LIKELY: Final = re.compile(rb"(?=.{4}(?!\0\0).{8}\0\0)", re.DOTALL)
#: Octets of one read.
BUFFER: Final = 1 << 20


class Entry(NamedTuple):
    """A file that the server has: its name in the upload, and its size (octets), mtime (ns) and inode at that time."""

    name: bytes
    size: int
    mtime_ns: int
    inode: int


class Contents:
    """Reads a journal, once, record by record.

    Args:
        file: positioned at its start.
        path: what to call it.
    Raises UsageError when it is no journal, or one of another format.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        #: Method and URL, secrets masked; None while not even that is whole.
        self.target: str | None = None
        self._fingerprint = b""
        #: Where the last record that is whole ends, in octets; complete when `entries` is exhausted.
        self.intact = 0
        #: Octets before that which are damaged, and belong to no record any more.
        self.damaged = 0
        first = file.readline(64)
        if first != _FIRST_LINE:
            # Less of it than names the kind may be anybody's file.
            if first and not (_FIRST_LINE.startswith(first) and first.startswith(_KIND)):
                raise UsageError(_stranger(first, path))
            return  # empty, or killed in its first moment
        self.intact = len(first)
        if (entry := self._read()) is not None:
            self._fingerprint = entry.name[:_FINGERPRINT]
            self.target = entry.name[_FINGERPRINT:].decode("utf-8", "surrogateescape")

    def entries(self) -> Iterator[Entry]:
        """Yield the records that are whole: one that is damaged is passed over, and the end may be torn."""
        while self.target is not None:
            if (entry := self._read()) is not None:
                yield entry
            elif (start := self._next_whole()) is None:
                return
            else:
                self.damaged += start - self.intact
                self.intact = start
                self._file.seek(start)

    def load(self, recorded: Recorded, target: Target) -> None:
        """Read all records into `recorded`. Raises UsageError when they are of uploads to another target."""
        if self._fingerprint != target.fingerprint:
            asked = _shown(target)
            other = "with another value where *** stands" if asked == self.target else f"not {asked}"
            raise UsageError(
                f"{self._path} is the journal of {self.target}, {other}: name another file, or give that method and URL"
            )
        for entry in self.entries():
            recorded.add(entry)

    def _read(self) -> Entry | None:
        read = self._file.read
        checksum, facts = read(_CHECKSUM), read(_FACTS.size)
        if len(facts) < _FACTS.size:
            return None
        length, size, changed, inode = _FACTS.unpack(facts)
        name = read(length)
        if len(name) < length or crc32(facts + name) != int.from_bytes(checksum, "little"):
            return None
        self.intact += _CHECKSUM + _FACTS.size + length
        return Entry(name, size, changed, inode)

    def _next_whole(self) -> int | None:
        """Return where the next whole record begins behind a damaged one, octet by octet; None when there is none."""
        start = self.intact + 1
        while True:
            self._file.seek(start)
            window = self._file.read(BUFFER + _LONGEST)
            for match in _LIKELY.finditer(window, 0, BUFFER + _CHECKSUM + _FACTS.size):
                at = match.start()
                facts = at + _CHECKSUM
                end = facts + _FACTS.size + int.from_bytes(window[facts : facts + 2], "little")
                if end <= len(window) and crc32(window[facts:end]) == int.from_bytes(window[at:facts], "little"):
                    return start + at
            if len(window) <= BUFFER:
                return None
            start += BUFFER


def head(target: Target) -> bytes:
    """Return what a journal begins with. Raises UsageError when the target is too long for it."""
    name = target.fingerprint + os.fsencode(_shown(target))
    if len(name) > 0xFFFF:
        raise UsageError("with --journal the URL of --to can't be longer than 65,000 octets: shorten it")
    return _FIRST_LINE + record(name, 0, 0, 0)


def _shown(target: Target) -> str:
    form = target.labels.form
    wrapped = "" if form is None else f" (--form {form.field.decode('utf-8', 'backslashreplace')})"
    return f"{target.method.decode()} {target.template}{wrapped}"


def _facts(name: bytes, size: int, changed: int, inode: int) -> bytes:
    return _FACTS.pack(len(name), size, changed, inode) + name


def check_regular(fd: int, path: str) -> None:
    """Raise UsageError when what is open isn't a regular file: nothing else can be read again."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise UsageError(f"{path} is no regular file, and a journal is one: name another file")


def opened(path: str) -> BinaryIO:
    """Open a journal to read it; a FIFO holds nothing up. Raises UsageError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        check_regular(fd, path)
    except UsageError:
        os.close(fd)
        raise
    return open(fd, "rb", buffering=BUFFER)


def read(path: str, target: Target) -> Recorded:
    """Return what the journal of a file holds, nothing when there is no such file; it is neither locked nor changed.

    Raises UsageError as Journal does, OSError when it can't be read.
    """
    recorded = Recorded(target.shared)
    with contextlib.suppress(FileNotFoundError), opened(path) as file:
        contents = Contents(file, path)
        if contents.target is not None:
            contents.load(recorded, target)
    return recorded


def without_journal(batches: Iterable[Batch], path: str) -> Iterator[Batch]:
    """Leave the journal itself out: a symbolic link that is followed may lead to it, and it changes while it is sent.

    Costs 0.1 µs a file, and a stat for one that has its name or was found by way of a link.
    """
    base = b"/" + os.fsencode(os.path.basename(os.path.realpath(path)))
    for batch in batches:
        batch.uploads = [
            upload
            for upload in batch.uploads
            if not (upload.follow or upload.file.endswith(base)) or not same_file(path, upload.file)
        ]
        yield batch


def same_file(path: str, other: str | bytes | int) -> bool:
    """Tell whether two names, or a name and a descriptor, are one file; where there is none, they aren't."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _stranger(first: bytes, path: str) -> str:
    number = first.removeprefix(_KIND).strip()
    if first.startswith(_KIND) and number.isdigit():
        return (
            f"{path} is a journal of format {int(number)}, and this version of fastpost knows format {FORMAT} only: "
            "name another file, or go on with the version that wrote it"
        )
    return f"{path} is no journal of fastpost: name another file, one that doesn't exist yet for a new journal"


class Recorded:
    """What a journal holds, in 16 octets a slot: for each name a hash of what it was last.

    Args:
        shared: every file goes to one URL: there a file doesn't replace an earlier one of its name, so each is kept.
    """

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._table = _Hashes()

    def __len__(self) -> int:
        """Return how many files are held."""
        return self._table.count

    def add(self, entry: Entry) -> None:
        """Take the next entry of a journal: for its name it is the last word."""
        what = hash(_facts(*entry))
        self._table.put(what if self._shared else hash(entry.name), what)

    def sift(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Move the uploads that are recorded, and unchanged since, from each batch's `uploads` to its `recorded`.

        Costs 0.2 µs for a name that the journal doesn't know, and a stat for one that it does.
        """
        for batch in batches:
            if self._table.count:
                uploads, batch.uploads = batch.uploads, []
                for upload in uploads:
                    (batch.recorded if self._holds(upload) else batch.uploads).append(upload)
            yield batch

    def _holds(self, upload: Upload) -> bool:
        if not self._shared and not self._table.get(hash(upload.name)):
            return False
        try:
            found = os.stat(upload.file, follow_symlinks=upload.follow)
        except OSError:
            return False  # whoever opens it will find out why
        what = hash(_facts(upload.name, found.st_size, mtime_ns(found), found.st_ino))
        return self._table.get(what if self._shared else hash(upload.name)) == (what or 1)


class _Hashes:
    """64-bit hashes by 64-bit hashes, none of them 0: two arrays, open addressing, at most two thirds full.

    A dict of as many ints takes about six times the memory.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mask = 1023
        self._keys, self._values = _zeros(1024), _zeros(1024)

    def put(self, key: int, value: int) -> None:
        at = self._find(key or 1)
        if not self._keys[at]:
            self._keys[at] = key or 1
            self.count += 1
        self._values[at] = value or 1
        if 3 * self.count > 2 * self._mask:
            self._grow()

    def get(self, key: int) -> int:
        """Return the value, or 0."""
        return self._values[self._find(key or 1)]

    def _find(self, key: int) -> int:
        at = key & self._mask
        while self._keys[at] not in (0, key):
            at = (at + 1) & self._mask
        return at

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._mask = 2 * self._mask + 1
        self._keys, self._values = _zeros(2 * len(keys)), _zeros(2 * len(keys))
        for key, value in zip(keys, values, strict=True):
            if key:
                at = self._find(key)
                self._keys[at], self._values[at] = key, value


def _zeros(count: int) -> array[int]:
    return array("q", (0,)) * count
