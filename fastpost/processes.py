"""A run spread over several processes (`--processes`): one walk, one tally, and a loop on each core.

The first process walks and uploads as it does alone, hands portions of files to the workers that ask, and adds up what
they tell. A worker is started when it pays: when the first process is busy and a core is idle.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from fastpost import forks
from fastpost import target as targets
from fastpost._table import Attempt
from fastpost.cores import Cores, ThisThread
from fastpost.errors import DuplicateTarget, Interrupted, TargetUnreachable, UsageError
from fastpost.portions import Portions
from fastpost.sources import Batch, Rejected
from fastpost.tally import Tally
from fastpost.uploader import Uploader
from fastpost.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastpost.config import Settings
    from fastpost.errors import FastpostError
    from fastpost.run import OnRejected, OnResults
    from fastpost.sources import Upload
    from fastpost.worker import Message

#: Seconds between looks at what was done and, once another process may be begun, at the cores.
_LOOK: Final = 0.1
#: Seconds that a run has lasted before a process is begun for files that are not set aside: to start one costs a tenth
#: of a second, a twentieth of that. How long the run will last nobody knows; what lasted so long will for some time.
_LASTS: Final = 2.0
#: Octets of a stream's window from which one connection does as much as two: with smaller ones each waits for credit,
#: and to leave one to somebody who may not come costs more than he could bring.
_LARGE: Final = 2**20
#: Seconds that a run which was stopped waits for the step of the walk that is under way.
_LAST_STEP: Final = 1.0
#: Messages of a worker that may wait for the loop.
_MESSAGES_AHEAD: Final = 4


class Processes:
    """Uploads as `Uploader` does, by `count` processes.

    Args:
        settings: concurrency and connections are those of all together.
        count: how many, the calling one included; at least 2.
    Raises UsageError when the target can't be meant, or when there is too little to share out.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self.target = targets.of(settings)
        self.tally = Tally(settings.concurrency)
        self.stopping = False
        self._settings = settings
        # The cores are for all of them; the first one may wait awake as long as it has them for itself.
        self._shares = _shares(dataclasses.replace(settings, busy_poll=False), count)[1:]
        self._uploader = Uploader(settings)
        self._workers: list[Worker] = []
        self._run: _Run | None = None

    @contextlib.contextmanager
    def workers(self, *, tells_results: bool, grace: float) -> Iterator[None]:
        """Have the workers of one run.

        Args:
            tells_results: `on_results` of the run will be called.
            grace: seconds that uploads have to finish after the first `stop`.
        """
        self._workers = [Worker(share, tells_results, grace) for share in self._shares]
        try:
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
        self._run = _Run(self, self._uploader, self._workers, batches, on_results, on_rejected, distinct, on_notice)
        await self._run.complete()

    def limit(self, others: int) -> bool:
        """Leave their shares of streams and connections to so many workers: more or fewer than before.

        Returns whether they are free already: uploads that are under way end as they do.
        """
        self._uploader.allow_busy_poll(not others)
        concurrency = self._settings.concurrency - sum(share.concurrency for share in self._shares[:others])
        return self._uploader.limit(concurrency, self._connections_beside(others))

    def hold_back(self, others: int) -> None:
        """Have no more connections than so many workers would leave, until `limit` is called.

        A connection with a huge file could not be given to them soon.
        """
        if self._settings.connections != "auto":  # which begins with one
            self._uploader.limit(self._settings.concurrency, self._connections_beside(others))

    def _connections_beside(self, others: int) -> int:
        theirs = sum(share.connections_at_most for share in self._shares[:others])
        return max(self._settings.connections_at_most - theirs, 1)

    def stop(self, grace: float = 10.0) -> None:
        """Begin nothing new; what is in flight may finish within the workers' grace. A second call stops at once.

        So does one with no grace.
        """
        self.stopping = True
        if self._run is not None:
            self._run.stop()
        self._uploader.stop(grace)
        for one in self._workers:
            one.signal(signal.SIGTERM if grace > 0 else signal.SIGUSR1)


