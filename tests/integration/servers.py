"""Real servers on loopback, each a context manager: started, waited for, and always stopped again.

A server gets a folder of its own for configuration, temporary files and its log. When the test body
fails, the end of the log is printed, which pytest shows. A server that is not installed skips the
test with the reason, or fails it when FASTPOST_REQUIRE_SERVERS=1.

Ports: a socket is bound to port 0, and stays bound without listening until the server stops.
Nobody else is given that port meanwhile, while the server, which sets SO_REUSEADDR or SO_REUSEPORT, may bind it
too. So nothing has to be retried.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from .command import python_path

HERE = Path(__file__).parent
HOST = "127.0.0.1"

#: Seconds until a server must accept connections, and until it must be gone after SIGTERM.
START_LIMIT = 30.0
STOP_LIMIT = 10.0


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Files of one throw-away authority and the server certificate that it signed, in PEM."""

    cafile: Path
    chain: Path
    key: Path
    #: Chain and key in one file.
    both: Path


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs. `url` ends in a slash."""

    url: str
    cafile: Path | None = None
    #: Where a storing server keeps what it was sent.
    store: Path | None = None
    #: Where the application behind the server writes what it received.
    table: Path | None = None

    def records(self) -> list[dict[str, Any]]:
        """Return the application's table: a record for each complete body, in the order of their ends."""
        assert self.table is not None
        return [json.loads(line) for line in self.table.read_text().splitlines()]

    def received(self) -> dict[str, set[tuple[int, str]]]:
        """Return what was received under each path: canonical request path → {(octets, SHA-256 in hex)}."""
        found: dict[str, set[tuple[int, str]]] = {}
        for record in self.records():
            found.setdefault(record["path"], set()).add((record["size"], record["sha256"]))
        return found


Start = Callable[[Path, Certificates | None], contextlib.AbstractContextManager[Server]]


def certificates(folder: Path, *names: str) -> Certificates:
    """Make an authority and a certificate for `names` (default: this loopback address and localhost)."""
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or (HOST, "localhost")))
    made = Certificates(folder / "ca.pem", folder / "chain.pem", folder / "key.pem", folder / "both.pem")
    # Granian reads PKCS #8 keys only.
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    authority.cert_pem.write_to_path(str(made.cafile))
    made.chain.write_bytes(chain)
    made.key.write_bytes(key)
    made.both.write_bytes(chain + key)
    return made


# --- servers that store ---------------------------------------------------------------------------


