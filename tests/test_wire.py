"""_wire: a plane's octets through a socket, in cleartext and by TLS; and conversations that nobody is told of."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2_judge import DATA, HEADERS, OPEN, PING, Files, Script, frame, session, split, window_update
from h2_judge import files as files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.servers import Certificates
from test_readahead import evicted

from fastpost._patience import Patience
from fastpost._rate_limit import RateLimit
from fastpost._wire import TlsWire, Wire
from fastpost.errors import ProtocolViolation

NOW = 1.0
Pair = tuple[socket.socket, socket.socket]

PINGS = [b"%08d" % number for number in range(2000)]
OCTETS = b"".join(frame(PING, 0, 0, payload) for payload in PINGS)
#: Frames of an unknown type, which move nothing: more of them than one receive takes.
FILLER = frame(0x40, 0, 0, bytes(16384)) * 9


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
        ours.setblocking(False)
        theirs.settimeout(20)
        yield ours, theirs


@pytest.fixture
def secured(pair: Pair, loopback: Certificates) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of a TLS connection."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(loopback.chain, loopback.key)
    client = ssl.create_default_context(cafile=str(loopback.cafile))
    ours, theirs = pair
    ours.setblocking(True)
    there: list[ssl.SSLSocket] = []
    other = threading.Thread(target=lambda: there.append(server.wrap_socket(theirs, server_side=True)))
    other.start()
    with client.wrap_socket(ours, server_hostname="127.0.0.1") as here:
        other.join()
        here.setblocking(False)
        with there[0]:
            yield here, there[0]


def received(sock: socket.socket) -> bytes:
    """Return all that waits in a socket."""
    octets = b""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
        while got := sock.recv(1 << 20):
            octets += got
    return octets


def over(script: Script, sock: socket.socket) -> Wire:
    plane = script.client.plane
    return TlsWire(plane, sock) if isinstance(sock, ssl.SSLSocket) else Wire(plane, sock.fileno())


def kinds(octets: bytes) -> list[int]:
    """Return the kinds of whole frames."""
    return [one.kind for one in split(octets)]


def pings(script: Script) -> list[bytes]:
    return [one.payload for one in script.take() if one.kind == PING]


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 70_000))
def test_a_socket_brings_the_same(piece: int) -> None:
    script = Script(session())
    ours, server = socket.socketpair()
    with ours, server:
        wire = Wire(script.client.plane, ours.fileno())
        for at in range(0, len(OCTETS), piece):
            server.sendall(OCTETS[at : at + piece])
            assert wire.receive(NOW) == -errno.EAGAIN
        server.close()
        assert wire.receive(NOW) == 0
    assert pings(script) == PINGS
    assert Wire(script.client.plane, -1).receive(NOW) == -errno.EBADF


def test_so_does_tls(secured: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    ours, theirs = secured
    script = Script(session())
    wire = TlsWire(script.client.plane, ours)
    assert wire.receive(NOW) == -errno.EAGAIN
    for at in range(0, len(OCTETS), 20_000):
        theirs.sendall(OCTETS[at : at + 20_000])
        assert wire.receive(NOW) == -errno.EAGAIN
    assert pings(script) == PINGS
    theirs.sendall(OCTETS[:17])
    theirs.close()
    assert wire.receive(NOW) == 0
    assert pings(script) == [b"00000000"]


def test_a_record_that_is_none_is_an_error(secured: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    ours, theirs = secured
    with socket.socket(fileno=theirs.detach()) as plain:
        plain.sendall(bytes(100))
        with pytest.raises(OSError, match=r"(?i)record|version"):
            TlsWire(session().plane, ours).receive(NOW)


@pytest.mark.parametrize("tls", [False, True])
def test_a_socket_that_takes_no_more(tls: bool, pair: Pair, files: Files, request: pytest.FixtureRequest) -> None:
    ours, theirs = request.getfixturevalue("secured") if tls else pair
    script = Script(session(staged=tls), OPEN, window=2**31 - 1 - 65_535)
    script.submit(files(5_000_000))
    wire = over(script, ours)
    assert wire.send(NOW, 100) == -errno.EAGAIN
    assert script.client.gather.pending
    received(theirs)
    assert wire.send(NOW, 1) in (1, -errno.EAGAIN)
    theirs.close()
    left = 1
    while left == 1 or left == -errno.EAGAIN:
        left = wire.send(NOW, 100)
    assert left in (-errno.EPIPE, -errno.ECONNRESET)
    script.close()


# --- conversations --------------------------------------------------------------------------------


def near(files: Files, *sizes: int, concurrency: int = 50, staged: bool = False) -> Script:
    """Return a peer with a window of 65,535 octets that is used up, and that was opened at once a thousand times."""
    script = Script(session(staged=staged, concurrency=concurrency), OPEN)
    script.now = time.monotonic()  # what a conversation goes by
    script.submit(files(*sizes))
    script.take()
    script.send(*[window_update(0, 1)] * 1000)
    script.take()
    return script


def test_credit_is_answered_and_more_is_waited_for_in_one_call(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = near(files, 900_000)
    wire = Wire(script.client.plane, ours.fileno())
    theirs.sendall(window_update(0, 65_535) + FILLER + frame(PING, 0, 0, b"01234567") + window_update(0, 65_535))
    assert wire.converse(Patience(), math.inf) == -errno.EAGAIN
    sent = kinds(received(theirs))
    # What each credit allows went out before the call was over.
    assert DATA in sent[: sent.index(PING)]
    assert DATA in sent[sent.index(PING) :]
    script.close()


def test_a_conversation_ends_in_time(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = near(files, 900_000)
    theirs.sendall(FILLER + window_update(0, 65_535))
    assert Wire(script.client.plane, ours.fileno()).converse(Patience(), 0.0) == -errno.EAGAIN
    # All was received, and what one receive had allowed was sent; the rest is for the next tick.
    assert DATA not in kinds(received(theirs))
    assert any(one.kind == DATA for one in script.take())
    script.close()


@pytest.mark.parametrize(("behind", "begun"), [(0, 4), (100, 3)])
def test_who_has_more_work_is_told_when_the_line_is_half_empty(
    behind: int, begun: int, pair: Pair, files: Files
) -> None:
    """Of eight uploads, four are open. When three more are, only one waits: that is left to who is told."""
    ours, theirs = pair
    script = near(files, *[100] * 8, concurrency=4)
    script.client.plane.behind = behind
    answers = b"".join(script.response(stream) for stream in (1, 3, 5))
    theirs.sendall(answers + FILLER + script.response(7))
    assert Wire(script.client.plane, ours.fileno()).converse(Patience(), math.inf) == -errno.EAGAIN
    assert kinds(received(theirs)).count(HEADERS) == begun
    assert len(script.client.take_finished()) == 4
    script.close()


def test_a_conversation_tells_that_it_waited_in_vain(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = near(files, 900_000)
    wire = Wire(script.client.plane, ours.fileno())
    assert not wire.gave_up
    theirs.sendall(window_update(0, 65_535))
    assert wire.converse(Patience(), math.inf) == -errno.EAGAIN
    assert wire.gave_up
    theirs.sendall(frame(PING, 0, 0, b"01234567"))
    assert wire.converse(Patience(), 0.0) == -errno.EAGAIN
    assert not wire.gave_up
    script.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_conversation_tells_that_nothing_is_left_to_do(
    tls: bool, pair: Pair, files: Files, request: pytest.FixtureRequest
) -> None:
    ours, theirs = request.getfixturevalue("secured") if tls else pair
    script = Script(session(staged=tls, concurrency=4), OPEN)
    script.now = time.monotonic()
    script.submit(files(*[100] * 8))
    script.take()
    wire = over(script, ours)
    assert not wire.quiet
    theirs.sendall(script.response(1))
    assert wire.converse(Patience(), 0.0) == -errno.EAGAIN
    assert wire.quiet, "what ended waits for more of its kind, and the next one was begun"
    assert wire.receive(NOW) == -errno.EAGAIN
    assert not wire.quiet, "nobody knows what that has brought"
    theirs.sendall(script.response(3) + script.response(5) + script.response(7))
    assert wire.converse(Patience(), 0.0) == -errno.EAGAIN
    assert not wire.quiet, "no more is in line: that is to be told"
    assert len(script.client.take_finished()) == 4
    script.close()


def test_a_conversation_that_has_more_to_send_is_not_quiet(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = Script(session(concurrency=4), OPEN, window=2**31 - 1 - 65_535)
    script.now = time.monotonic()
    script.submit(files(5_000_000, 100))
    wire = Wire(script.client.plane, ours.fileno())
    theirs.sendall(frame(PING, 0, 0, b"01234567"))
    assert wire.converse(Patience(), math.inf) == -errno.EAGAIN
    assert not wire.quiet
    script.close()


def test_a_conversation_that_holds_crumbs_is_not_quiet(pair: Pair, files: Files) -> None:
    """They are due at a time of their own, which somebody has to see to."""
    ours, theirs = pair
    script = near(files, 900_000)
    wire = Wire(script.client.plane, ours.fileno())
    theirs.sendall(window_update(0, 65_535 + 100))
    assert wire.converse(Patience(), 0.0) == -errno.EAGAIN
    assert bool(script.client.plane.wake_at) != wire.quiet
    theirs.sendall(window_update(0, 10))
    assert wire.converse(Patience(), 0.0) == -errno.EAGAIN
    assert script.client.plane.wake_at
    assert not wire.quiet
    script.close()


def test_a_conversation_that_a_rate_limit_holds_back_is_not_quiet(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = Script(session(concurrency=4, rate_limit=RateLimit(100_000)), OPEN, window=2**31 - 1 - 65_535)
    script.now = time.monotonic()
    script.submit(files(50_000, 100))
    wire = Wire(script.client.plane, ours.fileno())
    theirs.sendall(frame(PING, 0, 0, b"01234567"))
    assert wire.converse(Patience(), 0.0) == -errno.EAGAIN
    assert script.client.plane.wake_at
    assert not wire.quiet
    script.close()


def test_octets_on_the_way() -> None:
    """By the kernel: what the socket took and the peer's has not got."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setblocking(False)
        wire = Wire(session().plane, ours.fileno())
        assert wire.on_the_way() == 0
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += ours.send(bytes(65_536))
        assert 0 < wire.on_the_way() < sent
    assert Wire(session().plane, -1).on_the_way() == 0


