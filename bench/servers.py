"""Servers to measure against: each in a process of its own, on a free loopback port, stopped by its pid.

h2corn grants 8 MiB windows, nghttpd its default of 64 KiB. Between them lies what real servers do. nginx stores what
it gets, by WebDAV. discard decrypts nothing and answers what is large, as if it were on another machine.
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
    """A server or client that this machine doesn't have, or that can't take part. The message says which and why."""


class Server(NamedTuple):
    """A running server. `url` ends in / or holds {path}; `pid` leads a process group of its own.

    `work` is a folder for whoever measures, gone when the server is; a server that stores does so in `store`.
    """

    name: str
    url: str
    cafile: Path | None
    pid: int
    work: Path
    store: Path | None = None

    def cpu(self) -> float:
        """Return the CPU seconds that the server's processes have used so far, user and system."""
        return sum(process_cpu(pid) for pid in _group(self.pid))

    def thread_cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each of the server's threads has used so far, by its number."""
        tasks = [task for pid in _group(self.pid) for task in _tasks(pid)]
        return {task.name: _cpu_ticks(task) / _TICKS for task in tasks}


def process_cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used so far, user and system; 0.0 when it is gone."""
    return _cpu_ticks(Path(f"/proc/{pid}")) / _TICKS


def _group(leader: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        with contextlib.suppress(ProcessLookupError):
            if name.isdigit() and os.getpgid(int(name)) == leader:
                yield int(name)


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _cpu_ticks(task: Path) -> int:
    try:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def start(name: str, *, tls: bool = False, digests: bool = False) -> Iterator[Server]:
    """Start the server called `name`, a key of _COMMANDS, and stop it at the end.

    With `digests` h2corn remembers the SHA-256 of each body (see bench.sink).
    Raises Absent when it is not installed or doesn't answer within ten seconds.
    """
    with tempfile.TemporaryDirectory(prefix="fastpost-bench-", dir=_memory() if name == "nginx" else None) as folder:
        work = Path(folder)
        pair = _certificate(work) if tls else None
        port = _free_port()
        argv, path = _COMMANDS[name](port, work, pair)
        environment = {"BENCH_DIGESTS": "1"} if digests else {}
        scheme = ("tls" if tls else "tcp") if name == "raw" else ("https" if tls else "http")
        with _process(name, argv, port, environment) as pid:
            url = f"{scheme}://{_HOST}:{port}/{path}"
            store = work / _STORE
            yield Server(name, url, pair.ca if pair else None, pid, work, store if store.is_dir() else None)


def _memory() -> Path | None:
    """Return a folder in memory to store in, or None when there is none with room for the largest set twice.

    On a disk with ext4, the server's CPU for the same 5,000 files rose from 0.4 s to 3.4 s as its store was filled and
    emptied again and again: clients would pay for those before them. In memory it stays at 0.3 s.
    """
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > 3 << 30 else None


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


def _h2corn(port: int, work: Path, pair: _Pair | None, window: int = _WINDOW) -> tuple[list[str], str]:
    argv = [
        *(sys.executable, "-m", "h2corn", "--bind", f"{_HOST}:{port}", "--no-access-log", "--lifespan", "off"),
        *("--h2-initial-stream-window-size", str(window), "--h2-initial-connection-window-size", str(window)),
        *("--max-request-body-size", "0"),
    ]
    if pair:
        argv += ["--certfile", str(pair.certificate), "--keyfile", str(pair.key)]
    return [*argv, "bench.sink:app"], ""


def _small_windows(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """h2corn with the windows that Node has: those of RFC 9113 §6.9.2."""
    return _h2corn(port, work, pair, 65_535)


def _small_frames(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """h2corn with the frames that h2load sends whatever it may: those of RFC 9113 §4.2."""
    argv, path = _h2corn(port, work, pair)
    return [*argv[:-1], "--h2-max-inbound-frame-size", "16384", argv[-1]], path


def _hypercorn(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """It ends a connection after 1,000 requests; that limit is lifted here."""
    configuration = work / "hypercorn.toml"
    tls = f'certfile = "{pair.certificate}"\nkeyfile = "{pair.key}"\n' if pair else ""
    configuration.write_text(f'bind = ["{_HOST}:{port}"]\nkeep_alive_max_requests = 100000000\n{tls}')
    return [sys.executable, "-m", "hypercorn", "-c", str(configuration), "bench.sink:app"], ""


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


def _telling(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """With each frame printed: silent, it needs less CPU than any client, and is never the limit.

    Printed to nowhere: a disk that has to take some 100 MB a second holds it up now and then.
    """
    (program, *options), path = _nghttpd(port, work, pair)
    return ["sh", "-c", 'exec "$0" "$@" >/dev/null', program, "--verbose", *options], path


def _nginx(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """Store by WebDAV."""
    (work / _STORE).mkdir()
    return _nginx_that(_STORES, port, work, pair)


def _passing(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """Be the proxy of an application that drops all: each upload is read whole, into memory, and passed on.

    What it costs to store a large one in memory varies by a third from minute to minute; this does not.
    """
    return _nginx_that(_PASSES_ON, port, work, pair)


def _nginx_that(does: str, port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """By default it ends a connection after 1,000 requests. That is lifted: reconnecting is no subject here."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin")
    if program is None:
        raise Absent("nginx is not installed (Debian: nginx-light)")
    configuration = work / "nginx.conf"
    configuration.write_text(_NGINX.format(
        user="user root;" if os.geteuid() == 0 else "",
        work=work,
        certificate=f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};" if pair else "",
        listen=f"{_HOST}:{port} {'ssl ' if pair else ''}http2",
        does=does.format(work=work, store=work / _STORE),
    ))  # fmt: skip
    return [program, "-p", str(work), "-e", "stderr", "-c", str(configuration)], ""


_NGINX = """
{user}
daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    scgi_temp_path {work}/scgi;
    uwsgi_temp_path {work}/uwsgi;
    {certificate}
    server {{
        listen unix:{work}/application;
        return 204;
    }}
    server {{
        listen {listen};
        location / {{ {does} }}
    }}
}}
"""
_STORE = "store"
_STORES = "root {store}; dav_methods PUT; create_full_put_path on;"
_PASSES_ON = "client_body_buffer_size 2m; proxy_pass http://unix:{work}/application;"


def _raw(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    argv = [sys.executable, "-m", "bench.rivals.raw_sink", str(port)]
    return [*argv, str(pair.certificate), str(pair.key)] if pair else argv, ""


def _discard(port: int, work: Path, pair: _Pair | None) -> tuple[list[str], str]:
    """Leave a core to the client, as one on another machine does. What it is good for is told there."""
    if pair is None:
        raise Absent("discard speaks HTTP/2 over TLS only")
    return [sys.executable, "-m", "bench.discard_server", str(port), str(pair.certificate), str(pair.key)], ""


_COMMANDS = {
    "discard": _discard,
    "h2corn": _h2corn,
    "h2corn-64k": _small_windows,
    "h2corn-16k-frames": _small_frames,
    "hypercorn": _hypercorn,
    "nghttpd": _nghttpd,
    "nghttpd-verbose": _telling,
    "nginx": _nginx,
    "nginx-passing": _passing,
    "raw": _raw,
}
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
