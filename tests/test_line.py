"""_line: what waits for a stream, and what is opened and read ahead while a server nearby keeps its window shut."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2_judge import DATA, HEADERS, OPEN, Script, frame, session, split, window_update
from test_wire import Pair, near, received
from test_wire import pair as pair

from fastpost._chunker import live_objects
from fastpost._patience import Patience
from fastpost._wire import Wire
from fastpost.errors import FileChanged, NotRegularFile

WINDOW = 65_535


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert live_objects() == (0, 0)


def write(folder: Path, *sizes: int) -> list[Path]:
    """Write files with octets of their own."""
    paths = [folder / f"file-{number}" for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        path.write_bytes(bytes([number + 1]) * size)
    return paths


def lined(folder: Path, *sizes: int) -> tuple[Script, list[Path]]:
    """Return a peer on whose only stream a large file waits for credit, and the files in line behind that."""
    script = near(lambda *_: write(folder, 900_000, *sizes), 0, concurrency=1)
    return script, [folder / f"file-{number}" for number in range(1, len(sizes) + 1)]


def converse(script: Script, pair: Pair) -> None:
    """Wait awake for credit that doesn't come, after a frame that says nothing."""
    ours, theirs = pair
    theirs.sendall(frame(0x40))
    Wire(script.client.plane, ours.fileno()).converse(Patience(), math.inf)


def credit(script: Script, pair: Pair) -> bytes:
    """Open the windows of the first stream. Returns the DATA that follows."""
    ours, theirs = pair
    theirs.sendall(window_update(0, WINDOW) + window_update(1, WINDOW))
    wire = Wire(script.client.plane, ours.fileno())
    wire.receive(script.now)
    wire.send(script.now, 8)
    return b"".join(one.payload for one in split(received(theirs)) if one.kind == DATA)


def carry_on(script: Script, pair: Pair) -> bytes:
    """End the large upload, and let the rest be sent. Returns all DATA of the others."""
    ours, theirs = pair
    theirs.sendall(script.response(1, b"413") + window_update(0, WINDOW))
    wire = Wire(script.client.plane, ours.fileno())
    octets = b""
    begun = [1]
    while begun:
        wire.receive(script.now)
        assert wire.send(script.now, 8) == 0
        frames = [one for one in split(received(theirs)) if one.stream_id > 1]
        octets += b"".join(one.payload for one in frames if one.kind == DATA)
        begun = [one.stream_id for one in frames if one.kind == HEADERS]
        theirs.sendall(b"".join(map(script.response, begun)) + window_update(0, WINDOW))
    script.finished += script.client.take_finished()
    return octets


def test_small_files_in_line_are_in_memory_before_their_turn(tmp_path: Path, pair: Pair) -> None:
    script, paths = lined(tmp_path, 100, 4096, 16_384)
    before = live_objects()
    converse(script, pair)
    for path in paths:
        path.unlink()
    assert live_objects() == before, "closed again"
    assert carry_on(script, pair) == b"\x02" * 100 + b"\x03" * 4096 + b"\x04" * 16_384
    assert [one.status for one in script.finished] == [413, 201, 201, 201]
    assert [one.size for one in script.finished[1:]] == [100, 4096, 16_384]
    script.close()


def test_larger_ones_are_open_and_no_more_than_eight(tmp_path: Path, pair: Pair) -> None:
    script, paths = lined(tmp_path, *[16_385] * 12, 100)
    open_before = live_objects()[0]
    converse(script, pair)
    assert live_objects()[0] == open_before + 1 + 8, "the folder, and eight files"
    script.client.plane.drain()
    unsent = script.client.take_unsent()
    assert [os.fsdecode(one.file) for one in unsent] == [str(path) for path in paths]
    assert live_objects()[0] == open_before + 1, "whoever leaves the line keeps nothing open"
    script.close()


def test_octets_in_memory_are_bounded(tmp_path: Path, pair: Pair) -> None:
    script, paths = lined(tmp_path, *[16_384] * 80)
    converse(script, pair)
    # More of it waits with whoever hands out work: as many as in flight are in line, here all.
    for path in paths:
        path.unlink()
    carry_on(script, pair)
    sent = [one for one in script.finished if one.status == 201]
    assert len(sent) == 1_048_576 // 16_384
    assert len(script.finished) == 81
    script.close()


def test_what_was_withdrawn_is_opened_anew(tmp_path: Path, pair: Pair) -> None:
    script, paths = lined(tmp_path, 100, 100)
    converse(script, pair)
    withdrawn = script.client.plane.withdraw(0)
    assert [os.fsdecode(one.file) for one in withdrawn] == [str(path) for path in paths]
    assert [one.size for one in withdrawn] == [-1, -1]
    paths[0].write_bytes(b"new")
    script.client.submit(withdrawn)
    assert carry_on(script, pair) == b"new" + b"\x03" * 100
    script.close()


