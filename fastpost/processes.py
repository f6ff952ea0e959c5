"""A run spread over several processes (`--processes`): one walk, one tally, and a loop on each core.

The parent walks, hands out portions of files to the workers that ask, and adds up what they tell. Workers are forked
before there is a loop or a thread, so that they start in milliseconds and inherit none.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
import threading
import time
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, Final

from fastpost import target as targets
from fastpost import worker
from fastpost._table import Attempt
from fastpost.errors import DuplicateTarget, TargetUnreachable, UsageError, WorkerLost
from fastpost.sources import Rejected
from fastpost.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastpost.config import Settings
    from fastpost.run import OnRejected, OnResults
    from fastpost.sources import Batch, Upload

#: Files of a portion: a message costs some 100 µs on both sides, and what one worker has is kept from the others.
_PORTION: Final = 128
#: Messages of a worker that may wait for the loop.
_MESSAGES_AHEAD: Final = 4
#: Seconds that a thread may take to notice that its worker has ended; one that walks a slow disk is left to itself.
_THREAD_ENDS: Final = 1.0
#: Seconds that the first portions wait for all workers to have asked: few files must not all go to the first one.
_ALL_ASK: Final = 1.0


class Processes:
    """Uploads as `Uploader` does, by `count` processes.

    Args:
        settings: concurrency and connections are those of all together.
        count: how many.
    Raises UsageError when the target can't be meant, or when there is too little to share out.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self.target = targets.parse(settings.to, method=settings.method, content_type=settings.content_type)
        self.tally = Tally()
        self.stopping = False
        self._shares = _shares(settings, count)
        self._workers: list[_Worker] = []

    @contextlib.contextmanager
    def forked(self, *, tells_results: bool, grace: float) -> Iterator[None]:
        """Have the worker processes, for one run. No loop and no thread may exist yet.

        Args:
            tells_results: `on_results` of the run will be called.
            grace: seconds that uploads have to finish after the first `stop`.
        """
        try:
            for settings in self._shares:
                self._workers.append(_fork(settings, self._workers, tells_results=tells_results, grace=grace))
            yield
        finally:
            for one in self._workers:
                one.end()

    async def run(
        self,
        batches: Iterable[Batch],
        on_results: OnResults | None = None,
        on_rejected: OnRejected | None = None,
        *,
        distinct: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        """Upload everything; as `Uploader.run`."""
        await _Run(self, batches, on_results, on_rejected, distinct, on_notice).complete()

    @property
    def workers(self) -> list[_Worker]:
        """The processes of the present run."""
        return self._workers

    def stop(self, grace: float = 10.0) -> None:
        """Begin nothing new; what is in flight may finish within the workers' grace. A second call stops at once."""
        self.stopping = True
        for one in self._workers:
            one.signal(signal.SIGTERM)


def _shares(settings: Settings, count: int) -> list[Settings]:
    """Return each process's settings: its share of the concurrency and of the connections."""
    if settings.concurrency < count:
        raise UsageError(f"{count} processes need a concurrency of {count} at least: give --concurrency {count}")
    if isinstance(settings.connections, int) and settings.connections < count:
        raise UsageError(f"{count} processes need a connection each: give --connections {count} at least, or auto")
    return [
        dataclasses.replace(
            settings,
            concurrency=_part(settings.concurrency, count, index),
            connections="auto" if settings.connections == "auto" else _part(settings.connections, count, index),
            most_connections=max(settings.most_connections // count, 1),
        )
        for index in range(count)
    ]


def _part(whole: int, count: int, index: int) -> int:
    return whole // count + (index < whole % count)


class _Worker:
    """A worker process as its parent sees it.

    Attributes:
        told: receives its messages.
        counts: the last cut of its tally.
        given: the uploads that it has and has not told the end of, by number.
        done: it has told all.
    """

    def __init__(self, pid: int, portions: Connection, told: Connection) -> None:
        self.told = told
        self.counts = Tally()
        self.given: dict[int, Upload] = {}
        self.done = False
        self.failure: TargetUnreachable | None = None
        self._pid = pid
        self._portions = portions
        self._threads: list[threading.Thread] = []

    def start(self, thread: threading.Thread) -> None:
        """Start a thread that waits for this worker; it ends with it."""
        self._threads.append(thread)
        thread.start()

    def serve(self, portions: _Portions) -> None:
        """Give it what it asks for, in a thread, until there is no more or it is gone. Raises what the walk raises."""
        first = 0
        for number in itertools.count():
            try:
                self._portions.recv()
            except (EOFError, OSError):
                return
            uploads = portions.take(number)
            self.given.update(enumerate(uploads or (), start=first))
            try:
                self._portions.send_bytes(worker.packed(uploads, first))
            except OSError:
                return
            first += len(uploads or ())

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def lost(self) -> WorkerLost:
        """Say how it ended, once its pipe says that it did."""
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._pid = 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return WorkerLost(
            f"one of the processes {how}: this file was with it, and may have arrived or not; upload it again"
        )

    def end(self) -> None:
        """Wait for its end; one that was not done is stopped at once."""
        if self._pid:
            if not self.done:
                self.signal(signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        for thread in self._threads:
            thread.join(_THREAD_ENDS)
        self._portions.close()
        self.told.close()

    def leave(self) -> None:
        """Close the parent's ends in a worker that was forked later: else this one would never see the parent end."""
        self._portions.close()
        self.told.close()


def _fork(settings: Settings, others: Iterable[_Worker], *, tells_results: bool, grace: float) -> _Worker:
    portions, its_portions = Pipe()
    told, its_told = Pipe(duplex=False)
    # A signal that comes before the worker can take it would meet the parent's handler.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        pid = os.fork()
        if pid == 0:
            for end in (portions, told):
                end.close()
            for other in others:
                other.leave()
            worker.live(worker.Worker(settings, its_portions, its_told, tells_results=tells_results, grace=grace))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    its_portions.close()
    its_told.close()
    return _Worker(pid, portions, told)


class _Portions:
    """Cuts batches into portions; each worker's thread takes from it.

    Args:
        batches: the walk, iterated under a lock in whichever thread finds nothing left.
        workers: how many will ask.
        arrived: called in that thread with each batch; returns what of it is to be uploaded.
    """

    def __init__(self, batches: Iterable[Batch], workers: int, arrived: Callable[[Batch], list[Upload]]) -> None:
        self._batches = iter(batches)
        self._workers = workers
        self._arrived = arrived
        self._left: list[Upload] = []
        self._size = 1
        self._stopped = False
        self._lock = threading.Lock()
        self._all_ask = threading.Barrier(workers)

    def take(self, number: int) -> list[Upload] | None:
        """Return the next uploads for a worker that has asked `number` times before; None when there are no more.

        Nobody gets a second portion before all have had their first. Raises what the walk raises.
        """
        if number < 2:
            with contextlib.suppress(threading.BrokenBarrierError):
                self._all_ask.wait(_ALL_ASK)
        with self._lock:
            while not self._left and not self._stopped:
                batch = next(self._batches, None)
                if batch is None:
                    self._stopped = True
                    break
                self._left = self._arrived(batch)[::-1]
                self._size = max(min(_PORTION, -(-len(self._left) // self._workers)), 1)
            if self._stopped:
                self._all_ask.abort()  # who gets nothing more will not ask again
                return None
            portion = self._left[: -self._size - 1 : -1]
            del self._left[-self._size :]
            return portion

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped = True
        self._all_ask.abort()


class _Run:
    """One run over the workers: made, completed once, thrown away."""

    def __init__(
        self,
        processes: Processes,
        batches: Iterable[Batch],
        on_results: OnResults | None,
        on_rejected: OnRejected | None,
        distinct: bool,
        on_notice: Callable[[str], None] | None,
    ) -> None:
        self._processes = processes
        self._workers = processes.workers
        self._target = processes.target
        self._tally = processes.tally
        self._on_results = on_results
        self._on_rejected = on_rejected
        self._on_notice = on_notice
        self._last_notice = ""
        #: Hashes of the paths taken: the workers can't know of each other's.
        unique = (distinct and self._target.unique) or self._target.shared
        self._paths: set[int] | None = None if unique else set()
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._portions = _Portions(batches, len(self._workers), self._batch_arrived)

    async def complete(self) -> None:
        """Upload everything. Raises TargetUnreachable when no worker had a connection, and what the walk raised."""
        tally = self._tally
        tally.started = time.monotonic()
        tally.walking = True
        for one in self._workers:
            # Threads, because both wait in the midst of a message: uvloop would make the pipes non-blocking.
            one.start(threading.Thread(target=self._serve, args=(one,), name="fastpost-portions", daemon=True))
            one.start(threading.Thread(target=self._listen, args=(one,), name="fastpost-told", daemon=True))
        try:
            await self._done
        finally:
            self._portions.stop()
            tally.walking = False
            tally.finished = time.monotonic()
        failures = [one.failure for one in self._workers if one.failure is not None]
        if failures and not tally.connections:
            raise failures[0]

    # --- files out, in the workers' threads -----------------------------------------------------------------------

    def _serve(self, one: _Worker) -> None:
        try:
            one.serve(self._portions)
        except BaseException as failure:
            self._call_soon(self._fail, failure)

    def _call_soon(self, called: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run is over
            self._loop.call_soon_threadsafe(called, *arguments)

    def _batch_arrived(self, batch: Batch) -> list[Upload]:
        if self._paths is not None:
            self._set_duplicates_aside(batch, self._paths)
        self._call_soon(self._count, batch)
        return batch.uploads

    def _set_duplicates_aside(self, batch: Batch, paths: set[int]) -> None:
        """Reject what goes where an earlier file of this run went: it would overwrite that one."""
        fresh = []
        batch.claim_recorded(paths, self._target.request_path)
        for upload in batch.uploads:
            key = hash(self._target.request_path(upload.name))
            if key in paths:
                failure = DuplicateTarget.at(self._target.url(upload.name))
                batch.rejected.append(Rejected(upload.name, upload.file, failure))
            else:
                paths.add(key)
                fresh.append(upload)
        batch.uploads = fresh

    def _count(self, batch: Batch) -> None:
        self._tally.find(batch)
        if batch.rejected and self._on_rejected is not None:
            self._guarded(self._on_rejected, batch.rejected)

    # --- what workers tell ----------------------------------------------------------------------------------------

    def _listen(self, one: _Worker) -> None:
        """Hand what it tells to the loop, in a thread, until it is done or gone; a few messages ahead at most."""
        ahead = threading.Semaphore(_MESSAGES_AHEAD)
        while True:
            ahead.acquire()
            try:
                message = one.told.recv()
            except (EOFError, OSError):
                self._call_soon(self._heard, self._lose, one)
                return
            self._call_soon(self._heard, self._take, one, message)
            self._call_soon(ahead.release)
            if message.kind in ("done", "broken"):
                return

    def _heard(self, take: Callable[..., None], one: _Worker, *message: worker.Message) -> None:
        take(one, *message)
        if all(each.done for each in self._workers) and not self._done.done():
            self._done.set_result(None)

    def _take(self, one: _Worker, message: worker.Message) -> None:
        if message.cut is not None:
            self._add(one, message.cut, message.ended)
        if message.results and self._on_results is not None:
            self._guarded(self._on_results, list(message.results))
        if message.rejected:
            self._reject(one, list(message.rejected))
        match message.kind:
            case "notice":
                self._notice(message.text)
            case "stopped" if not self._processes.stopping:
                self._notice("one of the processes was told to stop (SIGTERM), by somebody else; the others go on")
            case "done":
                self._finish(one, message.failure)
            case "broken":
                self._fail(RuntimeError(message.text))

    def _reject(self, one: _Worker, rejected: list[Rejected]) -> None:
        files = {each.file for each in rejected}
        for number in [number for number, upload in list(one.given.items()) if upload.file in files]:
            del one.given[number]
        if self._on_rejected is not None:
            self._guarded(self._on_rejected, rejected)

    def _add(self, one: _Worker, cut: Tally, ended: bytes) -> None:
        self._tally.paste(cut)
        one.counts = cut
        for number in memoryview(ended).cast("Q"):
            del one.given[number]
        self._tally.measured(each.counts for each in self._workers)

    def _notice(self, notice: str) -> None:
        # All workers have much the same to say, at the same time.
        if self._on_notice is not None and notice != self._last_notice:
            self._last_notice = notice
            self._on_notice(notice)

    def _finish(self, one: _Worker, failure: Any) -> None:
        one.done = True
        if isinstance(failure, TargetUnreachable):
            one.failure = failure
        elif failure is not None:
            self._fail(failure)

    def _lose(self, one: _Worker) -> None:
        """Fail what it had: its last counts may be a quarter of a second old, so some of it may have arrived."""
        failure = one.lost()
        one.done = True
        lost = [Attempt(upload, upload.file, b"") for upload in list(one.given.values())]
        for attempt in lost:
            attempt.failure = failure
        self._tally.add(lost)
        if lost and self._on_results is not None:
            self._guarded(self._on_results, lost)
        self._notice(str(failure))

    def _guarded(self, told: Callable[[list[Any]], None], what: list[Any]) -> None:
        """Call the caller's function; what it raises ends the run and comes out of `complete`."""
        try:
            told(what)
        except BaseException as error:
            self._fail(error)

    def _fail(self, failure: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(failure)
