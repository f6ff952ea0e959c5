"""One fd on the event loop: connect, TLS with ALPN, readable, writable, timers.

The connection owns its socket and is the only one to know the clock: it reads it once a tick and hands it down.
A tick drains the input, hands out what ended, takes new uploads and sends: cleartext by sendmsg straight from the
gather list, TLS by SSLSocket.send from the staged octets. The event loop's own transports would copy both.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
import typing

from fastpost import endpoint, tcp, tls
from fastpost._patience import Patience
from fastpost._wire import TlsWire, Wire
from fastpost.errors import (
    ConnectFailed,
    ConnectionLost,
    FastpostError,
    NotHttp2,
    ProtocolViolation,
    Stalled,
    TargetUnreachable,
    TookTooLong,
)
from fastpost.session import Session

if typing.TYPE_CHECKING:
    from collections.abc import Callable

    from fastpost._rate_limit import RateLimit
    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.target import Target

#: Gather lists sent in one tick before the loop gets its turn: some 8 MiB of large files.
_SENDS_PER_TICK = 8
#: Seconds after which the loop gets its turn though answers keep coming: slow disks and callbacks take time as well.
_AWAKE = 0.001
#: The socket is full, or empty.
_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK)
#: Seconds between looks for stalled streams, and how long a PING may stay unanswered.
_CHECK_INTERVAL = 1.0
_PING_TIMEOUT = 10.0
#: Seconds for which uploads that went well may go untold while others are in line: to tell of each few costs more.
_UNTOLD = 0.05
#: Seconds between questions to the kernel what has arrived, for the split of time, while anything is under way.
_LINE_INTERVAL = 0.05
#: A server may say so for as long as it likes, and go on when it wants to (RFC 9113 §6.5.2).
_NO_STREAMS = (
    "the server allows no upload at present (MAX_CONCURRENT_STREAMS is 0): waiting for it, as long as it answers PING"
)

#: Sockets that are open now, on any loop of the process; with more than one, none is waited for awake. A test asserts
#: that none is left.
_live_sockets = 0


def live_sockets() -> int:
    """Return how many sockets of connections are open."""
    return _live_sockets


class Connection:
    """One HTTP/2 connection to the target, driven by the running event loop.

    Args:
        target: where to.
        settings: the run's settings.
        context: returns what TLS is made with; asked for over https only.
        concurrency: most streams to have open on this connection.
        rate_limit: shared with the other connections of the run.
        on_finished: called with attempts that ended, once a tick; it may submit more.
        on_closed: called once when the connection is over, after the last `on_finished`.
        on_error: called with what should never have been raised in a callback of the loop, which would only log it.
        on_notice: called with a sentence when all that can be done is to wait.
    """

    def __init__(
        self,
        target: Target,
        settings: Settings,
        *,
        context: Callable[[], ssl.SSLContext],
        concurrency: int,
        rate_limit: RateLimit | None,
        on_finished: Callable[[Connection, list[Attempt]], None],
        on_closed: Callable[[Connection], None],
        on_error: Callable[[BaseException], None],
        on_notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._target = target
        self._settings = settings
        self._context = context
        self._endpoint = endpoint.of(target, settings)
        self._on_notice = on_notice
        self._on_finished = on_finished
        self._on_closed = on_closed
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        #: What is to be checked when opening takes too long.
        self._doubt = "the server is up"
        self._socket: socket.socket | None = None
        self._fd = -1
        self._patience = Patience()
        #: Wait awake, where that pays (`Settings.busy_poll`). Not while other processes need the cores.
        self.busy_poll = settings.busy_poll
        self._settled: asyncio.Future[None] | None = None
        self._writing = False
        self._tick_scheduled = False
        self._hold_timer: asyncio.TimerHandle | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._overdue_timer: asyncio.TimerHandle | None = None
        self._line_timer: asyncio.TimerHandle | None = None
        self._tell_timer: asyncio.TimerHandle | None = None
        self._pinged_at = 0.0
        self._tick_guarded = self._guarded(self._tick)
        self._line_guarded = self._guarded(self._look_at_line)
        self._tell_guarded = self._guarded(self._tell)
        self._writable_guarded = self._guarded(self._writable)
        self.closed = False
        #: How much room was left when it was last told: who has nothing to fill it with is told of more, and of the
        #: same once a second.
        self._room_told = 0
        #: There was work for it when it ended, or it allowed none at all.
        self.was_used = False
        #: Uploads were under way when it ended.
        self.cut_short = False
        #: Uploads that the server did not take: refused, or above the last one of a GOAWAY.
        self.turned_down = 0
        #: It was said that the server allows no stream.
        self._told_of_none = False
        #: When it was open (monotonic seconds).
        self.opened_at = 0.0
        self._opened = False
        self.session = Session(
            method=target.method,
            scheme=target.scheme.encode(),
            authority=target.authority,
            # What a command line has that is no UTF-8 goes out as the octets that it was.
            fields=[
                (name.lower().encode(), value.encode("utf-8", "surrogateescape")) for name, value in settings.fields
            ],
            concurrency=concurrency,
            fair=settings.schedule == "fair",
            staged=target.scheme == "https",
            keep_responses=settings.keep_responses,
            body_limit=settings.body_limit,
            rate_limit=rate_limit,
        )
        self._wire = Wire(self.session.plane, self._fd)

    @property
    def awake(self) -> float:
        """Seconds in which it waited awake, which is CPU time where it had a core for itself."""
        return self._patience.awake

    # --- opening ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and wait for the server's SETTINGS. Raises a TargetUnreachable; nothing was sent then."""
        where = self._endpoint.address
        try:
            # Not wait_for: it may swallow a cancellation that comes in the same turn as the success.
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._establish(where)
        except TimeoutError:
            self._shut()
            raise tcp.no_answer(where, self._settings.connect_timeout, self._doubt) from None
        except BaseException:
            self._shut()
            raise
        if self.closed or self.session.plane.draining:
            self._shut()
            reason = self.session.failure or "it goes away"
            raise ConnectFailed(f"{where} ended the connection at once ({reason}): check that the server is up")
        self._opened = True
        self.opened_at = time.monotonic()
        self._check_timer = self._loop.call_later(_CHECK_INTERVAL, self._guarded(self._check))
        if self._settings.max_time is not None:
            self._look_for_overdue(self._settings.max_time)

    async def _establish(self, where: str) -> None:
        global _live_sockets
        self._socket = await tcp.connect(self._endpoint, self._settings.connect_timeout)
        _live_sockets += 1
        self._fd = self._socket.fileno()
        self._wire = Wire(self.session.plane, self._fd)
        if self._target.scheme == "https":
            self._doubt = "this port speaks TLS (https)"
            await self._handshake(where)
        self._doubt = "this port speaks HTTP/2"
        await self._exchange_settings(where)

    async def _handshake(self, where: str) -> None:
        """TLS on the non-blocking socket; ALPN must choose h2 (RFC 9113 §3.2)."""
        assert self._socket is not None
        try:
            context = self._context()
            self._socket.getpeername()  # raises when it is reset already; wrap_socket would, too, but leave it open
            self._socket = secured = context.wrap_socket(
                self._socket, server_hostname=self._target.host, do_handshake_on_connect=False
            )
            while True:
                try:
                    secured.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await tcp.ready(self._fd, self._loop.add_reader, self._loop.remove_reader)
                except ssl.SSLWantWriteError:
                    await tcp.ready(self._fd, self._loop.add_writer, self._loop.remove_writer)
        except (OSError, ValueError) as error:
            raise tls.failure(error, where) from None
        if secured.selected_alpn_protocol() != "h2":
            raise NotHttp2(tls.no_alpn(where))
        self._wire = TlsWire(self.session.plane, secured)

    async def _exchange_settings(self, where: str) -> None:
        self._settled = self._loop.create_future()
        self.session.begin()
        self._loop.add_reader(self._fd, self._guarded(self._readable))
        try:
            self._flush(time.monotonic())
            await self._settled
        finally:
            self._settled = None
        failure = self.session.failure
        if self.session.plane.settled:
            return  # HTTP/2 it is, whatever came behind its SETTINGS
        if isinstance(failure, TargetUnreachable):
            raise type(failure)(f"{where}: {failure}; fastpost needs HTTP/2, by ALPN (https) or prior knowledge (http)")
        if failure is not None and self._target.scheme == "https":
            raise ConnectFailed(
                f"{where} agreed on HTTP/2 (ALPN) and ended the connection before its SETTINGS ({failure}): "
                "check the server and its log"
            )
        if failure is not None:
            raise NotHttp2(
                f"{where} ended the connection before its HTTP/2 SETTINGS ({failure}): "
                "check scheme and port; the server may speak HTTP/1.1 only, or only TLS"
            )

    # --- work -------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many more attempts it can take now."""
        return 0 if self.closed else self.session.plane.room

    @property
    def busy(self) -> bool:
        """True while streams are open or attempts wait."""
        plane = self.session.plane
        return plane.open_streams > 0 or plane.waiting > 0

    def submit(self, attempts: list[Attempt]) -> None:
        """Take attempts; they begin with the next tick."""
        self.session.submit(attempts)
        self._schedule_tick()

    def give_up_opening(self) -> None:
        """Fail the next upload: the process may open no more files, and none that is open will be closed."""
        self.session.plane.give_up_opening(time.monotonic())
        self._schedule_tick()

    def wake(self) -> None:
        """Try again to begin what waits."""
        self._schedule_tick()

    def cancel_all(self, failure: FastpostError) -> None:
        """Reset every open stream; what was not begun comes back unsent."""
        self.session.plane.drain()
        now = time.monotonic()
        for attempt in self.session.plane.open_attempts():
            self.session.plane.cancel(attempt, failure, now)
        self._schedule_tick()

    def close(self) -> None:
        """End the connection in good order: GOAWAY as far as the socket takes it, then close."""
        if self.closed:
            return
        # Nothing begins behind our GOAWAY.
        self.session.plane.drain()
        if self.session.failure is None:
            self.session.goodbye()
            self._flush(time.monotonic())
        self._end(ConnectionLost("the connection was closed"))

    # --- the loop's calls -------------------------------------------------------------------------

    def _guarded(self, called: Callable[[], None]) -> Callable[[], None]:
        """Wrap a callback of the loop: the loop would log what it raises, and the run would wait for ever."""

        def guarded() -> None:
            try:
                called()
            except Exception as error:
                self._on_error(error)

        return guarded

    def _schedule_tick(self) -> None:
        if not self._tick_scheduled and not self.closed:
            self._tick_scheduled = True
            self._loop.call_soon(self._tick_guarded)

    def _tick(self) -> None:
        self._tick_scheduled = False
        if not self.closed:
            self._advance(time.monotonic())

    def _readable(self) -> None:
        now = time.monotonic()
        turn = now + _AWAKE
        while now < turn and self._receive(now, turn):
            now = time.monotonic()
            if not self._is_seen_to:
                self._advance(now)
            if not self._waits_on(now):
                return
            now = time.monotonic()

    @property
    def _is_seen_to(self) -> bool:
        """The conversation left nothing to do, and timers see to what ended and to the line: most turns are such."""
        return self._wire.quiet and self._tell_timer is not None and self._line_timer is not None

    def _waits_on(self, now: float) -> bool:
        """Wait here for the next answers, where that pays, no more can be sent, and no other connection has to wait."""
        if self.closed or self._writing or _live_sockets > 1:
            return False
        plane = self.session.plane
        if plane.awaits_credit:
            return self.busy_poll and not self._wire.gave_up and self._patience.watch(self._fd)
        return self._settings.naps and self._patience.nap(plane.awaits_answers, plane.responses, now)

    def _writable(self) -> None:
        self._advance(time.monotonic())

    def _held(self) -> None:
        self._hold_timer = None
        self._advance(time.monotonic())

    def _advance(self, now: float) -> None:
        """Hand out what ended, take new work, send. What fails while sending (a file) is handed out too."""
        if self._may_tell_later():
            self._flush(now)
            self._watch_line(now)
            if self._may_tell_later():
                return
        scheduled = self._tick_scheduled
        self._tick_scheduled = True  # what `submit` brings now is sent right below
        self._deliver()
        self._tick_scheduled = scheduled
        self._flush(now)
        self._watch_line(now)
        # Once more: files may have failed while it was filled.
        self._deliver()
        if not self.closed and self.session.plane.draining and not self.busy:
            self.close()

    def _may_tell_later(self) -> bool:
        """What ended may wait for more of its kind: all that is to be begun is in line. A timer sees to it."""
        if not self._works_alone or self.session.plane.news:
            return False
        if self._tell_timer is None:
            self._tell_timer = self._loop.call_later(_UNTOLD, self._tell_guarded)
        return True

    def _tell(self) -> None:
        self._tell_timer = None
        self._deliver()

    def _deliver(self) -> None:
        if not self._opened:
            # Nobody but `open` knows of this connection yet.
            return
        plane = self.session.plane
        finished = plane.take_finished()
        if finished or plane.draining or plane.out_of_files or plane.room > self._room_told:
            self._on_finished(self, finished)
        self._room_told = plane.room

    def _receive(self, now: float, turn: float = 0.0) -> bool:
        """Drain the input. False: the connection is over. Until `turn` it may send as well, and wait for more."""
        session = self.session
        reason = None
        try:
            got = (
                self._wire.converse(self._patience, turn)
                if now < turn and self._works_alone
                else self._wire.receive(now)
            )
            if -got not in _AGAIN:
                reason = os.strerror(-got) if got else "end of stream"
        except (ProtocolViolation, NotHttp2) as violation:
            session.end(violation)
        except OSError as error:
            reason = tls.reason(error)
        if session.failure is not None:
            # Our GOAWAY tells the server why; it is a courtesy, so one try is enough.
            self._flush(time.monotonic())
            self._end(session.failure)
            return False
        if reason is not None:
            self._end(ConnectionLost(f"the server ended the connection ({reason})"))
            return False
        if self._settled is not None and session.plane.settled:
            tcp.settle(self._settled)
        return True

    @property
    def _works_alone(self) -> bool:
        """No other connection has to wait meanwhile, and all that arrives is for those who know of this one."""
        return self.busy_poll and self._opened and not self._writing and _live_sockets == 1

    def _flush(self, now: float) -> None:
        """Fill and send until the socket is full, there is nothing to send, or the loop should get its turn."""
        if self.closed:
            return
        left = self._wire.send(now, _SENDS_PER_TICK)
        if left >= 0 or -left in _AGAIN:
            self._want_write(left != 0)
            self._hold(now)
        else:
            self._broken(os.strerror(-left), now)

    def _broken(self, reason: str, now: float) -> None:
        """A send failed. What the server said before it closed may still lie in the socket: responses, a GOAWAY."""
        if self.session.failure is None and self._receive(now):
            self._end(ConnectionLost(f"the connection broke ({reason})"))

    def _want_write(self, wanted: bool) -> None:
        if wanted != self._writing and not self.closed:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._fd, self._writable_guarded)
            else:
                self._loop.remove_writer(self._fd)

    def _hold(self, now: float) -> None:
        """Wake up when held crumbs of the window are due."""
        wake_at = self.session.plane.wake_at
        if wake_at and self._hold_timer is None and not self.closed:
            # uvloop counts whole milliseconds, from the beginning of its turn: it may be early, and must not spin then.
            self._hold_timer = self._loop.call_later(max(wake_at - now, 0.001), self._guarded(self._held))

    def _check(self) -> None:
        """Once a second: is anything stuck? PING tells a slow server from a dead connection."""
        now = time.monotonic()
        self._check_timer = self._loop.call_later(_CHECK_INTERVAL, self._guarded(self._check))
        self._note_delivered(now)
        self._room_told = 0
        plane = self.session.plane
        timeout = self._settings.stall_timeout
        stalled = plane.stalled(now, timeout)
        # Not a single stream is allowed: that is waited for, but not on a dead host.
        starved = plane.max_concurrent_streams == 0 and not plane.open_streams and now - plane.heard >= timeout
        if not stalled and not starved:
            self._pinged_at = 0.0
        elif not self._pinged_at:
            self._pinged_at = now
            self.session.ping()
            if starved and not self._told_of_none:
                self._told_of_none = True
                self._on_notice(_NO_STREAMS)
        elif self.session.ping_answered:
            self._pinged_at = 0.0
            what = f"nothing moved for {timeout:g} s, though the server answers PING: allow more with --stall-timeout"
            for attempt in stalled:
                plane.cancel(attempt, Stalled(what), now)
        elif now - max(self._pinged_at, plane.delivery.arrived_at) > _PING_TIMEOUT:
            what = f"nothing moved for {timeout:g} s and PING stayed unanswered: check the network"
            self._on_notice(f"a connection is given up: {what}")
            self._end(Stalled(what))
            return
        self._advance(now)

    def _look_for_overdue(self, allowed: float) -> None:
        """Reset what has taken as long as an upload may, a tenth of that later at most; again and again."""
        often = max(min(allowed / 10, _CHECK_INTERVAL), 0.01)
        self._overdue_timer = self._loop.call_later(often, self._guarded(lambda: self._look_for_overdue(allowed)))
        now = time.monotonic()
        overdue = self.session.plane.overdue(now, allowed)
        for attempt in overdue:
            what = f"it took longer than {allowed:g} s: allow more with --max-time"
            self.session.plane.cancel(attempt, TookTooLong(what), now)
        if overdue:
            self._advance(now)

    def _watch_line(self, now: float) -> None:
        """Have the kernel asked soon, while octets are under way."""
        plane = self.session.plane
        if self._line_timer is None and not self.closed and plane.delivery.arrived < plane.delivery.carried:
            self._line_timer = self._loop.call_later(_LINE_INTERVAL, self._line_guarded)

    def _look_at_line(self) -> None:
        self._line_timer = None
        now = time.monotonic()
        self._note_delivered(now)
        self._watch_line(now)

    def _note_delivered(self, now: float) -> None:
        """Ask the kernel how much of what it took has not arrived; a slow line is no stalled one, nor a slow server."""
        plane = self.session.plane
        plane.note_delivered(plane.delivery.sent - self._wire.on_the_way(), now)

    # --- the end ----------------------------------------------------------------------------------

    def _end(self, failure: FastpostError) -> None:
        if self.closed:
            return
        plane = self.session.plane
        self.cut_short = plane.open_streams > 0
        self.was_used = plane.begun or plane.waiting > 0 or plane.max_concurrent_streams == 0
        self._shut()
        self.session.lose(failure, time.monotonic())
        if self._settled is not None:
            tcp.settle(self._settled)
        if not self._opened:
            return
        self._deliver()
        self._on_closed(self)

    def _shut(self) -> None:
        global _live_sockets
        self.closed = True
        for timer in (
            *(self._hold_timer, self._check_timer, self._overdue_timer),
            *(self._line_timer, self._tell_timer),
        ):
            if timer is not None:
                timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            _live_sockets -= 1
        # They hold the connection, and it them: its buffers would stay until the garbage collector comes.
        self._tick_guarded = self._line_guarded = self._writable_guarded = self._tell_guarded = _nothing


def _nothing() -> None:
    pass
