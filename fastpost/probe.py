"""What a server advertises, and the ceiling that follows: window ÷ round trip.

One connection, one upload, blocking calls. This is an instrument beside the engine, not a second one: it wants to see
every WINDOW_UPDATE with its time, which the data plane takes without a trace, and it is in no hurry. So h2 runs the
whole connection here, streams too, and judges the server on the way.
"""

from __future__ import annotations

import array
import fcntl
import math
import os
import select
import ssl
import statistics
import termios
import time
from typing import TYPE_CHECKING, Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from fastpost import endpoint, reach, servers
from fastpost import target as targets
from fastpost.errors import ConnectFailed, NotHttp2, error_code_name

if TYPE_CHECKING:
    from fastpost.config import Settings
    from fastpost.target import Target

SCHEMA: Final = "fastpost.probe/1"

#: PINGs for the round trip, and the number of connections up to which the ceiling is told.
_PINGS: Final = 10
_CONNECTIONS: Final = 8
#: Seconds that the upload may take, in which nothing may move, and that a server gets to say GOAWAY behind its answer.
_UPLOAD_LIMIT: Final = 30.0
_QUIET: Final = 10.0
_AFTERMATH: Final = 0.2
#: Seconds between looks at whether anything moves.
_LOOK: Final = 0.1
#: Seconds that all empty uploads may take, and how many are under way at once.
_REQUESTS_LIMIT: Final = 30.0
_REQUESTS_AT_ONCE: Final = 50
_NAME: Final = b"fastpost-probe.bin"
_RECEIVE: Final = 65536
_FRAME_HEADER: Final = 9


