"""What the machine does to a run: a disk that fails or is full, a clock that jumps, a terminal that takes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import command
from .scripted import Peer, Request, Script, ScriptedServer

#: Reads of a file called bad.bin fail as on a broken disk. A mapping of it holds no page that can be had, which is
#: what the kernel meets when it can't read one.
BROKEN_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static int bad(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = fd < 0 ? -1 : readlink(link, path, sizeof path);
    return length > 8 && memcmp(path + length - 8, "/bad.bin", 8) == 0;
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

ssize_t pread(int fd, void *out, size_t length, off_t offset) {
    return bad(fd) ? (errno = EIO, -1) : REAL(pread)(fd, out, length, offset);
}

ssize_t pread64(int fd, void *out, size_t length, off_t offset) {
    return bad(fd) ? (errno = EIO, -1) : REAL(pread64)(fd, out, length, offset);
}

ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset) {
    return bad(fd) ? (errno = EIO, -1) : REAL(preadv)(fd, vector, count, offset);
}

ssize_t preadv64(int fd, const struct iovec *vector, int count, off_t offset) {
    return bad(fd) ? (errno = EIO, -1) : REAL(preadv64)(fd, vector, count, offset);
}

ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    return bad(fd) ? (errno = EIO, -1) : REAL(preadv2)(fd, vector, count, offset, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    return bad(fd) ? (errno = EIO, -1) : REAL(preadv64v2)(fd, vector, count, offset, flags);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return REAL(mmap)(address, length, bad(fd) ? PROT_NONE : protection, flags, fd, offset);
}
"""

#: Each look at the wall clock finds it a year before or after the last one.
JUMPING_CLOCK = """
import itertools, time
real, turns = time.time, itertools.cycle((-31_536_000, 31_536_000, 0))
time.time = lambda: real() + next(turns)
"""


@pytest.fixture
def broken_disk(tmp_path: Path) -> str:
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "broken_disk.c", tmp_path / "broken_disk.so"
    source.write_text(BROKEN_DISK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return f"LD_PRELOAD={library}"


@pytest.mark.unsanitized
@pytest.mark.parametrize("size", [1_000, 1_000_000], ids=["read", "mapped"])
@pytest.mark.parametrize(
    "options",
    [(), ("--digest", "sha-256"), ("--digest", "sha-256", "--processes", "2")],
    ids=["plain", "digest", "processes"],
)
def test_a_disk_read_error_fails_that_file_alone(
    tmp_path: Path, broken_disk: str, size: int, options: tuple[str, ...]
) -> None:
    folder = tmp_path / "up"
    folder.mkdir()
    for name in ("bad.bin", *(f"{number}.bin" for number in range(20))):
        (folder / name).write_bytes(os.urandom(size))
    failures = tmp_path / "failures"
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url, "--failures", failures, *options, prefix=("env", broken_disk))
    assert run.code == 1
    assert [json.loads(line)["name"] for line in failures.read_text().splitlines()] == ["bad.bin"]
    assert run.errors == {"FileUnreadable": 1}
    assert run.told("bad.bin", "Input/output error")
    assert run.files == {"total": 21, "ok": 20, "failed": 1, "skipped": 0}
    assert run.report["attempts"]["retried"] == 0
    expected = {f"/{path.name}": path.read_bytes() for path in folder.iterdir() if path.name != "bad.bin"}
    assert server.bodies() == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 16 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_under_journal_and_failures_ends_no_upload(tmp_path: Path, small_disk: Path) -> None:
    class Refusing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 403 if request.path.endswith(("0.bin", "5.bin")) else 201)

    folder, journal, failures = tmp_path / "up", small_disk / "journal", small_disk / "failures"
    folder.mkdir()
    for number in range(500):
        (folder / f"{number}.bin").write_bytes(b"%d" % number)
    arguments = ("--journal", journal, "--failures", failures)
    with ScriptedServer(Refusing()) as server:
        run = command.upload(folder, "--to", server.url, *arguments)
        held = json.loads(command.run("journal", "show", journal, "--output-format", "json").out)
        written = failures.read_text()
        failures.unlink()
        again = command.upload(folder, "--to", server.url, "--journal", journal)
    assert run.code == 1
    assert run.files == {"total": 500, "ok": 400, "failed": 100, "skipped": 0}
    for file in (journal, failures):
        assert run.told(str(file), "No space left on device", "the uploads go on")
    for line in written.splitlines(keepends=True):
        assert line.endswith("\n"), "a line that was begun is cut off"
        assert json.loads(line)["message"] == "status 403"
    assert held["torn"] == 0
    assert held["files"] < 400
    assert again.files == {
        "total": 500 - held["files"],
        "ok": 400 - held["files"],
        "failed": 100,
        "skipped": held["files"],
    }


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if len(server.of(request.path)) > 1:
                peer.answer(request, 201)
            else:
                peer.answer(request, 503, retry_after="0")

    folder, hooks = tmp_path / "up", tmp_path / "hooks"
    folder.mkdir()
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(JUMPING_CLOCK)
    for number in range(50):
        (folder / f"{number}.bin").write_bytes(os.urandom(100_000))
    arguments = ("--retry-delay", "0.05", "--journal", tmp_path / "journal", "--progress")
    with monkeypatch.context() as patch, ScriptedServer(Busy()) as server:
        patch.setenv("PYTHONPATH", str(hooks))
        probe = subprocess.run(
            [sys.executable, "-c", "import time; print(abs(time.time() - time.time()) > 1e6)"],
            env=os.environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert probe.stdout.strip() == "True"
        run = command.upload(folder, "--to", server.url, *arguments)
        again = command.upload(folder, "--to", server.url, *arguments)
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 50, "replayed": 0}
    assert 0 < run.report["seconds"] < command.LIMIT
    assert 0 <= run.report["latency_ms"]["p50"] <= run.report["latency_ms"]["max"] < command.LIMIT * 1e3
    assert all(0 <= waited < 50 * command.LIMIT for waited in run.report["blocked_s"].values())
    assert server.bodies() == {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert again.files == {"total": 0, "ok": 0, "failed": 0, "skipped": 50}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("told", "unread"), [("--show-response", "stdout"), ("-vv", "stderr")])