def _shares(settings: Settings, count: int) -> list[Settings]:
    """Return each process's settings: its share of the concurrency and of the connections."""
    if settings.concurrency < count:
        raise UsageError(f"{count} processes need a concurrency of {count} at least: give --concurrency {count}")
    if isinstance(settings.connections, int) and settings.connections < count:
        raise UsageError(f"{count} processes need a connection each: give --connections {count} at least, or auto")
    return [forks.share(settings, count, index) for index in range(count)]


class _Run:
    """One run over all processes: made, completed once, thrown away."""

    def __init__(
        self,
        processes: Processes,
        uploader: Uploader,
        workers: list[Worker],
        batches: Iterable[Batch],
        on_results: OnResults | None,
        on_rejected: OnRejected | None,
        distinct: bool,
        on_notice: Callable[[str], None] | None,
    ) -> None:
        self._processes = processes
        self._uploader = uploader
        self._workers = workers
        self._target = processes.target
        self._tally = processes.tally
        #: The last cut of this process's own tally.
        self._own = Tally()
        self._own_done = False
        #: Portions of its own, less those that have become attempts: uploads before the first one, and the rest.
        self._own_passed = 0
        self._own_given: collections.deque[list[Upload]] = collections.deque()
        self._unreachable: TargetUnreachable | None = None
        self._on_results = on_results
        self._on_rejected = on_rejected
        self._on_notice = on_notice
        self._last_notice = ""
        #: Hashes of the paths taken: the processes can't know of each other's.
        unique = (distinct and self._target.unique) or self._target.shared
        self._paths: set[int] | None = None if unique else set()
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        #: So many others have their share of the connections, whether or not they are there.
        self._room_for = 0
        #: So many of those that were welcome are gone before their time.
        self._gone = 0
        #: So many others are worth having.
        self._wanted = 0
        #: This process has a connection, or needs none any more: then the others may have theirs.
        self._connected = threading.Event()
        secure = self._target.scheme == "https"
        self._portions = Portions(batches, 1 + len(workers), self._batch_arrived, secure=secure)
        self._cores = Cores()

    async def complete(self) -> None:
        """Upload everything. Raises TargetUnreachable when no process had a connection, and what the walk raised."""
        tally = self._tally
        tally.started = time.monotonic()
        tally.walking = True
        for number, one in enumerate(self._workers, start=1):
            # In threads, as they wait in the midst of a message: uvloop would make the pipes non-blocking.
            one.attend("fastpost-portions", self._serve, number, one)
        uploading = asyncio.ensure_future(self._upload())
        looking = asyncio.ensure_future(self._look())
        try:
            await self._done
        finally:
            self._portions.stop()
            uploading.cancel()
            looking.cancel()
            self._connected.set()
            await asyncio.gather(uploading, looking, return_exceptions=True)
            tally.walking = False
            tally.finished = time.monotonic()
        if self._processes.stopping:
            await self._give_up_the_rest()
        if self._unreachable is not None and not tally.connections:
            raise self._unreachable

    async def _give_up_the_rest(self) -> None:
        """Fail what nobody has begun, with what the step of the walk has found that is under way, if it ends soon."""
        latest = time.monotonic() + _LAST_STEP
        while self._portions.walking and time.monotonic() < latest:
            await asyncio.sleep(0.01)
        attempts = self._count_as_failed(self._portions.take_back(), None)
        if attempts and self._on_results is not None:
            self._on_results(attempts)  # what it raises comes out of `complete`

    def stop(self) -> None:
        """Hand out nothing more: those that have nothing yet end by that."""
        self._portions.stop()

    # --- this process's own share ---------------------------------------------------------------------------------

    async def _upload(self) -> None:
        def arrived(results: list[Attempt]) -> None:
            # Together with their counts, as those of a worker.
            self._count_own()
            if self._on_results is not None:
                self._on_results(results)

        def rejected(those: list[Rejected]) -> None:
            self._count_own()
            if self._on_rejected is not None:
                self._on_rejected(those)

        told = None if self._on_results is None else arrived
        try:
            await self._uploader.run(
                self._own_batches(),
                told,
                rejected,
                distinct=True,
                on_notice=self._notice,
                on_connected=self._first_connected,
            )
        except TargetUnreachable as failure:
            self._unreachable = failure
            if not self._portions.welcome:
                self._portions.stop()  # nobody is there to do it instead, and nobody will be
        except Exception as failure:
            self._fail(failure)
        self._count_own()
        self._own_done = True
        self._connected.set()
        begun = self._uploader.tally.found - self._own_passed
        self._leave_out(list(itertools.chain(*self._own_given))[begun:], self._unreachable)
        self._finish_if_done()

    def _own_batches(self) -> Iterator[Batch]:
        """Take portions as the workers do, in the walk's thread."""
        while (uploads := self._portions.take(0)) is not None:
            self._own_given.append(uploads)
            while self._own_passed + len(self._own_given[0]) <= self._uploader.tally.found:
                self._own_passed += len(self._own_given.popleft())
            batch = Batch()
            batch.uploads = uploads
            if self._portions.sets_aside and not self._connected.is_set():
                self._call_soon(self._hold_back, len(self._workers))
            yield batch

    def _hold_back(self, others: int) -> None:
        """Leave so many others their share of the connections: it is not known yet whether they come."""
        if self._connected.is_set() or self._portions.welcome or not self._portions.sets_aside:
            return
        self._room_for = others
        self._processes.hold_back(others)

    def _first_connected(self, window: int) -> None:
        self._connected.set()
        if window < _LARGE:
            self._portions.set_nothing_aside()
            self._have_room_for(self._portions.welcome)

    def _have_room_for(self, others: int) -> None:
        """Take back what was left to more of them: they don't come, or are gone, and it would be missed."""
        if self._room_for > others - self._gone:
            self._room_for = max(others - self._gone, 0)
            self._processes.limit(self._room_for)

    def _count_own(self) -> None:
        self._own = self._uploader.tally.cut()
        self._tally.paste(self._own)
        self._measured()

    def _measured(self) -> None:
        self._tally.measured((self._own, *(each.counts for each in self._workers)))

    # --- how many share the work ----------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Now and then: count, and see how many processes are worth having."""
        portions = self._portions
        loop = ThisThread()
        while True:
            await asyncio.sleep(_LOOK)
            self._count_own()
            mean = self._tally.payload / self._tally.ok if self._tally.ok else None
            if not portions.sets_aside and time.monotonic() - self._tally.started < _LASTS:
                continue
            wanted = max(self._wanted, portions.worth(self._cores.idle(), loop.busy()))
            if portions.is_handed_out:
                wanted = portions.welcome
            self._wanted = wanted
            if wanted > portions.welcome:
                # Where files are set aside for all of them, all will have room soon, or none.
                self._room_for = (len(self._workers) if portions.sets_aside else wanted) - self._gone
                if self._processes.limit(self._room_for):
                    portions.admit(wanted, mean)
                continue
            portions.admit(wanted, mean)
            if not portions.sets_aside:
                self._have_room_for(wanted)

    # --- files out, in the workers' threads -----------------------------------------------------------------------

    def _serve(self, number: int, one: Worker) -> None:
        try:
            if self._portions.wait(number) and self._started(one):
                self._connected.wait()
                one.attend("fastpost-told", self._listen, number, one)
                one.serve(number, self._portions)
            else:
                self._call_soon(self._heard, self._finish, one, None)
            self._portions.leave(number)
        except BaseException as failure:
            self._call_soon(self._fail, failure)

    def _started(self, one: Worker) -> bool:
        """Have it run. Where there can be no more processes, the others do what it would have done."""
        if self._done.done():
            return False
        try:
            one.start()
        except OSError as error:
            self._call_soon(self._notice, f"no further process could be started: {error.strerror}; the run goes on")
            self._call_soon(self._take_its_room_back)
            return False
        if self._processes.stopping:
            one.signal(signal.SIGTERM)
        return True

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

    def _listen(self, number: int, one: Worker) -> None:
        """Hand what it tells to the loop, in a thread, until it is done or gone."""
        try:
            self._pass_on(number, one)
        except BaseException as failure:
            self._call_soon(self._fail, failure)

    def _pass_on(self, number: int, one: Worker) -> None:
        """Do that, a few messages ahead at most."""
        ahead = threading.Semaphore(_MESSAGES_AHEAD)
        while True:
            ahead.acquire()
            message = one.hear()
            last = message is None or message.kind in ("done", "broken")
            if last:
                # Else a portion that is being taken for it would be with nobody, and its files in no report.
                one.release(number, self._portions)
            if message is None:
                self._call_soon(self._heard, self._lose, one)
            else:
                self._call_soon(self._heard, self._take, one, message)
            self._call_soon(ahead.release)
            if last:
                return

    def _heard(self, take: Callable[..., None], one: Worker, *message: Message) -> None:
        take(one, *message)
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._own_done and all(each.done for each in self._workers) and not self._done.done():
            self._done.set_result(None)

    def _take(self, one: Worker, message: Message) -> None:
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
                one.stopped = True
                self._notice("one of the processes was told to stop (SIGTERM), by somebody else; the others go on")
            case "done":
                self._finish(one, message.failure)
            case "broken":
                self._fail(RuntimeError(message.text))

    def _reject(self, one: Worker, rejected: list[Rejected]) -> None:
        files = {each.file for each in rejected}
        for number in [number for number, upload in list(one.given.items()) if upload.file in files]:
            del one.given[number]
        if self._on_rejected is not None:
            self._guarded(self._on_rejected, rejected)

    def _add(self, one: Worker, cut: Tally, ended: bytes) -> None:
        self._tally.paste(cut)
        one.counts = cut
        for number in memoryview(ended).cast("Q"):
            del one.given[number]
        self._measured()

    def _notice(self, notice: str) -> None:
        # All workers have much the same to say, at the same time.
        if self._on_notice is not None and notice != self._last_notice:
            self._last_notice = notice
            self._on_notice(notice)

    def _finish(self, one: Worker, failure: Any) -> None:
        one.done = True
        if isinstance(failure, TargetUnreachable):
            self._unreachable = failure
            self._take_its_room_back()
            if self._tally.connections or self._uploader.tally.connections:
                self._notice(f"one of the processes has no connection, the others go on: {failure}")
        elif failure is not None:
            self._fail(failure)
        elif one.stopped:
            self._take_its_room_back()
        if not any(each.started and not each.done for each in self._workers):
            self._uploader.allow_busy_poll(True)
        self._leave_out(list(one.given.values()), failure)

    def _lose(self, one: Worker) -> None:
        """Fail what it had: its last counts may be a quarter of a second old, so some of it may have arrived."""
        failure = one.lost()
        one.done = True
        self._take_its_room_back()
        self._leave_out(list(one.given.values()), failure)
        self._notice(str(failure))

    def _take_its_room_back(self) -> None:
        """One that was to share the work is gone before that is done."""
        self._gone += 1
        self._have_room_for(len(self._workers) if self._portions.sets_aside else self._wanted)

    def _leave_out(self, uploads: list[Upload], failure: FastpostError | None) -> None:
        """Who had these is gone."""
        attempts = self._count_as_failed(uploads, failure)
        if attempts and self._on_results is not None:
            self._guarded(self._on_results, attempts)

    def _count_as_failed(self, uploads: list[Upload], failure: FastpostError | None) -> list[Attempt]:
        """Return what nobody has ended as failed: by what ended the one who had it; it was stopped, if by nothing."""
        failure = failure or Interrupted("the run was stopped before this upload began")
        attempts = [Attempt(upload, upload.file, b"") for upload in uploads]
        for attempt in attempts:
            attempt.failure = failure
        self._tally.add(attempts)
        return attempts

    def _guarded(self, told: Callable[[list[Any]], None], what: list[Any]) -> None:
        """Call the caller's function; what it raises ends the run and comes out of `complete`."""
        try:
            told(what)
        except BaseException as error:
            self._on_results = self._on_rejected = None  # once is enough
            self._fail(error)

    def _fail(self, failure: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(failure)
