"""A small HTTP/2 server that misbehaves as a test tells it to; h2 judges every frame it is sent.

A test writes a Script: what the server does when a request begins, when octets of a body arrive, when a
body is complete. All of a connection happens on one thread, so that a script can change a file
between two frames, with nothing left to chance.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import GoAwayFrame

from .servers import HOST, Certificates

#: Default window of a stream (RFC 9113 §6.9.2); scripts count on it.
STREAM_WINDOW = 65_535
#: What raises the connection window to its limit, so that only streams are held back.
_CONNECTION_CREDIT = 2**31 - 1 - STREAM_WINDOW


@dataclasses.dataclass(eq=False)
class Request:
    """One stream, as far as it got. `number` counts connections from 0, `arrived` is monotonic seconds."""

    number: int
    stream_id: int
    method: str
    path: str
    fields: dict[str, str]
    arrived: float
    body: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False
    #: The error code of the client's RST_STREAM.
    reset: int | None = None
    #: The server has reset it; what the client had under way is dropped.
    refused: bool = False


class Script:
    """What a server does: takes every body and answers 201. Tests override what they need."""

    def accepts(self, number: int) -> bool:
        """Tell whether that connection, counted from 0, is spoken to at all."""
        return True

    def requested(self, peer: Peer, request: Request) -> None:
        """Act on the HEADERS of a request."""

    def received(self, peer: Peer, request: Request, octets: int) -> None:
        """Act on a DATA frame of `octets`, which are part of `request.body` already."""
        peer.credit(request, octets)

    def completed(self, peer: Peer, request: Request) -> None:
        """Act on END_STREAM."""
        peer.answer(request, 201)


class Peer:
    """The server's end of one connection; what a script acts through."""

    def __init__(self, stream: socket.socket, number: int, max_concurrent_streams: int) -> None:
        self.number = number
        self.requests: dict[int, Request] = {}
        self._stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        # Set before the first SETTINGS, not updated: h2 would say its default once more, behind the update.
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_concurrent_streams}
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(_CONNECTION_CREDIT)
        self.flush()

    def answer(self, request: Request, status: int, body: bytes = b"", **fields: str) -> None:
        """Send a whole response; underscores in the names of fields become hyphens."""
        named = [(name.replace("_", "-"), value) for name, value in fields.items()]
        with self._unless_over():
            self.h2.send_headers(request.stream_id, [(":status", str(status)), *named], end_stream=not body)
            if body:
                self.h2.send_data(request.stream_id, body, end_stream=True)

    def credit(self, request: Request, octets: int) -> None:
        """Let the client send that many octets more on the stream."""
        if octets and not (request.ended or request.refused or request.reset is not None):
            with self._unless_over():
                self.h2.increment_flow_control_window(octets, request.stream_id)

    def reset(self, request: Request, error_code: int) -> None:
        """Send RST_STREAM."""
        request.refused = True
        with self._unless_over():
            self.h2.reset_stream(request.stream_id, error_code)

    def goaway(self, last_stream_id: int, error_code: int = 0) -> None:
        """Send GOAWAY and go on: h2 would close itself and could not answer the streams that it promised."""
        self.flush()
        self._stream.sendall(GoAwayFrame(0, last_stream_id=last_stream_id, error_code=error_code).serialize())

    def drop(self, *, abort: bool = False) -> NoReturn:
        """Close the connection without GOAWAY: FIN, or RST when `abort`, right behind what is said already."""
        self.flush()
        if abort:
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Dropped

    @contextlib.contextmanager
    def _unless_over(self) -> Iterator[None]:
        """Leave out what a stream or connection can't take any more.

        The client's RST_STREAM or GOAWAY may lie in octets that h2 has read but whose events come later. What the
        client does wrong, h2 says while it reads.
        """
        try:
            yield
        except h2.exceptions.StreamClosedError:
            pass
        except h2.exceptions.ProtocolError:
            if self.h2.state_machine.state is not h2.connection.ConnectionState.CLOSED:
                raise

    def flush(self) -> None:
        """Send what h2 has ready."""
        self._stream.sendall(self.h2.data_to_send())


class ScriptedServer:
    """Runs a script on a port of the loopback address, as a context manager.

    Args:
        script: what to do.
        tls: serve TLS with ALPN h2.
        max_concurrent_streams: advertised in SETTINGS.

    After the block, `violations` must be empty; leaving the block asserts it.
    """

    def __init__(
        self, script: Script | None = None, *, tls: Certificates | None = None, max_concurrent_streams: int = 100
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.violations: list[str] = []
        self.cafile = tls.cafile if tls else None
        self._script = script or Script()
        self._max_concurrent_streams = max_concurrent_streams
        self._context = _context(tls) if tls else None
        self._listener = socket.create_server((HOST, 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def refuse(self) -> None:
        """Take no more connections: those who try find nobody there."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        assert error is not None or self.violations == [], self.violations

    def of(self, path: str) -> list[Request]:
        """Return the requests for a path in the order of their arrival."""
        return [request for request in self.requests if request.path == path]

    def bodies(self) -> dict[str, bytes]:
        """Return the complete bodies by path; all complete bodies for one path must be equal."""
        found: dict[str, bytes] = {}
        for request in self.requests:
            if request.ended:
                assert found.setdefault(request.path, bytes(request.body)) == request.body, request.path
        return found

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(stream, self.connections), daemon=True)
                self.connections += 1
                self._threads.append(thread)
                thread.start()

    def _serve(self, stream: socket.socket, number: int) -> None:
        try:
            if not self._script.accepts(number):
                return
            if self._context is not None:
                stream = self._context.wrap_socket(stream, server_side=True)
            peer = Peer(stream, number, self._max_concurrent_streams)
            while octets := stream.recv(65_536):
                for event in peer.h2.receive_data(octets):
                    self._take(peer, event)
                peer.flush()
        except h2.exceptions.ProtocolError as error:
            self.violations.append(f"{type(error).__name__}: {error}")
        except (_Dropped, OSError):
            pass
        finally:
            stream.close()

    def _take(self, peer: Peer, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                request = _request(peer.number, event.stream_id, event.headers)
                peer.requests[event.stream_id] = request
                self.requests.append(request)
                self._script.requested(peer, request)
            case h2.events.DataReceived():
                request = peer.requests[event.stream_id]
                if not request.refused:
                    request.body += event.data
                    self._script.received(peer, request, event.flow_controlled_length)
            case h2.events.StreamEnded():
                request = peer.requests[event.stream_id]
                if not request.refused:
                    request.ended = True
                    self._script.completed(peer, request)
            case h2.events.StreamReset(remote_reset=True):
                peer.requests[event.stream_id].reset = event.error_code
            case h2.events.ConnectionTerminated():
                raise _Dropped


class _Dropped(Exception):
    """The connection is over."""


def _request(number: int, stream_id: int, headers: Iterable[Any]) -> Request:
    fields = dict(headers)
    return Request(number, stream_id, fields[":method"], fields[":path"], fields, time.monotonic())


def _context(tls: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.chain, tls.key)
    context.set_alpn_protocols(["h2"])
    return context
