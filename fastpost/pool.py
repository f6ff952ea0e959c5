"""The connections of a run: opened, given their share of the concurrency, replaced when they end.

A connection that drains keeps what it has open, and that counts against the concurrency until it is answered. A server
that ends connection after connection without an answer is asked at growing intervals, and given up in the end.
"""

from __future__ import annotations

import asyncio
import functools
import time
import typing

from fastpost import endpoint, growth, retry, tls
from fastpost.connection import Connection
from fastpost.cores import asked_of_a_core
from fastpost.errors import (
    ConnectFailed,
    ConnectionLost,
    NotHttp2,
    NotProcessed,
    ServerOverloaded,
    StreamRefused,
    TargetUnreachable,
)
from fastpost.sums import Sums

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from fastpost._rate_limit import RateLimit
    from fastpost._streams import DataPlane
    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.errors import FastpostError
    from fastpost.tally import Tally
    from fastpost.target import Target


#: A connection that the server ends so soon (seconds), with nothing answered, is one that it did not want.
_SOON = 5.0
#: Seconds for which a connection that is being opened has its share of the streams: a handshake takes less.
_PROMPT = 1.0
#: Seconds until the next try to connect, when none was to be had and those that are left drain; doubled each time.
_LULL = 1.0


class Pool:
    """Owns the connections of one run.

    Args:
        target, settings: where to and how.
        tally: its count of connections is kept here.
        budget: what may be spent on connecting again.
        on_finished: called with a connection and the attempts that ended on it, once a tick; also with none, when it
            has room for more or drains.
        on_ready: called when a connection was opened, and when one is gone and another one is not yet to be had.
        on_unreachable: called with the reason when no connection is left and none can be had.
        on_error: called with what a callback raised.
        on_notice: called with a sentence when a failed try to connect is followed by another one.
    """

    def __init__(
        self,
        target: Target,
        settings: Settings,
        tally: Tally,
        budget: retry.Budget,
        rate_limit: RateLimit | None,
        *,
        on_finished: Callable[[Connection, list[Attempt]], None],
        on_ready: Callable[[], None],
        on_unreachable: Callable[[TargetUnreachable], None],
        on_error: Callable[[BaseException], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self._target = target
        self._settings = settings
        #: Made once a run: to load all that the system trusts takes 17 ms, in which nothing is sent.
        self._context = functools.cache(functools.partial(tls.client_context, settings))
        self._tally = tally
        self._budget = budget
        self._rate_limit = rate_limit
        self._busy_poll = settings.busy_poll
        self._on_finished = on_finished
        self._on_ready = on_ready
        self._on_unreachable = on_unreachable
        self._on_error = on_error
        self._on_notice = on_notice
        self.connections: list[Connection] = []
        #: Most streams in all.
        self.concurrency = settings.concurrency
        #: When that was last halved; what was begun before can't tell how the server takes it.
        self.eased_at = 0.0
        #: Those that are being opened, each with what will call it late; and those that are late.
        self._opening: dict[asyncio.Task[None], asyncio.TimerHandle] = {}
        self._late: set[asyncio.Task[None]] = set()
        #: Until then no connection is opened; and how often that was so since one was opened.
        self._lull: asyncio.TimerHandle | None = None
        self._lulls = 0
        self._ever_connected = False
        #: Said since one was last opened: several that are opened at a time fail for one reason.
        self._told: set[str] = set()
        self._endings = retry.Endings(budget.replay_cap)
        #: A connection drains, or has more open than its share: `share_out` is due when something ends.
        self.uneven = False
        self._growth: growth.Growth | None = None
        self._fixed = 1
        #: Connections that could not be had beside others, or brought nothing there, since one last ended that did.
        self._refused = 0
        #: Those of them that are not closed yet.
        self._vain: set[Connection] = set()
        if settings.connections == "auto":
            self._growth = growth.Growth(min(settings.concurrency, settings.most_connections))
        else:
            self._fixed = settings.connections
        self._sampling: asyncio.TimerHandle | None = None
        #: The connection that found no descriptor though no file was open, and its count of such failures then.
        self._barren: tuple[Connection, int] | None = None
        self._sums = Sums(tally)
        self._closing = False

    def report(self) -> None:
        """Bring what only connections know up to date in the tally: octets, waiting by cause, shares, grants."""
        self._sums.report(self._tally, self.connections)

    def note_put_off(self, waited: float) -> None:
        """So many stream-seconds passed in which streams were free, and uploads waited to be tried again."""
        self._sums.blocked["retry"] = self._sums.blocked.get("retry", 0.0) + waited

    # --- opening ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open as many connections as are wanted and are not there yet."""
        if self._closing or self._lull is not None:
            return
        for _ in range(self._live + self._coming, min(self._wanted(), self.concurrency)):
            self._spawn(self._open_one())
        self._tally.at_once = max(self._tally.at_once, self._live + self._coming)
        if self._growth is not None and self._sampling is None:
            self._sums.begin(self.connections, time.monotonic(), asked_of_a_core())
            self._sampling = asyncio.get_running_loop().call_later(growth.INTERVAL, self._sample)

    @property
    def _live(self) -> int:
        """Connections that take uploads."""
        return sum(not connection.session.plane.draining for connection in self.connections)

    @property
    def _coming(self) -> int:
        """Those that are being opened; one that is there is among the connections before its task is done with."""
        return sum(not task.done() for task in self._opening)

    def _wanted(self) -> int:
        return max(self._fixed - self._refused, 1) if self._growth is None else self._growth.wanted

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._opening[task] = asyncio.get_running_loop().call_later(_PROMPT, self._be_late, task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task).cancel()
        self._late.discard(task)
        if task.cancelled() or self._closing:
            return
        failure = task.exception()
        if isinstance(failure, TargetUnreachable):
            self._could_not_open(failure)
        elif failure is not None:
            self._on_error(failure)
        else:
            self._lulls = 0
            self._on_ready()

    def _could_not_open(self, failure: TargetUnreachable) -> None:
        if self._live:
            self._have_one_fewer()
            self._on_ready()
        elif self._opening:
            pass  # one of those may be had, or the last of them sees to it
        elif self.connections:
            self._pause()
        else:
            self._on_unreachable(failure)

    def _pause(self) -> None:
        """Only connections that drain are left: what is to be sent has time until they are gone, and one more try."""
        wait = retry.doubled(_LULL, self._lulls, self._budget.max_delay)
        self._lulls += 1
        self._lull = asyncio.get_running_loop().call_later(wait, self._resume)

    def _resume(self) -> None:
        if self._lull is not None:
            self._lull.cancel()
            self._lull = None
        self._on_ready()

    def _be_late(self, task: asyncio.Task[None]) -> None:
        """It takes long: until it comes, its share is for the others."""
        self._late.add(task)
        self._on_ready()

    def _have_one_fewer(self) -> None:
        """The server lets us have some connections but not this one: its share is for the others."""
        self._refused += 1
        self._tally.refused += 1
        if self._growth is not None:
            self._growth.limit(self._live)

    def do_without(self, connection: Connection) -> bool:
        """Begin nothing more on a connection that has answered nothing, if another one has. False: it stays.

        One that has ended must have done so soon: else it was there for its uploads, and is worth another try. One that
        goes on must have turned down as many as it still has: else it may only have more than it wants.
        """
        plane = connection.session.plane
        if connection.closed:
            if time.monotonic() - connection.opened_at > _SOON:
                return False
        elif connection.turned_down < plane.open_streams:
            return False
        others = [one.session.plane for one in self.connections if one is not connection]
        if plane.responses or not any(other.responses and not other.draining for other in others):
            return False
        if connection not in self._vain:
            self._vain.add(connection)
            plane.drain()
            self.uneven = True
            self._have_one_fewer()
        return True

    def is_in_vain(self, connection: Connection, failure: FastpostError) -> bool:
        """Is the connection to blame, which brings nothing where another one does? Then it costs the upload nothing."""
        if isinstance(failure, ConnectionLost):
            return self._budget.repeatable and self.do_without(connection)
        overloaded = isinstance(failure, ServerOverloaded) and failure.unprocessed
        if not overloaded and not isinstance(failure, StreamRefused | NotProcessed):
            return False
        connection.turned_down += 1
        return self.do_without(connection)

    async def _open_one(self) -> None:
        """Open one connection, with retries. Raises the TargetUnreachable of the last try."""
        tries = 0
        began = time.monotonic()
        await self._wait_for_answers()
        while True:
            connection = Connection(
                self._target,
                self._settings,
                context=self._context,
                concurrency=0,
                rate_limit=self._rate_limit,
                on_finished=self._on_finished,
                on_closed=self._closed,
                on_error=self._on_error,
                on_notice=self._on_notice,
            )
            try:
                await connection.open()
                break
            except TargetUnreachable as failure:
                await self._wait(failure, tries, began)
            tries += 1
        self._ever_connected = True
        self._told.clear()
        self._tally.connections += 1
        connection.busy_poll = self._busy_poll
        self.connections.append(connection)

    async def _wait_for_answers(self) -> None:
        """Give air to a server that ended the last connections without an answer. Raises ConnectFailed in the end."""
        endings = self._endings
        if not endings.in_a_row:
            return
        if endings.hopeless:
            raise ConnectFailed(
                "one connection after another ended before anything was answered "
                f"(the last: {endings.last}): check the server and its log, or try again later"
            )
        verdict = self._judge(NotProcessed("no answer", progress=False), replayed=endings.in_a_row - 1)
        assert verdict.wait is not None
        await asyncio.sleep(verdict.wait)

    def _judge(
        self, failure: FastpostError, retried: int = 0, replayed: int = 0, elapsed: float = 0.0
    ) -> retry.Verdict:
        import random  # only for who has to wait

        return retry.judge(
            failure,
            retried=retried,
            replayed=replayed,
            elapsed=elapsed,
            budget=self._budget,
            rng=random.random,
            wall=time.time(),
        )

    async def _wait(self, failure: TargetUnreachable, tries: int, began: float) -> None:
        """Wait until the next try to connect is due. Raises `failure` when there is none."""
        if isinstance(failure, NotHttp2) and self._ever_connected:
            # It did speak HTTP/2 a moment ago: a restarting server, not a wrong one.
            where = endpoint.of(self._target, self._settings).address
            failure = ConnectFailed(
                f"{where} speaks no HTTP/2 any more, as if it restarted: check the server and its log"
            )
        verdict = self._judge(failure, retried=tries, elapsed=time.monotonic() - began)
        if verdict.wait is None:
            raise failure
        notice = f"{failure}; trying again ({tries + 1} of {self._budget.retries})"
        if notice not in self._told:
            self._told.add(notice)
            self._on_notice(notice)
        await asyncio.sleep(verdict.wait)

    @property
    def waiting(self) -> bool:
        """True while a connection has attempts that it has not begun: another one may begin them."""
        return any(connection.session.plane.waiting for connection in self.connections)

    # --- how many ---------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Have the growth policy look at what the connections measured since the last time."""
        assert self._growth is not None
        self._sampling = asyncio.get_running_loop().call_later(growth.INTERVAL, self._sample)
        wanted = self._growth.step(self._sums.sample(self.connections, time.monotonic(), asked_of_a_core()))
        planes = [connection.session.plane for connection in self.connections]
        live = [plane for plane in planes if not plane.draining]
        self._retire(live, wanted)
        for plane in live:
            plane.windows_ahead = self._growth.windows_ahead
        if wanted != len(live):
            self._on_ready()

    def _retire(self, live: list[DataPlane], wanted: int) -> None:
        """Have those with the least open drain that are too many."""
        if len(live) <= wanted:
            return
        for plane in sorted(live, key=lambda plane: plane.open_streams)[: len(live) - wanted]:
            plane.drain()
        for connection in self.connections:
            connection.wake()  # those that drain hand back what they have not begun, and close when all is answered

    def limit(self, concurrency: int, connections: int) -> bool:
        """Have no more streams and connections than these from now on; `share_out` follows.

        They may be raised again, but not beyond what the server asked for. Returns whether it is so already: what is
        open isn't cut off.
        """
        self.concurrency = min(self.concurrency, concurrency) if self.eased_at else concurrency
        if self._growth is None:
            self._fixed = connections
        else:
            self._growth.share(min(connections, concurrency))
        planes = [connection.session.plane for connection in self.connections]
        self._retire([plane for plane in planes if not plane.draining], self._wanted())
        streams = sum(plane.open_streams for plane in planes)
        return streams <= concurrency and len(planes) + self._coming <= connections

    def allow_busy_poll(self, allowed: bool) -> None:
        """Have connections wait awake from now on, if the settings want that, or no longer."""
        self._busy_poll = allowed and self._settings.busy_poll
        for connection in self.connections:
            connection.busy_poll = self._busy_poll

    @property
    def expected(self) -> int:
        """Connections that take uploads, with those that are being opened: what is begun by then can't move there."""
        coming = sum(not task.done() for task in self._opening if task not in self._late)
        return max(min(self._live + coming, self._wanted()), self._live)

    # --- shares -----------------------------------------------------------------------------------

    def share_out(self) -> list[Attempt]:
        """Split the concurrency over the live connections.

        Returns attempts that wait on a connection which may begin nothing now: they are for another one.
        """
        planes = [connection.session.plane for connection in self.connections]
        live = [plane for plane in planes if not plane.draining]
        self.uneven = len(live) < len(planes)
        if not live:
            return []
        free = max(self.concurrency - sum(plane.open_streams for plane in planes if plane.draining), 0)
        expected = self.expected
        shares = [free // expected + (index < free % expected) for index in range(len(live))]
        # What a connection still has open above its share is lent by the others.
        lent = sum(max(plane.open_streams - share, 0) for plane, share in zip(live, shares, strict=True))
        self.uneven = self.uneven or lent > 0
        withdrawn = []
        for plane, share in zip(live, shares, strict=True):
            lends = min(max(share - plane.open_streams, 0), lent)
            lent -= lends
            plane.limit_concurrency(share - lends)
            plane.windows_ahead = 0 if self._growth is None else self._growth.windows_ahead
            withdrawn += plane.withdraw()
        return withdrawn

    def even_part(self, connection: Connection, uploads: int) -> int:
        """Return how many of so many uploads it may have beyond its own: few large ones don't all go to the first."""
        plane = connection.session.plane
        return max(-(-uploads // self.expected) - plane.open_streams - plane.waiting, 0)

    def level(self, connection: Connection, most: int) -> None:
        """Give a connection that has too little to begin half of the longest line on another one, `most` at most."""
        own = connection.session.plane
        if len(self.connections) < 2 or own.out_of_files or own.open_streams + own.waiting >= own.concurrency:
            return
        longest = max((other.session.plane for other in self.connections), key=lambda plane: plane.waiting)
        if longest is not own and longest.waiting > own.waiting:
            connection.submit(longest.withdraw(longest.waiting - min(-(-longest.waiting // 2), most)))

    def ease(self, now: float) -> None:
        """Have half the streams in all: the server asks for less. `share_out` follows."""
        self.concurrency = max(self.concurrency // 2, 1)
        self.eased_at = now

    def ease_for(self, connection: Connection, now: float) -> None:
        """Ease for a GOAWAY, unless the connection is older than the last easing: it can't tell how that was taken."""
        if connection.opened_at > self.eased_at:
            self.ease(now)

    def share_descriptors(self, freed: bool) -> None:
        """Wake connections that found no descriptor, when some were `freed`.

        With no file open anywhere nothing will ever be freed: then one upload fails, if a second look finds no more.
        """
        starved = [connection for connection in self.connections if connection.session.plane.out_of_files]
        if not starved:
            return
        if freed or any(connection.session.plane.open_streams for connection in self.connections):
            self._barren = None
            if freed:
                for connection in starved:
                    connection.wake()
            return
        first = starved[0]
        failed = first.session.plane.failed_opens
        if self._barren is None or self._barren[0] is not first:
            self._barren = (first, failed)
            first.wake()
        elif failed > self._barren[1]:
            self._barren = None
            first.give_up_opening()

    # --- ends -------------------------------------------------------------------------------------

    def _closed(self, connection: Connection) -> None:
        self._sums.take(connection)
        if self._closing:
            self.connections.remove(connection)
            return
        vain = connection in self._vain or (connection.was_used and self.do_without(connection))
        self._vain.discard(connection)
        self.connections.remove(connection)
        if not vain:
            self._refused = 0
        answered = self._endings.answered(self._sums.responses(self.connections))
        if connection.was_used and not answered:
            lost = connection.cut_short and isinstance(connection.session.failure, ConnectionLost)
            self._endings.ended(connection.opened_at, lost, time.monotonic())
        self._endings.last = connection.session.failure
        if self.connections:
            self._on_ready()
        else:
            self._resume()

    def note_lost(self, uploads: int) -> None:
        """So many uploads failed for good, as each connection they were on was lost."""
        self._endings.lost(uploads)

    def drain(self) -> Iterator[Attempt]:
        """Begin nothing more on any connection; yields what was not begun."""
        for connection in self.connections:
            connection.session.plane.drain()
            yield from connection.session.take_unsent()

    async def close(self) -> None:
        """End every connection, and wait for those that are being opened to be given up."""
        self._closing = True
        for timer in (self._sampling, self._lull):
            if timer is not None:
                timer.cancel()
        for task, late in self._opening.items():
            task.cancel()
            late.cancel()
        for connection in list(self.connections):
            connection.close()
        if self._opening:
            await asyncio.wait(self._opening)
