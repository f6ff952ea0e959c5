"""The state of one run: its backlog, and what ended; its connections are the pool's, what is tried again `repeats`'.

All of it lives on the event loop's thread; only the walk (`feed`) has another. Each upload ends in exactly one result.
"""

from __future__ import annotations

import asyncio
import collections
import time
import typing

from fastpost import retry
from fastpost._rate_limit import RateLimit
from fastpost._table import make_attempts
from fastpost.errors import (
    ConnectionLost,
    DuplicateTarget,
    ErrorCode,
    Interrupted,
    ServerOverloaded,
)
from fastpost.feed import Feed
from fastpost.pool import Pool
from fastpost.repeats import Repeats
from fastpost.tally import Tally

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.connection import Connection
    from fastpost.digest import Digester
    from fastpost.errors import TargetUnreachable
    from fastpost.feed import Arriving
    from fastpost.sources import Batch, Rejected
    from fastpost.target import Target

    StartFeed = Callable[
        [Iterable[Batch], asyncio.AbstractEventLoop, Callable[[Batch | None, BaseException | None], None]], Arriving
    ]
    OnResults = Callable[[list[Attempt]], None]
    OnRejected = Callable[[list[Rejected]], None]

#: The backlog is refilled from the walk when it falls below so many rounds of the concurrency.
_ROUNDS_AHEAD = 2
#: Uploads that wait, for a retry or at another origin, before no new one is begun.
_PUT_OFF_MOST = 1024
#: Seconds between updates of what the connections count.
_COUNT_INTERVAL = 0.1


