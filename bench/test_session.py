"""The whole session in memory: submit, open, read or map, frame, answer, hand out; all but the socket. Beside it, h2.

The peer's answers are written ahead and what is gathered counts as sent, so nothing but the client is measured. h2
opens and reads the same files and gives its octets away as one `bytes` for each batch.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import h2.config
import h2.connection
import h2.events
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.in_memory import AGENT, AUTHORITY, FIELDS, GREETING, Case, Memory, answers, close, make, opened, upload

FRAME = 65536
Files = Sequence[tuple[bytes, bytes]]


def cleartext(files: Files, prepared: Sequence[bytes]) -> None:
    session = opened()
    upload(session, Memory(), files, prepared)
    close(session)


def staged(files: Files, prepared: Sequence[bytes]) -> None:
    session = opened(staged=True)
    upload(session, Memory(), files, prepared)
    close(session)


def plain_h2(files: Files, prepared: Sequence[bytes]) -> None:
    """What a careful programmer does with h2: no validation of fields that are the program's own, large frames."""
    configuration = h2.config.H2Configuration(
        client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(configuration)
    client.initiate_connection()
    client.receive_data(GREETING)
    client.data_to_send()
    for answer in prepared:
        for file, path in files:
            _send(client, file, path)
        client.data_to_send()
        ended = [event for event in client.receive_data(answer) if isinstance(event, h2.events.StreamEnded)]
        assert len(ended) == len(files)


def _send(client: h2.connection.H2Connection, file: bytes, path: bytes) -> None:
    with open(file, "rb", buffering=0) as octets:
        size = octets.seek(0, 2)
        octets.seek(0)
        stream_id = client.get_next_available_stream_id()
        fields = [(b":method", b"PUT"), (b":scheme", b"http"), (b":authority", AUTHORITY), (b":path", path), AGENT]
        client.send_headers(stream_id, [*fields, (b"content-length", b"%d" % size), *FIELDS], end_stream=size == 0)
        while size:
            data = octets.read(min(FRAME, size))
            size -= len(data)
            client.send_data(stream_id, data, end_stream=size == 0)


WAYS = pytest.mark.parametrize("way", [cleartext, staged, plain_h2])
Way = Callable[[Files, Sequence[bytes]], None]


@WAYS
@pytest.mark.parametrize("size", [0, 4096])
def test_small_uploads(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, way: Way, size: int) -> None:
    """20 batches of 50: OPS are thousands of requests a second."""
    benchmark.group = f"session: 1,000 uploads of {size} octets"
    case = Case(50, size)
    benchmark(way, make(case, tmp_path), answers(20, case.files, case.files * size))


@WAYS
@pytest.mark.benchmark(group="session: one upload of 16 MiB")
def test_large_upload(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, way: Way) -> None:
    """What is mapped is touched by nobody here; what is staged is copied once; h2 copies it five times."""
    case = Case(1, 1 << 24)
    benchmark(way, make(case, tmp_path), answers(1, 1, case.size))


@pytest.mark.benchmark(group="session: 1,000 uploads of 10 octets, so many at once")
@pytest.mark.parametrize("streams", [1, 10, 100, 1000])
def test_streams(benchmark: BenchmarkFixture, tmp_path: pathlib.Path, streams: int) -> None:
    """No part of an upload may cost more with more streams; one at a time, a batch costs what an upload does."""
    case = Case(streams, 10)
    files, prepared = make(case, tmp_path), answers(1000 // streams, streams, streams * case.size)

    def uploads() -> None:
        session = opened(concurrency=streams)
        upload(session, Memory(), files, prepared)
        close(session)

    benchmark(uploads)
