"""One connection without IO: h2, as the strict server, judges all it sends; violations end it with the RFC's code."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from h2.settings import SettingCodes
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
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Judge,
    Request,
    Script,
    Wire,
    attempts,
    frame,
    goaway,
    number,
    session,
    settings_frame,
    split,
    window_update,
)
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from fastpost.errors import ConnectionLost, ErrorCode, FastpostError, NotHttp2, ProtocolViolation

INITIAL, FRAME, STREAMS, TABLE = (
    SettingCodes.INITIAL_WINDOW_SIZE,
    SettingCodes.MAX_FRAME_SIZE,
    SettingCodes.MAX_CONCURRENT_STREAMS,
    SettingCodes.HEADER_TABLE_SIZE,
)
SIZES = (0, 1, 999, 16384, 65535, 65536, 65537, 300_001, 2_500_000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return a file of each size; nobody may change them."""
    folder = tmp_path_factory.mktemp("files")
    for size in SIZES:
        (folder / str(size)).write_bytes(random.Random(size).randbytes(size))
    return {size: folder / str(size) for size in SIZES}


# --- the connection's life ------------------------------------------------------------------------


def test_begins_with_preface_and_settings() -> None:
    client = session()
    octets = client.data_to_send(1.0)
    assert octets.startswith(PREFACE)
    (first,) = split(octets)
    assert (first.kind, first.flags, first.stream_id) == (SETTINGS, 0, 0)
    told = {
        int.from_bytes(first.payload[at : at + 2], "big"): int.from_bytes(first.payload[at + 2 : at + 6], "big")
        for at in range(0, len(first.payload), 6)
    }
    assert told[SettingCodes.ENABLE_PUSH] == 0
    assert told[SettingCodes.MAX_HEADER_LIST_SIZE] == 65536


def test_requests_wait_for_the_servers_settings(files: dict[int, Path]) -> None:
    client = session()
    client.submit(attempts([files[1]]))
    assert len(list(split(client.data_to_send(1.0)))) == 1
    assert client.plane.room == 0
    client.receive(settings_frame({STREAMS: 7}), 1.0)
    assert [one.kind for one in split(client.data_to_send(1.0))] == [SETTINGS, HEADERS, DATA]
    assert client.plane.settled
    assert client.peer_settings["MAX_CONCURRENT_STREAMS"] == 7
    assert client.plane.room == 4 * 7 - 1
    client.lose(ConnectionLost("over"), 1.0)
    client.take_finished()


def test_answers_settings_and_ping() -> None:
    script = Script(session())
    script.send(frame(PING, 0, 0, b"12345678"), settings_frame({SettingCodes.MAX_FRAME_SIZE: 20_000}))
    answers = script.take()
    assert [(one.kind, one.flags, one.payload) for one in answers] == [
        (PING, ACK, b"12345678"),
        (SETTINGS, ACK, b""),
    ]


def test_our_own_ping() -> None:
    script = Script(session())
    script.client.ping()
    (ping,) = script.take()
    assert not script.client.ping_answered
    script.send(frame(PING, ACK, 0, b"of other"))
    assert not script.client.ping_answered
    script.send(frame(PING, ACK, 0, ping.payload))
    assert script.client.ping_answered
    script.client.ping()
    assert not script.client.ping_answered, "the next one is not"


def test_goodbye() -> None:
    script = Script(session())
    script.client.goodbye()
    (goodbye,) = script.take()
    assert (goodbye.kind, goodbye.payload) == (GOAWAY, number(0) + number(ErrorCode.NO_ERROR))


