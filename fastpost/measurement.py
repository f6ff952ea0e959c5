"""One measured run: an endless load, a warm-up that isn't counted, a window that is, by the second."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import functools
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from fastpost import load
from fastpost import target as targets
from fastpost._meter import Meter
from fastpost.errors import TargetUnreachable
from fastpost.feed import Feed
from fastpost.run import Run
from fastpost.tally import Shares, Tally
from fastpost.timeline import Row, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastpost._meter import Counted
    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.load import Part
    from fastpost.sources import Batch

    OnCounted = Callable[["Measurement", list[Attempt]], None]
    OnSecond = Callable[["Measured", Row, Counted], None]

#: Seconds that uploads in flight have to end when the window is over: they count no more, but a server that is left in
#: the midst of an upload may have something to clear up.
_GRACE: Final = 2.0
#: Seconds before the end of the window in which no row of its own begins.
_SLIVER: Final = 0.05
#: Seconds that the walk may take to end: it is at its last batch, but a disk may be slow.
_WALK_ENDS: Final = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured. Times are in seconds.

    Attributes:
        settings: where to and how; its concurrency is that of a closed loop, the most in flight of an open one.
        batches: begins a part of the load, which has no end.
        rate: uploads a second of an open loop; None: a closed one.
        count: the window ends with so many uploads; None: with the duration.
        duration: of the window.
        warm_up: before the window.
        processes: how many share all that.
    """

    settings: Settings
    batches: Callable[[Part], Iterator[Batch]]
    rate: float | None = None
    count: int | None = None
    duration: float | None = None
    warm_up: float = 0.0
    processes: int = 1


class Reading(NamedTuple):
    """What stood where at one moment, in one process or in several. Octets, uploads, seconds.

    `unfinished` are the uploads of an open loop that were due and have not ended. `busy` is the CPU time of the thread
    that moves the octets, `cpu` that of the process, `queued` how long that thread was ready and got no core. `shares`
    are of the uploads that are over.
    """

    at: float
    sent: int
    dropped: int
    unfinished: int
    blocked: dict[str, float]
    busy: float
    cpu: float
    queued: float
    shares: Shares


class _Counts(Tally):
    """A tally without what grows with the number of uploads: those are the meter's."""

    def add(self, results: Sequence[Attempt]) -> None:
        """Leave it to the meter, which knows what counts."""

    def fail(self, one: Attempt) -> None:
        """Count the cause of a failure that counts."""
        assert one.failure is not None
        self._fail(one.upload.name, one.failure)


class Measured(abc.ABC):
    """What a plan came to, whoever measures it: counts, and rows by the second.

    Args:
        plan: what. Raises UsageError when its target can't be meant.
        on_second: called with each row of the timeline, and with what was counted in that time.
    """

    def __init__(self, plan: Plan, on_second: OnSecond | None) -> None:
        settings = plan.settings
        parsed = targets.of(settings)
        self.plan = plan
        #: Uploads overwrite each other here, on purpose: nothing is to watch their names.
        self.target = dataclasses.replace(parsed, unique=True)
        self.meter = Meter(plan.count or 0)
        self.tally = Tally(settings.concurrency)
        self.timeline = Timeline()
        #: The readings at both ends of the window; None as long as it has not begun, or not ended.
        self.first: Reading | None = None
        self.last: Reading | None = None
        #: The last row, and the reading at its end.
        self.row: Row | None = None
        self.latest: Reading | None = None
        self._on_second = on_second

    @abc.abstractmethod
    async def complete(self) -> None:
        """Measure. Raises TargetUnreachable, and what the load raised."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End the window now; what is in flight may end."""

    @property
    def clients(self) -> list[tuple[Reading, Reading]]:
        """The readings of each process at both ends of its window; none without a window."""
        return [(self.first, self.last)] if self.first and self.last else []

    def _add_row(self, now: Reading) -> None:
        """Make a row of what has happened since the last one, if time has passed since."""
        before = self.latest
        assert before is not None
        assert self.first is not None
        if now.at <= before.at:
            return
        self.latest = now
        counted = self.meter.cut()
        latency = counted.latency
        self.row = Row(
            at=before.at - self.first.at,
            seconds=now.at - before.at,
            ok=counted.ok,
            failed=counted.failed,
            dropped=now.dropped - before.dropped,
            payload=counted.payload,
            sent=now.sent - before.sent,
            p50=latency.quantile(0.5) * 1e3,
            p90=latency.quantile(0.9) * 1e3,
            p99=latency.quantile(0.99) * 1e3,
            p999=latency.quantile(0.999) * 1e3,
            max=latency.largest / 1e3,
            blocked=gained(before.blocked, now.blocked),
        )
        if self._on_second is not None:
            self._on_second(self, self.row, counted)
        self.timeline.add(self.row)

    def _close(self, last: Reading) -> None:
        """The window ended with that reading."""
        self.last = last
        self._add_row(last)
        self.meter.cut()  # what took no time has no row
        self.timeline.finish()


