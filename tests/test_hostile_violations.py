"""Servers that break RFC 9113 or RFC 7541, or drown the client: the code of the RFC, and every file goes up again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from h2_judge import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    number,
    rst_stream,
    settings_frame,
    window_update,
)
from hostile import FRAME, SIZES, WINDOW, HostileServer, Line, Stream, check, folder_of, upload

from fastpost.errors import ErrorCode

pytestmark = pytest.mark.timeout(30)

PROTOCOL, FLOW, SIZE, COMPRESSION, CALM = (
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
    ErrorCode.COMPRESSION_ERROR,
    ErrorCode.ENHANCE_YOUR_CALM,
)

OK = b"\x89"  # :status 204
#: An id that no client has used yet, and one that none may use.
IDLE, EVEN = 9_999, 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


# --- connection errors ----------------------------------------------------------------------------

#: What is said on an open stream of the given id, and the code that it must be answered with.
VIOLATIONS: dict[str, tuple[Callable[[int], bytes], ErrorCode]] = {
    # RFC 9113 §5.1, §5.1.1
    "DATA on an idle stream": (lambda _: frame(DATA, 0, IDLE, b"x"), PROTOCOL),
    "HEADERS on an idle stream": (lambda _: frame(HEADERS, END_HEADERS, IDLE, OK), PROTOCOL),
    "RST_STREAM on an idle stream": (lambda _: rst_stream(IDLE, 8), PROTOCOL),
    "WINDOW_UPDATE on an idle stream": (lambda _: window_update(IDLE, 1), PROTOCOL),
    "HEADERS on a stream of the server's": (lambda _: frame(HEADERS, END_HEADERS, EVEN, OK), PROTOCOL),
    # §6.1 – §6.10: streams that a type can't have
    "DATA on stream 0": (lambda _: frame(DATA, 0, 0, b"x"), PROTOCOL),
    "HEADERS on stream 0": (lambda _: frame(HEADERS, END_HEADERS, 0, OK), PROTOCOL),
    "RST_STREAM on stream 0": (lambda _: rst_stream(0, 8), PROTOCOL),
    "SETTINGS on a stream": (lambda at: frame(SETTINGS, 0, at), PROTOCOL),
    "PING on a stream": (lambda at: frame(PING, 0, at, bytes(8)), PROTOCOL),
    "GOAWAY on a stream": (lambda at: frame(GOAWAY, 0, at, bytes(8)), PROTOCOL),
    "CONTINUATION on stream 0": (lambda _: frame(CONTINUATION, END_HEADERS, 0, OK), PROTOCOL),
    # §6.6, §8.4
    "PUSH_PROMISE": (lambda at: frame(PUSH_PROMISE, END_HEADERS, at, number(EVEN) + OK), PROTOCOL),
    "PUSH_PROMISE on stream 0": (lambda _: frame(PUSH_PROMISE, END_HEADERS, 0, number(EVEN) + OK), PROTOCOL),
    # §6.2, §6.10
    "CONTINUATION without HEADERS": (lambda at: frame(CONTINUATION, END_HEADERS, at, OK), PROTOCOL),
    "CONTINUATION of another": (lambda at: frame(HEADERS, 0, at, OK) + frame(CONTINUATION, 4, at + 2), PROTOCOL),
    "DATA within a block": (lambda at: frame(HEADERS, 0, at, OK) + frame(DATA, 0, at), PROTOCOL),
    "PING within a block": (lambda at: frame(HEADERS, 0, at, OK) + frame(PING, 0, 0, bytes(8)), PROTOCOL),
    "an unknown frame within a block": (lambda at: frame(HEADERS, 0, at, OK) + frame(0x42, 0, at), PROTOCOL),
    # §4.2, §6
    "a frame beyond our limit": (lambda at: frame(DATA, 0, at, bytes(16_385)), SIZE),
    "an unknown frame of 16 MiB": (lambda _: b"\xff\xff\xff\x42" + bytes(5), SIZE),
    "PRIORITY within HEADERS too short": (lambda at: frame(HEADERS, END_HEADERS | 0x20, at, bytes(4)), SIZE),
    "RST_STREAM of 3 octets": (lambda at: frame(RST_STREAM, 0, at, bytes(3)), SIZE),
    "SETTINGS of 5 octets": (lambda _: frame(SETTINGS, 0, 0, bytes(5)), SIZE),
    "SETTINGS ACK with content": (lambda _: frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    "PING of 9 octets": (lambda _: frame(PING, 0, 0, bytes(9)), SIZE),
    "GOAWAY of 7 octets": (lambda _: frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    "WINDOW_UPDATE of 0 octets": (lambda _: frame(WINDOW_UPDATE, 0, 0), SIZE),
    "WINDOW_UPDATE of 5 octets": (lambda at: frame(WINDOW_UPDATE, 0, at, bytes(5)), SIZE),
    # §6.1, §6.2: padding
    "padding as long as DATA": (lambda at: frame(DATA, PADDED, at, b"\x05abcd"), PROTOCOL),
    "padding longer than HEADERS": (lambda at: frame(HEADERS, END_HEADERS | PADDED, at, b"\xff" + OK), PROTOCOL),
    "padding without its length": (lambda at: frame(DATA, PADDED, at), PROTOCOL),
    # §6.5.2
    "a push that is switched on": (lambda _: settings_frame({2: 1}), PROTOCOL),
    "ENABLE_PUSH of 2": (lambda _: settings_frame({2: 2}), PROTOCOL),
    "an initial window of 2^31": (lambda _: settings_frame({WINDOW: 2**31}), FLOW),
    "a frame size of 16,383": (lambda _: settings_frame({FRAME: 16_383}), PROTOCOL),
    "a frame size of 2^24": (lambda _: settings_frame({FRAME: 2**24}), PROTOCOL),
    # §6.9
    "no octets for the connection": (lambda _: window_update(0, 0), PROTOCOL),
    "the connection window over 2^31-1": (lambda _: window_update(0, LARGEST_WINDOW), FLOW),
    "windows over 2^31-1 by SETTINGS": (
        lambda at: window_update(at, 1_000_000) + settings_frame({WINDOW: LARGEST_WINDOW}),
        FLOW,
    ),
    # RFC 7541 §2.3.3, §4.2, §5.1, §5.2, §6.3
    "an index of 0": (lambda at: frame(HEADERS, END_HEADERS, at, OK + b"\x80"), COMPRESSION),
    "an index beyond the table": (lambda at: frame(HEADERS, END_HEADERS, at, OK + b"\xff\x7f"), COMPRESSION),
    "an integer without end": (lambda at: frame(HEADERS, END_HEADERS, at, b"\xff" + b"\xff" * 12), COMPRESSION),
    "a string beyond its block": (lambda at: frame(HEADERS, END_HEADERS, at, b"\x00\x7f" + bytes(9)), COMPRESSION),
    "Huffman padding of zeros": (lambda at: frame(HEADERS, END_HEADERS, at, b"\x00\x81\x00\x01x"), COMPRESSION),
    "EOS within a string": (lambda at: frame(HEADERS, END_HEADERS, at, b"\x00\x84\xff\xff\xff\xff\0"), COMPRESSION),
    "a table larger than ours": (lambda at: frame(HEADERS, END_HEADERS, at, b"\x3f\xe2\x1f" + OK), COMPRESSION),
    "a table size behind a field": (lambda at: frame(HEADERS, END_HEADERS, at, OK + b"\x20"), COMPRESSION),
    "a block that is cut off": (lambda at: frame(HEADERS, END_HEADERS, at, b"\x48\x03"), COMPRESSION),
    # Other protocols, behind a good beginning
    "HTTP/1.1": (lambda _: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", SIZE),
    "noise": (lambda _: bytes(range(255, 0, -1)) * 4, SIZE),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_connection_error(folder: Path, name: str) -> None:
    """GOAWAY with the code; the uploads go up on another connection."""
    octets, code = VIOLATIONS[name]

    def scenario(line: Line) -> None:
        line.credits = False
        line.greet({WINDOW: 20_000})
        streams = line.begun(len(SIZES))
        line.until(lambda: any(stream.ended for stream in streams))
        line.send(octets(next(stream for stream in streams if stream.length > 20_000).stream_id))
        line.drain()

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--retries", "1")
    check(outcome, folder, server)
    assert [line.goaway for line in server.lines] == [code, 0]


def test_a_post_is_not_sent_again_after_a_violation(folder: Path) -> None:
    """The server may have acted on it."""

    def scenario(line: Line) -> None:
        line.greet()
        first = line.begun(len(SIZES))[0]
        line.send(line.response(first), window_update(0, 0))
        line.drain()

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--method", "POST")
    answered = {stream.path[1:] for stream in server.lines[0].streams.values() if stream.status}
    check(
        outcome,
        folder,
        server,
        {path.name: "ProtocolViolation" for path in folder.iterdir() if path.name not in answered},
        early=answered.pop(),
    )


# --- stream errors --------------------------------------------------------------------------------

#: content-length by its index, written out; its value follows.
LENGTH = b"\x0f\x0d"
#: No content belongs to the 204 of OK.
OK_200 = b"\x88"

MALFORMED: dict[str, tuple[Callable[[Line, int], bytes], ErrorCode]] = {
    "DATA before HEADERS": (lambda line, at: frame(DATA, END_STREAM, at, b"x"), PROTOCOL),
    "no status": (lambda line, at: frame(HEADERS, END_HEADERS | END_STREAM, at, b"\x0f\x09\x01x"), PROTOCOL),
    "two statuses": (lambda line, at: frame(HEADERS, END_HEADERS | END_STREAM, at, OK + OK), PROTOCOL),
    "a status behind a field": (lambda line, at: frame(HEADERS, END_HEADERS, at, b"\x0f\x0d\x01x" + OK), PROTOCOL),
    "a request's field": (lambda line, at: frame(HEADERS, END_HEADERS, at, OK + b"\x82"), PROTOCOL),
    "an upper-case name": (lambda line, at: frame(HEADERS, END_HEADERS, at, OK + b"\x00\x01X\x01y"), PROTOCOL),
    "a newline in a value": (lambda line, at: frame(HEADERS, END_HEADERS, at, OK + b"\x00\x01x\x03a\nb"), PROTOCOL),
    "connection: close": (lambda line, at: frame(HEADERS, 4, at, OK + b"\x00\x0aconnection\x05close"), PROTOCOL),
    "a content-length that is no number": (
        lambda line, at: frame(HEADERS, 5, at, OK_200 + LENGTH + b"\x02-1"),
        PROTOCOL,
    ),
    "two content-lengths": (
        lambda line, at: (
            frame(HEADERS, 4, at, OK_200 + LENGTH + b"\x011" + LENGTH + b"\x012") + frame(DATA, 1, at, b"x")
        ),
        PROTOCOL,
    ),
    "more content than its length": (
        lambda line, at: (
            frame(HEADERS, END_HEADERS, at, OK_200 + LENGTH + b"\x011") + frame(DATA, END_STREAM, at, b"xy")
        ),
        PROTOCOL,
    ),
    "less content than its length": (lambda line, at: frame(HEADERS, 5, at, OK_200 + LENGTH + b"\x011"), PROTOCOL),
    "an interim response that ends": (lambda line, at: frame(HEADERS, 5, at, line.block(103)), PROTOCOL),
    "switching protocols": (lambda line, at: frame(HEADERS, END_HEADERS, at, line.block(101)), PROTOCOL),
    "trailers that don't end": (lambda line, at: frame(HEADERS, 4, at, OK) + frame(HEADERS, 4, at), PROTOCOL),
    "a status in trailers": (lambda line, at: frame(HEADERS, 4, at, OK) + frame(HEADERS, 5, at, OK), PROTOCOL),
    "no octets for a stream": (lambda line, at: window_update(at, 0), PROTOCOL),
    "a stream window over 2^31-1": (lambda line, at: window_update(at, LARGEST_WINDOW) * 2, FLOW),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_stream_error(folder: Path, name: str) -> None:
    """RST_STREAM with the code on that stream alone; it is retried, and the others don't notice."""
    octets, code = MALFORMED[name]
    struck: list[Stream] = []

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "data" and stream.path == "/010" and not struck:
            struck.append(stream)
            line.send(octets(line, stream.stream_id))
            stream.dropped = True
        return stream in struck

    def scenario(line: Line) -> None:
        line.greet({WINDOW: 20_000})
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--retries", "1")
    check(outcome, folder, server)
    assert outcome.repeated == (1, 0)
    assert struck[0].reset == code
    assert [line.goaway for line in server.lines] == [0]


# --- frames on streams that are over --------------------------------------------------------------


def test_frames_on_closed_streams(folder: Path) -> None:
    """What was under way when the stream ended is taken and dropped; HPACK stays in step."""

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event != "end":
            return False
        at = stream.stream_id
        line.send(
            line.response(stream),
            frame(HEADERS, END_HEADERS, at, line.block(200, late=f"late-{at}")),
            frame(DATA, END_STREAM, at, b"late"),
            window_update(at, LARGEST_WINDOW),
            window_update(at, LARGEST_WINDOW),
            rst_stream(at, 0),
            frame(PRIORITY, 0, at, bytes(5)),
        )
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server)
    check(outcome, folder, server)
    assert [line.goaway for line in server.lines] == [0]