def test_control_frames_go_before_headers_and_data(files: dict[int, Path]) -> None:
    script = Script(session())
    script.submit([files[999]])
    script.send(frame(PING, 0, 0, b"12345678"))
    assert [one.kind for one in script.take()] == [PING, HEADERS, DATA]
    script.close()


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"HTTP/",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50 and more",
        bytes(9),
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, ACK),
        frame(SETTINGS, 0, 1),
        frame(GOAWAY, 0, 0, bytes(8)),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_server_of_another_protocol(octets: bytes, chunk: int) -> None:
    client = session()
    client.data_to_send(1.0)
    for at in range(0, len(octets), chunk):
        client.receive(octets[at : at + chunk], 1.0)
        if client.failure is not None:
            break
    assert isinstance(client.failure, NotHttp2)


# --- violations -----------------------------------------------------------------------------------


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a field block of short literals without indexing."""
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


OK = block((b":status", b"200"))
VIOLATIONS: dict[str, tuple[bytes, ErrorCode]] = {
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on stream 0": (frame(HEADERS, END_HEADERS, 0, OK), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (frame(RST_STREAM, 0, 0, number(8)), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION on stream 0": (frame(CONTINUATION, 0, 0, OK), ErrorCode.PROTOCOL_ERROR),
    "PRIORITY on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + OK), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an idle stream": (frame(HEADERS, END_HEADERS, 3, OK), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(DATA, 0, 99, b"x"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(RST_STREAM, 0, 3, number(8)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (window_update(3, 1), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an even stream": (frame(HEADERS, END_HEADERS, 2, OK), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION alone": (frame(CONTINUATION, END_HEADERS, 1, OK), ErrorCode.PROTOCOL_ERROR),
    "DATA inside a block": (frame(HEADERS, 0, 1, OK) + frame(DATA, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "PING inside a block": (frame(HEADERS, 0, 1, OK) + frame(PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "unknown inside a block": (frame(HEADERS, 0, 1, OK) + frame(0x20, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of another": (frame(HEADERS, 0, 1, OK) + frame(CONTINUATION, 4, 3), ErrorCode.PROTOCOL_ERROR),
    "padding of DATA": (frame(DATA, PADDED, 1, b"\x05abcd"), ErrorCode.PROTOCOL_ERROR),
    "padding of its whole frame": (frame(DATA, PADDED, 1, b"\x01"), ErrorCode.PROTOCOL_ERROR),
    "padding without its length": (frame(DATA, PADDED, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "padding of HEADERS": (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + OK), ErrorCode.PROTOCOL_ERROR),
    "short priority": (frame(HEADERS, END_HEADERS | 0x20, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "RST_STREAM of 3 octets": (frame(RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "RST_STREAM of 5 octets": (frame(RST_STREAM, 0, 1, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 3 octets": (frame(WINDOW_UPDATE, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 5 octets": (frame(WINDOW_UPDATE, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "PING of 7 octets": (frame(PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS of 5 octets": (frame(SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS ACK with a payload": (frame(SETTINGS, ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY of 7 octets": (frame(GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "an oversized frame": (frame(DATA, 0, 1, bytes(16385)), ErrorCode.FRAME_SIZE_ERROR),
    "an oversized unknown frame": ((2**24 - 1).to_bytes(3, "big") + b"\x99" + bytes(5), ErrorCode.FRAME_SIZE_ERROR),
    "a large initial window": (settings_frame({INITIAL: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
    "a small max frame": (settings_frame({FRAME: 16383}), ErrorCode.PROTOCOL_ERROR),
    "a large max frame": (settings_frame({FRAME: 2**24}), ErrorCode.PROTOCOL_ERROR),
    "the connection window": (window_update(0, LARGEST_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "an index beyond the table": (frame(HEADERS, END_HEADERS, 1, b"\xff\x7f"), ErrorCode.COMPRESSION_ERROR),
    "a table size beyond ours": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f"), ErrorCode.COMPRESSION_ERROR),
    "a cut block": (frame(HEADERS, END_HEADERS, 1, OK[:-1]), ErrorCode.COMPRESSION_ERROR),
    "an endless block": (
        frame(HEADERS, 0, 1, OK) + frame(CONTINUATION, 0, 1, block((b"a", b"b")) * 1000) * 20,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "empty CONTINUATIONs": (
        frame(HEADERS, 0, 1, OK) + frame(CONTINUATION, 0, 1) * 5000,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_ends_the_connection(files: dict[int, Path], name: str) -> None:
    octets, code = VIOLATIONS[name]
    script = Script(session())
    script.submit([files[999]])
    script.take()
    script.send(octets)
    failure = script.client.failure
    assert isinstance(failure, ProtocolViolation)
    assert failure.error_code == code
    assert code.name in str(failure)
    (goodbye,) = script.take()
    assert (goodbye.kind, goodbye.payload[4:8]) == (GOAWAY, number(code))
    # What comes after the end changes nothing and raises nothing.
    script.send(octets, frame(PING, 0, 0, bytes(8)))
    script.client.lose(failure, 2.0)
    script.finished += script.client.take_finished()
    assert isinstance(script.ends()[b"/0"].failure, ProtocolViolation)
    script.close()


def test_a_list_beyond_its_limit(files: dict[int, Path]) -> None:
    script = Script(session())
    script.submit([files[999]])
    script.take()
    # One entry of 4 KiB, indexed again and again: few octets, a long list.
    script.send(script.response(1, b"200", (b"x", b"v" * 3000), end_stream=False))
    script.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xbe" * 30))
    failure = script.client.failure
    assert isinstance(failure, ProtocolViolation)
    assert failure.error_code == ErrorCode.ENHANCE_YOUR_CALM
    script.close()


def test_nothing_begins_after_our_goaway(files: dict[int, Path]) -> None:
    """Regression: what waited was begun on the dying connection, so that a POST could not be sent again."""
    script = Script(session(method=b"POST", concurrency=1), {INITIAL: 10})
    submitted = script.submit([files[999], files[1]])
    script.take()
    script.send(script.response(1), frame(DATA, 0, 0, b"a violation"))
    assert {one.kind for one in script.take()} <= {GOAWAY, RST_STREAM}
    assert script.client.take_unsent() == submitted[1:]
    del submitted
    script.close()


def test_goaway_then_frames_of_the_connection(files: dict[int, Path]) -> None:
    script = Script(session(), {INITIAL: 10})
    script.submit([files[999]])
    script.take()
    script.send(goaway(1), frame(PING, 0, 0, b"12345678"), settings_frame({INITIAL: 1000}))
    frames = script.take()
    assert {one.kind for one in frames} == {PING, SETTINGS, DATA}
    assert frames[-1].flags == END_STREAM
    assert script.client.plane.room == 0
    script.send(script.response(1))
    assert script.ends()[b"/0"].ok
    script.close()


def test_unknown_settings_and_frames_are_ignored() -> None:
    """Regression: an ALTSVC (type 0xA) that h2 could not read ended the connection."""
    script = Script(session())
    script.send(frame(SETTINGS, 0, 0, b"\xab\xcd\x00\x00\x00\x01"), frame(0xEE, 0xFF, 0, b"noise"), frame(0x0A, 0, 0))
    assert script.client.failure is None
    assert script.client.peer_settings["0xabcd"] == 1
    assert [one.flags for one in script.take()] == [ACK]


# --- h2 judges ------------------------------------------------------------------------------------

Change = tuple[str, int]
changes = st.one_of(
    st.tuples(st.just("initial"), st.sampled_from([0, 1, 1000, 16384, 65535, 2**20, LARGEST_WINDOW])),
    st.tuples(st.just("frame"), st.sampled_from([16384, 16385, 40_000, 65536, 2**24 - 1])),
    st.tuples(st.just("streams"), st.sampled_from([0, 1, 2, 5, 100])),
    st.tuples(st.just("table"), st.sampled_from([0, 40, 100, 4096, 65536])),
    st.tuples(st.just("credit connection"), st.sampled_from([1, 100, 5000, 100_000])),
    st.tuples(st.just("credit streams"), st.sampled_from([1, 100, 5000, 100_000])),
    st.tuples(st.just("window"), st.sampled_from([1, 1000, 2**24])),
    st.tuples(st.just("reset"), st.integers(0, 12)),
    st.tuples(st.just("answer"), st.integers(0, 12)),
    st.tuples(st.just("submit"), st.sampled_from(SIZES)),
    st.tuples(st.just("ping"), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 10)),
)
CODES = {"initial": INITIAL, "frame": FRAME, "streams": STREAMS, "table": TABLE}


class Scenario:
    """A run of changes between a session and its judge. `early` holds the streams that the server ended itself."""

    def __init__(self, wire: Wire, files: dict[int, Path]) -> None:
        self.wire, self.judge, self.files = wire, wire.judge, files
        self.submitted = 0
        self.sizes: dict[bytes, int] = {}
        self.early: set[int] = set()

    def apply(self, what: str, value: int) -> None:
        server = self.judge.h2
        if self.judge.unacknowledged:
            self.wire.step(credit=False)
        if what in CODES:
            if what == "initial":
                # h2 counts a window that would pass 2³¹−1 as its own fault; so does the RFC.
                highest = (
                    max(map(self.judge.window, self.open()), default=0)
                    - server.local_settings.initial_window_size
                    + value
                )
                if highest > LARGEST_WINDOW:
                    return
            self.judge.change({CODES[what]: value})
        elif what == "credit connection":
            self.judge.credit(value, 0)
        elif what == "credit streams":
            self.judge.credit(0, value)
        elif what == "window":
            if server.inbound_flow_control_window + value <= LARGEST_WINDOW:
                server.increment_flow_control_window(value)
        elif what == "ping":
            server.ping(b"judgment")
        elif what == "submit":
            self.submit(value)
        elif what == "wait":
            for _ in range(value):
                self.wire.step(credit=False)
        elif opened := sorted(self.open()):
            self.end(what, opened[value % len(opened)])
        self.wire.step(credit=False)

    def open(self) -> dict[int, Request]:
        return {
            stream_id: request
            for stream_id, request in self.judge.requests.items()
            if not request.ended and request.reset is None and stream_id not in self.early
        }

    def submit(self, size: int) -> None:
        (attempt,) = attempts([self.files[size]])
        fresh = type(attempt)(size, attempt.file, b"/%d" % self.submitted, ((b"content-type", b"x/y"),))
        self.sizes[fresh.path] = size
        self.submitted += 1
        self.wire.client.submit([fresh])

    def end(self, what: str, stream_id: int) -> None:
        self.early.add(stream_id)
        self.judge.owed_streams.pop(stream_id, None)
        if what == "reset":
            self.judge.h2.reset_stream(stream_id, ErrorCode.CANCEL)
        else:
            self.judge.answer(stream_id, b"413")

    def finish(self) -> None:
        """Open all windows and wait until everything has ended."""
        server = self.judge.h2
        self.wire.step(credit=False)
        self.judge.change({STREAMS: 100, FRAME: 65536})
        for step in range(200_000):
            for stream_id in self.open():
                window = self.judge.window(stream_id)
                if window < 2**20:
                    server.increment_flow_control_window(2**22 - window, stream_id)
            if server.inbound_flow_control_window < 2**20:
                server.increment_flow_control_window(2**22)
            self.judge.owed = 0
            self.judge.owed_streams = dict.fromkeys(self.judge.owed_streams, 0)
            self.wire.step(credit=False)
            if len(self.wire.finished) >= self.submitted:
                note(f"{step} steps to the end")
                return
        raise AssertionError(f"{self.submitted - len(self.wire.finished)} attempts never ended")


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    first=st.fixed_dictionaries(
        {},
        optional={
            INITIAL: st.sampled_from([0, 1, 5000, 65535, LARGEST_WINDOW]),
            FRAME: st.sampled_from([16384, 65536, 2**24 - 1]),
            STREAMS: st.sampled_from([0, 1, 3, 100]),
            TABLE: st.sampled_from([0, 64, 4096, 8192]),
        },
    ),
    connection=st.sampled_from([65535, 2**20, LARGEST_WINDOW]),
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=8),
    acts=st.lists(changes, max_size=25),
    staged=st.booleans(),
    fair=st.booleans(),
    concurrency=st.sampled_from([1, 3, 50]),
)
@example(
    first={}, connection=65535, sizes=[2_500_000, 300_001], acts=[("initial", 0), ("initial", 65535)] * 3,
    staged=False, fair=True, concurrency=50,
)  # fmt: skip
def test_h2_finds_nothing_to_blame(
    files: dict[int, Path],
    first: dict[SettingCodes, int],
    connection: int,
    sizes: list[int],
    acts: list[Change],
    staged: bool,
    fair: bool,
    concurrency: int,
) -> None:
    judge = Judge(first, connection_window=connection)
    wire = Wire(session(staged=staged, fair=fair, concurrency=concurrency), judge)
    scenario = Scenario(wire, files)
    for size in sizes:
        scenario.submit(size)
    for what, value in acts:
        scenario.apply(what, value)
    scenario.finish()
    assert sorted(attempt.path for attempt in wire.finished) == sorted(scenario.sizes)
    bodies = judge.bodies()
    for attempt in wire.finished:
        if attempt.ok:
            assert bodies[attempt.path] == files[scenario.sizes[attempt.path]].read_bytes()
            assert attempt.payload == attempt.size == scenario.sizes[attempt.path]
    assert sum(not attempt.ok for attempt in wire.finished) <= len(scenario.early)
    for request in judge.requests.values():
        assert request.fields[b"content-length"] == b"%d" % scenario.sizes[request.fields[b":path"]]
        assert request.fields[b"content-type"] == b"x/y"
    assert wire.client.plane.open_streams == 0
    wire.finished.clear()
    wire.close()


# --- noise ----------------------------------------------------------------------------------------

payloads = st.binary(max_size=40) | st.sampled_from([OK, number(0), number(1), number(LARGEST_WINDOW), bytes(8)])
noise = st.lists(
    st.builds(frame, st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 0, 1, 1, 3, 5, 2, 99]), payloads)
    | st.binary(max_size=30),
    max_size=30,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise, st.integers(1, 100), st.booleans())
def test_noise_brings_documented_errors_only(
    files: dict[int, Path], octets: list[bytes], chunk: int, staged: bool
) -> None:
    script = Script(session(staged=staged), {INITIAL: 100_000})
    script.submit([files[999], files[300_001], files[0]])
    script.take()
    script.send(*octets, chunk=chunk)
    script.take()
    failure: FastpostError | None = script.client.failure
    assert failure is None or isinstance(failure, ProtocolViolation)
    script.close()
    assert len(script.ends()) == 3


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_octet_in_a_good_exchange(files: dict[int, Path], at: int, flip: int) -> None:
    script = Script(session(keep_responses=True))
    script.submit([files[999], files[1]])
    script.take()
    good = bytearray(
        script.response(1, b"103", (b"link", b"</x>"), end_stream=False)
        + script.response(1, b"200", (b"server", b"judge"), end_stream=False)
        + frame(DATA, PADDED, 1, b"\x03body" + bytes(3))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, script.block((b"checksum", b"1")))
        + settings_frame({INITIAL: 5, FRAME: 20_000})
        + window_update(0, 70_000)
        + script.response(3, b"404")
        + goaway(3)
    )
    good[at % len(good)] ^= flip
    script.send(bytes(good))
    script.take()
    assert script.client.failure is None or isinstance(script.client.failure, ProtocolViolation)
    script.close()
    assert len(script.ends()) == 2
