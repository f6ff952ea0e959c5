"""How many files a run may have open, and what is left to all else."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from fastpost import tcp
from fastpost.endpoint import Endpoint

#: Opens files as a run does until none can be opened any more; prints how many descriptors are left then.
_USE_ALL = """
import os, resource, sys
from fastpost._chunker import Source
from fastpost.open_files import raise_open_files
raise_open_files()
sources = []
try:
    while True:
        sources.append(Source.from_path(os.fsencode(sys.executable)))
except OSError:
    pass
opened = len(sources)
sources.pop().shut()  # for the folder that is listed now
print(opened, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.parametrize(("limit", "left"), [(30, 4), (22, 0), (64, 16), (400, 16)])
def test_files_leave_descriptors_to_all_else(limit: int, left: int) -> None:
    """What is loaded or connected to in the midst of a run would find none; where there are few, files need them."""
    shell = f'ulimit -n {limit}; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", _USE_ALL], check=True, capture_output=True, text=True
    )
    opened, spared = map(int, done.stdout.split())
    assert spared == left
    assert opened + spared <= limit - 3
    assert opened >= 14


def test_too_few_are_refused() -> None:
    shell = 'ulimit -n 15; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", _USE_ALL], check=False, capture_output=True, text=True
    )
    assert "UsageError" in done.stderr
    assert "ulimit -n 1024" in done.stderr


def limited(limit: int, *command: str) -> subprocess.CompletedProcess[str]:
    shell = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", sys.executable, *command]
    return subprocess.run(shell, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("limit", "connections", "code"), [(24, "8", 2), (24, "1", 0), (40, "8", 0)])
def test_the_embedded_server_needs_some_too(tmp_path: Path, limit: int, connections: str, code: int) -> None:
    """It would end in the midst of the run, and its port would refuse whoever comes."""
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    done = limited(limit, "-m", "fastpost", "upload", str(tmp_path), "--connections", connections, "-c", "50")
    assert done.returncode == code, done.stderr
    assert ("too few for the embedded server" in done.stderr) == (code == 2)


def test_nor_is_it_measured_with_too_few() -> None:
    options = ["--count", "10", "--connections", "auto,30"]
    done = limited(44, "-m", "fastpost", "bench", *options)
    assert done.returncode == 2
    assert "too few for the embedded server and 30 connections" in done.stderr


@pytest.mark.parametrize("limit", [12, 16, 20])
def test_a_server_that_has_too_few_says_so(limit: int) -> None:
    done = limited(limit, "-m", "fastpost", "serve")
    assert done.returncode
    assert "raise the limit (ulimit -n 1024)" in done.stderr.splitlines()[-1]


def test_a_client_that_has_none_left_to_connect_with_says_so() -> None:
    failure = tcp.no_connection(
        Endpoint("127.0.0.1", 9, None, "127.0.0.1:9"), OSError(errno.EMFILE, "Too many open files")
    )
    assert "ulimit -n" in str(failure)
    assert "check host and port" not in str(failure)
