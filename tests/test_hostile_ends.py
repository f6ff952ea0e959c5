"""Servers that refuse, reset, go away, fall silent or close at any point: each file has its one, right result."""

from __future__ import annotations

import collections
import itertools
import random
from pathlib import Path

import pytest
from h2_judge import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, goaway, rst_stream
from hostile import SIZES, STREAMS, WINDOW, HostileServer, Line, Scenario, Stream, check, folder_of, upload
from integration.servers import Certificates, certificates

from fastpost import connection
from fastpost.errors import ErrorCode

pytestmark = pytest.mark.timeout(30)

#: Every code of RFC 9113 §7, and one that nobody knows.
CODES = (*ErrorCode, 0xDEAD)

ENCRYPTED = pytest.mark.parametrize("encrypted", [False, True], ids=["cleartext", "tls"])


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


# --- resets ---------------------------------------------------------------------------------------

POINTS = ("headers", "data", "end", "responded", "answering", "over")


class Resets:
    """Resets the first attempt at each file: its number chooses the code and the point."""

    def __init__(self) -> None:
        self._struck: set[str] = set()

    def __call__(self, line: Line) -> None:
        line.greet({WINDOW: 10_000})
        line.serve(self._react)

    @staticmethod
    def case(path: str) -> tuple[int, str]:
        """Return code and point."""
        code, point = divmod(int(path[-3:]), len(POINTS))
        return CODES[code], POINTS[point]

    def _react(self, line: Line, stream: Stream, event: str) -> bool:
        code, point = self.case(stream.path)
        if event != (point if point in ("headers", "data") else "end") or stream.path in self._struck:
            return False
        self._struck.add(stream.path)
        if point == "over":
            line.send(line.response(stream), rst_stream(stream.stream_id, code))
            return True
        if point in ("responded", "answering"):
            line.send(frame(HEADERS, END_HEADERS, stream.stream_id, line.block(201)))
        if point == "answering":
            line.send(frame(DATA, 0, stream.stream_id, b"taken, or"))
        line.send(line.reset(stream, code))
        return True


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_every_error_code_at_every_point(tmp_path: Path, method: str) -> None:
    """PUT is repeated. POST is not, unless the server says that it did not look at the request."""
    folder = folder_of(tmp_path, [25_000] * (len(CODES) * len(POINTS)))
    with HostileServer(Resets(), times=1) as server:
        outcome = upload(folder, server, "--method", method, "--retries", "1")
    failed = {}
    refused = 0
    for path in folder.iterdir():
        code, point = Resets.case(path.name)
        if point == "over":
            continue
        if code == ErrorCode.REFUSED_STREAM:
            refused += 1
        elif method == "POST":
            failed[path.name] = "ServerOverloaded" if code == ErrorCode.ENHANCE_YOUR_CALM else "StreamReset"
    check(outcome, folder, server, failed)
    assert outcome.repeated == (0 if method == "POST" else (len(CODES) - 1) * (len(POINTS) - 1), refused)
    assert len(server.lines) == 1