def test_a_file_that_cannot_be_opened_ahead_fails_in_its_turn(tmp_path: Path, pair: Pair) -> None:
    script, paths = lined(tmp_path, 100, 100, 100)
    paths[0].unlink()
    paths[1].unlink()
    converse(script, pair)
    assert not script.client.take_finished(), "nothing has failed yet"
    paths[1].mkdir()
    assert carry_on(script, pair) == b"\x04" * 100
    failures = [one.failure for one in script.finished if one.failure is not None and not one.status]
    assert len(failures) == 2
    assert isinstance(failures[1], NotRegularFile)
    script.close()


def test_a_file_that_changed_after_it_was_read_ahead_is_sent_as_it_was(tmp_path: Path, pair: Pair) -> None:
    script, paths = lined(tmp_path, 5000)
    converse(script, pair)
    was = paths[0].stat()
    paths[0].write_bytes(b"new")
    assert carry_on(script, pair) == b"\x02" * 5000
    assert (script.finished[-1].size, script.finished[-1].mtime_ns) == (5000, was.st_mtime_ns), "what a journal records"
    script.close()


def test_turns_are_read_ahead(tmp_path: Path, pair: Pair) -> None:
    """Nothing of a file that is staged is mapped: what the next turn sends was read while credit was waited for."""
    (path,) = write(tmp_path, 200_000)
    script = near(lambda *_: [path], 0, staged=True)
    converse(script, pair)
    with path.open("r+b") as file:
        file.write(b"\xff" * 200_000)
    sent = credit(script, pair)
    ahead = sent.count(b"\x01")
    assert 0 < ahead <= 2 * 16_384
    assert sent == b"\x01" * ahead + b"\xff" * (len(sent) - ahead)
    script.close()


def test_a_file_that_changed_after_a_turn_was_read_ahead_fails(tmp_path: Path, pair: Pair) -> None:
    (path,) = write(tmp_path, 70_000)
    script = near(lambda *_: [path], 0, staged=True)
    converse(script, pair)
    path.write_bytes(b"short")
    credit(script, pair)
    (ended,) = script.client.take_finished()
    assert isinstance(ended.failure, FileChanged)
    script.close()


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """Nothing can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_PATH)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_descriptors_are_few_none_is_kept_ahead(tmp_path: Path, pair: Pair) -> None:
    """Whose turn it is needs the one that comes free."""
    script, _ = lined(tmp_path, *[20_000] * 3)
    before = live_objects()
    with no_descriptor():
        converse(script, pair)
    converse(script, pair)
    assert live_objects() == before
    assert len(carry_on(script, pair)) == 60_000
    script.close()


def test_what_is_open_ahead_is_closed_when_a_turn_finds_no_descriptor(tmp_path: Path, pair: Pair) -> None:
    ours, theirs = pair
    script, paths = lined(tmp_path, *[20_000] * 3)
    paths[0].rename(tmp_path / "away")  # it can't be opened ahead, and the others are
    converse(script, pair)
    (tmp_path / "away").rename(paths[0])
    before = live_objects()[0]
    theirs.sendall(script.response(1, b"413"))
    wire = Wire(script.client.plane, ours.fileno())
    wire.receive(script.now)
    with no_descriptor():
        wire.send(script.now, 8)
    plane = script.client.plane
    assert plane.out_of_files
    assert live_objects()[0] <= before - 3, "the large one and those two"
    assert plane.waiting == 3
    assert len(carry_on(script, pair)) == 60_000
    script.close()


def test_nothing_is_opened_ahead_for_a_connection_that_drains(tmp_path: Path, pair: Pair) -> None:
    script, _ = lined(tmp_path, 20_000)
    before = live_objects()
    script.client.plane.drain()
    converse(script, pair)
    assert live_objects() == before
    script.client.take_unsent()
    script.close()


def test_only_the_next_turns_hold_octets(tmp_path: Path, pair: Pair) -> None:
    """Of 300 streams each has had its turn, of up to 64 KiB, in the end."""
    ours, theirs = pair
    paths = []
    for number in range(300):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate(10_000_000)
        paths.append(tmp_path / f"{number}")
    script = Script(session(staged=True, concurrency=300), OPEN)
    script.client.plane.apply_settings(max_frame_size=65_536, initial_window_size=2**30)
    script.now = time.monotonic()
    script.submit(paths)
    script.take()
    script.send(*[window_update(0, 1)] * 1000)
    script.take()
    wire = Wire(script.client.plane, ours.fileno())
    before = resident()
    for _ in range(700):
        theirs.sendall(window_update(0, WINDOW))
        wire.converse(Patience(), math.inf)
        received(theirs)
    assert resident() - before < 8_000_000
    script.close()


def resident() -> int:
    """Return the resident set, octets."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
