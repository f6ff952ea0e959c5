"""The journal of a run: what is on disk, whatever happens to the disk, and who may write to it."""

from __future__ import annotations

import errno
import os
import pathlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fastpost import journal as module
from fastpost._records import record
from fastpost._table import Attempt
from fastpost.errors import FastpostError, HttpStatus, UsageError
from fastpost.journal import Journal
from fastpost.recorded import Contents, head
from fastpost.sources import Batch, Upload
from fastpost.target import parse

TARGET = parse("https://store.example/dav/")


def results(*names: str, failure: FastpostError | None = None) -> list[Attempt]:
    made = [Attempt(Upload(b"/" + name.encode(), name.encode()), b"/" + name.encode(), b"/") for name in names]
    for attempt in made:
        attempt.failure = failure
    return made


def opened(path: pathlib.Path) -> Journal:
    return Journal(str(path), TARGET)


def names(path: pathlib.Path) -> list[str]:
    """Return what the file holds; nothing in it may be torn."""
    with path.open("rb") as file:
        contents = Contents(file, str(path))
        found = [entry.name.decode() for entry in contents.entries()]
    assert contents.intact == path.stat().st_size
    return found


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "journal"


def test_successes_are_kept_in_order_and_failures_are_not(path: pathlib.Path) -> None:
    journal = opened(path)
    journal.record(results("a", "b"))
    journal.record(results("c", failure=HttpStatus(500)))
    journal.record(results("d"))
    journal.close()
    assert names(path) == ["a", "b", "d"]
    again = opened(path)
    assert (len(again.recorded), again.dropped) == (3, 0)
    again.record(results("e"))
    again.close()
    assert names(path) == ["a", "b", "d", "e"]


def test_the_name_of_a_new_journal_gets_to_the_disk(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", fsync)
    opened(path).close()
    assert synced == [str(path), str(path.parent)]


def test_what_is_recorded_gets_to_the_disk_without_another_call(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        real(fd)
        synced.set()

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    journal = opened(path)
    journal.record(results("a"))
    assert synced.wait(60)
    assert names(path) == ["a"]
    journal.close()


def test_a_journal_cut_at_any_octet_goes_on(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    start = head(TARGET)
    whole = start + record(b"a", 1, 2, 3) + record(b"b", 1, 2, 3)
    for length in (0, *range(len(b"fastpost journal "), len(whole) + 1)):
        path.write_bytes(whole[:length])
        journal = opened(path)
        known = len(journal.recorded)
        assert known == (length >= len(start) + 31) + (length == len(whole))
        if length >= len(start):
            assert journal.dropped == (length - len(start)) % 31
        journal.record(results(*"ab"[known:], "c"))
        journal.close()
        assert names(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (
            head(parse("https://other.example/")),
            "not PUT https://store.example/dav/: name another file, or give that method and URL",
        ),
        (b"fastpost journal 7\n", "format 7"),
        (b"fast", "is no journal of fastpost"),
        (b"letters to the editor\n", "is no journal of fastpost"),
        (head(TARGET)[:-1] + b"?" + bytes(50), "is damaged at its start"),
    ],
)
def test_a_file_that_is_not_its_journal_is_refused_and_left_as_it_is(
    path: pathlib.Path, octets: bytes, told: str
) -> None:
    path.write_bytes(octets)
    with pytest.raises(UsageError) as caught:
        opened(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == octets


def test_a_second_run_on_one_journal_is_refused_while_the_first_lasts(path: pathlib.Path) -> None:
    first = opened(path)
    with pytest.raises(UsageError, match="another run uses the journal"):
        opened(path)
    first.close()
    opened(path).close()


def test_what_is_no_regular_file_is_refused(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", pathlib.Path("/dev/null")):
        with pytest.raises(UsageError, match="no regular file"):
            opened(place)
    with pytest.raises(IsADirectoryError):
        opened(tmp_path)


def test_a_disk_without_locks_is_told(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UsageError, match="put it on a local disk"):
        opened(path)


def limited(left: int) -> Callable[[int, Any, int], int]:
    """Return a pwrite that writes up to `left` octets in all, 7 at a time, and then finds the disk full."""
    real = os.pwrite

    def pwrite(fd: int, octets: Any, offset: int) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, octets[: min(7, left)], offset)
        left -= written
        return written

    return pwrite


@pytest.mark.parametrize("room", [0, 1, 30, 31, 32, 10_000])
def test_a_full_disk_ends_the_journal_and_what_it_holds_stays(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    journal = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", limited(room))
        journal.record(results("a", "b"))
        journal.close()
    kept = ["a", "b"] if room == 10_000 else []
    assert (journal.lost is None) == bool(kept)
    assert names(path) == kept
    again = opened(path)
    again.record(results("c"))
    again.close()
    assert names(path) == [*kept, "c"]


def test_after_a_failure_nothing_more_is_written_and_nothing_waits(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(path)
    failed = threading.Event()

    def fdatasync(_fd: int) -> None:
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    journal.record(results("a"))
    assert failed.wait(60)
    assert len(list(journal.gate([Batch(), Batch()]))) == 2
    journal.record(results("b"))
    journal.close()
    assert journal.lost == os.strerror(errno.EIO)
    assert names(path) == []


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("moved", "moved or removed"),
        ("removed", "moved or removed"),
        ("replaced", "another file took its place"),
        ("cut", "cut it"),
        ("written", "wrote to it"),
    ],
)
def test_a_journal_that_somebody_else_took_away_or_changed_is_told(
    path: pathlib.Path, what: str, told: str, more: bool
) -> None:
    journal = opened(path)
    match what:
        case "moved":
            path.rename(path.with_name("elsewhere"))
        case "removed":
            path.unlink()
        case "replaced":
            path.rename(path.with_name("elsewhere"))
            path.write_bytes(head(TARGET))
        case "cut":
            os.truncate(path, 5)
        case "written":
            with path.open("ab") as file:
                file.write(b"x")
    before = path.read_bytes() if path.exists() else None
    if more:
        journal.record(results("a"))
    journal.close()
    assert journal.lost is not None
    assert told in journal.lost
    assert (path.read_bytes() if path.exists() else None) == before


def test_no_room_for_a_new_journal_is_an_error_at_once(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", limited(5))
        with pytest.raises(OSError, match="No space left") as caught:
            opened(path)
        assert caught.value.filename == str(path)
        assert not path.exists()
        path.touch()
        with pytest.raises(OSError, match="No space left"):
            opened(path)
        assert path.read_bytes() == b""
    opened(path).close()
    assert names(path) == []


def test_the_walk_waits_while_the_disk_is_late(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def fdatasync(_fd: int) -> None:
        syncing.set()
        go_on.wait()

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(module, "_LATE", 0.0)
    journal = opened(path)
    assert len(list(journal.gate([Batch()]))) == 1
    journal.record(results("a"))
    assert syncing.wait(60)
    passed = threading.Event()

    def walk(batches: Iterable[Batch]) -> None:
        next(journal.gate(batches))
        passed.set()

    walker = threading.Thread(target=walk, args=(iter([Batch()]),))
    walker.start()
    try:
        assert not passed.wait(0.05)
    finally:
        go_on.set()
    walker.join()
    assert passed.is_set()
    journal.close()
    assert names(path) == ["a"]
