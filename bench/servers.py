"""Servers to measure against: each in a process of its own, on a free loopback port, stopped by its pid.

h2corn grants 8 MiB windows, nghttpd its default of 64 KiB. Between them lies what real servers do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"
_WINDOW = 8 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


class Absent(Exception):
    """A server that this machine doesn't have, or that didn't start. The message says which."""


class Server(NamedTuple):
    """A running server. `url` ends in / or holds {path}; `pid` leads a process group of its own."""

    name: str
    url: str
    cafile: Path | None
    pid: int

    def cpu(self) -> float:
        """Return the CPU seconds that the server's processes have used so far, user and system."""
        return sum(_cpu_ticks(pid) for pid in _group(self.pid)) / _TICKS


def _group(leader: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        with contextlib.suppress(ProcessLookupError):
            if name.isdigit() and os.getpgid(int(name)) == leader:
                yield int(name)


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def start(name: str, *, tls: bool = False, digests: bool = False) -> Iterator[Server]:
    """Start the server called `name`: h2corn, nghttpd or raw, and stop it at the end.

    With `digests` h2corn remembers the SHA-256 of each body (see bench.sink).
    Raises Absent when it is not installed or doesn't answer within ten seconds.
    """
    with tempfile.TemporaryDirectory(prefix="fastpost-bench-") as folder:
        work = Path(folder)
        pair = _certificate(work) if tls else None
        port = _free_port()
        argv, path = _COMMANDS[name](port, work, pair)
        environment = {"BENCH_DIGESTS": "1"} if digests else {}
        scheme = ("tls" if tls else "tcp") if name == "raw" else ("https" if tls else "http")
        with _process(name, argv, port, environment) as pid:
            yield Server(name, f"{scheme}://{_HOST}:{port}/{path}", pair.ca if pair else None, pid)


class _Pair(NamedTuple):
    ca: Path
    certificate: Path
    key: Path


def _certificate(work: Path) -> _Pair:
    """Make them in a process of its own: cryptography would add 15 MB to the floor of measure.resident_floor."""
    subprocess.run([sys.executable, "-m", "trustme", "-q", "-d", work, "-i", "localhost", _HOST], check=True)
    return _Pair(work / "client.pem", work / "server.pem", work / "server.key")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _h2corn(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    argv = [
        *(sys.executable, "-m", "h2corn", "--bind", f"{_HOST}:{port}", "--no-access-log", "--lifespan", "off"),
        *("--h2-initial-stream-window-size", str(_WINDOW), "--h2-initial-connection-window-size", str(_WINDOW)),
        *("--max-request-body-size", "0"),
    ]
    if pair:
        argv += ["--certfile", str(pair.certificate), "--keyfile", str(pair.key)]
    return [*argv, "bench.sink:app"], ""


def _nghttpd(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """It answers 200 only for files that it has: one empty file takes all, the path goes into the query."""
    documents = work / "htdocs"
    documents.mkdir()
    (documents / "sink").touch()
    program = shutil.which("nghttpd")
    if program is None:
        raise Absent("nghttpd is not installed (Debian: nghttp2-server)")
    argv = [program, "--address", _HOST, "--htdocs", str(documents), str(port)]
    return [*argv, str(pair.key), str(pair.certificate)] if pair else [*argv, "--no-tls"], "sink?{path}"


def _raw(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    argv = [sys.executable, "-m", "bench.rivals.raw_sink", str(port)]
    return [*argv, str(pair.certificate), str(pair.key)] if pair else argv, ""


_COMMANDS = {"h2corn": _h2corn, "nghttpd": _nghttpd, "raw": _raw}
NAMES = ("h2corn", "nghttpd")


@contextlib.contextmanager
def _process(name: str, argv: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator[int]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=os.environ | environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            if not _listens(process, port):
                log.seek(0)
                raise Absent(f"{name} did not start: {log.read().decode(errors='replace')[-500:].strip()}")
            yield process.pid
        finally:
            _stop(process)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
            return True
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group that the server leads: TERM first, KILL after five seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        return
