"""Servers that do what RFC 9113 allows and few do: every file arrives, whole, and nothing is sent twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from h2_judge import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    frame,
    goaway,
    number,
)
from hostile import FRAME, STREAMS, TABLE, WINDOW, HostileServer, Line, Stream, check, folder_of, upload
from integration.servers import Certificates, certificates

pytestmark = pytest.mark.timeout(30)

NO_ERROR, CANCEL = 0, 8


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


# --- windows and settings -------------------------------------------------------------------------


def windows_below_zero(line: Line) -> None:
    """All windows shrink to less than what was sent already, and open again."""
    line.credits = False
    line.greet({WINDOW: 60_000})
    line.until(lambda: sum(len(stream.body) for stream in line.streams.values()) > 300_000)
    line.change({WINDOW: 10})
    line.settled()
    line.change({WINDOW: 0})
    line.settled()
    line.change({WINDOW: 1_000_000})


def window_to_the_largest_and_back(line: Line) -> None:
    line.greet({WINDOW: LARGEST_WINDOW})
    line.begun(5)
    line.change({WINDOW: 1})
    line.settled()
    line.change({WINDOW: 65_535})


def streams_to_one_to_none_and_back(line: Line) -> None:
    line.greet({STREAMS: 3})
    first = line.begun(3)
    line.change({STREAMS: 1})
    line.settled()
    line.until(lambda: all(stream.ended for stream in first))
    line.change({STREAMS: 0}, *(line.response(stream) for stream in first))
    line.settled()
    # Only a client that would begin something now could answer before its PING.
    line.send(frame(PING, 0, 0, bytes(8)))
    line.take()
    assert len(line.streams) == 3
    line.change({STREAMS: 100})


def no_stream_at_first(line: Line) -> None:
    line.greet({STREAMS: 0})
    line.settled()
    line.change({STREAMS: 1})


def frames_raised_and_lowered(line: Line) -> None:
    line.greet({FRAME: 2**24 - 1, WINDOW: 100_000})
    line.until(lambda: sum(len(stream.body) for stream in line.streams.values()) > 200_000)
    line.change({FRAME: 16_384})
    line.settled()
    line.change({FRAME: 20_001})


def table_to_nothing_and_back(line: Line) -> None:
    line.greet({STREAMS: 1, TABLE: 0})
    line.serve(until=lambda: len(line.streams) == 2)
    line.change({TABLE: 4096})
    line.serve(until=lambda: len(line.streams) == 4)
    line.change({TABLE: 0})
    line.change({TABLE: 64})
    line.serve(until=lambda: len(line.streams) == 6)
    line.change({TABLE: 2**32 - 1})


def settings_of_all_kinds(line: Line) -> None:
    """An empty one, an unknown one, the same value a hundred times, and MAX_HEADER_LIST_SIZE of 0."""
    line.greet({STREAMS: 7, 6: 0, 0x99: 1})
    for _ in range(100):
        line.change({WINDOW: 70_000, 0xF0F0: 2**32 - 1})
    line.settled()
    line.change({})


# --- responses ------------------------------------------------------------------------------------


def pieces(line: Line, stream: Stream, size: int) -> bytes:
    """Return a response whose block is split over frames of `size` octets, with empty ones between."""
    stream.status = 201
    block = line.block(201, server="pieces", x_long="x" * 300)
    frames = [frame(HEADERS, END_STREAM, stream.stream_id)]
    for at in range(0, len(block), size):
        frames += [frame(CONTINUATION, 0, stream.stream_id, block[at : at + size])]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, stream.stream_id)


def blocks_in_pieces(line: Line) -> None:
    line.greet()
    line.serve(answering(lambda line, stream: pieces(line, stream, 1 + stream.stream_id % 7)))


def blocks_of_single_octets(line: Line) -> None:
    """The first answer comes an octet a frame, and an octet a segment."""
    answered: list[Stream] = []

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event != "end" or answered:
            return False
        answered.append(stream)
        for octet in pieces(line, stream, 1):
            line.send(bytes([octet]))
        return True

    line.greet()
    line.serve(react)


def padded(line: Line, stream: Stream) -> bytes:
    """HEADERS with padding and priority, DATA with padding and without content, one that is all padding."""
    stream.status = 200
    block = line.block(200, content_length="4")
    headers = frame(HEADERS, END_HEADERS | PADDED | 0x20, stream.stream_id, b"\xc8" + bytes(5) + block + bytes(200))
    return (
        headers
        + frame(DATA, PADDED, stream.stream_id, bytes(1))
        + frame(DATA, PADDED, stream.stream_id, b"\xff" + bytes(255))
        + frame(DATA, PADDED | END_STREAM, stream.stream_id, b"\x09done" + bytes(9))
    )


def interim(line: Line, stream: Stream) -> bytes:
    """100, 103 twice with fields, then the response."""
    parts = [(100, {}), (103, {"link": "</a>; rel=preload"}), (103, {"link": "</b>"}), (199, {})]
    return b"".join(
        frame(HEADERS, END_HEADERS, stream.stream_id, line.block(status, **fields)) for status, fields in parts
    ) + line.response(stream)


def trailers(line: Line, stream: Stream) -> bytes:
    """A response with content and trailers."""
    stream.status = 200
    return (
        frame(HEADERS, END_HEADERS, stream.stream_id, line.block(200))
        + frame(DATA, 0, stream.stream_id, b"taken")
        + frame(HEADERS, END_HEADERS | END_STREAM, stream.stream_id, line.block(None, checksum="1234", server_time="5"))
    )


def with_unknown_frames(line: Line, stream: Stream) -> bytes:
    """Unknown types, ALTSVC, ORIGIN, PRIORITY of any stream, PRIORITY_UPDATE, undefined flags: all round a response."""
    noise = (
        frame(0xF0, 0xFF, stream.stream_id, bytes(77))
        + frame(0x0A, 0, 0, b"\0\x05helloh2")
        + frame(0x0C, 0, 0, b"\0\x03x.y")
        + frame(PRIORITY, 0, 2**31 - 1, bytes(5))
        + frame(0x10, 0, 0, number(stream.stream_id) + b"u=1")
        + frame(PING, 0xFE, 0, bytes(8))
        + frame(0xFF, 0, 2**31 - 2, b"")
    )
    response = line.response(stream)
    return noise + response[:4] + bytes([response[4] | 0xD2 & ~PADDED & ~0x20]) + response[5:] + noise


def answering(response: Callable[[Line, Stream], bytes]) -> Callable[[Line, Stream, str], bool]:
    """Return what answers each complete request with this response."""

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "end":
            line.send(response(line, stream))
        return event == "end"

    return react


def responding(response: Callable[[Line, Stream], bytes]) -> Callable[[Line], None]:
    """Return a scenario that answers so."""

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(answering(response))

    return scenario


# --- GOAWAY ---------------------------------------------------------------------------------------


def goaway_in_two_steps(line: Line) -> None:
    """The first names no stream, the second the last one that was begun; all of them are answered."""
    line.greet({STREAMS: 4})
    line.begun(4)
    line.send(goaway(LARGEST_WINDOW))
    line.send(frame(PING, 0, 0, bytes(8)))
    line.take()
    line.send(goaway(max(line.streams)))


ORDERLY = {
    "windows below zero": windows_below_zero,
    "the largest window": window_to_the_largest_and_back,
    "few streams, none, many": streams_to_one_to_none_and_back,
    "no stream at first": no_stream_at_first,
    "frame sizes": frames_raised_and_lowered,
    "table sizes": table_to_nothing_and_back,
    "settings of all kinds": settings_of_all_kinds,
    "blocks in pieces": blocks_in_pieces,
    "single octets": blocks_of_single_octets,
    "padding": responding(padded),
    "interim responses": responding(interim),
    "trailers": responding(trailers),
    "unknown frames": responding(with_unknown_frames),
    "GOAWAY in two steps": goaway_in_two_steps,
}


@pytest.mark.parametrize("encrypted", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("name", ORDERLY)
def test_all_is_sent_once(folder: Path, loopback: Certificates, name: str, encrypted: bool) -> None:
    with HostileServer(ORDERLY[name], tls=loopback if encrypted else None) as server:
        outcome = upload(folder, server)
    check(outcome, folder, server)
    assert outcome.repeated == (0, 0)
    assert len(list(server.streams())) == len(list(folder.iterdir()))
    assert [line.goaway for line in server.lines] == [NO_ERROR] * (1 + (name == "GOAWAY in two steps"))


@pytest.mark.parametrize("encrypted", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("scope", ["stream", "connection", "both"])
def test_windows_of_one_octet(tmp_path: Path, loopback: Certificates, scope: str, encrypted: bool) -> None:
    """Each octet waits for its credit."""
    folder = folder_of(tmp_path, (0, 1, 2, 90, 91))

    def scenario(line: Line) -> None:
        line.greet(
            {WINDOW: 65_535 if scope == "connection" else 1}, window=LARGEST_WINDOW if scope == "stream" else 65_535
        )
        line.serve()

    def drained(line: Line) -> None:
        """Let the first 65,535 octets of the connection window go by, uncredited."""
        line.credits = False
        line.greet({WINDOW: 1_000_000}, window=65_535)
        line.until(lambda: sum(len(stream.body) for stream in line.streams.values()) == 65_535)
        line.credits = True
        line.send(line.credit(0, 1))

    if scope == "connection":
        folder.joinpath("large").write_bytes(bytes(65_535 + 60))
    with HostileServer(drained if scope == "connection" else scenario, tls=loopback if encrypted else None) as server:
        outcome = upload(folder, server)
    check(outcome, folder, server)
    assert outcome.repeated == (0, 0)


# --- early responses ------------------------------------------------------------------------------


@pytest.mark.parametrize("polite", [False, True], ids=["alone", "with RST_STREAM"])
@pytest.mark.parametrize("status", [200, 401, 413])
@pytest.mark.parametrize("at", ["headers", "data"])
def test_an_early_response_is_the_result(folder: Path, at: str, status: int, polite: bool) -> None:
    """The body stops: the server says so with NO_ERROR, or the client does with CANCEL."""
    struck = "010"

    def react(line: Line, stream: Stream, event: str) -> bool:
        if stream.path[1:] != struck or event != at:
            return False
        line.send(line.response(stream, status))
        if polite:
            line.send(line.reset(stream, NO_ERROR))
        return True

    def scenario(line: Line) -> None:
        line.greet({WINDOW: 30_000})
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server)
    check(outcome, folder, server, {} if status == 200 else {struck: "HttpStatus"}, early=struck)
    assert outcome.repeated == (0, 0)
    (stream,) = [stream for stream in server.streams() if stream.path[1:] == struck]
    assert not stream.ended
    assert stream.reset == CANCEL or (polite and stream.reset is None)
