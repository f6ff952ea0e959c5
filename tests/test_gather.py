"""The gather list: octets of the arena and of mappings leave in order, by whatever a socket takes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from h2_judge import (
    DATA,
    HEADERS,
    LARGEST_WINDOW,
    RST_STREAM,
    Frame,
    Script,
    frame,
    number,
    rst_stream,
    session,
    split,
    window_update,
)

from fastpost._chunker import live_objects
from fastpost._gather import GatherList
from fastpost.errors import ErrorCode, FileChanged

OPEN = {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
WIDE = LARGEST_WINDOW - 65535
BUSY = (-errno.EAGAIN, -errno.EWOULDBLOCK)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a local stream; neither blocks."""
    ours, servers = socket.socketpair()
    ours.setblocking(False)
    servers.setblocking(False)
    with ours, servers:
        yield ours, servers


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The same over TCP on the loopback interface, where the kernel copies page by page."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        servers, _ = listener.accept()
    ours.setblocking(False)
    servers.setblocking(False)
    with ours, servers:
        yield ours, servers


def drain(server: socket.socket) -> bytes:
    """Return what is there to read now."""
    octets = bytearray()
    with contextlib.suppress(BlockingIOError):
        while piece := server.recv(1 << 20):
            octets += piece
    return bytes(octets)


def carry(script: Script, ours: socket.socket, server: socket.socket) -> list[Frame]:
    """Send all that the session has; returns the frames that arrived."""
    plane = script.client.plane
    octets = bytearray()
    while plane.fill(script.now):
        sent = plane.send(ours.fileno(), script.now)
        assert sent >= 0 or sent in BUSY
        octets += drain(server)
    octets += drain(server)
    script.finished += script.client.take_finished()
    return list(split(bytes(octets)))


def bodies(frames: list[Frame]) -> dict[int, bytes]:
    """Return the DATA octets by stream id."""
    result: dict[int, bytes] = {}
    for sent in frames:
        if sent.kind == DATA:
            result[sent.stream_id] = result.get(sent.stream_id, b"") + sent.payload
    return result


def write(path: Path, size: int) -> Path:
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def test_an_empty_list() -> None:
    gather = GatherList()
    assert gather.pending == 0
    assert gather.take() == b""
    with memoryview(gather) as octets:
        assert octets.readonly
        assert bytes(octets) == b""


def test_staged_octets_are_one_run(tmp_path: Path) -> None:
    client = session(staged=True)
    script = Script(client)
    script.submit([write(tmp_path / "a", 1000), write(tmp_path / "b", 2000)])
    assert client.fill(1.0)
    serial = client.gather.serial
    with memoryview(client.gather) as octets:
        copy = bytes(octets)
    assert len(copy) == client.gather.pending
    client.plane.consume(10, 1.0)
    with memoryview(client.gather) as octets:
        assert bytes(octets) == copy[10:]
    assert client.gather.take() == copy[10:]
    assert client.gather.serial == serial
    assert bodies(list(split(copy))) == {1: (tmp_path / "a").read_bytes(), 3: (tmp_path / "b").read_bytes()}
    script.close()


def test_exported_octets_stay_where_they_are(tmp_path: Path) -> None:
    client = session(staged=True)
    script = Script(client)
    script.submit([write(tmp_path / "a", 1000)])
    assert client.fill(1.0)
    with memoryview(client.gather) as octets:
        copy = bytes(octets)
        client.ping()
        # Not sent yet: nothing is added before the list is empty.
        assert client.fill(1.0)
        client.plane.consume(len(copy), 1.0)
        with pytest.raises(BufferError, match="exported"):
            client.fill(1.0)
        assert bytes(octets) == copy
    assert [sent.payload for sent in script.take()] == [b"fastpost"]
    script.close()


def test_mapped_slices_are_not_exported(tmp_path: Path) -> None:
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    script.submit([write(tmp_path / "a", 100_000)])
    assert client.fill(1.0)
    with pytest.raises(BufferError, match="single run"):
        memoryview(client.gather)
    script.close()


def test_no_more_is_consumed_than_is_pending(tmp_path: Path) -> None:
    client = session(staged=True)
    script = Script(client)
    script.submit([write(tmp_path / "a", 1000)])
    client.fill(1.0)
    for octets in (-1, client.gather.pending + 1):
        with pytest.raises(ValueError, match="pending"):
            client.plane.consume(octets, 1.0)
    script.close()


