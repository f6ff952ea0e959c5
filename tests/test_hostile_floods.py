"""Servers that send without end: the connection ends with ENHANCE_YOUR_CALM, memory stays flat, the rest goes up."""

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
    HEADERS,
    LARGEST_WINDOW,
    PING,
    PRIORITY,
    SETTINGS,
    frame,
    goaway,
    rst_stream,
    settings_frame,
    window_update,
)
from hostile import SANITIZED, WINDOW, HostileServer, Line, Outcome, check, folder_of, upload, upload_apart

pytestmark = [pytest.mark.timeout(120 if SANITIZED else 40)]

MIB = 1024 * 1024
#: What an attack may cost beyond a good run. The client's buffers for a connection are 450 KB.
#: A sanitizer keeps what was freed, so under one these tests look for wrong accesses alone.
MARGIN = 1024 * MIB if SANITIZED else 16 * MIB
#: Uploads under way when the flood begins; they fail, as nothing is retried here.
IN_FLIGHT = 3
SIZES = (0, 100, 5_000, 60_000, 100_000, 100, 3, 70_000)

#: What is sent over and over on an open stream of the given id; stream 1 has been answered.
FLOODS: dict[str, Callable[[Line, int], bytes]] = {
    "PING": lambda line, at: frame(PING, 0, 0, b"12345678"),
    "PING answers": lambda line, at: frame(PING, ACK, 0, b"12345678"),
    "empty SETTINGS": lambda line, at: frame(SETTINGS),
    "long SETTINGS": lambda line, at: settings_frame({0x1000 + code: code for code in range(2_000)}),
    "SETTINGS answers": lambda line, at: frame(SETTINGS, ACK),
    "windows up and down": lambda line, at: settings_frame({WINDOW: 1}) + settings_frame({WINDOW: 0}),
    "RST_STREAM": lambda line, at: rst_stream(1, 8),
    "PRIORITY": lambda line, at: frame(PRIORITY, 0, at, bytes(5)),
    "unknown frames": lambda line, at: frame(0x42, 0xFF, at, bytes(16_384)),
    "unknown frames of the connection": lambda line, at: frame(0x42, 0, 0),
    "GOAWAY": lambda line, at: goaway(LARGEST_WINDOW),
    "credit for the connection": lambda line, at: window_update(0, 1),
    "credit for a stream": lambda line, at: window_update(at, 1),
    "credit for a closed stream": lambda line, at: window_update(1, 1),
    "empty DATA": lambda line, at: frame(DATA, 0, at),
    "empty DATA on a closed stream": lambda line, at: frame(DATA, 0, 1),
    "interim responses": lambda line, at: frame(HEADERS, END_HEADERS, at, line.block(103, link="</a>")),
    "responses on a closed stream": lambda line, at: frame(HEADERS, END_HEADERS | END_STREAM, 1, line.block(200)),
    "empty CONTINUATION": lambda line, at: frame(CONTINUATION, 0, at),
    "long CONTINUATION": lambda line, at: frame(CONTINUATION, 0, at, b"\x00\x01a\x7d" + b"x" * 125),
}


