"""Rows of docs/reliability.md that no other test has, through the command line; and that the table names real tests."""

from __future__ import annotations

import ast
import collections
import email.utils
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hostile import PATIENCE, STREAMS, WINDOW, HostileServer, Line, Stream, check, folder_of, upload
from integration import command
from integration.scripted import ScriptedServer

from fastpost import session
from fastpost._streams import DataPlane
from fastpost.errors import ErrorCode

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "reliability.md"

pytestmark = pytest.mark.timeout(30)


# --- the table ------------------------------------------------------------------------------------


def missing_tests(document: Path, *, least: int) -> list[str]:
    """Return the tests that a document names and that don't exist; it must name so many at least."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", document.read_text("utf-8"))
    assert len(named) >= least
    return [f"{name}::{test}" for name, test in named if test not in functions_of(name)]


@functools.cache
def functions_of(name: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / name).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_names_tests_that_exist() -> None:
    assert missing_tests(TABLE, least=80) == []


def test_every_row_of_the_table_names_a_test() -> None:
    rows = [line for line in TABLE.read_text("utf-8").splitlines() if re.match(r"\| (?!what |section |-)", line)]
    assert len(rows) > 25
    assert [row for row in rows if "::" not in row] == []


# --- the server asks for less ---------------------------------------------------------------------


def test_a_server_that_asks_for_calm_gets_half_the_streams(tmp_path: Path) -> None:
    """It takes three at a time and resets every other one with ENHANCE_YOUR_CALM."""
    folder = folder_of(tmp_path, [30_000] * 24)

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers" and sum(one.open for one in line.streams.values()) > 3:
            line.send(line.reset(stream, ErrorCode.ENHANCE_YOUR_CALM))
        return False

    def scenario(line: Line) -> None:
        line.greet({WINDOW: 10_000})
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--concurrency", "12")
    check(outcome, folder, server)
    retried, replayed = outcome.repeated
    assert retried >= 9
    assert replayed == 0


def test_a_server_that_is_never_calm_is_given_up(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100] * 6)

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers":
            line.send(line.reset(stream, ErrorCode.ENHANCE_YOUR_CALM))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--retries", "9")
    check(outcome, folder, server, {path.name: "ServerOverloaded" for path in folder.iterdir()})
    assert collections.Counter(collections.Counter(one.path for one in server.streams()).values()) == {4: 6}


# --- when to come back ----------------------------------------------------------------------------


def busy_until(when: str) -> HostileServer:
    """Return a server whose first answer for 001 is 503 with this Retry-After."""
    told: list[Stream] = []

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event != "end" or stream.path != "/001" or told:
            return False
        told.append(stream)
        line.send(line.response(stream, 503, retry_after=when))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    return HostileServer(scenario)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_retry_after_as_a_date(tmp_path: Path, method: str) -> None:
    folder = folder_of(tmp_path, [100] * 3)
    with busy_until(email.utils.formatdate(time.time() - 5, usegmt=True)) as server:
        outcome = upload(folder, server, "--method", method)
    check(outcome, folder, server)
    assert outcome.repeated == (1, 0)


@pytest.mark.parametrize(
    ("when", "options"),
    [
        pytest.param("7200", [], id="more than an hour"),
        pytest.param(email.utils.formatdate(time.time() + 90_000, usegmt=True), [], id="tomorrow"),
        pytest.param("30", ["--retry-max-time", "5"], id="beyond --retry-max-time"),
        pytest.param("0", ["--retries", "0"], id="no retries"),
    ],
)
def test_a_server_that_asks_for_too_much_is_not_waited_for(tmp_path: Path, when: str, options: list[str]) -> None:
    folder = folder_of(tmp_path, [100] * 3)
    with busy_until(when) as server:
        outcome = upload(folder, server, *options)
    check(outcome, folder, server, {"001": "HttpStatus"})


@pytest.mark.parametrize("repeated", [False, True])
def test_post_is_repeated_only_on_request(tmp_path: Path, repeated: bool) -> None:
    folder = folder_of(tmp_path, [100] * 3)
    struck: list[Stream] = []

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event != "end" or stream.path != "/001" or struck:
            return False
        struck.append(stream)
        line.send(line.reset(stream, ErrorCode.INTERNAL_ERROR))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--method", "POST", *["--retry-post"] * repeated)
    check(outcome, folder, server, {} if repeated else {"001": "StreamReset"})


@pytest.mark.parametrize("status", [301, 307, 308])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_redirects_are_followed_on_request(tmp_path: Path, status: int, method: str) -> None:
    """Early ones and late ones, relative and absolute ones, one that leads in a circle; 301 may change the method."""
    folder = folder_of(tmp_path, [0, 100, 70_000, 400_000])

    def react(line: Line, stream: Stream, event: str) -> bool:
        whither = {"/001": "moved/001", "/002": f"{server.url}moved/002?x=1", "/003": "/003"}.get(stream.path)
        if whither is None:
            return False
        if event == ("headers" if stream.path == "/002" else "end"):
            line.send(line.response(stream, status, location=whither))
        return True

    def scenario(line: Line) -> None:
        line.greet({WINDOW: 30_000})
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--location", "--method", method, "--to", f"{server.url}{{path}}")
    lost = ["001", "002", "003"] if status == 301 else ["003"]
    assert outcome.failed == dict.fromkeys(lost, "HttpStatus")
    assert len([one for one in server.streams() if one.path == "/003"]) == (1 if status == 301 else 6)
    if status != 301:
        taken = server.taken()
        assert taken["moved/001"] == (folder / "001").read_bytes()
        assert taken["moved/002?x=1"] == (folder / "002").read_bytes()


# --- limits of the protocol and of the process ----------------------------------------------------


def test_stream_ids_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection has eight ids left; what waits goes to a new one."""
    monkeypatch.setattr(session, "DataPlane", functools.partial(DataPlane, first_stream_id=2**31 - 15))
    folder = folder_of(tmp_path, [100, 0, 70_000] * 7)
    with HostileServer(lambda line: line.greet()) as server:
        outcome = upload(folder, server)
    check(outcome, folder, server)
    assert outcome.repeated == (0, 0)
    assert max(stream.stream_id for stream in server.streams()) < 2**31
    assert len(server.lines) == 3