@contextlib.contextmanager
def nginx(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve a WebDAV store with nginx's defaults: a connection ends after 1,000 requests."""
    binary = _binary("nginx")
    store = work / "store"
    with _port() as port:
        work.joinpath("nginx.conf").write_text(
            f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            worker_processes 1;
            pid {work}/nginx.pid;
            error_log stderr;
            events {{ }}
            http {{
                access_log off;
                client_max_body_size 0;
                client_body_temp_path {work}/body;
                proxy_temp_path {work}/proxy;
                fastcgi_temp_path {work}/fastcgi;
                scgi_temp_path {work}/scgi;
                uwsgi_temp_path {work}/uwsgi;
                {f"ssl_certificate {tls.chain}; ssl_certificate_key {tls.key};" if tls else ""}
                server {{
                    listen {HOST}:{port} {"ssl " if tls else ""}http2;
                    root {store};
                    location / {{
                        dav_methods PUT;
                        create_full_put_path on;
                    }}
                }}
            }}
            """
        )
        store.mkdir()
        command = [binary, "-p", str(work), "-e", "stderr", "-c", str(work / "nginx.conf")]
        with _running(command, work, port):
            yield _server(port, tls, store=store)


# --- servers that run the digest application ------------------------------------------------------


@contextlib.contextmanager
def granian(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve the digest application with granian (hyper)."""
    certificate = ("--ssl-certificate", tls.chain, "--ssl-keyfile", tls.key) if tls else ()
    with _application("granian", work, tls) as (port, start):
        options = ("--interface", "asgi", "--host", HOST, "--port", port, *certificate)
        with start(*options, "digest_app:app") as server:
            yield server


@contextlib.contextmanager
def hypercorn(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve the digest application with hypercorn, which ends a connection after 1,000 requests."""
    certificate = ("--certfile", tls.chain, "--keyfile", tls.key) if tls else ()
    with (
        _application("hypercorn", work, tls) as (port, start),
        start("--bind", f"{HOST}:{port}", "--workers", 1, *certificate, "digest_app:app") as server,
    ):
        yield server


@contextlib.contextmanager
def h2corn(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve the digest application with h2corn."""
    certificate = ("--certfile", tls.chain, "--keyfile", tls.key) if tls else ()
    with (
        _application("h2corn", work, tls) as (port, start),
        start("--bind", f"{HOST}:{port}", "--no-access-log", *certificate, "digest_app:app") as server,
    ):
        yield server


@contextlib.contextmanager
def delaying(work: Path) -> Iterator[Server]:
    """Serve the application with known delays with h2corn."""
    with (
        _application("h2corn", work, None) as (port, start),
        start("--bind", f"{HOST}:{port}", "--no-access-log", "delay_app:app") as server,
    ):
        yield server


# --- servers in front of the digest application ---------------------------------------------------


@contextlib.contextmanager
def caddy(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve with caddy in front of granian, which reads every body to its end."""
    binary = _binary("caddy")
    with _behind(work) as (inner, backend), _port() as port:
        work.joinpath("Caddyfile").write_text(
            f"""
            {{
                admin off
                auto_https off
                servers {{
                    protocols h1 h2 h2c
                }}
            }}
            {"https" if tls else "http"}://{HOST}:{port} {{
                {f"tls {tls.chain} {tls.key}" if tls else ""}
                reverse_proxy {HOST}:{inner}
            }}
            """
        )
        home = {"HOME": str(work), "XDG_DATA_HOME": str(work), "XDG_CONFIG_HOME": str(work)}
        command = [binary, "run", "--adapter", "caddyfile", "--config", str(work / "Caddyfile")]
        with _running(command, work, port, home):
            yield _server(port, tls, table=backend.table)


@contextlib.contextmanager
def h2o(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve with h2o in front of granian."""
    binary = _binary("h2o")
    with _behind(work) as (inner, backend), _port() as port:
        work.joinpath("h2o.conf").write_text(
            "\n".join(
                [
                    *(["user: root"] if os.geteuid() == 0 else []),
                    "num-threads: 1",
                    "listen:",
                    f"  host: {HOST}",
                    f"  port: {port}",
                    *(["  ssl:", f"    certificate-file: {tls.chain}", f"    key-file: {tls.key}"] if tls else []),
                    "hosts:",
                    "  default:",
                    "    paths:",
                    "      /:",
                    f"        proxy.reverse.url: http://{HOST}:{inner}/",
                    "",
                ]
            )
        )
        with _running([binary, "--conf", str(work / "h2o.conf")], work, port):
            yield _server(port, tls, table=backend.table)


@contextlib.contextmanager
def haproxy(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve with HAProxy in front of granian.

    HTTP/1.1 between the two: over HTTP/2, HAProxy 2.6 hands bodies on in ever smaller frames, and granian ends the
    connection in the middle of a large one.
    """
    binary = _binary("haproxy")
    with _behind(work) as (inner, backend), _port() as port:
        work.joinpath("haproxy.cfg").write_text(
            "\n".join(
                [
                    "defaults",
                    "  mode http",
                    "  timeout connect 5s",
                    "  timeout client 60s",
                    "  timeout server 60s",
                    "frontend uploads",
                    f"  bind {HOST}:{port} " + (f"ssl crt {tls.both} alpn h2" if tls else "proto h2"),
                    "  default_backend application",
                    "backend application",
                    f"  server granian {HOST}:{inner}",
                    "",
                ]
            )
        )
        with _running([binary, "-db", "-f", str(work / "haproxy.cfg")], work, port):
            yield _server(port, tls, table=backend.table)


# --- servers that can do neither ------------------------------------------------------------------


@contextlib.contextmanager
def nghttpd(work: Path, tls: Certificates | None) -> Iterator[Server]:
    """Serve with nghttpd, which sends every body back: 200, and as many octets down as went up."""
    binary = _binary("nghttpd")
    with _port() as port:
        certificate = [str(tls.key), str(tls.chain)] if tls else []
        command = [binary, "--address", HOST, "--htdocs", str(work), "--echo-upload", *([] if tls else ["--no-tls"])]
        with _running([*command, str(port), *certificate], work, port):
            yield _server(port, tls)


#: Servers that store what they are sent, those whose application tells what it received, and the rest.
STORING: dict[str, Start] = {"nginx": nginx}
HASHING: dict[str, Start] = {
    "caddy": caddy,
    "granian": granian,
    "h2corn": h2corn,
    "h2o": h2o,
    "haproxy": haproxy,
    "hypercorn": hypercorn,
}
ANSWERING: dict[str, Start] = {"nghttpd": nghttpd}
#: Servers that end a connection after 1,000 requests.
ENDING = frozenset({"nginx", "hypercorn"})


# --- processes and ports --------------------------------------------------------------------------


@contextlib.contextmanager
def _application(
    module: str, work: Path, tls: Certificates | None
) -> Iterator[tuple[int, Callable[..., contextlib.AbstractContextManager[Server]]]]:
    """Yield a port and a function that starts an ASGI server module with the given options on it."""
    if importlib.util.find_spec(module) is None:
        missing(f"the Python package {module} is not installed")
    table = work / "table.ndjson"
    table.touch()
    environment = {"DIGEST_TABLE": str(table), "PYTHONPATH": python_path(HERE)}

    with _port() as port:

        @contextlib.contextmanager
        def start(*options: object) -> Iterator[Server]:
            with _running([sys.executable, "-m", module, *map(str, options)], work, port, environment):
                yield _server(port, tls, table=table)

        yield port, start


@contextlib.contextmanager
def _behind(work: Path) -> Iterator[tuple[int, Server]]:
    """Run the digest application for a server in front of it; yields its port and itself."""
    inner = work / "application"
    inner.mkdir()
    with granian(inner, None) as server:
        yield int(server.url.rstrip("/").rpartition(":")[2]), server


@contextlib.contextmanager
def _port() -> Iterator[int]:
    """Reserve a free port of the loopback address."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def _running(
    command: Sequence[str], work: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends; its log is printed after any exception of the block."""
    log = work / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=work,
            # Not the sanitizer that the tests may run under: the servers are others' programs.
            env={**{name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port)
        yield
        assert process.poll() is None, f"{command[0]} ended by itself with code {process.returncode}"
    except BaseException:
        print(f"--- log of {' '.join(command)} ---\n{_tail(log)}")
        raise
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when the port accepts a connection. Raises AssertionError when the server ended or is too slow."""
    limit = time.monotonic() + START_LIMIT
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        assert time.monotonic() < limit, f"the server did not accept connections within {START_LIMIT:.0f} s"
        time.sleep(0.01)
    raise AssertionError(f"the server ended with code {process.returncode} before it accepted connections")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that was started here, gently at first; its worker processes go with it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT)
    # The session was made for this server alone: whatever is left in it is its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path, octets: int = 4000) -> str:
    return log.read_bytes()[-octets:].decode(errors="backslashreplace") or "(empty)"


def _binary(name: str) -> str:
    """Return the path of a server's program; system folders that users often lack in PATH included."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    return found or missing(f"{name} is not installed")


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it when FASTPOST_REQUIRE_SERVERS=1."""
    if os.environ.get("FASTPOST_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _server(port: int, tls: Certificates | None, store: Path | None = None, table: Path | None = None) -> Server:
    url = f"{'https' if tls else 'http'}://{HOST}:{port}/"
    return Server(url, tls.cafile if tls else None, store, table)
