"""Records as C writes them, against what Python's zlib and struct say."""

from __future__ import annotations

import os
import pathlib
import struct
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st

from fastpost._hpack_encoder import RequestEncoder
from fastpost._records import record, records
from fastpost._streams import DataPlane
from fastpost._table import Attempt
from fastpost.errors import HttpStatus
from fastpost.sources import Upload


def expected(name: bytes, size: int, mtime_ns: int, inode: int) -> bytes:
    body = struct.pack("<HqqQ", len(name), size, mtime_ns, inode) + name
    return struct.pack("<I", zlib.crc32(body)) + body


@hypothesis.given(
    st.binary(max_size=300), st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)
)
def test_a_record_is_what_the_format_says(name: bytes, size: int, mtime_ns: int, inode: int) -> None:
    assert record(name, size, mtime_ns, inode) == expected(name, size, mtime_ns, inode)


def test_the_longest_name(tmp_path: pathlib.Path) -> None:
    assert record(b"x" * 65_535, 1, 2, 3) == expected(b"x" * 65_535, 1, 2, 3)
    with pytest.raises(ValueError, match="65,535"):
        record(b"x" * 65_536, 1, 2, 3)


def attempt(name: bytes, file: pathlib.Path) -> Attempt:
    return Attempt(Upload(os.fsencode(file), name), os.fsencode(file), b"/x")


def test_results_have_the_identity_of_the_file_that_was_opened(tmp_path: pathlib.Path) -> None:
    attempts = []
    for number in range(100):
        file = tmp_path / str(number)
        file.write_bytes(bytes(number))
        os.utime(file, ns=(0, 1_790_000_000_123_456_789 + number))
        attempts.append(attempt(b"folder/%d" % number, file))
    inodes = [(tmp_path / str(number)).stat().st_ino for number in range(100)]
    plane = DataPlane(RequestEncoder(b"PUT", b"http", b"a"), lambda frame: None, concurrency=100)
    plane.apply_settings()
    plane.submit(attempts)
    plane.fill(1.0)
    # A file that takes its place later is not the one that was sent.
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(tmp_path / "7")
    assert records(attempts) == b"".join(
        expected(b"folder/%d" % number, number, 1_790_000_000_123_456_789 + number, inodes[number])
        for number in range(100)
    )
    plane.lose(HttpStatus(500), 2.0)


def test_failures_and_names_that_no_record_holds_are_passed_over(tmp_path: pathlib.Path) -> None:
    good, failed, long = (attempt(name, tmp_path) for name in (b"good", b"failed", b"x" * 65_536))
    failed.failure = HttpStatus(403)
    assert records([failed, good, long, failed]) == expected(b"good", -1, 0, 0)
    assert records([]) == b""


def test_only_attempts_have_records() -> None:
    with pytest.raises(TypeError):
        records([Upload(b"/x", b"x")])  # type: ignore[list-item]