@pytest.mark.unsanitized
def test_few_descriptors(tmp_path: Path) -> None:
    """A hard limit below the concurrency: fewer files at a time, and no error."""
    folder = folder_of(tmp_path, [70_000] * 150)
    with HostileServer(lambda line: line.greet()) as server:
        run = command.upload(
            folder, "--to", server.url, "-c", "100", prefix=["sh", "-c", 'ulimit -n 30; exec "$@"', "sh"]
        )
    assert run.code == 0
    assert server.taken() == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_few_descriptors_and_many_connections(tmp_path: Path) -> None:
    """Connections have all but those that files leave to all else: then files take turns at those."""
    folder = folder_of(tmp_path, [10] * 200)
    with HostileServer(lambda line: line.greet()) as server:
        run = command.upload(
            *(folder, "--to", server.url, "-c", "50", "--connections", "46"),
            prefix=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"],
        )
    assert run.code == 0, run.report["errors"]
    assert server.taken() == {path.name: path.read_bytes() for path in folder.iterdir()}


FAULT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int broken(int fd)
{
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name);
    return length > 4 && memcmp(name + length - 4, "/bad", 4) == 0;
}

ssize_t pread64(int fd, void *out, size_t length, off64_t offset)
{
    ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    if (broken(fd)) { errno = EIO; return -1; }
    return real(fd, out, length, offset);
}

ssize_t preadv64v2(int fd, const struct iovec *vector, int count, off64_t offset, int flags)
{
    ssize_t (*real)(int, const struct iovec *, int, off64_t, int) = dlsym(RTLD_NEXT, "preadv64v2");
    if (broken(fd)) { errno = EIO; return -1; }
    return real(fd, vector, count, offset, flags);
}
"""


@pytest.mark.unsanitized
@pytest.mark.parametrize("size", [300, 400_000])
def test_a_disk_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """EIO from the disk fails that file alone, also in the middle of its upload."""
    source, shim = tmp_path / "fault.c", tmp_path / "fault.so"
    source.write_text(FAULT)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    folder = folder_of(tmp_path, [100, 100_000, 5])
    folder.joinpath("bad").write_bytes(bytes(size))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    with HostileServer(lambda line: line.greet({WINDOW: 1_000_000})) as server:
        run = command.upload(folder, "--to", server.url)
    assert run.code == 1
    assert run.errors == {"FileUnreadable": 1}
    assert run.told("bad:", "could not be read", "Input/output error")
    assert server.taken() == {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "bad"}
    assert [(one.ended, one.reset) for one in server.streams() if one.path == "/bad"] == [(False, ErrorCode.CANCEL)]


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.unsanitized
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_ends_the_run_in_order(tmp_path: Path, number: signal.Signals, code: int, twice: bool) -> None:
    """What is in flight is finished and nothing is begun; a second signal ends that too."""
    folder = folder_of(tmp_path, [50_000] * 20)
    begun, released = threading.Event(), threading.Event()

    def scenario(line: Line) -> None:
        line.greet({STREAMS: 4})
        line.until(lambda: sum(stream.ended for stream in line.streams.values()) == 4)
        begun.set()
        if twice:
            line.drain()
        released.wait(PATIENCE)

    with HostileServer(scenario) as server:
        arguments = [sys.executable, "-m", "fastpost", "upload", str(folder), "--to", server.url]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert begun.wait(PATIENCE)
            process.send_signal(number)
            assert "stopping" in process.stderr.readline()
            if twice:
                process.send_signal(number)
            released.set()
            out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in err
    assert f"{0 if twice else 4:,} ok" in out
    assert len(list(server.streams())) == 4
    assert len(server.taken()) == (0 if twice else 4)
    assert {stream.reset for stream in server.streams()} == {ErrorCode.CANCEL if twice else None}


@pytest.mark.unsanitized
def test_a_reader_that_leaves_ends_nothing(tmp_path: Path) -> None:
    """As in `| head -1`: no traceback, and the files went up."""
    folder = folder_of(tmp_path)
    read, write = os.pipe()
    os.close(read)
    with ScriptedServer() as server:
        arguments = [sys.executable, "-m", "fastpost", "upload", str(folder), "--to", server.url]
        done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, timeout=PATIENCE * 2)
    os.close(write)
    assert "Traceback" not in done.stderr
    assert len(server.bodies()) == len(list(folder.iterdir()))
