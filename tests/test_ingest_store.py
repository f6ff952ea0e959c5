"""What the store keeps, and what it refuses."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterator

import pytest

from fastpost.ingest_store import Refused, Store, segments


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(root: pathlib.Path) -> Iterator[Store]:
    before = descriptors()
    with Store(root) as store:
        yield store
    assert descriptors() == before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def put(store: Store, path: bytes, *chunks: bytes) -> None:
    with store.open(path) as incoming:
        for chunk in chunks:
            incoming.write(chunk)
        incoming.commit()


def refused(store: Store, path: bytes) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        put(store, path, b"never")
    return caught.value.status, caught.value.reason


def tree(root: pathlib.Path) -> dict[bytes, bytes]:
    """Return the octets of every file below root, by relative name."""
    found = {}
    for folder, _, files in os.walk(os.fsencode(root)):
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, os.fsencode(root))] = file.read()
    return found


def test_a_file_stands_at_its_url_path(store: Store, root: pathlib.Path) -> None:
    put(store, b"/a/b/c.txt", b"one ", b"two")
    put(store, b"/a/b/d.txt", b"")
    assert tree(root) == {b"a/b/c.txt": b"one two", b"a/b/d.txt": b""}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/a%20b%23%3F%25.txt", b"a b#?%.txt"),
        (b"/new%0Aline", b"new\nline"),
        (b"/%ff%fe/%80", b"\xff\xfe/\x80"),
        ("/blåbær".encode(), "blåbær".encode()),
        (b"/a%2Fb", b"a/b"),
        (b"/..%2e", b"..."),
        (b"/100%", b"100%"),
        (b"/" + b"n" * 255, b"n" * 255),
        (b"/" + b"%ff" * 255, b"\xff" * 255),
        (b"/" + b"/".join([b"deep"] * 40), b"/".join([b"deep"] * 40)),
    ],
)
def test_names_are_raw_octets(store: Store, root: pathlib.Path, path: bytes, name: bytes) -> None:
    put(store, path, b"here")
    assert tree(root) == {name: b"here"}


@pytest.mark.parametrize(
    "path",
    [
        b"/../x",
        b"/a/../../x",
        b"/%2e%2e/x",
        b"/a/%2E%2e%2f%2e./%2e%2e/x",
        b"/..",
        b"/.",
        b"/./x",
        b"/a%00b",
        b"//etc/passwd",
        b"/%2Fetc/passwd",
        b"/a//b",
        b"etc/passwd",
        b"http://host/x",
        b"*",
        b"",
    ],
)
def test_a_path_that_could_leave_the_root_is_refused(store: Store, root: pathlib.Path, path: bytes) -> None:
    status, reason = refused(store, path)
    assert status == 403
    assert reason.isprintable()
    assert os.listdir(root) == []
    assert os.listdir(root.parent) == ["root"]


@pytest.mark.parametrize("path", [b"/", b"/folder/", b"/folder%2F"])
def test_a_path_that_names_a_folder_is_a_conflict(store: Store, path: bytes) -> None:
    assert refused(store, path)[0] == 409


def test_a_folder_is_not_replaced(store: Store, root: pathlib.Path) -> None:
    (root / "taken" / "inside").mkdir(parents=True)
    assert refused(store, b"/taken")[0] == 409
    assert tree(root) == {}


def test_a_folder_made_meanwhile_is_not_replaced(store: Store, root: pathlib.Path) -> None:
    with store.open(b"/name") as incoming:
        incoming.write(b"late")
        (root / "name").mkdir()
        with pytest.raises(Refused) as caught:
            incoming.commit()
    assert caught.value.status == 409
    assert os.listdir(root) == ["name"]


def test_a_file_is_no_folder(store: Store, root: pathlib.Path) -> None:
    put(store, b"/file", b"old")
    assert refused(store, b"/file/below")[0] == 409
    assert tree(root) == {b"file": b"old"}


@pytest.mark.parametrize("target", ["..", "inside", "/nowhere"])
def test_no_symbolic_link_is_followed(store: Store, root: pathlib.Path, target: str) -> None:
    (root / "inside").mkdir()
    (root / "link").symlink_to(target)
    assert refused(store, b"/link/file")[0] == 403
    assert os.listdir(root.parent) == ["root"]
    assert os.listdir(root / "inside") == []


def test_a_symbolic_link_at_the_end_is_replaced_and_its_target_left(store: Store, root: pathlib.Path) -> None:
    outside = root.parent / "outside"
    outside.write_bytes(b"untouched")
    (root / "name").symlink_to(outside)
    put(store, b"/name", b"new")
    assert not (root / "name").is_symlink()
    assert tree(root) == {b"name": b"new"}
    assert outside.read_bytes() == b"untouched"


def test_a_root_may_be_a_symbolic_link(root: pathlib.Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    with Store(link) as store:
        put(store, b"/a", b"x")
    assert tree(root) == {b"a": b"x"}


def test_until_it_is_whole_the_old_file_stands(store: Store, root: pathlib.Path) -> None:
    put(store, b"/a", b"old")
    with store.open(b"/a") as incoming:
        incoming.write(b"new")
        assert (root / "a").read_bytes() == b"old"
        incoming.commit()
    assert tree(root) == {b"a": b"new"}


def test_what_is_not_committed_leaves_nothing(store: Store, root: pathlib.Path) -> None:
    put(store, b"/a", b"old")
    with store.open(b"/a") as incoming:
        incoming.write(b"half")
    assert tree(root) == {b"a": b"old"}


def test_two_uploads_to_one_path_do_not_mix(store: Store, root: pathlib.Path) -> None:
    with store.open(b"/a") as one, store.open(b"/a") as two:
        one.write(b"11")
        two.write(b"2")
        two.write(b"2")
        one.commit()
        two.commit()
    assert tree(root) == {b"a": b"22"}


def test_an_ordinary_mode_and_umask(store: Store, root: pathlib.Path) -> None:
    before = os.umask(0o027)
    try:
        put(store, b"/folder/a", b"x")
    finally:
        os.umask(before)
    assert (root / "folder" / "a").stat().st_mode & 0o777 == 0o640
    assert (root / "folder").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("path", [b"/" + b"n" * 256, b"/" + b"n" * 256 + b"/x"])
def test_a_name_too_long_is_told(store: Store, path: bytes) -> None:
    assert refused(store, path) == (414, "a name in the path is longer than the server's file system takes")


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EFBIG, 413), (errno.EROFS, 403), (errno.EIO, 500)],
)
def test_a_failed_write_is_told_and_leaves_nothing(
    store: Store, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    put(store, b"/a", b"old")

    def fail(fd: int, octets: bytes) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        assert refused(store, b"/a")[0] == status
    assert tree(root) == {b"a": b"old"}


def test_out_of_descriptors_asks_for_a_retry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        assert refused(store, b"/a")[0] == 503


def test_a_short_write_is_continued(store: Store, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, octets: whole(fd, octets[:3]))
        put(store, b"/a", b"0123456789", b"ab")
    assert tree(root) == {b"a": b"0123456789ab"}


def test_segments_are_decoded_once() -> None:
    assert segments(b"/%252e%252e/%2525") == [b"%2e%2e", b"%25"]
