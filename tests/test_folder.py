"""Where files are opened from: a folder's descriptor, and those that are left to all else."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from fastpost._chunker import Source, live_objects
from fastpost._folder import Folder, spare_descriptors


def opened(folder: Folder, path: Path) -> bytes:
    source = Source.from_path(bytes(path), folder)
    octets = source.read_octets(100)
    source.shut()
    return octets


def walked(folder: Folder, place: Path, count: int = 6) -> None:
    """Open so many files of one folder that it is worth a descriptor."""
    place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (place / f"{number}").write_text(f"{place.name}{number}")
        assert opened(folder, place / f"{number}") == f"{place.name}{number}".encode()


def test_a_folder_of_several_files_is_opened_and_a_lone_one_is_not(tmp_path: Path) -> None:
    folder = Folder()
    walked(folder, tmp_path / "a", 5)
    assert live_objects() == (0, 0), "a descriptor would cost more than it saves"
    walked(folder, tmp_path / "b")
    assert live_objects() == (1, 0)
    assert opened(folder, tmp_path / "b/0") == b"b0"
    walked(folder, tmp_path / "b" / "c", 1)
    assert live_objects() == (0, 0)
    assert opened(folder, tmp_path / "b/0") == b"b0"
    walked(folder, tmp_path / "d")
    folder.shut()
    assert live_objects() == (0, 0)


def test_a_file_above_the_folder_is_not_one_of_the_same_name_in_it(tmp_path: Path) -> None:
    """Where an octet of a name is missed, another file would be uploaded in its place."""
    folder = Folder()
    walked(folder, tmp_path / "a" / "b")
    walked(folder, tmp_path / "a" / "bb")
    (tmp_path / "a" / "3").write_text("above")
    assert opened(folder, tmp_path / "a" / "3") == b"above"
    walked(folder, tmp_path / "a" / "b")
    assert opened(folder, tmp_path / "a" / "bb" / "3") == b"bb3"
    folder.shut()


def test_a_folder_that_was_replaced_is_found_again(tmp_path: Path) -> None:
    folder, place = Folder(), tmp_path / "a"
    walked(folder, place)
    place.rename(tmp_path / "b")
    place.mkdir()
    (place / "new").write_text("new")
    assert live_objects() == (1, 0)
    assert opened(folder, place / "new") == b"new"
    assert refused(folder, place / "none") == errno.ENOENT
    folder.shut()


def refused(folder: Folder, path: Path) -> int | None:
    with pytest.raises(OSError, match="can't open") as caught:
        Source.from_path(bytes(path), folder)
    return caught.value.errno


def test_a_path_without_a_folder_or_a_name_is_opened_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("1").write_text("here")
    folder = Folder()
    for _ in range(2):
        assert opened(folder, Path("1")) == b"here"
        with pytest.raises(OSError, match="can't open"):
            Source.from_path(bytes(tmp_path) + b"/", folder)
    assert live_objects() == (0, 0)


def test_the_folder_gives_up_its_descriptor_where_it_is_one_too_many(tmp_path: Path) -> None:
    folder = Folder()
    walked(folder, tmp_path / "a")
    assert live_objects() == (1, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_fd = os.dup(0)
    os.close(next_fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd, hard))
    try:
        assert opened(folder, tmp_path / "a/3") == b"a3"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    folder.shut()


def test_descriptors_that_are_spared(tmp_path: Path) -> None:
    """Whoever needs one in the midst of a run finds it: a file takes none of them, nor does its folder."""
    folder = Folder()
    walked(folder, tmp_path / "a")
    folder.shut()
    next_fd = os.dup(0)
    os.close(next_fd)
    spare_descriptors(next_fd + 1)
    try:
        assert opened(folder, tmp_path / "a/3") == b"a3"
        walked(folder, tmp_path / "b")
        assert live_objects() == (0, 0), "the only descriptor is for files"
        one = Source.from_path(bytes(tmp_path / "a/3"), folder)
        with pytest.raises(OSError, match="can't open"):
            Source.from_path(bytes(tmp_path / "a/3"), folder)
        one.shut()
        with open(tmp_path / "a/3"):  # not even where all else has taken the rest
            assert opened(folder, tmp_path / "a/3") == b"a3"
    finally:
        spare_descriptors(2**31 - 1)
    assert live_objects() == (0, 0)


def free_descriptors() -> list[int]:
    """Return the numbers of the next ones that are free."""
    taken = [os.dup(0) for _ in range(5)]
    for fd in taken:
        os.close(fd)
    return taken


def test_a_descriptor_that_is_spared_is_given_back(tmp_path: Path) -> None:
    before = free_descriptors()
    folder = Folder()
    walked(folder, tmp_path / "a")
    one = Source.from_path(bytes(tmp_path / "a/1"), folder)
    spare_descriptors(before[2])
    try:
        assert opened(folder, tmp_path / "a/3") == b"a3", "with the folder's own"
    finally:
        spare_descriptors(2**31 - 1)
    one.shut()
    folder.shut()
    assert free_descriptors() == before
