"""_readahead: files in line are in the page cache before they are opened, and nobody waits for that."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from h2_judge import settings_frame, window_update
from in_process import Answering, Raw
from integration import command

from fastpost._readahead import ReadAhead, live_lines

OPEN = (settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}), window_update(0, 2**31 - 1 - 65_535))

#: Opening a file for the first time takes 5 ms, and no read finds anything in the cache; each takes 300 µs, asleep; or
#: opening takes no time, and a read as if somebody else had the processor meanwhile. So it is with each file whose
#: number EVERY divides, and from REST on with all. A line for each first opening: 1 when the main thread did it.
COLD_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int number_of[10000];  /* by descriptor; 0: no file of ours */

static int is_cold(int number) { return number && (number % EVERY == 0 || number >= REST); }

static int look(const char *path) {
    static char opened[10000];
    const char *name = strrchr(path, '/');
    char line[2] = {gettid() == getpid() ? '1' : '0', '\\n'};
    name = name ? name + 1 : path;
    if (strncmp(name, "cold-", 5)) return 0;
    int number = atoi(name + 5);
    if (__atomic_exchange_n(&opened[number], 1, __ATOMIC_SEQ_CST)) return number;
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    int log = real(getenv("OPENED"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (write(log, line, 2) < 0) abort();
    close(log);
    if (is_cold(number) && ASLEEP) usleep(5000);
    return number;
}

static int noted(int fd, int number) {
    if (fd >= 0 && fd < 10000) number_of[fd] = number;
    return fd;
}

#define OPEN(name) int name(const char *path, int flags, ...) { \\
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \\
    int number = look(path); return noted(real(path, flags, 0600), number); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \\
    int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \\
    int number = look(path); return noted(real(folder, path, flags, 0600), number); }
OPEN(open) OPEN(open64) OPEN(__open_2) OPEN(__open64_2)
OPENAT(openat) OPENAT(openat64) OPENAT(__openat_2) OPENAT(__openat64_2)

#define NOTHING(name) ssize_t name(int fd, const struct iovec *vector, int count, off_t offset, int flags) { \\
    typedef ssize_t type(int, const struct iovec *, int, off_t, int); \\
    type *real = (type *)dlsym(RTLD_NEXT, #name); \\
    /* Warm is warm, also on file systems that can't tell. */ \\
    if (!is_cold(number_of[fd])) return real(fd, vector, count, offset, flags & ~RWF_NOWAIT); \\
    errno = ANSWER; return -1; }
NOTHING(preadv2) NOTHING(preadv64v2)

static void wait(void) {
    struct timespec began, now;
    if (ASLEEP) { usleep(300); return; }
    clock_gettime(CLOCK_MONOTONIC, &began);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - began.tv_sec) * 1000000000L + now.tv_nsec - began.tv_nsec < 300000);
}

#define SLOW(name) ssize_t name(int fd, void *out, size_t length, off_t offset) { \\
    ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, #name); \\
    if (is_cold(number_of[fd])) wait(); \\
    return real(fd, out, length, offset); }
SLOW(pread) SLOW(pread64)
"""


def until(true: Callable[[], bool]) -> None:
    """Wait until it is true; the test's own timeout ends what never is."""
    while not true():
        time.sleep(0.001)


def cached(path: Path) -> bool:
    """Is the first page in the page cache? By mincore(2): to read without waiting would start the read."""
    state = ctypes.create_string_buffer(1)
    with path.open("rb") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE, access=mmap.ACCESS_COPY) as pages:
        page = ctypes.c_char.from_buffer(pages)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(page), mmap.PAGESIZE, state)
        del page
    assert not failed, os.strerror(ctypes.get_errno())
    return bool(state.raw[0] & 1)


def evicted(path: Path) -> Path:
    """Write a file that isn't in the page cache, or skip the test."""
    path.write_bytes(bytes(100_000))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if cached(path):
        pytest.skip("the file system keeps all it has in memory")
    return path


@pytest.fixture(autouse=True)
def _no_line_is_left() -> Iterator[None]:
    yield
    until(lambda: live_lines() == 0)


def test_a_file_is_read_ahead(tmp_path: Path) -> None:
    ahead = ReadAhead()
    path = evicted(tmp_path / "file")
    ahead.read_ahead(os.fsencode(path))
    until(lambda: cached(path))


def test_files_that_come_together_are_read_ahead_all(tmp_path: Path) -> None:
    """More than there are threads: each of them is woken once, and goes on while files are in line."""
    ahead = ReadAhead()
    for number in range(3):
        paths = [evicted(tmp_path / f"{number}-{place}") for place in range(40)]
        ahead.read_ahead(*map(os.fsencode, paths))
        until(lambda paths=paths: all(map(cached, paths)))  # type: ignore[misc]
    ahead.read_ahead()


