"""The journal of a run: final successes, appended and synced in batches, so that they survive kills and power loss.

What a tick brings is encoded at once and put into a queue; a thread writes and syncs it. Nothing in the file is ever
changed but its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from fastpost._records import records
from fastpost.errors import UsageError
from fastpost.recorded import BUFFER, Contents, Recorded, check_regular, head, without_journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastpost._table import Attempt
    from fastpost.sources import Batch
    from fastpost.target import Target

#: Seconds between two syncs, and how long one may take before the walk is held. A success is on disk after the sync
#: that was under way, the pause and its own sync: less than 1 s, or the run waits for the disk.
_PAUSE: Final = 0.25
_LATE: Final = 0.35


class Journal:
    """A journal that a run writes to. One run at a time: the file is locked until `close`.

    Args:
        path: the file; made when it isn't there.
        target: where the files go.
    Raises UsageError when it belongs to another target, another format or a run that is under way, or is no journal;
    OSError when it can't be opened or made.
    """

    def __init__(self, path: str, target: Target) -> None:
        self.recorded = Recorded(target.shared)
        #: Octets at the end that were torn, and dropped; and damaged ones in the midst, which stay.
        self.dropped = self.damaged = 0
        #: Why nothing more can be written, a full disk say; what was recorded before stays.
        self.lost: str | None = None
        self._path = path
        made = not os.path.lexists(path)
        self._fd = _locked(path)
        try:
            self._end = self._load(target)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                error.filename = path  # what writes to a descriptor names none
                if made:
                    os.unlink(path)
            raise
        #: Records that wait for the next sync, and when the present one began (monotonic seconds; None: there is none).
        self._waiting: deque[bytes] = deque()
        self._syncing: float | None = None
        self._synced = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fastpost-journal", daemon=True)
        self._thread.start()

    def record(self, results: list[Attempt]) -> None:
        """Note the successes among final results; called on one thread. 0.4 µs each, no system call."""
        if self.lost is not None:
            return
        self._waiting.append(records(results))

    def remaining(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Set aside in each batch what is recorded and unchanged, and leave out the journal itself."""
        return self.recorded.sift(without_journal(batches, self._path))

    def gate(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, but not while the disk is late: what isn't recorded stays little. For the walk's thread."""
        for batch in batches:
            with self._synced:
                self._synced.wait_for(lambda: not self._late())
            yield batch

    def close(self) -> None:
        """Write and sync what waits, and give the file free. `lost` says then whether it is where a next run looks."""
        self._closing.set()
        self._thread.join()
        self.lost = self.lost or self._astray()
        os.close(self._fd)

    def _load(self, target: Target) -> int:
        """Read what is there, drop a torn end, begin a new one. Returns where the next record goes."""
        start = head(target)
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", buffering=BUFFER, closefd=False) as file:
            contents = Contents(file, self._path)
            if contents.target is not None:
                contents.load(self.recorded, target)
                self.dropped, self.damaged = size - contents.intact, contents.damaged
                os.ftruncate(self._fd, contents.intact)
                return contents.intact
        if size > len(start):
            raise UsageError(f"{self._path} is damaged at its start, and can't be read: name another file")
        self._begin(start)
        return len(start)

    def _begin(self, start: bytes) -> None:
        os.ftruncate(self._fd, 0)
        try:
            _write(self._fd, start, 0)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, 0)
            raise
        _sync_folder(self._path)

    def _late(self) -> bool:
        return self._syncing is not None and time.monotonic() - self._syncing > _LATE

    def _work(self) -> None:
        """Write and sync in turns, until closed; the last turn comes after that."""
        closing = False
        while not closing:
            closing = self._closing.wait(_PAUSE)
            octets = b"".join(self._waiting.popleft() for _ in range(len(self._waiting)))
            if not octets or self.lost is not None:
                continue
            self._syncing = time.monotonic()
            try:
                self._sync(octets)
            finally:
                with self._synced:
                    self._syncing = None
                    self._synced.notify_all()

    def _sync(self, octets: bytes) -> None:
        self.lost = self._astray()
        if self.lost is not None:
            return
        try:
            _write(self._fd, octets, self._end)
            os.fdatasync(self._fd)
            self._end += len(octets)
        except OSError as error:
            self.lost = error.strerror or str(error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)

    def _astray(self) -> str | None:
        """Say what somebody else did to the file meanwhile, if anything."""
        own = os.fstat(self._fd)
        try:
            there = os.stat(self._path)
        except OSError:
            return "it was moved or removed during the run"
        if not os.path.samestat(own, there):
            return "another file took its place during the run"
        return None if own.st_size == self._end else "somebody else wrote to it or cut it during the run"


def _locked(path: str) -> int:
    """Open and lock a journal. Raises UsageError, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o666)
    try:
        check_regular(fd, path)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except BlockingIOError:
        failure = UsageError(f"another run uses the journal {path} now: wait for its end, or name another file")
    except OSError as error:
        failure = UsageError(f"the journal {path} can't be locked ({error.strerror}): put it on a local disk")
    except UsageError as error:
        failure = error
    os.close(fd)
    raise failure


def _write(fd: int, octets: bytes, offset: int) -> None:
    with memoryview(octets) as rest:
        done = 0
        while done < len(rest):
            done += os.pwrite(fd, rest[done:], offset + done)


def _sync_folder(path: str) -> None:
    """Have the file's name survive a power loss too; a file system that can't is no reason to stop."""
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