@pytest.mark.parametrize("staged", [True, False])
def test_any_split_of_the_sends_keeps_the_order(tmp_path: Path, staged: bool) -> None:
    client = session(staged=staged)
    script = Script(client, OPEN, window=WIDE)
    files = [write(tmp_path / str(size), size) for size in (70_000, 300_000, 1000, 1_500_000)]
    script.submit(files)
    ours, server = socket.socketpair()
    with ours, server:
        server.setblocking(False)
        # The smallest buffer that the kernel allows: every send is a short one.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        ours.setblocking(False)
        frames = carry(script, ours, server)
    assert bodies(frames) == {2 * index + 1: file.read_bytes() for index, file in enumerate(files)}
    assert client.plane.delivery.sent >= sum(file.stat().st_size for file in files)
    script.close()


def test_a_full_socket_is_told_and_nothing_is_lost(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, server = pair
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    file = write(tmp_path / "a", 3_000_000)
    script.submit([file])
    while client.fill(1.0) and client.plane.send(ours.fileno(), 1.0) > 0:
        pass
    pending = client.gather.pending
    assert client.plane.send(ours.fileno(), 1.0) in BUSY
    assert client.gather.pending == pending
    first = drain(server)
    second = bytearray()
    while client.fill(1.0):
        client.plane.send(ours.fileno(), 1.0)
        second += drain(server)
    assert bodies(list(split(first + second))) == {1: file.read_bytes()}
    script.close()


def test_a_closed_socket_is_an_errno_and_no_signal(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, server = pair
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    script.submit([write(tmp_path / "a", 100_000)])
    server.close()
    client.fill(1.0)
    assert client.plane.send(ours.fileno(), 1.0) == -errno.EPIPE
    script.close()


def test_slices_outlive_their_stream_and_are_freed_when_sent(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, server = pair
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    file = write(tmp_path / "a", 4_000_000)
    script.submit([file])
    client.fill(1.0)
    script.send(rst_stream(1, ErrorCode.CANCEL))
    sources, mappings = live_objects()
    assert sources == 0
    assert mappings > 0
    sent = carry(script, ours, server)
    octets = bodies(sent)[1]
    assert file.read_bytes().startswith(octets)
    assert live_objects() == (0, 0)
    script.close()


def test_losing_the_connection_frees_the_slices(tmp_path: Path) -> None:
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    script.submit([write(tmp_path / str(size), size) for size in (100_000, 5_000_000)])
    client.fill(1.0)
    assert live_objects() != (0, 0)
    script.close()
    assert live_objects() == (0, 0)
    assert client.gather.pending == 0


# --- the copy budget ------------------------------------------------------------------------------


def test_a_large_payload_goes_from_the_mapping(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """What is written to the file after it was gathered is what the socket gets: so nothing copied it before."""
    ours, server = pair
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    file = tmp_path / "a"
    file.write_bytes(bytes(200_000))
    script.submit([file])
    client.fill(1.0)
    with file.open("r+b") as changing:
        changing.write(b"\xaa" * 200_000)
    frames = carry(script, ours, server)
    octets = bodies(frames)[1]
    assert octets == b"\xaa" * len(octets)
    assert len(octets) > 200_000 - 16384 - 1
    assert isinstance(script.ends()[b"/0"].failure, FileChanged), "and it is never a complete upload"
    script.close()


@pytest.mark.unsanitized
def test_memory_stays_flat_on_a_large_file(tmp_path: Path, tcp: tuple[socket.socket, socket.socket]) -> None:
    ours, server = tcp
    server.setblocking(True)
    size = 5 * 2**29
    file = tmp_path / "sparse"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    received = 0

    def discard() -> None:
        nonlocal received
        buffer = bytearray(1 << 20)
        # TCP drops with MSG_TRUNC what it would have copied.
        while got := server.recv_into(buffer, 0, socket.MSG_TRUNC):
            received += got

    reader = threading.Thread(target=discard)
    client = session(staged=False)
    script = Script(client, {**OPEN, SettingCodes.MAX_FRAME_SIZE: 2**24 - 1}, window=WIDE)
    script.submit([file])
    plane = client.plane
    before, most, peak = resident(), 0, 0
    reader.start()
    while plane.fill(1.0) or plane.window.available == 0:
        if not plane.window.available:
            script.send(window_update(0, 2**30), window_update(1, 2**30))
        else:
            # Whether the socket is ever full depends on who is faster: looked at with each list, when it is filled.
            most, peak = max(most, live_objects()[1]), max(peak, resident())
            if plane.send(ours.fileno(), 1.0) < 0:
                select.select([], [ours], [])
    ours.close()
    reader.join()
    assert received > size
    assert 1 <= most <= 3
    assert peak - before < 16 * 2**20
    script.send(script.response(1))
    assert script.ends()[b"/0"].ok
    assert script.ends()[b"/0"].payload == size
    script.close()


def resident() -> int:
    """Return the resident set, octets."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- truncated maps -------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 70_000, 131_072, 190_000])
@pytest.mark.parametrize("family", ["pair", "tcp"])
def test_a_truncated_map_ends_its_stream_alone(
    tmp_path: Path, kept: int, family: str, request: pytest.FixtureRequest
) -> None:
    ours, server = request.getfixturevalue(family)
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    files = [write(tmp_path / str(size), size) for size in (100_000, 250_000, 130_000, 10)]
    octets = [file.read_bytes() for file in files]
    script.submit(files)
    client.fill(1.0)
    os.truncate(files[1], kept)
    frames = carry(script, ours, server)
    # Every frame has its declared length, or `split` had failed; what was gathered is what arrived.
    sent = bodies(frames)
    for index in (0, 2, 3):
        assert sent[2 * index + 1] == octets[index]
    whole = kept - kept % 4096
    assert sent[3][: min(whole, len(sent[3])) - 65536 if whole > 65536 else 0] == octets[1][: max(whole - 65536, 0)]
    resets = [one for one in frames if one.kind == RST_STREAM]
    assert [(one.stream_id, one.payload) for one in resets] == [(3, number(ErrorCode.CANCEL))]
    assert isinstance(script.ends()[b"/1"].failure, FileChanged)
    script.send(*(script.response(stream_id) for stream_id in (1, 5, 7)))
    assert [script.ends()[b"/%d" % index].ok for index in (0, 2, 3)] == [True] * 3
    # And the connection goes on.
    script.submit([files[0]])
    assert bodies(carry(script, ours, server)) == {9: octets[0]}
    script.close()


def test_two_truncated_maps_at_once(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, server = pair
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    files = [write(tmp_path / str(size), size) for size in (100_000, 120_000, 140_000)]
    whole = files[2].read_bytes()
    script.submit(files)
    client.fill(1.0)
    for file in files[:2]:
        os.truncate(file, 0)
    frames = carry(script, ours, server)
    assert bodies(frames)[5] == whole
    assert sorted(one.stream_id for one in frames if one.kind == RST_STREAM) == [1, 3]
    script.close()


def test_a_truncated_map_of_a_stream_that_is_gone(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, server = pair
    client = session(staged=False)
    script = Script(client, OPEN, window=WIDE)
    file = write(tmp_path / "a", 100_000)
    script.submit([file])
    client.fill(1.0)
    script.send(rst_stream(1, ErrorCode.REFUSED_STREAM))
    os.truncate(file, 0)
    frames = carry(script, ours, server)
    assert not any(one.kind == RST_STREAM for one in frames)
    assert len(script.finished) == 1
    script.close()


# --- many entries ---------------------------------------------------------------------------------


def test_more_slices_than_one_sendmsg_takes(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """IOV_MAX is 1,024 entries; 600 tiny slices with headers are more. Regression: the list stayed full for ever."""
    ours, server = pair
    client = session(staged=False, concurrency=600)
    script = Script(client, {SettingCodes.INITIAL_WINDOW_SIZE: 1000}, window=WIDE)
    file = write(tmp_path / "a", 66_000)
    script.submit([file] * 600)
    frames = carry(script, ours, server)
    assert sum(one.kind == HEADERS for one in frames) == 600
    assert {len(octets) for octets in bodies(frames).values()} == {1000}
    assert len(bodies(frames)) == 600
    script.close()


def test_a_control_frame_larger_than_the_arena(tmp_path: Path) -> None:
    client = session(staged=True)
    script = Script(client)
    client.plane.queue_control(frame(6, 0, 0, b"12345678") * 60_000)
    script.submit([write(tmp_path / "a", 1000)])
    frames = script.take()
    assert [one.kind for one in frames].count(6) == 60_000
    assert bodies(frames) == {1: (tmp_path / "a").read_bytes()}
    script.close()
