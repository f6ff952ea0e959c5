"""The embedded ingest server: a real HTTP/2 server in a process of its own, which ends with this one.

    with Ingest() as server:
        ...  # upload to server.url

`ingest_worker` is what runs in the other process, `ingest_app` the application, `ingest_store` where files go. Why
h2corn: docs/decisions/0001-embedded-server.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from fastpost.errors import ServeFailed, UsageError
from fastpost.ingest_app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Ingest", "app"]

#: Seconds that the server gets to start. It needs a fraction of one, but a machine may be busy.
START_TIMEOUT = 30.0
#: Seconds that it gets to stop. It has a shorter deadline of its own; this one is for a process that doesn't run.
STOP_TIMEOUT = 6.0

#: What all programs say who have no descriptor left (EMFILE), and the cure.
_NO_FILES = b"Too many open files"
_MORE_FILES = "raise the limit (ulimit -n 1024)"

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where to reach a server that listens everywhere


class Ingest:
    """A server that takes uploads by PUT and POST, and answers with the SHA-256 of each in `repr-digest` (RFC 9530).

    It runs from `start` to `stop`, or as a context manager. It also ends when this process ends, however that happens.
    The terminal's Ctrl-C doesn't reach it: this process decides.

    Args:
        root: folder to store the uploads in, under their URL paths; None hashes and drops them.
        host: name or address to listen on.
        port: TCP port; 0 chooses a free one.
        tls: serve https with a certificate made for this run. `cafile` is what a client must trust.
        max_body: octets of the largest upload taken (larger ones get 413), or None for any.
        max_requests: uploads taken at once (more get 503), or None for any number.
        digests: False: a sink for measurements, which hashes nothing and tells no digest.

    Raises:
        UsageError: root is no folder to write in, or port is no port.
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        max_body: int | None = None,
        max_requests: int | None = None,
        digests: bool = True,
    ) -> None:
        if not 0 <= port <= 65535:
            raise UsageError(f"port {port} is no TCP port: they go from 1 to 65535, and 0 chooses a free one")
        if root is not None:
            _check_root(root)
        #: Ends in a slash; "" while the server doesn't run.
        self.url = ""
        #: With tls, the file of the CA certificate (PEM) while the server runs.
        self.cafile: pathlib.Path | None = None
        #: The server's process id while it runs.
        self.pid: int | None = None
        self._address = (host, port)
        self._tls = tls
        self._settings = {
            "root": None if root is None else os.path.abspath(root),
            "max_body": max_body,
            "max_requests": max_requests,
            "digests": digests,
        }
        self._worker: _Worker | None = None
        self._open = contextlib.ExitStack()

    def start(self) -> None:
        """Start the server; when this returns, it answers at `url`.

        Raises:
            ServeFailed: the port is taken or forbidden, the host is not of this machine, or the server didn't start.
            RuntimeError: it runs already.
        """
        if self._worker is not None:
            raise RuntimeError("this server runs already")
        try:
            self._start()
        except OSError as error:  # no process, no temporary file
            cure = f": {_MORE_FILES}" if error.errno == errno.EMFILE else ""
            raise ServeFailed(f"the embedded server did not start: {error}{cure}") from error

    def _start(self) -> None:
        with contextlib.ExitStack() as stack, _listen(*self._address) as listener:
            bound, port = listener.getsockname()[:2]
            host = _LOOPBACK.get(bound, bound)
            settings = self._settings | {"names": _names(self._address[0], host), "certificates": None}
            if self._tls:
                folder = tempfile.TemporaryDirectory(prefix="fastpost-", ignore_cleanup_errors=True)
                settings["certificates"] = stack.enter_context(folder)
            self._worker = stack.enter_context(_work(listener, settings))
            self._open = stack.pop_all()
        self.pid = self._worker.process.pid
        self.cafile = pathlib.Path(folder.name, "ca.pem") if self._tls else None
        self.url = f"http{'s' if self._tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/"

    def stop(self) -> None:
        """Stop the server: uploads in flight get a second. Does nothing when it doesn't run."""
        self._worker = self.pid = self.cafile = None
        self.url = ""
        self._open.close()

    def wait(self) -> None:
        """Block until another thread calls `stop`.

        Raises:
            ServeFailed: the server ended by itself.
            RuntimeError: it doesn't run.
        """
        worker = self._worker
        if worker is None:
            raise RuntimeError("this server doesn't run")
        said = worker.lifeline.recv(4096)
        if self._worker is worker:
            raise ServeFailed(f"the embedded server ended by itself: {_why(said, worker)}")

    def __enter__(self) -> Ingest:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    #: At end of file, the process has ended; when this end is shut, the process stops.
    lifeline: socket.socket
    #: What the process wrote to stdout and stderr.
    log: IO[bytes]


