"""Octets cut into frames: at any place, of any size, and nothing beyond our limit."""

from __future__ import annotations

import random

import pytest
from h2_judge import (
    DATA,
    END_STREAM,
    PING,
    Script,
    frame,
    session,
    settings_frame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpost._frames import InboundBuffer
from fastpost.errors import ErrorCode, NotHttp2, ProtocolViolation


def pings(script: Script) -> list[bytes]:
    """Return the payloads of the PINGs that the session answers: each whole frame once, in order."""
    return [one.payload for one in script.take() if one.kind == PING]


def numbered(count: int) -> list[bytes]:
    return [b"%08d" % index for index in range(count)]


def test_a_buffer_is_made_and_dropped() -> None:
    assert InboundBuffer() is not None
    assert InboundBuffer(16384) is not None


@pytest.mark.parametrize("chunk", [1, 8, 9, 16, 17, 18, 4096, 0])
def test_frames_cut_anywhere(chunk: int) -> None:
    script = Script(session())
    script.send(*(frame(PING, 0, 0, payload) for payload in numbered(500)), chunk=chunk)
    assert pings(script) == numbered(500)


@given(st.lists(st.integers(1, 40), min_size=1), st.integers(0, 2**32))
@settings(max_examples=50)
def test_any_cut_gives_the_same_frames(cuts: list[int], seed: int) -> None:
    script = Script(session())
    fillers = random.Random(seed)
    octets = b"".join(
        frame(0x40, 0, 0, bytes(fillers.randrange(60))) + frame(PING, 0, 0, payload) for payload in numbered(60)
    )
    at = index = 0
    while at < len(octets):
        script.send(octets[at : at + cuts[index % len(cuts)]])
        at += cuts[index % len(cuts)]
        index += 1
    assert pings(script) == numbered(60)


def test_more_octets_than_the_buffer_holds_at_once() -> None:
    script = Script(session())
    largest = frame(0x40, 0, 0, bytes(16384))
    script.send(largest * 50, frame(PING, 0, 0, b"the last"))
    assert pings(script) == [b"the last"]
    assert script.client.failure is None


def test_the_reserved_bit_is_ignored() -> None:
    script = Script(session())
    octets = bytearray(frame(PING, 0, 0, b"reserved"))
    octets[5] |= 0x80
    script.send(bytes(octets))
    assert pings(script) == [b"reserved"]


def test_the_size_limit_is_exact_and_known_from_the_header() -> None:
    script = Script(session())
    script.send(frame(0x40, 0, 0, bytes(16384)))
    assert script.client.failure is None
    script.send(frame(DATA, END_STREAM, 1, bytes(16385))[:9])
    failure = script.client.failure
    assert isinstance(failure, ProtocolViolation)
    assert failure.error_code == ErrorCode.FRAME_SIZE_ERROR


def test_every_prefix_of_a_first_frame_waits() -> None:
    octets = settings_frame({})
    for length in range(len(octets)):
        client = session()
        settled = []
        for part in (octets[:length], octets[length:]):
            client.receive(part, 1.0)
            settled.append(client.plane.settled)
        assert settled == [False, True]


@pytest.mark.parametrize("length", range(5, 10))
def test_http_1_1_is_told_from_its_first_word(length: int) -> None:
    client = session()
    client.receive(b"HTTP/1.1 400 Bad Request"[:length], 1.0)
    assert isinstance(client.failure, NotHttp2)
    assert "HTTP/1.1" in str(client.failure)


def test_later_frames_may_look_like_http_1_1() -> None:
    script = Script(session())
    # 0x485454 octets would be too long; so the word inside a payload must not matter.
    script.send(frame(0x40, 0, 0, b"HTTP/1.1"), frame(PING, 0, 0, b"HTTP/1.1"))
    assert pings(script) == [b"HTTP/1.1"]
