"""A measurement that several processes share (`bench --processes`): one window, one report, a loop on each core.

All begin at one moment of the monotonic clock, which the processes of a machine have in common, and each tells what it
has counted at the end of each second of it. A second is added up when all have told it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import threading
import time
from typing import TYPE_CHECKING, Final

from fastpost import forks
from fastpost._meter import Meter
from fastpost.bench_worker import Counts, Done, Ready, Uploads, Worker
from fastpost.errors import WorkerLost
from fastpost.load import Part
from fastpost.measurement import Measured, Plan, Reading, together
from fastpost.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from fastpost.bench_worker import Described, Told
    from fastpost.measurement import OnSecond

#: Seconds from the order to begin to that moment: all of them have to have read it.
_LEAD: Final = 0.02
#: Messages of a process that may wait for the loop.
_MESSAGES_AHEAD: Final = 4
#: Seconds that a walk of an earlier measurement may take to end before a fork.
_THREAD_ENDS: Final = 10.0


def parts(plan: Plan) -> list[Plan]:
    """Return what each process of a plan measures: its part of everything."""
    count = plan.processes
    return [
        dataclasses.replace(
            plan,
            settings=forks.share(plan.settings, count, index),
            rate=None if plan.rate is None else plan.rate / count,
            count=None if plan.count is None else forks.part(plan.count, count, index),
            processes=1,
        )
        for index in range(count)
    ]


class _Member:
    """One of the processes, as their parent sees it.

    Attributes:
        ready: it can begin.
        over: its window has ended, or never began.
        done: it has told all.
        counts: what it told last, of the seconds that are added up.
        ahead: what it told since.
    """

    def __init__(self, child: forks.Child, number: int) -> None:
        self.child = child
        self.number = number
        self.ready = self.over = self.done = self._ended = False
        self.counts: Counts | None = None
        self.ahead: collections.deque[Counts] = collections.deque()
        self._room = threading.Semaphore(_MESSAGES_AHEAD)
        self._thread: threading.Thread | None = None

    def listen(self, heard: Callable[[_Member, Told | None], object]) -> None:
        """Have `heard` called in a thread with what it tells, and with None when it is gone.

        A thread, because it waits in the midst of a message: uvloop would make the pipe non-blocking.
        """
        self._thread = threading.Thread(target=self._listen, args=(heard,), name="fastpost-told", daemon=True)
        self._thread.start()

    def taken(self) -> None:
        """A message was taken: there is room for another one."""
        self._room.release()

    def _listen(self, heard: Callable[[_Member, Told | None], object]) -> None:
        message: Told | None = Ready()
        while message is not None and not isinstance(message, Done):
            try:
                message = self.child.told.recv()
            except Exception:  # what can't be read says that it is gone, or as good as that
                message = None
            self._room.acquire()
            if self._ended:
                return
            heard(self, message)

    def end(self) -> None:
        """Wait for its end; one that was not done is stopped at once."""
        if not self.done:
            self.child.kill()
        self.child.wait()
        if self._thread is not None:
            self._ended = True
            self._room.release()
            self._thread.join()
        self.child.close()


class SharedMeasurement(Measured):
    """Measures once, by `plan.processes` processes.

    Args:
        plan: what, in all. Raises UsageError when its target can't be meant.
        described: called in them with when the window began and uploads that count; returns the text for
            `on_uploads`. None: nobody wants them.
        on_uploads: called with such texts.
        on_second: called with each row of the timeline; `meter.second` is that second's latencies.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        described: Described | None = None,
        on_uploads: Callable[[str], None] | None = None,
        on_second: OnSecond | None = None,
    ) -> None:
        super().__init__(plan, on_second)
        self._described = described
        self._on_uploads = on_uploads
        self._members: list[_Member] = []
        #: CPU time of this process when the window began: what it adds up and writes is a part of the cost.
        self._own_cpu = 0.0

    @contextlib.contextmanager
    def forked(self) -> Iterator[None]:
        """Have the processes, for this measurement. No loop may exist yet."""
        for thread in threading.enumerate():
            # An earlier measurement by this process alone: its walk is at its last batch.
            if thread.name == "fastpost-walk":
                thread.join(_THREAD_ENDS)
        try:
            for index, plan in enumerate(parts(self.plan)):
                live = functools.partial(self._live, plan, Part(index, self.plan.processes))
                child = forks.fork(live, [member.child for member in self._members])
                self._members.append(_Member(child, index + 1))
            yield
        finally:
            for member in self._members:
                member.end()

    def _live(self, plan: Plan, part: Part, orders: Connection, told: Connection) -> None:
        Worker(plan, part, self._described, orders, told).work()

    async def complete(self) -> None:
        """Measure. Raises TargetUnreachable, WorkerLost when a process was, and what the load raised."""
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        for member in self._members:
            member.listen(self._heard)
        try:
            await self._done
        finally:
            self.last = self.latest
            self.timeline.finish()

    def stop(self) -> None:
        """End the window now; what is in flight may end."""
        self.interrupted = True
        for member in self._members:
            member.child.order(None)

    @property
    def clients(self) -> list[tuple[Reading, Reading]]:
        """The readings of each process at both ends of its window; none without a window."""
        return [(counts.first, counts.now) for counts in self._counts()]

    # --- what they tell -----------------------------------------------------------------------------------------------

    def _heard(self, member: _Member, message: Told | None) -> None:
        """Called in the member's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the measurement is over
            self._loop.call_soon_threadsafe(self._take, member, message)

    def _take(self, member: _Member, message: Told | None) -> None:
        member.taken()
        try:
            self._hear(member, message)
        except BaseException as error:  # of the caller's functions
            self._fail(error)

    def _hear(self, member: _Member, message: Told | None) -> None:
        match message:
            case None:
                self._lose(member)
            case Ready():
                member.ready = True
                if all(each.ready for each in self._members) and not self.interrupted:
                    self._begin()
            case Uploads():
                if self._on_uploads is not None:
                    self._on_uploads(message.text)
            case Counts():
                member.ahead.append(message)
                member.over = message.over
                self._add_up()
            case Done():
                member.over = member.done = True
                self._add_up()
                if message.failure is not None:
                    self._fail(message.failure)
                elif all(each.done for each in self._members) and not self._done.done():
                    self._done.set_result(None)

    def _begin(self) -> None:
        begins = time.monotonic() + _LEAD
        self._own_cpu = time.process_time()
        self.counted_until = begins + self.plan.warm_up
        self.meter.begin(self.counted_until)
        for member in self._members:
            member.child.order(begins)

    def _lose(self, member: _Member) -> None:
        member.child.kill()
        how = member.child.wait()
        self._fail(
            WorkerLost(
                f"process {member.number} of {len(self._members)} {how}: a part of this measurement is missing, "
                "so nothing is told of it; measure again"
            )
        )

    def _fail(self, failure: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(failure)

    # --- added up -----------------------------------------------------------------------------------------------------

    def _counts(self) -> list[Counts]:
        return [member.counts for member in self._members if member.counts is not None]

    def _add_up(self) -> None:
        """Make rows of the seconds that all have told whose window has not ended."""
        while all(member.ahead or member.over for member in self._members):
            seconds = [member.ahead[0].second for member in self._members if member.ahead]
            if not seconds:
                return
            fresh = []
            for member in self._members:
                if member.ahead and member.ahead[0].second == min(seconds):
                    member.counts = member.ahead.popleft()
                    fresh.append(member.counts)
            self._add_second(fresh)

    def _add_second(self, fresh: list[Counts]) -> None:
        told = self._counts()
        # One whose first word is late stands where its window began: what it had done before counts nowhere.
        known = [member.counts or member.ahead[0] for member in self._members if member.counts or member.ahead]
        late = [member.ahead[0].first for member in self._members if member.counts is None and member.ahead]
        self.meter = Meter.together([counts.meter for counts in told])
        for counts in fresh:
            self.meter.second.merge(counts.meter.second)
            self.peer_settings = counts.peer_settings or self.peer_settings
        self.tally = Tally()
        for counts in told:
            self.tally.paste(counts.tally)
        self.tally.measured(counts.tally for counts in told)
        if self.first is None:
            self.first = self.latest = together([counts.first for counts in known])
        now = together([*(counts.now for counts in told), *late])
        now = now._replace(cpu=now.cpu + time.process_time() - self._own_cpu)
        self.counted_until = now.at
        self._add_row(now)