class Run:
    """One run: made, completed once, thrown away."""

    def __init__(
        self,
        settings: Settings,
        target: Target,
        tally: Tally,
        on_results: OnResults | None,
        on_rejected: OnRejected | None,
        distinct: bool,
        on_notice: Callable[[str], None] | None = None,
        *,
        led: bool = False,
        on_connected: Callable[[int], None] | None = None,
        connects_first: bool = False,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._settings = settings
        self._target = target
        self.tally = tally
        self._on_notice = on_notice
        #: A redirect of another run leads uploads here: failing to connect fails them, never the run.
        self._led = led
        #: Called once, when the first connection is there.
        self._on_connected = on_connected
        #: Opens one before there is anything to upload.
        self._connects_first = connects_first
        #: Of this run and those at other origins together.
        self._rate_limit = rate_limit
        if rate_limit is None and settings.limit_rate is not None:
            self._rate_limit = RateLimit(settings.limit_rate)
        self._on_results = on_results
        self._on_rejected = on_rejected
        self._loop = asyncio.get_running_loop()
        budget = retry.Budget(
            retries=settings.retries,
            delay=settings.retry_delay,
            max_time=settings.retry_max_time,
            repeatable=target.method in (b"PUT", b"DELETE") or settings.repeats_post,
        )
        #: Hashes of the paths taken, where two files could go to one URL: 60 octets a file.
        self._paths: set[int] | None = None if (distinct and target.unique) or target.shared else set()
        self._backlog: collections.deque[Attempt] = collections.deque()
        #: A digest that is computed long before its file is sent has left the page cache again.
        self._backlog_low = (1 if settings.digest else _ROUNDS_AHEAD) * settings.concurrency
        #: Attempts made and not yet final, wherever they are.
        self._outstanding = 0
        self._feed: Arriving | None = None
        self._pool = Pool(
            target,
            settings,
            tally,
            budget,
            self._rate_limit,
            on_finished=self._attempts_ended,
            on_ready=self._connections_changed,
            on_unreachable=self._unreachable,
            on_error=self._fail,
            on_notice=on_notice or (lambda notice: None),
        )
        #: What earlier runs of the same tally have opened.
        self._connections_before = tally.connections
        self._paused = False
        self._repeats = Repeats(
            settings,
            target,
            budget,
            self._pool,
            tally,
            open_run=self._at,
            loop=self._loop,
            on_due=self._due,
            on_final=self._end,
            on_error=self._fail,
        )
        self._digester: Digester | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._done: asyncio.Future[None] = self._loop.create_future()
        self.stopping = False

    # --- the whole run ----------------------------------------------------------------------------

    async def complete(self, batches: Iterable[Batch], feed: StartFeed = Feed) -> None:
        """Upload everything. Raises TargetUnreachable when no connection could be had, and what the walk raised.

        `feed` brings the batches: by default as the backlog asks for them.
        """
        tally = self.tally
        tally.started = time.monotonic()
        tally.walking = True
        if self._settings.digest is not None:
            from fastpost.digest import Digester

            self._digester = self._repeats.digester = Digester(self._settings.digest)
            batches = self._digester.digested(batches)
        self._feed = feed(batches, self._loop, self._batch_arrived)
        if self.stopping:
            self._feed.stop()
        if self._connects_first:
            self._pool.open()
        self._counted_at = time.monotonic()
        self._counter = self._loop.call_later(_COUNT_INTERVAL, self._count)
        try:
            await self._done
        finally:
            self.stopping = True
            self._note_put_off()
            self._counter.cancel()
            self._feed.stop()
            if self._digester is not None:
                self._digester.abandon()
            if self._grace is not None:
                self._grace.cancel()
            self._repeats.take_back()
            await self._pool.close()
            self._pool.report()
            await self._repeats.close()
            tally.walking = False
            tally.finished = time.monotonic()

    def count(self) -> None:
        """Bring what the connections count up to date in the tally now; it happens ten times a second anyway."""
        self._pool.report()

    def pause(self, paused: bool) -> None:
        """Hand out no new attempts while the consumer of the results is behind."""
        if self._paused and not paused:
            self._paused = False
            self._ask_for_more()
            self._supply_all()
        self._paused = paused
        self._repeats.pause(paused)

    def limit(self, concurrency: int, connections: int) -> bool:
        """Have no more streams and connections than these from now on. Returns whether it is so already."""
        within = self._pool.limit(concurrency, connections)
        self._connections_changed()
        return within

    def allow_busy_poll(self, allowed: bool) -> None:
        """Have connections wait awake from now on, if the settings want that, or no longer."""
        self._pool.allow_busy_poll(allowed)

    def stop(self, grace: float) -> None:
        """Begin nothing new; reset what is left after `grace` seconds, at once when called again."""
        waited = self._repeats.stop(grace)
        if self.stopping:
            self._cut_short()
            return
        self.stopping = True
        if self._feed is not None:  # one that a redirect has just called for begins with the next turn
            self._feed.stop()
        unsent = [*self._backlog, *waited, *self._pool.drain()]
        self._backlog.clear()
        self._give_up(unsent)
        if self._digester is not None:
            self._take(self._digester.abandon())
        if grace > 0:
            self._grace = self._loop.call_later(grace, self._cut_short)
        else:
            self._cut_short()
        self._finish_if_done()

    def _cut_short(self) -> None:
        for connection in list(self._pool.connections):
            connection.cancel_all(Interrupted("the run was stopped before this upload was done"))

    def _fail(self, failure: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(failure)

    def _finish_if_done(self) -> None:
        if self._outstanding == 0 and not self._done.done() and (self.stopping or self._exhausted()):
            self._done.set_result(None)

    def _exhausted(self) -> bool:
        return self._feed is not None and self._feed.exhausted

    # --- from the walk ----------------------------------------------------------------------------

    def _batch_arrived(self, batch: Batch | None, failure: BaseException | None) -> None:
        """Called on the loop for each batch, with None at the end of the walk."""
        if self._done.done() or self.stopping:
            return
        if failure is not None:
            self._fail(failure)
            return
        if batch is None:
            self.tally.walking = False
            self._finish_if_done()
            return
        self._take(batch)
        self._connections_changed()
        self._ask_for_more()
        self._finish_if_done()

    def _ask_for_more(self) -> None:
        if self._feed is None or self.stopping or self._paused:
            return
        if len(self._backlog) < self._backlog_low and len(self._repeats) < _PUT_OFF_MOST:
            self._feed.release()

    def _take(self, batch: Batch) -> None:
        """Turn a batch into attempts."""
        if self._paths is not None:
            batch.claim_recorded(self._paths, self._target.request_path)
        self.tally.find(batch)
        if batch.rejected and self._on_rejected is not None:
            self._call(self._on_rejected, batch.rejected)
        attempts, unfit = make_attempts(batch.uploads, self._target.labels)
        if unfit:
            self._report(unfit)
        if self._paths is not None:
            attempts = self._without_duplicates(attempts, self._paths)
        if self._digester is not None and batch.digests is not None:
            for attempt in attempts:
                self._digester.attach(attempt, batch.digests[attempt.upload])
        self._outstanding += len(attempts)
        if self.stopping:
            # A callback has stopped the run in the midst of this batch.
            self._give_up(attempts)
        else:
            self._backlog.extend(attempts)

    def _without_duplicates(self, attempts: list[Attempt], paths: set[int]) -> list[Attempt]:
        """Fail what goes where an earlier file of this run went: it would overwrite that one."""
        fresh = []
        duplicates = []
        for attempt in attempts:
            key = hash(attempt.path)
            if key in paths:
                attempt.failure = DuplicateTarget.at(self._target.url(attempt.upload.name))
                duplicates.append(attempt)
            else:
                paths.add(key)
                fresh.append(attempt)
        if duplicates:
            self._report(duplicates)
        return fresh

    # --- connections ------------------------------------------------------------------------------

    def _connections_changed(self) -> None:
        """Open what is wanted, give each connection its share, and work to do."""
        if self._done.done():
            return
        if self._on_connected is not None and self.tally.connections > self._connections_before:
            told, self._on_connected = self._on_connected, None
            told(max((one.session.plane.largest_stream_window for one in self._pool.connections), default=0))
        self._share_out()
        if (self._backlog or self._pool.waiting) and not self.stopping:
            self._pool.open()
        self._supply_all()

    def _share_out(self) -> None:
        self._backlog.extendleft(reversed(self._pool.share_out()))

    def _unreachable(self, failure: TargetUnreachable) -> None:
        """No connection is left: the run's failure, when there never was one; else that of what is still to be sent."""
        backlog = list(self._backlog)
        self._backlog.clear()
        for attempt in backlog:
            attempt.failure = failure
        if self.tally.connections == self._connections_before and not self._led:
            self._outstanding -= len(backlog)
            self._report(backlog)
            self._fail(failure)
            return
        self._end(backlog)
        # What is still to be walked meets the same fate as it arrives: by a new try to connect.
        self._ask_for_more()

    def _supply_all(self) -> None:
        for connection in list(self._pool.connections):
            self._supply(connection)

    def _supply(self, connection: Connection) -> None:
        """Keep a connection busy, in the order of the backlog."""
        # A server that puts off hundreds of uploads is not asked for hundreds more: and memory stays bounded.
        room = 0 if self._paused or len(self._repeats) >= _PUT_OFF_MOST else connection.room
        plane = connection.session.plane
        if self._digester is not None:  # a short line, as the backlog is short
            room = max(room - 2 * min(plane.concurrency, plane.max_concurrent_streams), 0)
        backlog = self._backlog
        if room:
            room = min(room, self._pool.even_part(connection, self._outstanding - len(self._repeats)))
        if room and backlog:
            taken = min(room, len(backlog))
            connection.submit([backlog.popleft() for _ in range(taken)])
            room -= taken
        if room:
            self._pool.level(connection, room)
        plane.behind = len(backlog)
        self._ask_for_more()

    # --- results ----------------------------------------------------------------------------------

    def _attempts_ended(self, connection: Connection, attempts: list[Attempt]) -> None:
        """Called by a connection when something ended: judge it, and give it new work."""
        if self._done.done():
            # What went well before the run was cut off is told; what failed was told at once, and the rest is cut off.
            if answered := [attempt for attempt in attempts if attempt.failure is None]:
                self._report(answered)
            return
        draining = connection.session.plane.draining
        freed = bool(attempts)  # whoever is told of them may empty the list
        if draining:
            self._leave(connection)
        failed = [attempt for attempt in attempts if attempt.failure is not None]
        if failed:
            self._judge(connection, failed)
        final = [attempt for attempt in attempts if attempt.failure is None] if failed else attempts
        if final:
            self._end(final)
        if draining or self._pool.uneven:
            self._connections_changed()
        else:
            self._supply(connection)
        self._pool.share_descriptors(freed)

    def _leave(self, connection: Connection) -> None:
        """A draining connection begins nothing more: its unsent attempts go first on another one."""
        unsent = connection.session.take_unsent()
        if self.stopping:
            self._give_up(unsent)
        else:
            self._backlog.extendleft(reversed(unsent))
        calm = connection.session.plane.goaway_code == ErrorCode.ENHANCE_YOUR_CALM
        # A server that has enough of connections, not of uploads, says it on those that it does not want.
        if calm and not self._pool.do_without(connection):
            self._pool.ease_for(connection, time.monotonic())

    def _judge(self, connection: Connection, failed: list[Attempt]) -> None:
        """Replay, retry, or let the failure be the result. What goes again at once keeps its order and goes first."""
        now = time.monotonic()
        if any(self._asks_for_calm(one) for one in failed):
            self._pool.ease(now)
            self._share_out()
        again, final = self._repeats.take(connection, failed, now)
        lost = sum(isinstance(attempt.failure, ConnectionLost) for attempt in final)
        if lost:
            self._pool.note_lost(lost)
        self._backlog.extendleft(reversed(again))
        if again:
            self._connections_changed()
        if final:
            self._end(final)

    def _asks_for_calm(self, attempt: Attempt) -> bool:
        """RST_STREAM with ENHANCE_YOUR_CALM, on a stream that was begun since the last easing."""
        failure = attempt.failure
        return (
            isinstance(failure, ServerOverloaded) and not failure.unprocessed and attempt.started > self._pool.eased_at
        )

    def _at(self, settings: Settings, target: Target) -> Run:
        return Run(
            settings,
            target,
            Tally(),
            self._ended_elsewhere,
            None,
            True,
            self._on_notice,
            led=True,
            rate_limit=self._rate_limit,
        )

    def _ended_elsewhere(self, results: list[Attempt]) -> None:
        self._repeats.ended_elsewhere(results)
        if not self._done.done():
            self._supply_all()

    def take(self, attempts: list[Attempt]) -> None:
        """Upload these too: a redirect of another run led them here."""
        self._outstanding += len(attempts)
        self._backlog.extend(attempts)
        self._connections_changed()

    def _due(self, attempt: Attempt) -> None:
        self._backlog.appendleft(attempt)
        self._connections_changed()

    def _give_up(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            attempt.failure = Interrupted("the run was stopped before this upload began")
        if attempts:
            self._end(list(attempts))

    def _end(self, final: list[Attempt]) -> None:
        """These results are final."""
        self._outstanding -= len(final)
        self._report(final)
        self._finish_if_done()

    def _report(self, results: list[Attempt]) -> None:
        if not results:
            return
        if not self._led:
            self.tally.add(results)
        if self._on_results is not None:
            self._call(self._on_results, results)

    def _call(self, told: Callable[[list[typing.Any]], None], what: list[typing.Any]) -> None:
        """Call the caller's function; what it raises ends the run and comes out of `complete`."""
        try:
            told(what)
        except BaseException as error:
            self._on_results = self._on_rejected = None  # once is enough
            self._fail(error)

    def _count(self) -> None:
        self._note_put_off()
        self._pool.report()
        self._counter = self._loop.call_later(_COUNT_INTERVAL, self._count)

    def _note_put_off(self) -> None:
        """Where the time goes: what waits for its retry, or for a new connection, while streams are free for it.

        A sample: what is so now counts from the last look on, right on average.
        """
        now = time.monotonic()
        elapsed, self._counted_at = now - self._counted_at, now
        planes = [connection.session.plane for connection in self._pool.connections]
        live = [plane for plane in planes if not plane.draining]
        waiting, ready = self._repeats.delayed, len(self._backlog)
        if len(self._repeats) >= _PUT_OFF_MOST:
            ready = 0  # it may not begin
        elif not live and self.tally.connections > self._connections_before:
            waiting, ready = waiting + ready, 0
        allowed = self._pool.concurrency
        if live:
            allowed = min(allowed, sum(min(plane.concurrency, plane.max_concurrent_streams) for plane in live))
        free = allowed - ready - sum(plane.open_streams + plane.waiting for plane in planes)
        if waiting and free > 0:
            self._pool.note_put_off(elapsed * min(waiting, free))