def test_a_reader_that_reads_no_more_keeps_nobody_from_ending_it(
    tmp_path: Path, told: str, unread: str, number: signal.Signals
) -> None:
    """A paused pager, a supervisor that has lost interest: uploads wait for it, but not when they are to end."""
    for one in range(3000):
        (tmp_path / f"{one:04}").write_bytes(b"x")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    script = Script()
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, unread: writing}
    with ScriptedServer(script) as server:
        command_line = [sys.executable, "-m", "fastpost", "upload", str(tmp_path), "--to", server.url, told]
        process = subprocess.Popen(command_line, env=command.environment(), **streams)
        os.close(writing)
        try:
            seen = -1
            while len(server.requests) > seen or not seen:  # until nothing is taken any more
                seen = len(server.requests)
                time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(15) == 128 + number
        finally:
            process.kill()
            process.wait()
            os.close(reading)
    assert seen < 3000


@pytest.mark.unsanitized
@pytest.mark.parametrize("most", [7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 24])
@pytest.mark.parametrize("options", [(), ("--processes", "4", "--digest", "sha-256", "--verify")], ids=["plain", "all"])
def test_few_descriptors_are_enough_or_refused(tmp_path: Path, most: int, options: tuple[str, ...]) -> None:
    """With a hard limit of so many, a run is whole, or one line says what to raise."""
    folder = tmp_path / "up"
    folder.mkdir()
    for number in range(20):
        (folder / str(number)).write_bytes(b"x")
    limited = ("sh", "-c", 'ulimit -n "$0"; exec "$@"', str(most))
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url, *options, prefix=limited)
    if run.code:
        assert run.code == 2
        assert len(run.err.splitlines()) == 1
        assert run.told(f"fastpost: {most} open files are too few", "ulimit -n")
        assert not server.requests
    else:
        assert most >= 18
        assert run.files["ok"] == 20
