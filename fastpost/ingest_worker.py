"""The process of the embedded server: h2corn with the ingest application, until the parent lets go.

The parent (`ingest`) starts it and holds the other end of a socket, the lifeline. What is said on it is one line: the
worker's "ready", or why it can't serve. The lifeline closes when the parent stops, exits or is killed, and that
ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import resource
import shutil
import signal
import socket
from typing import TYPE_CHECKING

from fastpost.ingest_app import IngestApp
from fastpost.ingest_store import Store

if TYPE_CHECKING:
    from h2corn import Server

READY = b"ready"
CA_FILE = "ca.pem"
KEY_FILE = "server.pem"

#: Octets that one stream, and all streams of a connection, may have on the way: the server must not be what
#: an upload waits for. Memory is bounded by the second one.
STREAM_WINDOW = 16 * 1024 * 1024
CONNECTION_WINDOW = 32 * 1024 * 1024
MAX_STREAMS = 10_000
#: Seconds without an octet before a client is given up. Long: at a limited rate one of thousands of streams waits long
#: for its turn, and a client may be paused (Ctrl-Z).
IDLE = 600.0
#: Seconds that uploads in flight get when the server stops.
GRACE = 1.0
#: Seconds after which the kernel ends a worker that did not manage to stop.
DEADLINE = 4
#: Seconds between two looks at who the parent is. The lifeline alone would do, but for a parent that forks: the copy
#: keeps its end open.
PARENT_CHECK = 1.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What the parent hands to the worker; every field survives `repr`.

    Args:
        parent: process id.
        lifeline: descriptor of the worker's end.
        listener: descriptor of the listening socket.
        root: folder to store in, or None to drop.
        certificates: folder of the CA certificate for TLS, or None for cleartext.
        names: host names and addresses that the certificate is for.
        max_body: octets, or None.
        max_requests: uploads at once, or None.
        digests: hash every body and tell its SHA-256.
    """

    parent: int
    lifeline: int
    listener: int
    root: str | None
    certificates: str | None
    names: tuple[str, ...]
    max_body: int | None
    max_requests: int | None
    digests: bool


def main(work: Work) -> None:
    """Serve until the lifeline closes, the parent is gone, or SIGTERM."""
    with socket.socket(fileno=work.lifeline) as lifeline:
        try:
            asyncio.run(_serve(work, lifeline))
        except ImportError as error:
            _tell(lifeline, f"{error}; install fastpost once more, with all that it depends on")
        except (OSError, ValueError) as error:
            _tell(lifeline, f"{type(error).__name__}: {error}")
        finally:
            if work.certificates is not None:
                shutil.rmtree(work.certificates, ignore_errors=True)


def _tell(lifeline: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # the parent may be gone
        lifeline.send(text.encode("utf-8", "replace"))


async def _serve(work: Work, lifeline: socket.socket) -> None:
    server = _server(work)
    serving = asyncio.create_task(server.serve())
    await server.wait_started()
    os.close(work.listener)  # h2corn has its own copy; this one would keep the port open while it stops
    if work.certificates is not None:
        os.unlink(os.path.join(work.certificates, KEY_FILE))  # it has been read
    _stop_in_time(server, lifeline, work.parent)
    lifeline.send(READY)
    await serving


def _server(work: Work) -> Server:
    from h2corn import Config, Server

    _raise_file_limit()
    key = None if work.certificates is None else _make_certificates(pathlib.Path(work.certificates), work.names)
    app = IngestApp(
        None if work.root is None else Store(work.root),
        max_body=work.max_body,
        max_requests=work.max_requests,
        digests=work.digests,
    )
    config = Config(
        bind=(f"fd://{work.listener}",),
        lifespan="off",
        access_log=False,
        certfile=key,
        keyfile=key,
        runtime_threads=1,  # a second one gained nothing: hashing is what takes the time
        max_concurrent_streams=MAX_STREAMS,
        h2_initial_stream_window_size=STREAM_WINDOW,
        h2_initial_connection_window_size=CONNECTION_WINDOW,
        max_request_body_size=0,  # the application has its own limit
        timeout_request_body_idle=IDLE,
        timeout_keep_alive=IDLE,
        h2_timeout_write=IDLE,
        h2_timeout_response_stall=IDLE,
        timeout_graceful_shutdown=GRACE,
    )
    return Server(app, config)


def _stop_in_time(server: Server, lifeline: socket.socket, parent: int) -> None:
    """Make the server stop when the lifeline ends, the parent changes or a signal says so."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(lifeline)
        signal.alarm(DEADLINE)
        server.shutdown()

    def check_parent() -> None:
        if os.getppid() == parent:
            loop.call_later(PARENT_CHECK, check_parent)
        else:
            stop()

    loop.add_reader(lifeline, stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    check_parent()


def _raise_file_limit() -> None:
    """Storing takes two descriptors an upload in flight."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _make_certificates(folder: pathlib.Path, names: tuple[str, ...]) -> pathlib.Path:
    """Write the certificate of a new CA, for clients, and the server's key and certificates; return the latter's file.

    Nobody keeps the CA's key.
    """
    import trustme

    authority = trustme.CA(organization_name="fastpost embedded server")
    authority.cert_pem.write_to_path(folder / CA_FILE)
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(folder / KEY_FILE)
    return folder / KEY_FILE