@pytest.mark.parametrize("seed", range(3))
def test_streams_refused_at_random(tmp_path: Path, seed: int) -> None:
    """A third of the requests, at their HEADERS or in the middle of their body, whatever the method."""
    folder = folder_of(tmp_path, [size for size in SIZES if size] * 8)
    chance = random.Random(seed)
    refused: collections.Counter[str] = collections.Counter()

    def react(line: Line, stream: Stream, event: str) -> bool:
        # More than five times in a row is another story.
        if event == "end" or refused[stream.path] == 5 or chance.random() > 0.3 / (1 + stream.length // 16_384):
            return False
        refused[stream.path] += 1
        line.send(line.reset(stream, ErrorCode.REFUSED_STREAM))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--method", "POST", "--retries", "0")
    check(outcome, folder, server)
    retried, replayed = outcome.repeated
    assert retried == 0
    assert replayed == refused.total() > 0


# --- GOAWAY ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("code", [ErrorCode.NO_ERROR, ErrorCode.INTERNAL_ERROR, ErrorCode.ENHANCE_YOUR_CALM])
def test_goaway_in_the_middle_of_bodies(folder: Path, code: int, method: str) -> None:
    """Promised streams are finished where they are, the others on a new connection; a second GOAWAY promises less."""

    def scenario(line: Line) -> None:
        line.credits = False
        line.greet({WINDOW: 20_000})
        streams = sorted(line.begun(len(SIZES)), key=lambda stream: stream.stream_id)
        line.until(lambda: sum(len(stream.body) for stream in streams) > 100_000)
        for last in (7, 4):
            for stream in streams[last:]:
                stream.dropped = True
            line.send(goaway(streams[last - 1].stream_id, code))
        line.credits = True
        line.send(*(line.credit(stream.stream_id, 500_000) for stream in streams[:4] if not stream.ended))

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--method", method, "--retries", "0")
    check(outcome, folder, server)
    assert len(server.lines) == 2
    assert len(server.lines[0].streams) == len(SIZES)
    assert len(server.lines[1].streams) == len(SIZES) - 4


def test_goaway_that_names_no_stream(folder: Path) -> None:
    def scenario(line: Line) -> None:
        line.greet()
        line.begun(3)
        line.send(goaway(0))
        line.drain()

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--method", "POST", "--retries", "0")
    check(outcome, folder, server)


# --- the end of the connection --------------------------------------------------------------------


def content(stream: Stream) -> bytes:
    """Return the rest of a response: five octets, and the end in a frame of its own."""
    return frame(DATA, 0, stream.stream_id, b"taken") + frame(DATA, END_STREAM, stream.stream_id)


@pytest.mark.parametrize("abort", [False, True], ids=["fin", "rst"])
def test_closed_at_each_octet_of_an_answer(tmp_path: Path, abort: bool) -> None:
    """One connection for each octet: a good answer, a cut one, the end. A cut answer is none."""
    folder = folder_of(tmp_path, [300] * 120)
    cuts = 45  # more than the octets of the answer

    def scenario(line: Line) -> None:
        line.greet({STREAMS: 2})
        first, second = itertools.islice(line.begun(2), 2)
        line.until(lambda: first.ended and second.ended)
        good = line.response(first)
        whole = frame(HEADERS, END_HEADERS, second.stream_id, line.block(201, server="cut")) + content(second)
        second.status = 201 if line.number >= len(whole) else 0
        line.send(good, whole[: line.number])
        line.close(abort=abort)

    with HostileServer(scenario, times=cuts) as server:
        outcome = upload(folder, server, "--retries", "60")
    check(outcome, folder, server)
    assert len(server.lines) > cuts


@pytest.mark.parametrize("abort", [False, True], ids=["fin", "rst"])
def test_closed_at_each_octet_of_its_settings(tmp_path: Path, abort: bool) -> None:
    """A server that spoke HTTP/2 a moment ago is asked again: nothing was sent."""
    folder = folder_of(tmp_path, [300] * 40)
    first = frame(SETTINGS, 0, 0, b"\0\x04\0\1\0\0") + frame(SETTINGS, ACK)

    def scenario(line: Line) -> None:
        if line.number % 2 == 0:
            line.greet({STREAMS: 1})
            line.serve(until=lambda: len(line.streams) == 2)
        else:
            line.send(first[: line.number // 2])
        line.close(abort=abort)

    with HostileServer(scenario, times=2 * len(first)) as server:
        # The upload that was lost goes first on the next connection, and may be the second one there again.
        outcome = upload(folder, server, "--retries", "60")
    check(outcome, folder, server)
    assert len(server.lines) > 2 * len(first)


@pytest.mark.parametrize("said", [b"", b"\0", frame(SETTINGS)[:8]])
def test_closed_before_any_settings(folder: Path, said: bytes) -> None:
    """A server that never spoke HTTP/2 is no HTTP/2 server."""

    def scenario(line: Line) -> None:
        line.send(said)
        line.close()

    with HostileServer(scenario) as server:
        outcome = upload(folder, server)
    assert outcome.code == 4
    assert set(outcome.failed.values()) == {"NotHttp2"}
    assert len(outcome.failed) == len(SIZES)


@ENCRYPTED
@pytest.mark.parametrize("abort", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("moment", ["begun", "in a body", "ended"])
def test_closed_in_the_middle(folder: Path, loopback: Certificates, moment: str, abort: bool, encrypted: bool) -> None:
    """Over TLS without its close_notify."""

    def scenario(line: Line) -> None:
        line.greet()
        streams = line.begun(4)
        if moment == "in a body":
            line.until(lambda: any(stream.body for stream in streams))
        elif moment == "ended":
            line.until(lambda: any(stream.ended and stream.length for stream in streams))
        line.close(abort=abort)

    with HostileServer(scenario, times=3, tls=loopback if encrypted else None) as server:
        outcome = upload(folder, server)
    check(outcome, folder, server)
    assert len(server.lines) == 4


# --- silence --------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for stalls often, and give a PING less time."""
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(connection, "_PING_TIMEOUT", 0.5)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for stalls often."""
    monkeypatch.setattr(connection, "_CHECK_INTERVAL", 0.02)


def stops_reading(line: Line) -> None:
    line.greet({WINDOW: 10_000_000})
    line.begun(2)
    line.rest()


def stops_answering(line: Line) -> None:
    line.pinged = lambda ping: None  # type: ignore[method-assign]
    line.greet({WINDOW: 10_000_000})
    line.drain()


def stops_crediting(line: Line) -> None:
    line.pinged = lambda ping: None  # type: ignore[method-assign]
    line.greet({WINDOW: 100})
    line.drain()


@ENCRYPTED
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("scenario", [stops_reading, stops_answering, stops_crediting])
def test_a_silent_connection_is_given_up(
    folder: Path, loopback: Certificates, scenario: Scenario, encrypted: bool
) -> None:
    folder.joinpath("large").write_bytes(bytes(8_000_000))
    with HostileServer(scenario, tls=loopback if encrypted else None) as server:
        outcome = upload(folder, server, "--stall-timeout", "0.3")
    check(outcome, folder, server)
    assert len(server.lines) == 2
    assert server.lines[0].pings == (scenario is not stops_reading)


@pytest.mark.usefixtures("watchful")
def test_silent_streams_of_a_server_that_answers_ping(folder: Path) -> None:
    """The connection is kept, the streams that stand still are cancelled and go up again."""

    def scenario(line: Line) -> None:
        line.credits = False
        line.greet({WINDOW: 100})
        streams = line.begun(len(SIZES))
        line.until(lambda: all(stream.reset is not None for stream in streams))
        line.credits = True
        line.change({WINDOW: 100_000})

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--stall-timeout", "0.3")
    check(outcome, folder, server)
    assert outcome.repeated == (len(SIZES), 0)
    assert len(server.lines) == 1
    assert {stream.reset for stream in itertools.islice(server.streams(), len(SIZES))} == {ErrorCode.CANCEL}


@pytest.mark.usefixtures("watchful")
def test_a_server_that_allows_no_stream_is_waited_for_and_that_is_told(folder: Path) -> None:
    """For many stall timeouts, as long as it answers PING."""

    def scenario(line: Line) -> None:
        line.greet({STREAMS: 0})
        line.until(lambda: line.pings >= 3)
        line.change({STREAMS: 100})
        line.serve()

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--stall-timeout", "0.1", "--retries", "0")
    check(outcome, folder, server)
    assert "the server allows no upload at present" in outcome.err


@pytest.mark.usefixtures("watchful")
def test_a_stream_that_is_never_answered_fails_alone(folder: Path) -> None:
    """It has its retries; the others are answered meanwhile."""

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(lambda line, stream, event: stream.path == "/003")

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--stall-timeout", "0.3", "--retries", "1")
    check(outcome, folder, server, {"003": "Stalled"})
    assert outcome.repeated == (1, 0)
