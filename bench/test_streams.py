"""The data plane in memory: turns, cuts, gather lists, frames in, and whole sessions; no sockets."""

from __future__ import annotations

import itertools
import pathlib

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastpost._chunker import Source
from fastpost._scheduler import Scheduler
from fastpost._table import Attempt
from fastpost.errors import ConnectionLost
from fastpost.session import Session


def frame(kind: int, stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def window_update(stream_id: int, octets: int) -> bytes:
    return frame(8, stream_id, octets.to_bytes(4, "big"))


#: Windows of 1 GiB, frames of 64 KiB.
SETTINGS = frame(4, 0, b"\x00\x04\x40\x00\x00\x00" + b"\x00\x05\x00\x01\x00\x00")
RESPONSE = b"\x88"  # :status 200


def session(*, staged: bool = False, fair: bool = True) -> Session:
    """Return a session whose server has opened all windows."""
    opened = Session(
        method=b"PUT", scheme=b"http", authority=b"store.example", concurrency=64, fair=fair, staged=staged
    )
    opened.begin()
    opened.receive(SETTINGS + window_update(0, 1 << 30), 1.0)
    opened.data_to_send(1.0)
    return opened


def close(used: Session) -> None:
    used.lose(ConnectionLost("the benchmark is over"), 1.0)
    used.take_finished()


@pytest.mark.benchmark(group="scheduler: 1,000 turns")
@pytest.mark.parametrize("fair", [True, False], ids=["fair", "fifo"])
@pytest.mark.parametrize("streams", [1, 10, 100, 1000])
def test_turns(benchmark: BenchmarkFixture, streams: int, fair: bool) -> None:
    scheduler = Scheduler(16384, fair)
    for slot in range(streams):
        scheduler.join(slot)

    def turns() -> None:
        for _ in range(1000):
            scheduler.charge(16384)

    benchmark(turns)


@pytest.mark.benchmark(group="scheduler: block and resume 1,000 times")
@pytest.mark.parametrize("fair", [True, False], ids=["fair", "fifo"])
@pytest.mark.parametrize("streams", [10, 1000])
def test_block_and_resume(benchmark: BenchmarkFixture, streams: int, fair: bool) -> None:
    scheduler = Scheduler(16384, fair)
    for slot in range(streams):
        scheduler.join(slot)

    def block_and_resume() -> None:
        for slot in range(1000):
            scheduler.leave(slot % streams)
            scheduler.resume(slot % streams)

    benchmark(block_and_resume)


@pytest.mark.benchmark(group="chunker: 8 MiB")
@pytest.mark.parametrize("way", ["map", "read"])
@pytest.mark.parametrize("length", [16384, 65536])
def test_cuts(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, way: str, length: int) -> None:
    """Both ways end in a copy here, so the difference is what pread costs more than a fault."""
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 23))

    def cut() -> None:
        source = Source.from_path(bytes(file))
        octets = source.map_octets if way == "map" else source.read_octets
        for _ in range((1 << 23) // length):
            octets(length)
        source.shut()

    benchmark(cut)


@pytest.mark.benchmark(group="chunker: open and close")
def test_open(benchmark: BenchmarkFixture, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(4096))
    benchmark(lambda: Source.from_path(bytes(file)).shut())


@pytest.mark.benchmark(group="gather: one file of 1 MiB, consumed unseen")
@pytest.mark.parametrize("staged", [True, False], ids=["staged", "mapped"])
def test_gather(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, staged: bool) -> None:
    """What it costs to open, cut and gather a file before any octet is sent: staged, all of it is copied."""
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    used = session(staged=staged)
    stream_ids = itertools.count(1, 2)

    def upload() -> None:
        used.submit([Attempt(None, bytes(file), b"/file")])
        while used.fill(1.0):
            used.plane.consume(used.gather.pending, 1.0)
        used.receive(frame(1, next(stream_ids), RESPONSE, 0x5) + window_update(0, 1 << 20), 1.0)
        (attempt,) = used.take_finished()
        assert attempt.ok
        assert attempt.payload == 1 << 20

    benchmark(upload)
    close(used)


@pytest.mark.benchmark(group="frames: 1,000 in")
@pytest.mark.parametrize("kind", ["unknown", "window update", "data", "ping"])
def test_frames_in(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, kind: str) -> None:
    """PING passes through h2, as all of stream 0 but windows does: the price of not writing it again."""
    file = tmp_path / "file"
    file.write_bytes(bytes(10))
    used = session()
    used.submit([Attempt(None, bytes(file), b"/file")])
    used.data_to_send(1.0)
    used.receive(frame(1, 1, RESPONSE, 0x4), 1.0)
    octets = (
        1000
        * {
            "unknown": frame(0x40, 1, bytes(4)),
            "window update": window_update(1, 1),
            "data": frame(0, 1, bytes(32)),
            "ping": frame(6, 0, b"an echo!", 0x1),
        }[kind]
    )

    def receive() -> None:
        used.receive(octets, 1.0)
        used.data_to_send(1.0)

    benchmark(receive)
    assert used.failure is None
    close(used)


@pytest.mark.benchmark(group="session: 1,000 uploads, answered")
@pytest.mark.parametrize("size", [0, 4096])
@pytest.mark.parametrize("staged", [True, False], ids=["staged", "mapped"])
def test_whole_session(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, size: int, staged: bool) -> None:
    """Submit, open, read, frame, answer, hand out: all but the socket. The server's answers are written ahead."""
    file = tmp_path / "file"
    file.write_bytes(bytes(size))
    path = bytes(file)
    batch = 50
    answer = [frame(1, stream_id, RESPONSE, 0x5) for stream_id in range(1, 2001, 2)]
    answers = [b"".join(answer[at : at + batch]) for at in range(0, 1000, batch)]

    def upload() -> None:
        used = session(staged=staged)
        for octets in answers:
            used.submit([Attempt(None, path, b"/some/folder/file") for _ in range(batch)])
            while used.fill(1.0):
                used.plane.consume(used.gather.pending, 1.0)
            used.receive(octets, 1.0)
            assert len(used.take_finished()) == batch
        close(used)

    benchmark(upload)
