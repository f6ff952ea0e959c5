"""The first rows of the failure table, through the command line: every file arrives once, whole, or is named."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from . import command
from .scripted import STREAM_WINDOW, Peer, Request, Script, ScriptedServer

NO_ERROR = 0
INTERNAL_ERROR = 2
REFUSED_STREAM = 7

FILES = 40
AT_ONCE = ("--retry-delay", "0.01")
ABORT = pytest.mark.parametrize("abort", [False, True], ids=["fin", "rst"])
METHODS = pytest.mark.parametrize("method", ["PUT", "POST"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty files of 100 kB, more than a stream's first window."""
    for number in range(FILES):
        tmp_path.joinpath(f"{number:02}.bin").write_bytes(b"%02d " % number * 33_334)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}


class Once(Script):
    """Does something else to the first request of each of the given paths (None: of every path)."""

    def __init__(self, *paths: str) -> None:
        self._paths = set(paths)
        self._seen: set[str] = set()
        self._struck: set[Request] = set()

    def first(self, request: Request) -> bool:
        """Tell whether this request is to be treated otherwise; True for each path once."""
        wanted = not self._paths or request.path in self._paths
        if wanted and request.path not in self._seen:
            self._seen.add(request.path)
            self._struck.add(request)
        return request in self._struck


@METHODS
def test_refused_streams_are_replayed(folder: Path, method: str) -> None:
    """Outside the retry budget, and whatever the method: the server did not look at them."""

    class Refusing(Once):
        def requested(self, peer: Peer, request: Request) -> None:
            if self.first(request):
                peer.reset(request, REFUSED_STREAM)

    with ScriptedServer(Refusing()) as server:
        run = command.upload(folder, "--to", server.url, "--method", method, "--retries", "0")
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 0, "replayed": FILES}
    assert run.report["connections"] == 1
    assert server.bodies() == contents(folder)


def test_stream_refused_for_ever(folder: Path) -> None:
    class Refusing(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            if request.path == "/07.bin":
                peer.reset(request, REFUSED_STREAM)

    with ScriptedServer(Refusing()) as server:
        run = command.upload(folder, "--to", server.url, *AT_ONCE)
    assert run.code == 1
    assert run.errors == {"StreamRefused": 1}
    assert run.told("07.bin:", "refused")
    assert len(server.of("/07.bin")) == 6
    assert (
        server.bodies().items() == {path: body for path, body in contents(folder).items() if path != "/07.bin"}.items()
    )


@METHODS
def test_goaway_with_low_last_stream_id(folder: Path, method: str) -> None:
    """What the server promised is finished where it is; what it never looked at goes to a new connection."""

    class Leaving(Script):
        last = 0

        def requested(self, peer: Peer, request: Request) -> None:
            if peer.number == 0 and len(peer.requests) == 20:
                self.last = sorted(peer.requests)[9]
                peer.goaway(self.last)
                for promised in peer.requests.values():
                    if promised.stream_id <= self.last:
                        peer.credit(promised, 100_000)

        def received(self, peer: Peer, request: Request, octets: int) -> None:
            """Hold everything back on the first connection until it was told to end."""
            if peer.number:
                peer.credit(request, octets)

        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number or request.stream_id <= self.last:
                peer.answer(request, 201)

    script = Leaving()
    with ScriptedServer(script) as server:
        run = command.upload(folder, "--to", server.url, "--method", method, "--retries", "0", "--concurrency", "20")
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 0, "replayed": 10}
    assert run.report["connections"] == server.connections == 2
    assert server.bodies() == contents(folder)
    promised = [request for request in server.requests if request.number == 0 and request.stream_id <= script.last]
    assert len(promised) == 10
    assert all(len(server.of(request.path)) == 1 for request in promised)


class Closing(Once):
    """Closes the connection when the first window of a file is used up, once for each path (none: every path)."""

    def __init__(self, *paths: str, abort: bool = False) -> None:
        super().__init__(*paths)
        self._abort = abort

    def received(self, peer: Peer, request: Request, octets: int) -> None:
        """Close in the middle of the body, once."""
        if not self.first(request):
            peer.credit(request, octets)
        elif len(request.body) == STREAM_WINDOW:
            peer.drop(abort=self._abort)


