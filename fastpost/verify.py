"""Did the server receive what the disk holds: SHA-256 of each file against the response's `repr-digest` (RFC 9530).

Off the hot path: one thread reads and hashes, and both let go of the interpreter lock; the thread that uploads only
puts a list into a queue. When hashing falls behind, the walk is held up, never the connections.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import queue
import re
import threading
import time
from typing import TYPE_CHECKING

from fastpost.errors import DigestMismatch, FastpostError, FileChanged, file_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastpost._table import Attempt
    from fastpost.sources import Batch

#: Octets of one read: large enough to make calls cheap, small enough to stay in the second-level cache.
CHUNK = 256 * 1024
#: Results that may wait for their turn before the walk is held up; about 1 KiB of memory each.
BACKLOG = 16_384

#: Seconds that a file may wait for a free descriptor.
_DESCRIPTOR_WAIT = 30.0

_SHA_256 = re.compile(rb"(?:^|,)[ \t]*sha-256=:([A-Za-z0-9+/=]*):")


class Verifier:
    """Compares uploads with their files in a thread of its own.

    Args:
        deliver: called in that thread with the uploads of a batch that are not intact, each with its failure:
            DigestMismatch, or a FileFailed when the file could not be read again.
        backlog: results that may wait before `gate` holds the walk.
    """

    def __init__(self, deliver: Callable[[list[tuple[Attempt, FastpostError]]], None], backlog: int = BACKLOG) -> None:
        #: Uploads whose digests are equal.
        self.intact = 0
        self._deliver = deliver
        self._limit = backlog
        self._submitted = 0
        self._done = 0
        self._abandoned = False
        self._moved = threading.Condition()
        self._queue: queue.SimpleQueue[Sequence[Attempt] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="fastpost-verify", daemon=True)
        self._thread.start()

    def submit(self, results: Sequence[Attempt]) -> None:
        """Queue final results; failed ones are passed over. Never blocks."""
        self._submitted += len(results)
        self._queue.put(results)

    def gate(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, but wait before each while too many results are queued. Runs in the walk's thread."""
        for batch in batches:
            with self._moved:
                self._moved.wait_for(lambda: self._submitted - self._done <= self._limit or self._abandoned)
            yield batch

    def finish(self) -> None:
        """Wait until everything that was submitted is compared or abandoned. Raises what ended the thread early."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Compare nothing more; `gate` and `finish` return soon (after one chunk of a file)."""
        self._abandoned = True
        with self._moved:
            self._moved.notify_all()

    def _work(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        try:
            while (results := self._queue.get()) is not None:
                self._compare(results, buffer)
        except BaseException as error:
            self._error = error
            self.abandon()

    def _compare(self, results: Sequence[Attempt], buffer: memoryview) -> None:
        failures = []
        for result in results:
            if self._abandoned:
                break
            if result.failure is not None:
                continue
            failure = self._difference(result, buffer)
            if failure is not None:
                failures.append((result, failure))
            elif not self._abandoned:
                self.intact += 1
        if failures:
            self._deliver(failures)
        with self._moved:
            self._done += len(results)
            self._moved.notify_all()

    def _difference(self, result: Attempt, buffer: memoryview) -> FastpostError | None:
        received = received_digest(result.fields)
        if received is None:
            return DigestMismatch("the server did not tell the SHA-256 of what it received")
        try:
            size, digest = self._hash(result.upload.file, buffer)
        except OSError as error:
            failure = file_failure(error.errno or 0)
            return type(failure)(f"uploaded, but it could not be compared: {failure}")
        if digest == received or self._abandoned:
            return None
        if size != result.payload:
            return FileChanged(
                f"changed after it was uploaded ({result.payload} octets then, {size} now): upload it again"
            )
        return DigestMismatch(
            f"the server received other octets (SHA-256 {received.hex()}) than the file holds ({digest.hex()}): upload "
            "it again; unless the file changed meanwhile, something between here and the server damages data"
        )

    def _open(self, file: bytes) -> int:
        """Open a file; while the uploads hold every descriptor that the process may have, wait for them."""
        deadline = time.monotonic() + _DESCRIPTOR_WAIT
        while True:
            try:
                # O_NONBLOCK: a FIFO put in the file's place must not block the thread for ever.
                return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _hash(self, file: bytes, buffer: memoryview) -> tuple[int, bytes]:
        """Return the size and SHA-256 of a file, read through `buffer`."""
        sha = hashlib.sha256()
        size = 0
        fd = self._open(file)
        try:
            while (count := os.preadv(fd, (buffer,), size)) and not self._abandoned:
                sha.update(buffer[:count])
                size += count
        finally:
            os.close(fd)
        return size, sha.digest()


def received_digest(fields: Iterable[tuple[bytes, bytes]] | None) -> bytes | None:
    """Return the SHA-256 that response fields state in `repr-digest` (RFC 9530 §3), or None."""
    for name, value in fields or ():
        if name == b"repr-digest" and (found := _SHA_256.search(value)):
            try:
                return base64.b64decode(found[1], validate=True)
            except binascii.Error:
                return None
    return None