@contextlib.contextmanager
def _work(listener: socket.socket, settings: dict[str, Any]) -> Iterator[_Worker]:
    """Run the server's process; gives it when it serves, stops it at the end."""
    lifeline, far = socket.socketpair()
    with lifeline, tempfile.TemporaryFile() as log:
        with far:
            worker = _Worker(_spawn(listener, far, settings, log), lifeline, log)
        try:
            _await_ready(worker)
            yield worker
        finally:
            _end(worker)


def _spawn(
    listener: socket.socket, lifeline: socket.socket, settings: dict[str, Any], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start the process.

    It imports from where this one does, and not from the current folder (-P): that may be the very folder that is
    uploaded, with a socket.py in it.
    """
    work = settings | {"parent": os.getpid(), "listener": listener.fileno(), "lifeline": lifeline.fileno()}
    code = (
        f"import sys; sys.path[:] = {[str(path) for path in sys.path]!r}; "
        f"from fastpost.ingest_worker import Work, main; main(Work(**{work!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=(listener.fileno(), lifeline.fileno()),
        start_new_session=True,
    )


def _await_ready(worker: _Worker) -> None:
    worker.lifeline.settimeout(START_TIMEOUT)
    try:
        said = worker.lifeline.recv(4096)
    except TimeoutError:
        raise ServeFailed(
            f"the embedded server did not start within {START_TIMEOUT:.0f} seconds: is the machine overloaded?"
        ) from None
    if said != b"ready":
        raise ServeFailed(f"the embedded server did not start: {_why(said, worker, starting=True)}")
    worker.lifeline.settimeout(None)
    worker.log.seek(0)  # both processes write at one offset
    worker.log.truncate()  # the greeting is of no use to `_why`


def _why(said: bytes, worker: _Worker, *, starting: bool = False) -> str:
    """Return why the process ended: what it said, else its last line of output, else its exit status."""
    worker.log.seek(0)
    printed = worker.log.read().rstrip()
    last = b"".join(printed.splitlines()[-1:])
    # Later it may have met that long ago.
    if _NO_FILES in (said or (printed if starting else last)):
        return f"{_NO_FILES.decode()}: {_MORE_FILES}"
    said = said or last
    if not said and (status := worker.process.wait()) < 0:
        return f"killed by signal {-status}"
    return said.decode("utf-8", "replace") or f"exit status {worker.process.wait()}"


def _end(worker: _Worker) -> None:
    """Stop the process and reap it, in STOP_TIMEOUT at most; at once when interrupted."""
    with contextlib.suppress(OSError):  # it may be gone
        worker.lifeline.shutdown(socket.SHUT_WR)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(STOP_TIMEOUT)
    finally:
        worker.process.kill()  # does nothing to a process that has been waited for
        worker.process.wait()


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. The parent opens it, so that the port is known and a failure has a clear reason."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family, backlog=1024)
    except (socket.gaierror, UnicodeError):
        raise ServeFailed(f"host {host!r} has no address: give a name or an address of this machine") from None
    except OSError as error:
        raise ServeFailed(_no_listener(host, port, error)) from None


def _no_listener(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is in use: choose another one, or none to get one that is free"
        case errno.EACCES:
            return f"no permission to listen on port {port}: choose one above 1023"
        case errno.EADDRNOTAVAIL:
            return f"host {host!r} is no address of this machine: choose one that is, or 127.0.0.1"
        case _:
            return f"can't listen on port {port} of {host}: {error.strerror}"


def _check_root(root: str | os.PathLike[str]) -> None:
    """Raise UsageError when uploads can't be stored there."""
    name = os.fspath(root)
    if not os.path.exists(root):
        raise UsageError(f"no folder {name!r} to store uploads in: create it first")
    if not os.path.isdir(root):
        raise UsageError(f"{name!r} is a file: uploads need a folder to be stored in")
    if not os.access(root, os.W_OK | os.X_OK):
        raise UsageError(f"no permission to write in {name!r}: uploads can't be stored there")


def _names(*hosts: str) -> tuple[str, ...]:
    """Return what a certificate is made out to."""
    return tuple(dict.fromkeys(host for host in ("localhost", "127.0.0.1", "::1", *hosts) if host not in _LOOPBACK))
