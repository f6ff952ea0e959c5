"""An open file: mapped or read, its offset, its identity, its lifetime."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpost._chunker import Source, live_objects

WINDOW = 2 * 1024 * 1024
LARGEST_SLICE = WINDOW - 4096


def write(path: Path, size: int) -> bytes:
    octets = random.Random(size).randbytes(size)
    path.write_bytes(octets)
    return octets


def refusal(path: Path | str) -> int:
    """Return the errno with which a path can't be opened."""
    with pytest.raises(OSError, match="can't open") as caught:
        Source.from_path(os.fsencode(path))
    assert live_objects() == (0, 0)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537])
def test_reads_what_the_file_holds(tmp_path: Path, size: int) -> None:
    octets = write(tmp_path / "file", size)
    source = Source.from_path(bytes(tmp_path / "file"))
    assert source.size == size
    assert source.read_octets(size + 10) == octets
    assert source.offset == size
    assert source.read_octets(10) == b""
    source.shut()


@pytest.mark.parametrize("size", [1, 4096])
def test_a_small_file_is_held_in_memory_and_closed(tmp_path: Path, size: int) -> None:
    octets = write(tmp_path / "file", size)
    source = Source.from_path(bytes(tmp_path / "file"))
    assert source.hold_octets(4096)
    assert live_objects() == (0, 0)
    (tmp_path / "file").unlink()
    assert source.read_octets(size) == octets
    assert source.is_unchanged(), "it was looked at when it was taken"
    source.shut()
    with pytest.raises(ValueError, match="closed"):
        source.read_octets(1)


@pytest.mark.parametrize("size", [0, 4097])
def test_others_stay_open(tmp_path: Path, size: int) -> None:
    octets = write(tmp_path / "file", size)
    source = Source.from_path(bytes(tmp_path / "file"))
    assert not source.hold_octets(4096)
    assert live_objects() == (1, 0)
    assert source.read_octets(size + 1) == octets
    source.shut()


@pytest.mark.parametrize("change", [b"", b"shorter", bytes(8000)])
def test_what_changed_since_it_was_opened_is_not_held(tmp_path: Path, change: bytes) -> None:
    write(tmp_path / "file", 4096)
    source = Source.from_path(bytes(tmp_path / "file"))
    (tmp_path / "file").write_bytes(change)
    assert not source.hold_octets(4096)
    assert not source.is_unchanged()
    source.shut()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000)), min_size=1, max_size=20))
def test_what_is_read_ahead_comes_once_and_in_order(tmp_path: Path, steps: list[tuple[bool, int]]) -> None:
    octets = write(tmp_path / "file", 200_000)
    source = Source.from_path(bytes(tmp_path / "file"))
    for ahead, length in steps:
        if ahead:
            assert source.fetch_octets(length) <= length
            assert source.fetch_octets(length) == 0, "some are left, or it is at the end"
        else:
            at = source.offset
            assert source.read_octets(length) == octets[at : at + length]
            assert source.offset == min(at + length, 200_000)
    source.shut()
    assert live_objects() == (0, 0)


def test_maps_across_windows(tmp_path: Path) -> None:
    octets = write(tmp_path / "file", 3 * WINDOW + 77)
    source = Source.from_path(bytes(tmp_path / "file"))
    pieces = []
    while source.offset < source.size:
        pieces.append(source.map_octets(min(60_001, source.size - source.offset)))
        assert live_objects() == (1, 1), "one window at a time"
    assert b"".join(pieces) == octets
    source.shut()
    assert live_objects() == (0, 0)


def test_the_largest_slice_fits_from_any_offset_in_a_page(tmp_path: Path) -> None:
    octets = write(tmp_path / "file", 2 * WINDOW)
    source = Source.from_path(bytes(tmp_path / "file"))
    assert source.read_octets(4095) == octets[:4095]
    assert source.map_octets(LARGEST_SLICE) == octets[4095 : 4095 + LARGEST_SLICE]
    source.shut()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300_000)), min_size=1, max_size=20))
def test_read_and_map_share_one_offset(tmp_path: Path, cuts: list[tuple[bool, int]]) -> None:
    file = tmp_path / "file"
    octets = file.read_bytes() if file.exists() else write(file, WINDOW + 123_457)
    source = Source.from_path(bytes(file))
    for mapped, length in cuts:
        at = source.offset
        if source.size == at:
            break
        length = min(length, source.size - at)
        cut = source.map_octets(length) if mapped else source.read_octets(length)
        assert cut == octets[at : at + length]
        assert source.offset == at + length
    source.shut()


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    write(tmp_path / "file", 100)
    source = Source.from_path(bytes(tmp_path / "file"))
    for length in (101, WINDOW):
        with pytest.raises(ValueError, match="slice"):
            source.map_octets(length)
    for length in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            source.map_octets(length)
        with pytest.raises(ValueError, match="at least 1"):
            source.read_octets(length)
    source.shut()
    source.shut()
    with pytest.raises(ValueError, match="closed"):
        source.read_octets(1)
    with pytest.raises(ValueError, match="closed"):
        source.map_octets(1)
    assert not source.is_unchanged()


def test_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert refusal(tmp_path / "fifo") == errno.ENODEV
    assert refusal(tmp_path) == errno.EISDIR
    assert refusal("/dev/null") == errno.ENODEV
    assert refusal(tmp_path / "dangling") == errno.ENOENT
    assert refusal(tmp_path / "nothing") == errno.ENOENT
    assert refusal(tmp_path / "fifo" / "below") == errno.ENOTDIR


def test_names_are_octets(tmp_path: Path) -> None:
    name = bytes(tmp_path) + b"/\xff\n %?#"
    with open(name, "wb") as file:
        file.write(b"octets")
    source = Source.from_path(name)
    assert source.read_octets(6) == b"octets"
    source.shut()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def append_unseen(path: Path) -> None:
    """As a writer does that puts the time back, or that is as quick as the clock of the file system is coarse."""
    status = path.stat()
    append(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [append, truncate, touch, append_unseen])
def test_a_change_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    write(tmp_path / "file", 100)
    source = Source.from_path(bytes(tmp_path / "file"))
    assert source.is_unchanged()
    change(tmp_path / "file")
    assert not source.is_unchanged()
    source.shut()


def test_a_removed_file_is_read_to_its_end(tmp_path: Path) -> None:
    octets = write(tmp_path / "file", 100_000)
    source = Source.from_path(bytes(tmp_path / "file"))
    (tmp_path / "file").unlink()
    assert source.map_octets(100_000) == octets
    assert source.is_unchanged()
    source.shut()


def test_a_truncated_file_reads_short(tmp_path: Path) -> None:
    octets = write(tmp_path / "file", 100_000)
    source = Source.from_path(bytes(tmp_path / "file"))
    os.truncate(tmp_path / "file", 70_000)
    assert source.read_octets(100_000) == octets[:70_000]
    source.shut()


def test_a_dropped_source_closes_itself(tmp_path: Path) -> None:
    write(tmp_path / "file", 100_000)
    source = Source.from_path(bytes(tmp_path / "file"))
    source.map_octets(10)
    descriptors = len(os.listdir("/proc/self/fd"))
    del source
    assert live_objects() == (0, 0)
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1