@ABORT
def test_connection_lost_in_a_body(folder: Path, abort: bool) -> None:
    with ScriptedServer(Closing("/20.bin", abort=abort)) as server:
        run = command.upload(folder, "--to", server.url, *AT_ONCE)
    assert run.code == 0
    assert run.report["attempts"]["retried"] >= 1
    assert run.report["connections"] == 2
    assert server.bodies() == contents(folder)


@ABORT
def test_every_file_loses_its_connection_once(folder: Path, abort: bool) -> None:
    """Forty ends, so that each order of last octets, FIN or RST and the client's own sending turns up."""
    with ScriptedServer(Closing(abort=abort)) as server:
        run = command.upload(folder, "--to", server.url, "--concurrency", "1", *AT_ONCE)
    assert run.code == 0
    assert run.report["attempts"]["retried"] == FILES
    assert server.bodies() == contents(folder)


def test_post_is_not_repeated_after_connection_loss(folder: Path) -> None:
    """The server may have acted on it; the user must decide."""
    with ScriptedServer(Closing("/20.bin")) as server:
        run = command.upload(folder, "--to", server.url, "--method", "POST", "--concurrency", "4", *AT_ONCE)
    assert run.code == 1
    assert set(run.errors) == {"ConnectionLost"}
    assert run.told("20.bin:", "connection")
    assert 1 <= run.files["failed"] <= 4
    assert len(server.of("/20.bin")) == 1
    assert run.files["ok"] == FILES - run.files["failed"]
    assert all(contents(folder)[path] == body for path, body in server.bodies().items())


def test_post_with_idempotency_key_is_repeated(folder: Path) -> None:
    with ScriptedServer(Closing("/20.bin")) as server:
        run = command.upload(
            folder, "--to", server.url, "--method", "POST", "-H", "Idempotency-Key: 8e03978e", *AT_ONCE
        )
    assert run.code == 0
    assert server.bodies() == contents(folder)


class Busy(Once):
    """Answers the first request of a path with a status and a Retry-After."""

    def __init__(self, status: int, retry_after: str, *paths: str) -> None:
        super().__init__(*paths)
        self._status = status
        self._retry_after = retry_after

    def completed(self, peer: Peer, request: Request) -> None:
        """Refuse what is complete."""
        if self.first(request):
            peer.answer(request, self._status, b"busy", retry_after=self._retry_after)
        else:
            peer.answer(request, 201)


@METHODS
@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again(folder: Path, status: int, method: str) -> None:
    with ScriptedServer(Busy(status, "0")) as server:
        run = command.upload(folder, "--to", server.url, "--method", method, *AT_ONCE)
    assert run.code == 0
    assert run.report["attempts"] == {"retried": FILES, "replayed": 0}
    assert run.report["status"] == {"201": FILES}
    assert server.bodies() == contents(folder)


def test_retry_after_is_obeyed(folder: Path) -> None:
    with ScriptedServer(Busy(503, "1", "/05.bin")) as server:
        run = command.upload(folder, "--to", server.url, *AT_ONCE)
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 1, "replayed": 0}
    busy, taken = server.of("/05.bin")
    assert taken.arrived - busy.arrived >= 1
    assert server.bodies() == contents(folder)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 504])
def test_passing_fault_of_the_server(folder: Path, status: int) -> None:
    with ScriptedServer(Busy(status, "0", "/11.bin")) as server:
        run = command.upload(folder, "--to", server.url, *AT_ONCE)
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 1, "replayed": 0}
    assert server.bodies() == contents(folder)


