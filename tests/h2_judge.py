"""A session against h2 as the strict server, in memory: no sockets, no clock.

`Judge` is the server. h2 raises for every frame of ours that breaks a state, a window, the frame size or HPACK, so a
test that ends without an exception has been judged. `Wire` carries octets between the two and moves the time.
`Script` is the other kind of peer: it writes frames by hand, so that it can misbehave.
"""

from __future__ import annotations

import dataclasses
import gc
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
import hpack
import pytest
from h2.settings import SettingCodes

from fastpost._chunker import live_objects
from fastpost._rate_limit import RateLimit
from fastpost._table import Attempt, live_attempts
from fastpost.errors import ConnectionLost
from fastpost.session import Session

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW = 2**31 - 1
#: Settings and an increment that open the windows of streams and of the connection as wide as can be.
OPEN = {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
WIDE = LARGEST_WINDOW - 65535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

Files = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return files of the asked sizes, with octets of their own; nobody may change them."""
    folder = tmp_path_factory.mktemp("files")

    def get(*sizes: int) -> list[Path]:
        for size in set(sizes):
            if not (folder / str(size)).exists():
                (folder / str(size)).write_bytes(random.Random(size).randbytes(size))
        return [folder / str(size) for size in sizes]

    return get


class Frame(NamedTuple):
    """One frame as it was on the wire."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """Return the octets of a frame; nothing is checked."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def number(value: int) -> bytes:
    """Return 32 bits: an error code, an increment, a stream id."""
    return value.to_bytes(4, "big")


def settings_frame(values: Mapping[SettingCodes, int] | Mapping[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(code.to_bytes(2, "big") + number(value) for code, value in values.items()))


def window_update(stream_id: int, octets: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, number(octets))


def rst_stream(stream_id: int, error_code: int) -> bytes:
    """Return an RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, number(error_code))


def goaway(last_stream_id: int, error_code: int = 0) -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, number(last_stream_id) + number(error_code))


def split(octets: bytes) -> Iterator[Frame]:
    """Cut whole frames, with or without the preface before them."""
    at = len(PREFACE) if octets.startswith(PREFACE) else 0
    while at < len(octets):
        length = int.from_bytes(octets[at : at + 3], "big")
        assert at + 9 + length <= len(octets), "a frame is cut off"
        stream_id = int.from_bytes(octets[at + 5 : at + 9], "big")
        yield Frame(octets[at + 3], octets[at + 4], stream_id, octets[at + 9 : at + 9 + length])
        at += 9 + length


def session(
    *,
    method: bytes = b"PUT",
    concurrency: int = 50,
    fair: bool = True,
    staged: bool = True,
    keep_responses: bool = False,
    body_limit: int = 1024,
    rate_limit: RateLimit | None = None,
) -> Session:
    """Return a session of the usual kind, begun."""
    begun = Session(
        method=method,
        scheme=b"http",
        authority=b"store.example",
        fields=[(b"user-agent", b"fastpost")],
        concurrency=concurrency,
        fair=fair,
        staged=staged,
        keep_responses=keep_responses,
        body_limit=body_limit,
        rate_limit=rate_limit,
    )
    begun.begin()
    return begun


def attempts(files: Iterable[Path]) -> list[Attempt]:
    """Return one attempt for each file; its upload is the file's path, its :path the position in the list."""
    return [Attempt(file, bytes(file), b"/%d" % index) for index, file in enumerate(files)]


def nothing_left() -> bool:
    """Tell whether no source, mapping or attempt is alive. The caller has dropped its own by now."""
    gc.collect()
    return live_objects() == (0, 0) and live_attempts() == 0


@dataclasses.dataclass
class Request:
    """What the server has of one request; `reset` is the code with which the client reset it."""

    fields: dict[bytes, bytes]
    body: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False
    answered: bool = False
    reset: int | None = None


def _after_settings(octets: bytes) -> Iterator[bytes]:
    """Cut after each SETTINGS frame: h2 puts an acknowledged frame size in force with its next call only."""
    start, at = 0, len(PREFACE) if octets.startswith(PREFACE) else 0
    while at < len(octets):
        kind = octets[at + 3]
        at += 9 + int.from_bytes(octets[at : at + 3], "big")
        if kind == SETTINGS or at == len(octets):
            yield octets[start:at]
            start = at


class Judge:
    """h2 as the server. It keeps all bodies, owes credit until `credit` pays it, and answers ended requests.

    Args:
        settings: beside h2's defaults; in force from the client's acknowledgement on, as RFC 9113 §6.5.3 says.
        connection_window: what the client may send on the connection at first, octets, at least 65,535.
        status: answers each ended request; None: the test answers.
    """

    def __init__(
        self,
        settings: Mapping[SettingCodes, int] | None = None,
        *,
        connection_window: int = 65535,
        status: bytes | None = b"201",
    ) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.requests: dict[int, Request] = {}
        self.h2.initiate_connection()
        #: SETTINGS that the client has not acknowledged. h2 can't tell which of several an acknowledgement means.
        self.unacknowledged = 1
        if settings:
            self.change(settings)
        if connection_window > 65535:
            self.h2.increment_flow_control_window(connection_window - 65535)
        self.status = status
        #: (stream_id, octets) of each DATA frame with a payload, in the order served.
        self.served: list[tuple[int, int]] = []
        #: Every frame but DATA, in order.
        self.frames: list[Frame] = []
        self.owed = 0
        self.owed_streams: dict[int, int] = {}

    def change(self, settings: Mapping[SettingCodes, int]) -> None:
        """Send SETTINGS. Once there are requests, only when nothing is unacknowledged."""
        assert not self.requests or not self.unacknowledged
        self.h2.update_settings({int(code): value for code, value in settings.items()})
        self.unacknowledged += 1

    def receive(self, octets: bytes) -> None:
        """Judge what the client sent. Whole gather lists only, so that the frames can be listed."""
        for sent in split(octets):
            if sent.kind != DATA:
                self.frames.append(sent)
            elif sent.payload:
                self.served.append((sent.stream_id, len(sent.payload)))
        for part in _after_settings(octets):
            for event in self.h2.receive_data(part):
                self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            assert event.headers is not None
            assert event.stream_id is not None
            self.requests[event.stream_id] = Request({bytes(name): bytes(value) for name, value in event.headers})
            self.owed_streams[event.stream_id] = 0
        elif isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            assert event.data is not None
            self.requests[event.stream_id].body += event.data
            self.owed += event.flow_controlled_length or 0
            if event.stream_id in self.owed_streams:  # else it has its answer already
                self.owed_streams[event.stream_id] += event.flow_controlled_length or 0
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id is not None
            self.requests[event.stream_id].ended = True
            self.owed_streams.pop(event.stream_id, None)
            if self.status is not None and not self.requests[event.stream_id].answered:
                self.answer(event.stream_id, self.status)
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.unacknowledged -= 1
        elif isinstance(event, h2.events.StreamReset):
            assert event.stream_id is not None
            self.requests[event.stream_id].reset = event.error_code
            self.owed_streams.pop(event.stream_id, None)
        assert not isinstance(event, h2.events.ConnectionTerminated), "the client ended the connection"

    def answer(self, stream_id: int, status: bytes = b"201") -> None:
        """Send a final response without a body."""
        self.requests[stream_id].answered = True
        self.h2.send_headers(stream_id, [(b":status", status)], end_stream=True)

    def window(self, stream_id: int) -> int:
        """Return what a stream's own window allows the client; h2 tells only the lesser of it and the connection's."""
        return self.h2.streams[stream_id]._inbound_window_manager.current_window_size

    def credit(self, connection: int = LARGEST_WINDOW, stream: int = LARGEST_WINDOW) -> None:
        """Pay back what is owed: at most so many octets on the connection, and on each stream."""
        room = LARGEST_WINDOW - self.h2.inbound_flow_control_window
        if octets := min(self.owed, connection, room):
            self.h2.increment_flow_control_window(octets)
            self.owed -= octets
        for stream_id, owed in self.owed_streams.items():
            if octets := min(owed, stream, LARGEST_WINDOW - self.window(stream_id)):
                self.h2.increment_flow_control_window(octets, stream_id)
                self.owed_streams[stream_id] -= octets

    def take_octets(self) -> bytes:
        """Return what the server sends."""
        octets: bytes = self.h2.data_to_send()
        return octets

    def bodies(self) -> dict[bytes, bytes]:
        """Return the complete bodies by :path."""
        return {request.fields[b":path"]: bytes(request.body) for request in self.requests.values() if request.ended}


class Wire:
    """Carries octets between a session and a judge. Nothing is lost, and time moves by a millisecond a step."""

    def __init__(self, client: Session, judge: Judge) -> None:
        self.client = client
        self.judge = judge
        self.now = 1.0
        self.finished: list[Attempt] = []
        # The client's preface first, then its acknowledgement: its requests can't come before.
        while judge.unacknowledged:
            self.step(credit=False)

    def step(self, *, credit: bool = True) -> int:
        """Carry one gather list up and the answers down. Returns the octets that moved."""
        sent = self.client.plane.take_octets(self.now) if self.client.fill(self.now) else b""
        self.judge.receive(sent)
        if credit:
            self.judge.credit()
        answers = self.judge.take_octets()
        self.client.receive(answers, self.now)
        if self.client.failure is not None:
            raise AssertionError(f"the session failed: {self.client.failure}")
        self.finished += self.client.take_finished()
        self.now += 0.001
        return len(sent) + len(answers)

    def run(self, *, steps: int = 100_000, credit: bool = True) -> None:
        """Step until nothing moves and nothing is held back."""
        for _ in range(steps):
            if not self.step(credit=credit) and not self.client.plane.wake_at:
                return
        raise AssertionError("no end in sight")

    def close(self) -> None:
        """End the connection and drop everything."""
        self.client.lose(ConnectionLost("the test is over"), self.now)
        self.client.take_finished()
        self.client.take_unsent()


class Script:
    """A peer that writes frames by hand. It has sent its SETTINGS and taken the client's.

    Args:
        client: the session under test.
        settings: of the server.
        window: connection window to open beyond 65,535 at once, octets.
    """

    def __init__(self, client: Session, settings: Mapping[SettingCodes, int] | None = None, *, window: int = 0) -> None:
        self.client = client
        self.now = 1.0
        self.encoder = hpack.Encoder()
        self.finished: list[Attempt] = []
        self.log: list[Frame] = []
        self.take()
        self.send(settings_frame(settings or {}))
        if window:
            self.send(window_update(0, window))
        self.take()
        self.log.clear()

    def send(self, *frames: bytes, chunk: int = 0) -> None:
        """Hand octets to the client, in chunks of so many when chunk is given."""
        octets = b"".join(frames)
        size = chunk or len(octets) or 1
        for at in range(0, len(octets), size):
            self.client.receive(octets[at : at + size], self.now)
        self.finished += self.client.take_finished()

    def take(self, *, at: float = 0.0) -> list[Frame]:
        """Return the frames that the client sends now (or at a later time), and log them."""
        self.now = max(self.now, at)
        frames = list(split(self.client.data_to_send(self.now)))
        self.finished += self.client.take_finished()
        self.log += frames
        return frames

    def submit(self, files: Iterable[Path]) -> list[Attempt]:
        """Submit files."""
        submitted = attempts(files)
        self.client.submit(submitted)
        return submitted

    def block(self, *fields: tuple[bytes, bytes]) -> bytes:
        """Return a field block of the server."""
        encoded: bytes = self.encoder.encode([hpack.HeaderTuple(*field) for field in fields])
        return encoded

    def response(
        self, stream_id: int, status: bytes = b"201", *fields: tuple[bytes, bytes], end_stream: bool = True
    ) -> bytes:
        """Return a HEADERS frame with a response."""
        flags = END_HEADERS | (END_STREAM if end_stream else 0)
        return frame(HEADERS, flags, stream_id, self.block((b":status", status), *fields))

    def trailers(self, stream_id: int) -> bytes:
        """Return a HEADERS frame with trailers."""
        return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, self.block((b"a", b"b")))

    def close(self) -> None:
        """End the connection and drop everything."""
        self.client.lose(ConnectionLost("the test is over"), self.now)
        self.finished += self.client.take_finished()
        self.client.take_unsent()

    def ends(self) -> dict[bytes, Attempt]:
        """Return the finished attempts by :path; each may be there once."""
        assert len({id(attempt) for attempt in self.finished}) == len(self.finished)
        return {attempt.path: attempt for attempt in self.finished}


def served_octets(frames: Iterable[Frame]) -> list[tuple[int, int]]:
    """Return (stream_id, octets) of the DATA frames."""
    return [(sent.stream_id, len(sent.payload)) for sent in frames if sent.kind == DATA]


def jain(octets: Iterable[int]) -> float:
    """Return Jain's fairness index: 1.0 when all have the same."""
    values = list(octets)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))