def flooding(name: str) -> Callable[[Line], None]:
    """Return the scenario: one answer, and then the flood; the client's own words are never read."""

    def scenario(line: Line) -> None:
        line.greet({WINDOW: 100}, window=1_000_000)
        first = line.begun(IN_FLIGHT)[0]
        line.until(lambda: first.stream_id == 1)
        line.send(rst_stream(1, 7))
        first.dropped = True
        at = 3
        if name.endswith("DATA"):
            line.send(frame(HEADERS, END_HEADERS, at, line.block(200)))
        if "CONTINUATION" in name:
            line.send(frame(HEADERS, 0, at, b"\x88"))
        flood = b"".join(FLOODS[name](line, at) for _ in range(100))
        for _ in range(100_000):
            line.send(flood)
        line.blame("was flooded without end")

    return scenario


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The largest resident set of a good run."""
    folder = folder_of(tmp_path_factory.mktemp("calm"), SIZES)
    with HostileServer(lambda line: line.greet()) as server:
        outcome, octets = upload_apart(folder, server)
    check(outcome, folder, server)
    return octets


def check_flooded(outcome: Outcome, folder: Path, server: HostileServer) -> None:
    """Assert that what was in flight failed and all else went up."""
    assert 1 <= len(outcome.failed) <= IN_FLIGHT
    check(outcome, folder, server, dict.fromkeys(outcome.failed, "ProtocolViolation"))
    assert "ENHANCE_YOUR_CALM" in outcome.err


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends(tmp_path: Path, calm: int, name: str) -> None:
    folder = folder_of(tmp_path, SIZES)
    with HostileServer(flooding(name)) as server:
        outcome, octets = upload_apart(folder, server, "--retries", "0", "--concurrency", str(IN_FLIGHT))
    check_flooded(outcome, folder, server)
    assert octets < calm + MARGIN


@pytest.mark.parametrize("name", ["PING", "empty SETTINGS", "empty DATA", "interim responses"])
def test_a_flood_over_and_over(tmp_path: Path, name: str) -> None:
    """Every connection is flooded, and in the end the server is given up."""
    folder = folder_of(tmp_path, SIZES)
    with HostileServer(flooding(name), times=1_000) as server:
        outcome, _ = upload_apart(folder, server, "--retries", "2", "--concurrency", str(IN_FLIGHT))
    assert not server.violations, server.violations
    assert outcome.code == 1
    assert len(outcome.failed) == len(SIZES)
    assert set(outcome.failed.values()) <= {"ProtocolViolation", "ConnectFailed"}


def test_content_without_end(tmp_path: Path, calm: int) -> None:
    """A response that goes on and on, within its windows, is no response. The connection stays."""
    folder = folder_of(tmp_path, SIZES)

    def endless(line: Line) -> None:
        line.greet()
        (stream, *_) = [one for one in line.begun(IN_FLIGHT) if one.length > 3]
        line.send(frame(HEADERS, END_HEADERS, stream.stream_id, line.block(200)))
        while stream.reset is None:
            granted = line.granted
            line.send(frame(DATA, 0, stream.stream_id, bytes(16_384)) * 2)
            line.until(lambda granted=granted: line.granted >= granted + 65_536 or stream.reset is not None)  # type: ignore[misc]

    with HostileServer(endless) as server:
        outcome, octets = upload_apart(folder, server, "--retries", "0", "--concurrency", str(IN_FLIGHT))
    assert len(outcome.failed) == 1
    check(outcome, folder, server, dict.fromkeys(outcome.failed, "ProtocolViolation"))
    assert len(server.lines) == 1
    assert octets < calm + MARGIN


@pytest.mark.parametrize("indexed", [False, True], ids=["long", "blown up"])
def test_a_list_without_end(tmp_path: Path, indexed: bool) -> None:
    """Fields beyond 64 KiB, also those that a few octets of HPACK stand for."""
    folder = folder_of(tmp_path, SIZES)

    def scenario(line: Line) -> None:
        line.greet({WINDOW: 100})
        line.begun(IN_FLIGHT)
        block = b"\x88\x40\x01a\x7f\x81\x1e" + b"x" * 4_000 + b"\xbe" * 4_000
        if not indexed:
            block = b"\x88" + (b"\x00\x01a\x7f\x81\x1e" + b"x" * 4_000) * 20
        pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        line.send(frame(HEADERS, 0, 3, pieces[0]), *(frame(CONTINUATION, 0, 3, piece) for piece in pieces[1:]))
        line.send(frame(CONTINUATION, END_HEADERS, 3))
        line.drain()

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--retries", "0", "--concurrency", str(IN_FLIGHT))
    check_flooded(outcome, folder, server)