class Measurement(Measured):
    """Measures once, in this process.

    Args:
        plan: what. Raises UsageError when its target can't be meant.
        on_counted: called with the uploads that count, as they end.
        on_second: called with each row of the timeline, and with what was counted in that time.
        on_notice: called with a sentence when a failed try to connect is followed by another one.
        part: of the load, where several processes share one.
        begins: when it begins (monotonic seconds), for all of them; None: with `complete`.

    Attributes:
        second: the number of the second of the window that is under way, from 1 on.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        on_counted: OnCounted | None = None,
        on_second: OnSecond | None = None,
        on_notice: Callable[[str], None] | None = None,
        part: Part = load.WHOLE,
        begins: float | None = None,
    ) -> None:
        super().__init__(plan, on_second)
        self.tally: _Counts = _Counts()
        self._on_counted = on_counted
        self._on_notice = on_notice
        self._part = part
        self._begins = begins
        self._gone: TargetUnreachable | None = None
        self._open_loop: load.OpenLoop | None = None
        if plan.rate is not None:
            # The arrivals of all parts lie between each other, evenly.
            due = None if begins is None else begins + part.index / part.count / plan.rate
            self._open_loop = load.OpenLoop(plan.rate, plan.settings.concurrency, due)
        self.second = 1
        self._feed: Feed | load.OpenLoop | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._sampling: asyncio.TimerHandle | None = None

    async def complete(self) -> None:
        """Measure. Raises TargetUnreachable, when there is no server or no longer, and what the load raised."""
        plan = self.plan
        self._loop = asyncio.get_running_loop()
        self._run = Run(
            plan.settings, self.target, self.tally, self._on_results, None, distinct=True, on_notice=self._on_notice
        )
        batches = plan.batches(self._part)
        if plan.count is not None and not plan.warm_up:
            batches = load.first(batches, plan.count)
        # What counts is what ends in the window, however late a timer is.
        opens = (time.monotonic() if self._begins is None else self._begins) + plan.warm_up
        self.meter.begin(opens)
        if plan.duration is not None:
            self.meter.end(opens + plan.duration)
        if plan.warm_up:
            self._timers.append(self._later(opens, self._begin))
        else:
            self._begin()
        try:
            await self._run.complete(batches, self._fed)
        finally:
            self._end()
            for timer in self._timers:
                timer.cancel()
        if self._gone is not None:
            raise self._gone

    def stop(self) -> None:
        """End the window now; what is in flight may end."""
        if self.first is None:
            # No window opens any more: nothing new would begin in it.
            self.meter.end(self.meter.begins)
            for timer in self._timers:
                timer.cancel()
            self._run.stop(_GRACE)
        else:
            self._end()

    def join(self) -> None:
        """Wait for the end of its thread, once it is complete: who forks must have none."""
        if self._feed is not None:
            self._feed.join(_WALK_ENDS)

    def _fed(
        self,
        batches: Iterable[Batch],
        loop: asyncio.AbstractEventLoop,
        arrived: Callable[[Batch | None, BaseException | None], None],
    ) -> Feed | load.OpenLoop:
        start = Feed if self._open_loop is None else self._open_loop.start
        self._feed = start(batches, loop, arrived)
        return self._feed

    # --- the window ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        opens = self.meter.begins
        self.first = self.latest = self._read()._replace(at=opens)
        self._sample_later()
        if self.plan.duration is not None:
            self._timers.append(self._later(opens + self.plan.duration, self._end))

    def _later(self, at: float, called: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(at - time.monotonic(), 0.0), called)

    def _end(self) -> None:
        """Close the window, once."""
        if self.last is not None or self.first is None:
            return
        if self._sampling is not None:
            self._sampling.cancel()
        last = self._read()
        self.meter.end(last.at)
        self._close(last)
        self._run.stop(_GRACE)

    def _on_results(self, results: list[Attempt]) -> None:
        if self._open_loop is not None:
            self._open_loop.ended(len(results))
        counted = self.meter.record(results, self._on_counted is not None)
        for one in counted:
            if one.failure is not None:
                self.tally.fail(one)
        if counted and self._on_counted is not None:
            self._on_counted(self, counted)
        if self.meter.full:
            self._end()
        # Uploads that there was no connection for end together: so would all that the load brings, without end.
        if isinstance(failure := results[0].failure, TargetUnreachable):
            self._gone = failure
            self.stop()

    # --- by the second ------------------------------------------------------------------------------------------------

    def _sample_later(self) -> None:
        """Read again at the end of this second, unless the window ends then: its end makes the last row."""
        if self.plan.duration is None or self.second < self.plan.duration - _SLIVER:
            self._sampling = self._later(self.meter.begins + self.second, self._sample)

    def _sample(self) -> None:
        now = self._read()
        # One that is late, because the loop was held up, is the last of the seconds that it stands for.
        self.second = max(self.second, round(now.at - self.meter.begins))
        self._add_row(now)
        self.second += 1
        self._sample_later()

    def _read(self) -> Reading:
        self._run.count()
        now = time.monotonic()
        return Reading(
            at=now,
            sent=self.tally.sent,
            dropped=self._open_loop.dropped if self._open_loop else 0,
            unfinished=self._open_loop.unfinished(now) if self._open_loop else 0,
            blocked=dict(self.tally.blocked),
            busy=time.thread_time(),
            cpu=time.process_time(),
            queued=_queued(),
            shares=self.tally.shares,
        )


def together(readings: Sequence[Reading]) -> Reading:
    """Return what several processes read for the same moment as one; its time is that of the last of them."""
    return Reading(
        at=max(one.at for one in readings),
        sent=sum(one.sent for one in readings),
        dropped=sum(one.dropped for one in readings),
        unfinished=sum(one.unfinished for one in readings),
        blocked={cause: sum(one.blocked.get(cause, 0.0) for one in readings) for cause in _causes(readings)},
        busy=sum(one.busy for one in readings),
        cpu=sum(one.cpu for one in readings),
        queued=sum(one.queued for one in readings),
        shares=functools.reduce(Shares.plus, (one.shares for one in readings)),
    )


def _causes(readings: Sequence[Reading]) -> list[str]:
    return list(dict.fromkeys(cause for one in readings for cause in one.blocked))


def gained(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return what has come to each cause between two readings."""
    return {cause: max(waited - before.get(cause, 0.0), 0.0) for cause, waited in after.items()}


def _queued() -> float:
    """Return the seconds that this thread was ready and waited for a core; 0.0 where the kernel doesn't tell."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