def test_what_can_not_be_read_holds_up_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    ahead = ReadAhead()
    path = evicted(tmp_path / "file")
    for odd in (tmp_path / "fifo", tmp_path / "missing", tmp_path, tmp_path / "empty", "/dev/zero"):
        for _ in range(10):
            ahead.read_ahead(os.fsencode(odd))
    ahead.read_ahead(os.fsencode(path))
    until(lambda: cached(path))


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = evicted(tmp_path / "file")
    (tmp_path / "link").symlink_to("file")
    ahead = ReadAhead()
    for _ in range(100):
        ahead.read_ahead(os.fsencode(tmp_path / "link"))
    other = evicted(tmp_path / "other")
    ahead.read_ahead(os.fsencode(other))
    until(lambda: cached(other))
    ahead.shut()
    until(lambda: live_lines() == 0)
    assert not cached(path)


def test_more_than_the_line_holds(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"octets")
    ahead = ReadAhead()
    for _ in range(5000):
        ahead.read_ahead(os.fsencode(tmp_path / "file"))
    ahead.shut()
    ahead.shut()
    ahead.read_ahead(b"after the end")
    assert not ahead.worth_it()


def test_it_is_not_worth_it_when_all_is_cached(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"octets")
    ahead = ReadAhead()
    assert ahead.worth_it()
    while ahead.worth_it():
        ahead.read_ahead(os.fsencode(tmp_path / "file"))


ALL, NONE = 1, 100_000


@pytest.mark.unsanitized
@pytest.mark.parametrize(
    ("cold", "asleep", "answer", "limit", "ahead"),
    [
        (ALL, True, errno.EAGAIN, 1000, True),
        (ALL, True, errno.EOPNOTSUPP, 1000, True),
        (ALL, True, errno.EAGAIN, 100, False),
        (ALL, False, errno.EAGAIN, 1000, False),
        (NONE, False, 0, 1000, False),
    ],
)
def test_an_upload_is_read_ahead_from_a_cold_disk_where_many_files_may_be_open(
    tmp_path: Path, cold: int, asleep: bool, answer: int, limit: int, ahead: bool
) -> None:
    by_others = opened_by_others(tmp_path, 400, cold, asleep=asleep, answer=answer, limit=limit)
    assert by_others > 200 if ahead else by_others == 0


@pytest.mark.unsanitized
def test_where_one_file_in_ten_is_cold_reading_ahead_is_tried_ever_more_seldom(tmp_path: Path) -> None:
    # A try takes 256 files, and those on their way then; with pauses of 512, 1,024 and 2,048 there are three in 4,000.
    assert 200 < opened_by_others(tmp_path, 4000, 10) < 2000


@pytest.mark.unsanitized
def test_a_cold_folder_is_read_ahead_though_tries_before_were_in_vain(tmp_path: Path) -> None:
    # Without a rest that ends early: 1,400.
    assert opened_by_others(tmp_path, 5000, 10, rest=3000) > 2000


@pytest.mark.unsanitized
def test_what_a_form_holds_is_read_ahead_as_well(tmp_path: Path) -> None:
    assert opened_by_others(tmp_path, 400, ALL, options=("--form", "file")) > 200


def opened_by_others(
    tmp_path: Path,
    files: int,
    every: int,
    *,
    rest: int = 10_000,
    asleep: bool = True,
    answer: int = errno.EAGAIN,
    limit: int = 1000,
    options: Sequence[str] = (),
) -> int:
    """Upload a folder in which each `every`-th file is cold, then one with those from number `rest` on, all cold.

    Returns how many were first opened by other threads.
    """
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    assert compiler is not None, "the compiler that fastpost needs anyway"
    source, library = tmp_path / "cold_disk.c", tmp_path / "cold_disk.so"
    source.write_text(COLD_DISK)
    told = (f"-DEVERY={every}", f"-DREST={rest}", f"-DASLEEP={asleep:d}", f"-DANSWER={answer}")
    subprocess.run([compiler, "-shared", "-fPIC", *told, "-o", library, source, "-ldl"], check=True)
    folders = [tmp_path / "some", tmp_path / "all"]
    for folder in folders:
        folder.mkdir()
    for number in range(1, files + 1):
        (folders[number >= rest] / f"cold-{number}").write_bytes(bytes(3000))
    prefix = ("prlimit", f"--nofile={limit}:{limit}", "env", f"LD_PRELOAD={library}", f"OPENED={tmp_path / 'opened'}")
    with Raw(Answering(*OPEN)) as server:
        run = command.upload(*folders, "--to", server.url, *options, prefix=prefix)
    assert run.code == 0
    assert run.report["files"]["ok"] == files
    opened = (tmp_path / "opened").read_text().split()
    assert len(opened) == files
    return opened.count("0")