def test_retries_run_out(folder: Path) -> None:
    class Down(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if request.path == "/11.bin":
                peer.answer(request, 503, b"try later, or never")
            else:
                peer.answer(request, 201)

    with ScriptedServer(Down()) as server:
        run = command.upload(folder, "--to", server.url, "--retries", "2", *AT_ONCE)
    assert run.code == 1
    assert run.errors == {"HttpStatus": 1}
    assert run.told("11.bin:", "503", "try later, or never")
    assert len(server.of("/11.bin")) == 3
    assert run.files == {"total": FILES, "ok": FILES - 1, "failed": 1, "skipped": 0}


@pytest.mark.parametrize("status", [301, 400, 403, 404, 507])
def test_other_statuses_are_final(folder: Path, status: int) -> None:
    class Refusing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if request.path == "/11.bin":
                peer.answer(request, status, b"not here", location="https://elsewhere.example/")
            else:
                peer.answer(request, 201)

    with ScriptedServer(Refusing()) as server:
        run = command.upload(folder, "--to", server.url)
    assert run.code == 1
    assert run.errors == {"HttpStatus": 1}
    assert run.told("11.bin:", str(status), "elsewhere.example" if status == 301 else "not here")
    assert len(server.of("/11.bin")) == 1
    assert run.files == {"total": FILES, "ok": FILES - 1, "failed": 1, "skipped": 0}


def test_reset_stream_is_retried(folder: Path) -> None:
    class Resetting(Once):
        def completed(self, peer: Peer, request: Request) -> None:
            if self.first(request):
                peer.reset(request, INTERNAL_ERROR)
            else:
                peer.answer(request, 201)

    with ScriptedServer(Resetting("/11.bin", "/12.bin")) as server:
        run = command.upload(folder, "--to", server.url, *AT_ONCE)
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 2, "replayed": 0}
    assert server.bodies() == contents(folder)


# --- several connections --------------------------------------------------------------------------


def small_files(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}").write_bytes(bytes(2000))


class Together(Script):
    """Answers nothing before so many uploads have begun."""

    def __init__(self, uploads: int) -> None:
        self._lock = threading.Lock()
        self._missing = uploads
        self._all = threading.Event()

    def requested(self, peer: Peer, request: Request) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing == 0:
                self._all.set()

    def completed(self, peer: Peer, request: Request) -> None:
        self._all.wait(20)
        peer.answer(request, 201)


def test_each_of_several_connections_has_its_share_from_the_beginning(tmp_path: Path) -> None:
    """Else the first one there would begin all uploads, and what has a stream can't move to the others."""
    small_files(tmp_path, 12)
    with ScriptedServer(Together(4)) as server:
        run = command.upload(tmp_path, "--to", server.url, "--connections", "4", "--concurrency", "4")
    assert run.code == 0
    first = [request.number for request in sorted(server.requests, key=lambda each: each.arrived)[:4]]
    assert sorted(first) == [0, 1, 2, 3]


class Stuck(Script):
    """Answers nothing on the first connection before all else is done on the other one."""

    def __init__(self, uploads: int) -> None:
        self._left = uploads - 1
        self._others_done = threading.Event()

    def completed(self, peer: Peer, request: Request) -> None:
        if peer.number == 0:
            self._others_done.wait(20)
        else:
            self._left -= 1
            if not self._left:
                self._others_done.set()
        peer.answer(request, 201)


def test_what_waits_in_line_on_one_connection_moves_to_one_that_has_nothing_left(tmp_path: Path) -> None:
    small_files(tmp_path, 12)
    with ScriptedServer(Stuck(12)) as server:
        run = command.upload(tmp_path, "--to", server.url, "--connections", "2", "--concurrency", "2")
    assert run.files["ok"] == 12
    assert run.report["seconds"] < 20, "nobody had to be waited for"
    assert [request.number for request in server.requests].count(0) == 1


class OneOnly(Script):
    """Speaks on the first connection only, and answers nothing there before so many uploads are in flight."""

    def __init__(self, uploads: int) -> None:
        self._uploads = uploads
        self._held: list[Request] = []

    def accepts(self, number: int) -> bool:
        return number == 0

    def completed(self, peer: Peer, request: Request) -> None:
        self._held.append(request)
        if len(peer.requests) >= self._uploads:
            for held in self._held:
                peer.answer(held, 201)
            self._held.clear()


def test_the_share_of_a_connection_that_cannot_be_had_is_for_the_others(tmp_path: Path) -> None:
    small_files(tmp_path, 300)
    with ScriptedServer(OneOnly(30)) as server:
        options = ("--connections", "3", "--concurrency", "30", "--retries", "0")
        run = command.upload(tmp_path, "--to", server.url, *options)
    assert run.code == 0
    assert run.files["ok"] == 300
    assert server.connections <= 5, "those that were refused are not asked for again and again"
