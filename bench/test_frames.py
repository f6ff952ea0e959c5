"""Frames in: the data plane, which acts on them too, beside h2, which does as well, and hyperframe, which only reads.

A round is 1,000 frames in one piece, as a busy server sends them.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import hyperframe.frame
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.in_memory import (
    ACK,
    DATA,
    END_HEADERS,
    FIELDS,
    GREETING,
    HEADERS,
    NOW,
    PING,
    RESPONSE,
    close,
    frame,
    opened,
    window_update,
)
from fastpost._table import Attempt

#: Of each kind one that a stream can take again and again. PING passes through h2 in fastpost too, as all of stream 0
#: but windows does: the price of not writing that again.
FRAMES = {
    "unknown": frame(0x40, 1, bytes(4)),
    "window update": window_update(1, 1),
    "data": frame(DATA, 1, b""),
    "interim response": frame(HEADERS, 1, b"\x08\x03103", END_HEADERS),
    "ping": frame(PING, 0, b"an echo!", ACK),
}
Receive = Callable[[bytes], object]


@contextlib.contextmanager
def fastpost(kind: str, file: bytes) -> Iterator[Receive]:
    """A session with one open stream; where DATA is to come, its response has begun."""
    session = opened()
    session.submit([Attempt(None, file, b"/file", FIELDS)])
    session.data_to_send(NOW)
    if kind == "data":
        session.receive(frame(HEADERS, 1, RESPONSE, END_HEADERS), NOW)

    now = NOW

    def receive(octets: bytes) -> None:
        nonlocal now
        now += 60.0  # frames that move nothing are paid for by time: else they are a flood
        session.receive(octets, now)
        session.fill(now)

    yield receive
    assert session.failure is None
    close(session)


@contextlib.contextmanager
def plain_h2(kind: str, file: bytes) -> Iterator[Receive]:
    """The same with a connection of h2, its events made and dropped."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    client.receive_data(GREETING.replace(b"\x7f\xff\xff\xff", b"\x00\x0f\xff\xff"))
    client.send_headers(1, [(b":method", b"PUT"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/file")])
    if kind == "data":
        client.receive_data(frame(HEADERS, 1, RESPONSE, END_HEADERS))

    def receive(octets: bytes) -> None:
        client.receive_data(octets)
        client.data_to_send()

    yield receive


@contextlib.contextmanager
def only_hyperframe(kind: str, file: bytes) -> Iterator[Receive]:
    """Frame objects and nothing done with them."""

    def receive(octets: bytes) -> None:
        view, at = memoryview(octets), 0
        while at < len(octets):
            read, length = hyperframe.frame.Frame.parse_frame_header(view[at : at + 9])
            read.parse_body(view[at + 9 : at + 9 + length])
            at += 9 + length

    yield receive


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("reader", [fastpost, plain_h2, only_hyperframe])
def test_frames_in(
    benchmark: BenchmarkFixture,
    tmp_path: pathlib.Path,
    kind: str,
    reader: Callable[[str, bytes], contextlib.AbstractContextManager[Receive]],
) -> None:
    benchmark.group = f"frames: 1,000 in, {kind}"
    file = tmp_path / "file"
    file.write_bytes(bytes(10))
    with reader(kind, bytes(file)) as receive:
        benchmark(receive, 1000 * FRAMES[kind])
