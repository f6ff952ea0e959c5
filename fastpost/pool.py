"""The connections of a run: opened, given their share of the concurrency, replaced when they end.

A connection that drains keeps what it has open, and that counts against the concurrency until it is answered. A server
that ends connection after connection without an answer is asked at growing intervals, and given up in the end.
"""

from __future__ import annotations

import asyncio
import random
import time
import typing

from fastpost import retry
from fastpost.connection import Connection
from fastpost.errors import ConnectFailed, NotHttp2, TargetUnreachable

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.tally import Tally
    from fastpost.target import Target


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
    """

    def __init__(
        self,
        target: Target,
        settings: Settings,
        tally: Tally,
        budget: retry.Budget,
        *,
        on_finished: Callable[[Connection, list[Attempt]], None],
        on_ready: Callable[[], None],
        on_unreachable: Callable[[TargetUnreachable], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._target = target
        self._settings = settings
        self._tally = tally
        self._budget = budget
        self._on_finished = on_finished
        self._on_ready = on_ready
        self._on_unreachable = on_unreachable
        self._on_error = on_error
        self.connections: list[Connection] = []
        #: Most streams in all.
        self.concurrency = settings.concurrency
        self._opening: set[asyncio.Task[None]] = set()
        self._ever_connected = False
        #: Connections in a row that ended without a single response.
        self._fruitless = 0
        #: A connection drains, or has more open than its share: `share_out` is due when something ends.
        self.uneven = False
        #: Draining connections whose GOAWAY asked for fewer requests; each is heeded once.
        self._calmed: set[Connection] = set()
        self._sent_before = 0
        self._closing = False

    @property
    def sent(self) -> int:
        """Octets written to sockets so far."""
        return self._sent_before + sum(connection.session.plane.sent for connection in self.connections)

    # --- opening ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open as many connections as are wanted and are not there yet."""
        if self._closing:
            return
        live = sum(not connection.session.plane.draining for connection in self.connections)
        for _ in range(live + len(self._opening), min(self._settings.connections, self.concurrency)):
            self._spawn(self._open_one())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled() or self._closing:
            return
        failure = task.exception()
        if isinstance(failure, TargetUnreachable):
            if not self.connections and not self._opening:
                self._on_unreachable(failure)
        elif failure is not None:
            self._on_error(failure)
        else:
            self._on_ready()

    async def _open_one(self) -> None:
        """Open one connection, with retries. Raises the TargetUnreachable of the last try."""
        tries = self._fruitless
        began = time.monotonic()
        if tries:
            await self._wait(_no_answers(tries), tries - 1, began)
        while True:
            connection = Connection(
                self._target,
                self._settings,
                concurrency=0,
                on_finished=self._on_finished,
                on_closed=self._closed,
            )
            try:
                await connection.open()
                break
            except TargetUnreachable as failure:
                await self._wait(failure, tries, began)
            tries += 1
        self._ever_connected = True
        self._tally.connections += 1
        self.connections.append(connection)

    async def _wait(self, failure: TargetUnreachable, tries: int, began: float) -> None:
        """Wait until the next try to connect is due. Raises `failure` when there is none."""
        if isinstance(failure, NotHttp2) and self._ever_connected:
            # It did speak HTTP/2 a moment ago: a restarting server, not a wrong one.
            failure = ConnectFailed(str(failure))
        verdict = retry.judge(
            failure,
            retried=tries,
            replayed=0,
            elapsed=time.monotonic() - began,
            budget=self._budget,
            rng=random.random,
            wall=time.time(),
        )
        if verdict.wait is None:
            raise failure
        await asyncio.sleep(verdict.wait)

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
        shares = [free // len(live) + (index < free % len(live)) for index in range(len(live))]
        # What a connection still has open above its share is lent by the others.
        lent = sum(max(plane.open_streams - share, 0) for plane, share in zip(live, shares, strict=True))
        self.uneven = self.uneven or lent > 0
        withdrawn = []
        for plane, share in zip(live, shares, strict=True):
            lends = min(max(share - plane.open_streams, 0), lent)
            lent -= lends
            plane.limit_concurrency(share - lends)
            withdrawn += plane.withdraw()
        return withdrawn

    def ease(self) -> None:
        """Have half the streams in all: the server asks for less. `share_out` follows."""
        self.concurrency = max(self.concurrency // 2, 1)

    def ease_once(self, connection: Connection) -> None:
        """Ease, unless this connection has asked for it before."""
        if connection not in self._calmed:
            self._calmed.add(connection)
            self.ease()

    # --- ends -------------------------------------------------------------------------------------

    def _closed(self, connection: Connection) -> None:
        plane = connection.session.plane
        self._sent_before += plane.sent
        self.connections.remove(connection)
        self._calmed.discard(connection)
        if self._closing:
            return
        self._fruitless = 0 if plane.responses else self._fruitless + 1
        self._on_ready()

    def drain(self) -> Iterator[Attempt]:
        """Begin nothing more on any connection; yields what was not begun."""
        for connection in self.connections:
            connection.session.plane.drain()
            yield from connection.session.take_unsent()

    async def close(self) -> None:
        """End every connection, and wait for those that are being opened to be given up."""
        self._closing = True
        for task in self._opening:
            task.cancel()
        for connection in list(self.connections):
            connection.close()
        if self._opening:
            await asyncio.wait(self._opening)


def _no_answers(connections: int) -> ConnectFailed:
    times = "once" if connections == 1 else f"{connections} times in a row"
    return ConnectFailed(
        f"the server took a connection and ended it without an answer, {times}: check the server's log, or try later"
    )