def test_a_wait_for_the_disk_in_a_conversation_is_the_disks(tmp_path: Path, pair: Pair) -> None:
    ours, theirs = pair
    script = Script(session(staged=False), OPEN)
    script.now = time.monotonic()
    script.submit([evicted(tmp_path / str(number)) for number in range(30)])
    script.send(*[window_update(0, 1)] * 1000)
    plane = script.client.plane
    wire = Wire(plane, ours.fileno())
    for _ in range(60):
        theirs.sendall(window_update(0, 65_535))
        assert wire.converse(Patience(), math.inf) == -errno.EAGAIN
        received(theirs)
        assert not plane.cold
    assert plane.blocked.seconds()["disk"] > 0
    script.close()


def test_a_violation_ends_a_conversation(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = near(files, 900_000)
    theirs.sendall(frame(PING, 0, 1, b"01234567"))
    with pytest.raises(ProtocolViolation):
        Wire(script.client.plane, ours.fileno()).converse(Patience(), math.inf)
    script.close()


def test_the_end_of_the_connection_ends_a_conversation(pair: Pair, files: Files) -> None:
    ours, theirs = pair
    script = near(files, 900_000)
    theirs.sendall(window_update(0, 65_535))
    theirs.shutdown(socket.SHUT_WR)
    assert Wire(script.client.plane, ours.fileno()).converse(Patience(), math.inf) == 0
    assert DATA in kinds(received(theirs))
    script.close()


@pytest.mark.parametrize("tls", [False, True])
def test_who_may_have_more_to_send_says_so(tls: bool, pair: Pair, files: Files, request: pytest.FixtureRequest) -> None:
    ours, theirs = request.getfixturevalue("secured") if tls else pair
    script = Script(session(staged=tls), OPEN)
    script.submit(files(60_000))
    wire = over(script, ours)
    left: list[int] = []
    while not left or left[-1]:
        left.append(wire.send(NOW, 1))
        received(theirs)
    assert left == [1] * (len(left) - 1) + [0]
    assert not script.client.fill(NOW)
    assert script.client.plane.window.available == 65_535 - 60_000
    script.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_whole_upload_by_conversations(tls: bool, pair: Pair, files: Files, request: pytest.FixtureRequest) -> None:
    """A server thread gives back what it has read; each octet arrives, and each upload ends."""
    ours, theirs = request.getfixturevalue("secured") if tls else pair
    script = Script(session(staged=tls, concurrency=10), OPEN)
    script.submit(files(*[20_000] * 40))
    wire = over(script, ours)
    payload = 0

    def serve() -> None:
        nonlocal payload
        octets = b""
        while payload < 40 * 20_000:
            octets += theirs.recv(65_536)
            while len(octets) >= 9 and len(octets) >= (length := 9 + int.from_bytes(octets[:3])):
                kind, flags, stream = octets[3], octets[4], int.from_bytes(octets[5:9])
                octets = octets[length:]
                if kind == DATA:
                    payload += length - 9
                    theirs.sendall(window_update(0, length - 9) + (script.response(stream) if flags & 1 else b""))

    server = threading.Thread(target=serve)
    server.start()
    patience = Patience()
    ended = 0
    wire.send(NOW, 8)
    while ended < 40:
        assert wire.converse(patience, math.inf) == -errno.EAGAIN
        wire.send(NOW, 8)
        finished = script.client.take_finished()
        assert all(one.ok for one in finished)
        # Begun and answered by one conversation, each at its own time.
        assert all(one.latency > 0 for one in finished)
        ended += len(finished)
    server.join()
    script.close()
