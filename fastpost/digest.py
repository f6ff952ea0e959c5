"""Digests of files, and the Content-Digest (RFC 9530) that goes with an upload.

A file is read by pread, never by a mapping: another process that truncated it would kill this one with SIGBUS.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING, Final

from fastpost.errors import FileFailed, file_failure
from fastpost.sources import Batch, Digest, Rejected, mtime_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastpost._table import Attempt
    from fastpost.sources import Upload

#: Octets of one read: large enough to make calls cheap, small enough to stay in the second-level cache.
CHUNK: Final = 256 * 1024
#: Octets hashed before what is done goes on its way: files wait for the hash of those before them.
_STEP: Final = 4 << 20
#: Seconds that a file may wait for a free descriptor.
_DESCRIPTOR_WAIT: Final = 30.0

#: The algorithms of RFC 9530 §5 that are compared, the stronger ones first, and hashlib's names of them.
ALGORITHMS: Final = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "md5": "md5"}


class Abandoned(Exception):
    """Nobody wants the digest any more."""


class Reader:
    """Reads files for their digests, in one thread, through one buffer."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(CHUNK))
        self.abandoned = False

    def digest(self, upload: Upload, algorithm: str) -> tuple[bytes, tuple[int, int, int]]:
        """Return the digest of a file, and the size, mtime (ns) and inode that it had before it was read.

        Raises OSError, Abandoned.
        """
        found = hashlib.new(ALGORITHMS[algorithm], usedforsecurity=False)
        fd = _open(upload)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            done = 0
            while done < status.st_size and (count := os.preadv(fd, (self._buffer,), done)):
                if self.abandoned:
                    raise Abandoned
                found.update(self._buffer[:count])
                done += count
        finally:
            os.close(fd)
        return found.digest(), (status.st_size, mtime_ns(status), status.st_ino)


def _open(upload: Upload) -> int:
    """Open a file; while the uploads hold every descriptor that the process may have, wait for one."""
    deadline = time.monotonic() + _DESCRIPTOR_WAIT
    # O_NONBLOCK: a FIFO put in the file's place must not block the thread for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (0 if upload.follow else os.O_NOFOLLOW)
    while True:
        try:
            return os.open(upload.file, flags)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


class Digester:
    """Computes the Content-Digest of files before they are sent.

    Args:
        algorithm: "sha-256" or "sha-512".
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._reader = Reader()
        #: Those of files that have changed.
        self._readers: set[Reader] = set()
        #: Files that were found and have not gone on yet.
        self._held: list[Upload] = []

    def digested(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on with `digests`, in pieces where files are large. Reads in the walk's thread."""
        for batch in batches:
            self._held = uploads = batch.uploads
            batch.uploads, batch.digests = [], {}
            octets = 0
            for number, upload in enumerate(uploads, 1):
                try:
                    digest = self._digest(upload, self._reader)
                except FileFailed as failure:
                    batch.rejected.append(Rejected(upload.name, upload.file, failure))
                    continue
                except Abandoned:
                    return
                batch.uploads.append(upload)
                batch.digests[upload] = digest
                octets += digest.identity[0]
                if octets >= _STEP:
                    self._held = uploads[number:]
                    yield batch
                    batch, octets = Batch(), 0
                    batch.digests = {}
            self._held = []
            yield batch

    def again(self, upload: Upload) -> Digest:
        """Return the digest of a file that has changed, as it is now; in any thread. Raises FileFailed, Abandoned."""
        reader = Reader()
        self._readers.add(reader)
        try:
            return self._digest(upload, reader)
        finally:
            self._readers.discard(reader)

    @staticmethod
    def attach(attempt: Attempt, digest: Digest) -> None:
        """Have an attempt send a digest, in place of the one that it has, and only with the file that it is of."""
        others = tuple(field for field in attempt.request_fields if field[0] != digest.field[0])
        attempt.request_fields = (*others, digest.field)
        attempt.expected = digest.identity

    def abandon(self) -> Batch:
        """Compute nothing more; what is under way ends soon (after one read). Returns the files that don't go on."""
        for reader in [self._reader, *self._readers]:
            reader.abandoned = True
        batch = Batch()
        batch.uploads = self._held
        return batch

    def _digest(self, upload: Upload, reader: Reader) -> Digest:
        try:
            value, identity = reader.digest(upload, self._algorithm)
        except OSError as error:
            raise file_failure(error.errno or 0) from None
        coded = base64.b64encode(value)
        return Digest((b"content-digest", b"%b=:%b:" % (self._algorithm.encode(), coded)), identity)