class _Granted:
    """What came for one window."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._sent = 0

    def add(self, octets: int, sent: int) -> None:
        """Take a WINDOW_UPDATE of `octets` that came when so many had been sent in all."""
        self._sizes.append(octets)
        self._sent = sent

    def summary(self) -> dict[str, object]:
        sizes = self._sizes
        return {
            "count": len(sizes),
            "octets": sum(sizes),
            "smallest": min(sizes, default=None),
            "largest": max(sizes, default=None),
            "median_octets": round(statistics.median(sizes)) if sizes else None,
            "sent_for_each": round(self._sent / len(sizes)) if sizes else None,
        }


class Probe:
    """Looks at one server, once.

    Args:
        settings: where to and how. Raises UsageError when the target can't be meant.
        budget: most octets to upload.
        requests: empty uploads to make after that one on the same connection, to see when the server says GOAWAY.
    """

    def __init__(self, settings: Settings, budget: int, requests: int = 0) -> None:
        self._settings = settings
        self._budget = budget
        self._requests = requests
        #: Of these: begun, answered or reset, and answered.
        self._begun = self._over = self._answered = 0
        self._target: Target = targets.parse(
            settings.to, method=settings.method, content_type=settings.content_type or "application/octet-stream"
        )
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._pending = bytearray()
        #: The server has ended the connection.
        self._closed = False
        #: It takes nothing any more; what it has said may still be to be read.
        self._deaf = False
        #: Octets handed to the kernel since the upload began, those of them that had not arrived by its last word, and
        #: when something moved last, either way (monotonic seconds).
        self._handed = self._under_way = 0
        self._moved = 0.0
        #: Nothing is waited for beyond it (monotonic seconds), though octets move.
        self._limit = math.inf
        self._told: dict[str, int] = {}
        self._settled = False
        self._pongs = 0
        self._pings: list[float] = []
        self._connection = _Granted()
        self._stream = _Granted()
        self._sent = 0
        self._stream_id = 0
        self._initial = (0, 0)
        self._largest = [0, 0]
        self._status = 0
        self._server = ""
        self._ended: str | None = None
        self._answered_early = False
        self._goaway: dict[str, object] | None = None
        self._took = 0.0

    def look(self) -> dict[str, Any]:
        """Return the report of schema fastpost.probe/1. Raises a TargetUnreachable."""
        where = endpoint.of(self._target, self._settings).address
        self._began = time.monotonic()
        reached = reach.reach(self._target, self._settings)
        with reached.socket as self._socket:
            tls = reached.tls()
            reached.times["settings"] = self._exchange_settings(where)
            try:
                self._ping()
            except h2.exceptions.ProtocolError as error:
                raise ConnectFailed(f"{where} broke the rules of HTTP/2 ({error}): update the server") from None
            self._initial = (self._h2.remote_settings.initial_window_size, self._h2.outbound_flow_control_window)
            self._largest = list(self._initial)
            self._upload()
        return self._report(reached, tls)

    # --- what it says at once -----------------------------------------------------------------------------------------

    def _exchange_settings(self, where: str) -> float:
        """Return the seconds until the server's SETTINGS came. Raises NotHttp2."""
        began = time.monotonic()
        self._h2.initiate_connection()
        self._flush()
        limit = began + self._settings.connect_timeout
        try:
            while not self._settled and self._receive(limit):
                pass
        except h2.exceptions.ProtocolError:
            self._settled = False
        if not self._settled:
            raise NotHttp2(
                f"{where} did not send HTTP/2 SETTINGS: check scheme and port; the server may speak HTTP/1.1 only, or "
                "only TLS; fastpost needs HTTP/2, by ALPN (https) or prior knowledge (http)"
            )
        return time.monotonic() - began

    def _ping(self) -> None:
        """Measure round trips. Behind the first answer everything has come that the server grants at once."""
        for number in range(_PINGS):
            if self._goaway is not None:
                return
            began = time.monotonic()
            self._h2.ping(number.to_bytes(8, "big"))
            self._flush()
            while self._pongs <= number:
                if self._goaway is not None or not self._receive(began + self._settings.connect_timeout):
                    return
            self._pings.append(time.monotonic() - began)

    # --- the upload ---------------------------------------------------------------------------------------------------

    def _upload(self) -> None:
        """Send one body as fast as the windows let it, until it ends, is answered, or the budget is spent."""
        if self._goaway is not None:
            return
        if not self._h2.remote_settings.max_concurrent_streams:
            self._ended = "not begun: the server allows no stream (MAX_CONCURRENT_STREAMS 0)"
            return
        self._stream_id = self._h2.get_next_available_stream_id()
        began = time.monotonic()
        self._handed, self._moved, self._limit = 0, began, began + _UPLOAD_LIMIT
        self._h2.send_headers(self._stream_id, self._fields(self._budget), end_stream=self._budget == 0)
        piece = os.urandom(1 << 20)
        try:
            while self._ended is None and self._goaway is None and time.monotonic() < self._limit:
                if not self._send(piece) and not self._hear():
                    break
                while self._ready() and self._receive(self._limit):
                    pass
            self._took = time.monotonic() - began
            self._finish()
            self._repeat()
        except h2.exceptions.ProtocolError as error:
            self._ended = self._ended or f"the connection ended: {error or type(error).__name__}"
            self._took = self._took or time.monotonic() - began

    def _fields(self, length: int) -> list[tuple[bytes, bytes]]:
        target = self._target
        return [
            (b":method", target.method),
            (b":scheme", target.scheme.encode()),
            (b":authority", target.authority),
            (b":path", target.request_path(_NAME)),
            *((name.lower().encode(), value.encode()) for name, value in self._settings.fields),
            *target.fields(_NAME),
            (b"content-length", str(length).encode()),
        ]

    def _send(self, piece: bytes) -> bool:
        """Send what the windows allow, a frame at a time. False: nothing now."""
        left = self._budget - self._sent
        if self._status or not left or self._deaf:
            self._flush()
            return False
        window = self._h2.local_flow_control_window(self._stream_id)
        length = min(left, window, self._h2.max_outbound_frame_size, len(piece))
        if length > 0:
            self._h2.send_data(self._stream_id, piece[:length], end_stream=length == left)
            self._sent += length
        self._flush()
        return length > 0

    def _finish(self) -> None:
        """Stop a body that is not done, and hear whether the server says GOAWAY."""
        if self._closed:
            when = "in the midst of its answer" if self._status else "before it answered"
            self._ended = self._ended or f"the server closed the connection {when}"
            return
        if self._ended is None and self._goaway is None:
            self._ended = self._given_up()
            self._h2.reset_stream(self._stream_id, 0x8)
            self._flush()
        limit = time.monotonic() + _AFTERMATH
        while self._goaway is None and self._receive(limit):
            pass

    def _given_up(self) -> str:
        """Say why the upload is not waited for any more; only what has arrived of it counts."""
        now = time.monotonic()
        self._note_arrived(now)
        if self._under_way:
            self._sent = min(self._sent, max(self._handed - self._under_way, 0))
        if self._status:
            return f"not answered to the end within {_UPLOAD_LIMIT if now >= self._limit else _QUIET:g} s"
        if now >= self._limit:
            return f"stopped after {_UPLOAD_LIMIT:g} s though octets still arrived: the line or the server is slow"
        if self._under_way:
            return f"stopped as nothing arrived for {_QUIET:g} s: the line is dead, or the server reads nothing"
        return f"not answered within {_QUIET:g} s"

    def _repeat(self) -> None:
        """Make empty uploads, some at a time, until the server says GOAWAY or all are answered."""
        if self._deaf:
            return
        limit = self._limit = time.monotonic() + _REQUESTS_LIMIT
        while self._goaway is None and not self._closed and self._over < self._requests:
            most = 0 if self._deaf else min(_REQUESTS_AT_ONCE, self._h2.remote_settings.max_concurrent_streams)
            for _ in range(min(most - self._begun + self._over, self._requests - self._begun)):
                self._h2.send_headers(self._h2.get_next_available_stream_id(), self._fields(0), end_stream=True)
                self._begun += 1
            self._flush()
            if not self._receive(limit):
                break

    # --- octets and events --------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what h2 has, as long as the server takes it, however slowly."""
        octets = memoryview(self._h2.data_to_send())
        while octets and not self._deaf:
            self._socket.settimeout(_LOOK)
            try:
                handed = self._socket.send(octets)
            except TimeoutError:
                self._deaf = not self._moving()
            except OSError:
                self._deaf = True
            else:
                self._handed += handed
                self._moved = time.monotonic()
                octets = octets[handed:]

    def _moving(self) -> bool:
        """Tell whether to wait on: a slow line is one on which octets still arrive."""
        now = time.monotonic()
        self._note_arrived(now)
        return now < min(self._moved + _QUIET, self._limit)

    def _note_arrived(self, now: float) -> None:
        """Ask the kernel how much of what it took has not arrived."""
        under_way = array.array("i", [0])
        fcntl.ioctl(self._socket, termios.TIOCOUTQ, under_way)  # the same number as SIOCOUTQ (tcp(7))
        if under_way[0] != self._under_way:
            # More can be under way only where some have arrived, and have made room.
            self._under_way = under_way[0]
            self._moved = now

    def _hear(self) -> bool:
        """Take what comes next, while anything moves. False: nothing came, or the connection is over."""
        while not self._receive(time.monotonic() + _LOOK):
            if self._closed or not self._moving():
                return False
        return True

    def _ready(self) -> bool:
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        return pending or bool(select.select((self._socket,), (), (), 0)[0])

    def _receive(self, limit: float) -> bool:
        """Take what comes next. False: nothing until the limit (monotonic seconds), or the connection is over.

        Behind the limit nothing is taken, though it lies there: else a server that never stops would never be left.
        """
        if (left := limit - time.monotonic()) <= 0:
            return False
        try:
            self._socket.settimeout(left)
            octets = self._socket.recv(_RECEIVE)
        except TimeoutError:
            return False
        except OSError:
            octets = b""
        if not octets:
            self._closed = True
            return False
        now = self._moved = time.monotonic()
        self._pending += octets
        # Frame by frame: behind GOAWAY h2 takes nothing any more, and would forget what came before it.
        while self._goaway is None and (frame := self._next_frame()):
            for event in self._h2.receive_data(frame):
                self._take(event, now)
        if self._goaway is None:
            self._flush()
        return True

    def _next_frame(self) -> bytes:
        """Take the first whole frame (RFC 9113 §4.1) of what has come; empty: it is not whole yet.

        Raises h2's FrameTooLargeError: most likely it is none, but HTTP/1.1.
        """
        length = int.from_bytes(self._pending[:3], "big")
        if length > self._h2.max_inbound_frame_size:
            raise h2.exceptions.FrameTooLargeError(f"a frame of {length:,} octets")
        end = _FRAME_HEADER + length
        if len(self._pending) < end:
            return b""
        frame = bytes(self._pending[:end])
        del self._pending[:end]
        return frame

    def _take(self, event: h2.events.Event, now: float) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self._settled = True
                for code, change in event.changed_settings.items():
                    name = getattr(code, "name", None) or f"0x{int(code):x}"
                    self._told[name] = change.new_value
            case h2.events.PingAckReceived():
                self._pongs += 1
            case h2.events.WindowUpdated(stream_id=stream_id, delta=delta):
                (self._stream if stream_id else self._connection).add(delta or 0, self._sent)
                self._note_windows()
            case h2.events.ResponseReceived(headers=headers, stream_id=self._stream_id):
                fields = {bytes(name): bytes(value) for name, value in reversed(headers or [])}
                self._status = _status(fields[b":status"])
                self._server = fields.get(b"server", b"").decode("latin-1")
                self._answered_early = self._sent < self._budget
            case h2.events.DataReceived(flow_controlled_length=length, stream_id=stream_id):
                if length and stream_id == self._stream_id and self._ended is None:
                    self._h2.acknowledge_received_data(length, stream_id)
                elif length:
                    self._h2.increment_flow_control_window(length)
            case h2.events.StreamEnded(stream_id=stream_id) | h2.events.StreamReset(stream_id=stream_id) if (
                stream_id != self._stream_id
            ):
                self._over += 1
                self._answered += isinstance(event, h2.events.StreamEnded)
            case h2.events.StreamEnded():
                self._ended = "answered before its end" if self._answered_early else "complete"
            case h2.events.StreamReset(error_code=code):
                if not self._status:
                    self._ended = f"reset: {error_code_name(int(code or 0))}"
                else:
                    self._ended = self._ended or "answered before its end"
            case h2.events.ConnectionTerminated(error_code=code, last_stream_id=last):
                self._goaway = {
                    "code": error_code_name(int(code or 0)),
                    "last_stream_id": last,
                    "after_requests": None if last is None or last > self._newest() else (last + 1) // 2,
                    "after_s": round(now - self._began, 6),
                }

    def _newest(self) -> int:
        """The stream that was opened last; 0: none was. A GOAWAY that names a later one only announces another."""
        return self._stream_id + 2 * self._begun

    def _note_windows(self) -> None:
        self._largest[1] = max(self._largest[1], self._h2.outbound_flow_control_window)
        stream = self._h2.streams.get(self._stream_id) if self._stream_id else None
        if stream is not None:
            self._largest[0] = max(self._largest[0], stream.outbound_flow_control_window)

    # --- the report ---------------------------------------------------------------------------------------------------

    def _report(self, reached: reach.Reached, tls: dict[str, object] | None) -> dict[str, Any]:
        streams = self._told.get("MAX_CONCURRENT_STREAMS")
        return {
            "schema": SCHEMA,
            "target": self._target.template,
            "method": self._target.method.decode(),
            "address": reached.address,
            "times_ms": {name: _ms(took) for name, took in reached.times.items()},
            "tls": tls,
            "settings": self._told,
            "max_concurrent_streams": streams,
            "windows": {
                "stream_initial": self._initial[0],
                "stream_largest": self._largest[0],
                "connection_initial": self._initial[1],
                "connection_largest": self._largest[1],
            },
            "window_updates": {"stream": self._stream.summary(), "connection": self._connection.summary()},
            "ping_ms": {
                "smallest": _ms(min(self._pings, default=None)),
                "median": _ms(statistics.median(self._pings)) if self._pings else None,
                "count": len(self._pings),
            },
            "upload": {
                "octets": self._sent,
                "seconds": round(self._took, 6),
                "status": self._status or None,
                "ended": self._ended or "not begun: the server goes away",
            },
            "requests": (self._stream_id > 0) + self._begun,
            "answered": (self._status > 0) + self._answered,
            "goaway": self._goaway,
            "server": self._recognised(),
            "ceiling": self._ceiling(streams),
        }

    def _ceiling(self, streams: int | None) -> dict[str, object] | None:
        """Return the ceiling by the windows as far as they were seen: an upload that never filled them saw no more."""
        found = ceiling(
            statistics.median(self._pings) if self._pings else None, self._largest[0], self._largest[1], streams
        )
        if found is not None:
            found["unfilled"] = self._largest == list(self._initial) and self._sent < min(self._initial)
        return found

    def _recognised(self) -> dict[str, object]:
        found = servers.recognised(self._server, self._told)
        knobs = found[2]._asdict() if found else {}
        return {
            "field": self._server,
            "name": found[0] if found else None,
            "recognised_by": found[1] if found else None,
            "goaway": knobs.pop("goaway", ""),
            "knobs": {cause: knob for cause, knob in knobs.items() if knob},
        }


def _status(told: bytes) -> int:
    """Return a status (RFC 9110 §15). Raises ProtocolError, as h2 lets every text pass."""
    if len(told) != 3 or not told.isdigit() or told < b"100":
        raise h2.exceptions.ProtocolError(f"{told.decode('latin-1')!r} is no status")
    return int(told)


def ceiling(rtt: float | None, stream: int, connection: int, streams: int | None) -> dict[str, object] | None:
    """Return the most octets a second that the windows let through: window ÷ round trip; None without a round trip.

    Args:
        rtt: seconds.
        stream: window of a stream, octets.
        connection: window of a connection, octets.
        streams: MAX_CONCURRENT_STREAMS; None: not limited.
    """
    if not rtt:
        return None
    one = 0 if streams == 0 else min(stream, connection)
    whole = connection if streams is None else min(connection, streams * stream)
    return {
        "rtt_ms": _ms(rtt),
        "one_upload": round(one / rtt),
        "connections": [
            {"connections": number, "octets_per_s": round(number * whole / rtt)}
            for number in range(1, _CONNECTIONS + 1)
        ],
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
