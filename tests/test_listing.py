"""_listing: what folders hold, as the system lists it."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import SANITIZED

from fastpost._listing import Listing, Upload, known_octets

#: A file system that tells names without kinds, or whose second look at a folder fails.
STRANGE_FOLDERS = """
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

long syscall(long number, ...) {
    long (*real)(long, ...) = (long (*)(long, ...))dlsym((void *)-1l, "syscall");
    static int calls;
    va_list list;
    long a, b, c, d, e, f, got;
    va_start(list, number);
    a = va_arg(list, long); b = va_arg(list, long); c = va_arg(list, long);
    d = va_arg(list, long); e = va_arg(list, long); f = va_arg(list, long);
    va_end(list);
    if (number != SYS_getdents64) return real(number, a, b, c, d, e, f);
    if (getenv("BREAKS_OFF") && calls++ == 1) { errno = EIO; return -1; }
    got = real(number, a, b, c);
    if (getenv("NO_KINDS"))
        for (char *at = (char *)b; at < (char *)b + got; at += *(unsigned short *)(at + 16)) at[18] = 0;
    return got;
}
"""

LIST = """
import os, sys
from fastpost._listing import Listing
listing = Listing(descend=True)
root = os.fsencode(sys.argv[1])
listing.push(root, len(root) + 1)
files, *rest = listing.read(1000, 1000)
print([one.name for one in files], *rest, sep="\\n")
"""


def listing_of(folder: Path, *, descend: bool = True) -> Listing:
    listing = Listing(descend)
    listing.push(os.fsencode(folder), len(os.fsencode(folder)) + 1)
    return listing


def names(files: list[Upload]) -> set[bytes]:
    """Return the names of files that no link leads to, and of whose sizes nothing is known."""
    assert all(
        (one.size, one.content_type, one.follow, one.content, one.due) == (-1, None, False, None, 0.0) for one in files
    )
    return {one.name for one in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below" / "deeper").mkdir(parents=True)
    for name in ("file", "below/file", "below/deeper/.hidden"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.fixture
def strange(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the shim, to be loaded before all else."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        pytest.skip("no C compiler")
    if SANITIZED:
        pytest.skip("the sanitizer wants to be loaded first")
    work = tmp_path_factory.mktemp("strange")
    (work / "strange.c").write_text(STRANGE_FOLDERS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", work / "strange.so", work / "strange.c", "-ldl"], check=True)
    return str(work / "strange.so")


def listed_by(shim: str, folder: Path, how: str) -> list[str]:
    """Return the lines of LIST in a process that finds folders strange."""
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(folder)],
        env={**os.environ, "LD_PRELOAD": shim, how: "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


def test_kinds(folder: Path) -> None:
    root = os.fsencode(folder)
    files, links, others, failed, opened = listing_of(folder).read(1000, 1000)
    assert names(files) == {b"file", b"below/file", b"below/deeper/.hidden"}
    assert {one.file for one in files} == {root + b"/" + name for name in names(files)}
    assert (links, others, failed, opened) == ([root + b"/link"], [root + b"/fifo"], [], 3)


def test_folders_are_told_where_it_does_not_descend(folder: Path) -> None:
    root = os.fsencode(folder)
    files, _, others, _, opened = listing_of(folder, descend=False).read(1000, 1000)
    assert names(files) == {b"file"}
    assert set(others) == {root + b"/fifo", root + b"/below"}
    assert opened == 1


def test_kinds_where_the_file_system_does_not_tell_them(folder: Path, strange: str) -> None:
    told = listed_by(strange, folder, "NO_KINDS")
    assert set(eval(told[0])) == {b"file", b"below/file", b"below/deeper/.hidden"}
    assert told[1:] == [str([os.fsencode(folder / "link")]), str([os.fsencode(folder / "fifo")]), "[]", "3"]


def test_what_came_before_an_error_is_kept(folder: Path, strange: str) -> None:
    shutil.rmtree(folder / "below")
    files, _, _, failed, opened = listed_by(strange, folder, "BREAKS_OFF")
    assert files == "[b'file']"
    assert failed == str([(os.fsencode(folder), errno.EIO)])
    assert opened == "1"


@pytest.mark.parametrize("most", [1, 7, 100])
def test_a_large_folder_in_parts(tmp_path: Path, most: int) -> None:
    """Larger than what one call of the system lists."""
    expected = {f"{number:0200}".encode() for number in range(500)}
    for name in expected:
        (tmp_path / name.decode()).touch()
    listing = listing_of(tmp_path)
    found: list[bytes] = []
    while listing.pending:
        files, *_ = listing.read(most, 1)
        assert len(files) <= most
        found += [one.name for one in files]
    assert len(found) == 500
    assert set(found) == expected
    assert listing.read(most, 1) == ([], [], [], [], 0)


def test_no_more_folders_than_asked_for(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").touch()
    listing = listing_of(tmp_path)
    counts = []
    while listing.pending:
        files, *_, opened = listing.read(1000, 4)
        counts.append((len(files), opened))
    assert counts == [(3, 4), (4, 4), (3, 3)]


def test_a_folder_that_was_removed_meanwhile(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "gone" / name).mkdir(parents=True)
    listing = listing_of(tmp_path)
    listing.read(1000, 1)
    shutil.rmtree(tmp_path / "gone")
    assert listing.read(1000, 1000)[3] == [(os.fsencode(tmp_path / "gone"), errno.ENOENT)]
    assert not listing.pending


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").touch()
    listing = listing_of(tmp_path / "root")
    listing.read(1000, 1)
    (tmp_path / "root" / "folder").rmdir()
    (tmp_path / "root" / "folder").symlink_to("../secret")
    files, _, _, failed, _ = listing.read(1000, 1000)
    assert not files
    assert failed == [(os.fsencode(tmp_path / "root" / "folder"), errno.ENOTDIR)]


def test_what_is_given_may_be_a_link(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(folder)
    assert names(listing_of(link).read(1000, 1000)[0]) >= {b"file", b"below/file"}


def test_no_descriptor_is_left(folder: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    listing = listing_of(folder)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        failed = listing.read(1000, 1000)[3]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed == [(os.fsencode(folder), errno.EMFILE)]


def test_closed_in_the_midst(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    listing = listing_of(folder)
    listing.read(1, 1)
    listing.close()
    listing.close()
    assert not listing.pending
    assert os.listdir("/proc/self/fd") == before


def test_a_path_that_no_call_takes() -> None:
    with pytest.raises(ValueError, match="no system call"):
        Listing(descend=True).push(b"d" * 4096, 0)


def test_an_upload_says_what_it_is() -> None:
    assert repr(Upload(b"/a/b", b"b", 3)) == "Upload(file=b'/a/b', name=b'b', size=3, content_type=None)"
    with pytest.raises(TypeError):
        Upload("a", b"a")  # type: ignore[arg-type]


def test_sizes_that_are_known() -> None:
    assert known_octets([]) == 0
    assert known_octets([Upload(b"a", b"a", size) for size in (-1, 0, 5, 2**62)]) == 2**62 + 5
    with pytest.raises(TypeError):
        known_octets([object()])  # type: ignore[list-item]
