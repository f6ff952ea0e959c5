"""Did the server receive what the disk holds: the digest of each file against what the response says of it.

Off the hot path: one thread reads and hashes, and both let go of the interpreter lock; the thread that uploads only
puts a list into a queue. When hashing falls behind, the walk is held up, never the connections.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from fastpost import digest, statements
from fastpost.errors import DigestMismatch, FastpostError, FileChanged, file_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastpost._table import Attempt
    from fastpost.sources import Batch

    Failures = list[tuple[Attempt, FastpostError]]

#: Results that may wait for their turn before the walk is held up; about 1 KiB of memory each.
BACKLOG = 16_384


class Verifier:
    """Compares uploads with their files in a thread of its own.

    Args:
        deliver: called in that thread for each batch, with the uploads that nothing speaks against, and with those that
            are not intact, each with its failure: DigestMismatch, or a FileFailed when the file could not be read
            again.
        backlog: results that may wait before `gate` holds the walk.
    """

    def __init__(self, deliver: Callable[[list[Attempt], Failures], None], backlog: int = BACKLOG) -> None:
        #: Uploads whose digests are equal, and those of which the server told none.
        self.intact = 0
        self.unverifiable = 0
        self._deliver = deliver
        self._limit = backlog
        self._submitted = 0
        self._done = 0
        self._reader = digest.Reader()
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
                self._moved.wait_for(lambda: self._submitted - self._done <= self._limit or self._reader.abandoned)
            yield batch

    def finish(self) -> None:
        """Wait until everything that was submitted is compared or abandoned. Raises what ended the thread early."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Compare nothing more; `gate` and `finish` return soon (after one chunk of a file)."""
        self._reader.abandoned = True
        with self._moved:
            self._moved.notify_all()

    def _work(self) -> None:
        try:
            while (results := self._queue.get()) is not None:
                self._compare(results)
        except BaseException as error:
            self._error = error
            self.abandon()

    def _compare(self, results: Sequence[Attempt]) -> None:
        passed = []
        failures = []
        for result in results:
            if self._reader.abandoned:
                break
            if result.failure is not None:
                continue
            try:
                failure = self._difference(result)
            except digest.Abandoned:
                break
            if failure is None:
                passed.append(result)
            else:
                failures.append((result, failure))
        if passed or failures:
            self._deliver(passed, failures)
        with self._moved:
            self._done += len(results)
            self._moved.notify_all()

    def _difference(self, result: Attempt) -> FastpostError | None:
        """Compare one upload with the first digest that the server tells. Raises Abandoned."""
        theirs = next(statements.stated(result), None)
        if theirs is None:
            self.unverifiable += 1
            return None
        sent = statements.sent(result)
        if sent is not None and sent.algorithm == theirs.algorithm:
            ours = sent.value
        else:
            try:
                ours, identity = self._reader.digest(result.upload, theirs.algorithm)
            except OSError as error:
                failure = file_failure(error.errno or 0)
                return type(failure)(f"uploaded, but it could not be compared: {failure}")
            if ours != theirs.value and identity != (result.size, result.mtime_ns, result.inode):
                return FileChanged("changed after it was uploaded, so the two can't be compared: upload it again")
        if ours != theirs.value:
            return DigestMismatch(
                f"the server received other octets ({theirs.algorithm} {theirs.value.hex()}) than the file holds "
                f"({ours.hex()}): upload it again; unless the file changed meanwhile, something between here and the "
                "server damages data"
            )
        self.intact += 1
        return None
