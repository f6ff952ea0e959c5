"""A measurement that several processes share (`bench --processes`): one window, one report, a loop on each core.

All begin at one moment of the monotonic clock, which the processes of a machine have in common, and at the end of each
second each tells what it has counted in it. A second is added up when all have told it.
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
from fastpost.bench_worker import Done, Notice, Ready, Second, Uploads, Worker
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
        first: what it read when its window began; None: it has told nothing yet.
        now: what it read at the end of the last second that is added up.
        tally: of what its connections had measured then.
        ended: when its window ended (monotonic seconds); None: it goes on.
        ahead: the seconds that it has told since.
    """

    def __init__(self, child: forks.Child, number: int) -> None:
        self.child = child
        self.number = number
        self.ready = self.over = self.done = self._closed = False
        self.first: Reading | None = None
        self.now: Reading | None = None
        self.tally: Tally | None = None
        self.ended: float | None = None
        self.ahead: collections.deque[Second] = collections.deque()
        self._room = threading.Semaphore(_MESSAGES_AHEAD)
        self._thread: threading.Thread | None = None

    def listen(self, heard: Callable[[_Member, Told | None], object]) -> None:
        """Have `heard` called in a thread with what it tells, and with None when it is gone.

        A thread, because it waits in the midst of a message: uvloop would make the pipe non-blocking.
        """
        self._thread = threading.Thread(target=self._listen, args=(heard,), name="fastpost-told", daemon=True)
        self._thread.start()

    def tell(self, second: Second) -> None:
        """It has told a second."""
        if self.first is None:
            # What it had done before its window counts nowhere.
            self.first = self.now = second.first
        self.over = second.ended is not None
        self.ahead.append(second)

    def add_up(self) -> Second:
        """Take the next second that it has told."""
        second = self.ahead.popleft()
        self.now, self.tally, self.ended = second.now, second.tally, second.ended
        return second

    def taken(self) -> None:
        """A message was taken: there is room for another one."""
        self._room.release()

    def _listen(self, heard: Callable[[_Member, Told | None], object]) -> None:
        while True:
            message: Told | None
            try:
                message = self.child.told.recv()
            except Exception:  # what can't be read says that it is gone, or as good as that
                message = None
            self._room.acquire()
            if self._closed:
                return
            heard(self, message)
            if message is None or isinstance(message, Done):
                return

    def end(self) -> None:
        """Wait for its end; one that was not done is stopped at once."""
        if not self.done:
            self.child.kill()
        self.child.wait()
        if self._thread is not None:
            self._closed = True
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
        on_second: called with each row of the timeline, and with what was counted in that time.
        on_notice: called with a sentence when a failed try to connect of one of them is followed by another one.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        described: Described | None = None,
        on_uploads: Callable[[str], None] | None = None,
        on_second: OnSecond | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(plan, on_second)
        self._described = described
        self._on_uploads = on_uploads
        self._on_notice = on_notice
        self._members: list[_Member] = []
        #: It was ended from outside, before all could begin perhaps.
        self._stopped = False
        #: Why one of them could not measure.
        self._failure: Exception | None = None
        #: CPU time of this process when the window began: what it adds up and writes is a part of the cost.
        self._own_cpu = 0.0
        #: The timer that reads it then.
        self._opening: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def forked(self) -> Iterator[None]:
        """Have the processes, for this measurement. No loop and no thread may exist yet."""
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
            if self._opening is not None:
                self._opening.cancel()
            if self.first is not None:
                if all(member.ended for member in self._members if member.first is not None):
                    self.meter.end(max(member.ended or 0.0 for member in self._members))
                self._close(self._reading())

    def stop(self) -> None:
        """End the window now; what is in flight may end."""
        self._stopped = True
        self._stop()

    @property
    def clients(self) -> list[tuple[Reading, Reading]]:
        """The readings of each process at both ends of its window; none without a window."""
        return [(member.first, member.now) for member in self._members if member.first and member.now]

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
                if all(each.ready for each in self._members) and not self._stopped:
                    self._begin()
            case Uploads():
                if self._on_uploads is not None:
                    self._on_uploads(message.text)
            case Notice():
                if self._on_notice is not None:
                    self._on_notice(message.text)
            case Second():
                member.tell(message)
                self._add_up()
            case Done():
                member.over = member.done = True
                self._add_up()
                if message.failure is not None and self._failure is None:
                    self._failure = message.failure
                    self._stop()  # what the others have measured till now is told too
                if all(each.done for each in self._members):
                    self._finish()

    def _begin(self) -> None:
        begins = time.monotonic() + _LEAD
        self.meter.begin(begins + self.plan.warm_up)
        self._opening = self._loop.call_later(_LEAD + self.plan.warm_up, self._read_own_cpu)
        for member in self._members:
            member.child.order(begins)

    def _read_own_cpu(self) -> None:
        self._own_cpu = time.process_time()

    def _lose(self, member: _Member) -> None:
        member.child.kill()
        how = member.child.wait()
        self._fail(
            WorkerLost(
                f"process {member.number} of {len(self._members)} {how}: a part of this measurement is missing, "
                "so nothing is told of it; measure again"
            )
        )

    def _stop(self) -> None:
        for member in self._members:
            member.child.order(None)

    def _finish(self) -> None:
        if self._failure is not None:
            self._fail(self._failure)
        elif not self._done.done():
            self._done.set_result(None)

    def _fail(self, failure: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(failure)

    # --- added up -----------------------------------------------------------------------------------------------------

    def _add_up(self) -> None:
        """Make rows of the seconds that all have told whose window has not ended."""
        while all(member.ahead or member.over for member in self._members):
            ahead = [member for member in self._members if member.ahead]
            if not ahead:
                return
            number = min(member.ahead[0].number for member in ahead)
            self._add_second([member.add_up() for member in ahead if member.ahead[0].number == number])

    def _add_second(self, told: list[Second]) -> None:
        for second in told:
            self.meter.since.merge(second.counted)
            self.tally.paste(second.tally)
        self.tally.measured(member.tally for member in self._members if member.tally is not None)
        if self.first is None:
            self.first = self.latest = together([first for first, _ in self.clients])
        self._add_row(self._reading())

    def _reading(self) -> Reading:
        now = together([now for _, now in self.clients])
        return now._replace(cpu=now.cpu + time.process_time() - self._own_cpu)
