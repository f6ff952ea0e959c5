"""What a user gets wrong, or finds wrong: a message that names it and the cure, the exit code, and the rest arrives."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import command, servers
from .scripted import STREAM_WINDOW, Peer, Request, Script, ScriptedServer

CANCEL = 8
MIB = 1024 * 1024

#: Connect failures are retried; tests don't wait for it.
AT_ONCE = ("--retry-delay", "0.01")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of thirty good files."""
    made = tmp_path / "folder"
    made.joinpath("sub").mkdir(parents=True)
    for number in range(30):
        made.joinpath("sub" if number % 3 else "", f"good-{number:02}.txt").write_bytes(b"%d " % number * 500)
    return made


def good(folder: Path) -> dict[str, bytes]:
    """Return what must arrive of the folder: request path → content."""
    return {f"/{path.relative_to(folder)}": path.read_bytes() for path in sorted(folder.rglob("good-*"))}


# --- the target -----------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections and is given to nobody else: bound, but not listening."""
    with socket.socket() as holder:
        holder.bind((servers.HOST, 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_port_refuses(folder: Path, closed_port: int, scheme: str) -> None:
    run = command.upload(folder, "--to", f"{scheme}://{servers.HOST}:{closed_port}/", *AT_ONCE)
    assert run.code == 4
    assert run.told(f"{servers.HOST}:{closed_port}", "refused")


def test_host_unknown(folder: Path) -> None:
    run = command.upload(folder, "--to", "http://nohost.invalid/", *AT_ONCE)
    assert run.code == 4
    assert run.told("nohost.invalid")


def test_certificate_of_unknown_authority(folder: Path, certificates: servers.Certificates) -> None:
    with ScriptedServer(tls=certificates) as server:
        run = command.upload(folder, "--to", server.url)
        assert server.requests == []
    assert run.code == 4
    assert run.told(server.url.split("/")[2], "certificate", "--cacert")


def test_certificate_of_another_host(folder: Path, tmp_path: Path) -> None:
    other = servers.certificates(tmp_path, "elsewhere.example")
    with ScriptedServer(tls=other) as server:
        run = command.upload(folder, "--to", server.url, "--cacert", other.cafile)
        assert server.requests == []
    assert run.code == 4
    assert run.told(servers.HOST, "certificate", "not valid for")
    assert "--cacert" not in run.err  # trust is not what it lacks


@pytest.mark.parametrize("trust", ["--cacert", "--insecure"])
def test_certificate_accepted(folder: Path, certificates: servers.Certificates, trust: str) -> None:
    options: tuple[str | Path, ...] = (trust, certificates.cafile) if trust == "--cacert" else (trust,)
    with ScriptedServer(tls=certificates) as server:
        run = command.upload(folder, "--to", server.url, *options)
    assert run.code == 0
    assert server.bodies() == good(folder)


@pytest.mark.parametrize("encrypted", [False, True], ids=["cleartext", "tls"])
def test_server_without_http2(folder: Path, certificates: servers.Certificates, encrypted: bool) -> None:
    with _http1(certificates if encrypted else None) as url:
        run = command.upload(folder, "--to", url, "--cacert", certificates.cafile)
    assert run.code == 4
    assert run.told(url.split("/")[2], "HTTP/2")


def test_cleartext_server_at_https_url(folder: Path) -> None:
    with _http1(None) as url:
        run = command.upload(folder, "--to", url.replace("http", "https"))
    assert run.code == 4
    assert run.told(url.split("/")[2], "TLS")


def test_server_that_never_speaks(folder: Path) -> None:
    """The kernel accepts the connection, and that is all that ever happens."""
    with socket.create_server((servers.HOST, 0)) as listener:
        port = listener.getsockname()[1]
        run = command.upload(
            folder,
            "--to",
            f"http://{servers.HOST}:{port}/",
            "--connect-timeout",
            "0.3",
            "--stall-timeout",
            "0.3",
            *AT_ONCE,
        )
    assert run.code == 4
    assert run.told(f"{servers.HOST}:{port}")


@contextlib.contextmanager
def _http1(tls: servers.Certificates | None) -> Iterator[str]:
    """Run Python's own HTTP/1.1 server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Stay quiet."""

    with Server((servers.HOST, 0), Handler) as server:
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls.chain, tls.key)
            context.set_alpn_protocols(["http/1.1"])
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://{servers.HOST}:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


# --- what was asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store.example/dav/",
        "ftp://store.example/",
        "http://",
        "http:///dav/",
        "http://store.example:99999/",
        "http://store.example:eighty/",
        "http://[::1/",
        "http://store.example/{folder}",
        "http://user:secret@store.example/",
        "http://store.example/a b/",
        "http://store.example/#part",
        "http://store\n.example/",
    ],
)
def test_malformed_url(folder: Path, url: str) -> None:
    run = command.upload(folder, "--to", url)
    assert run.code == 2
    assert run.err.startswith("fastpost: ")
    assert "secret" not in run.err
    assert run.out == ""


def test_source_does_not_exist(folder: Path, closed_port: int) -> None:
    run = command.upload(folder, folder / "no such", "--to", f"http://{servers.HOST}:{closed_port}/")
    assert run.code == 2
    assert run.told(str(folder / "no such"))


def test_folder_without_files(tmp_path: Path, closed_port: int) -> None:
    empty = tmp_path / "empty"
    empty.joinpath("only", "folders").mkdir(parents=True)
    run = command.upload(empty, "--to", f"http://{servers.HOST}:{closed_port}/")
    assert run.code == 3
    assert run.told(str(empty))


# --- files that can't go --------------------------------------------------------------------------


def test_unreadable_file_and_folder(folder: Path) -> None:
    folder.joinpath("secret.txt").write_bytes(b"secret")
    folder.joinpath("private").mkdir()
    folder.joinpath("private", "hidden.txt").write_bytes(b"hidden")
    folder.joinpath("secret.txt").chmod(0)
    folder.joinpath("private").chmod(0)
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url, prefix=_without_override())
    folder.joinpath("private").chmod(0o700)
    assert run.code == 1
    assert run.errors == {"FileUnreadable": 2}
    assert run.told("secret.txt", "Permission denied", "right to read")
    assert run.told("private", "Permission denied", "right to read")
    assert server.bodies() == good(folder)


def test_no_regular_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    folder.joinpath("dangling").symlink_to("nowhere")
    monkeypatch.chdir(folder)  # a socket's path is limited to 107 octets
    with socket.socket(socket.AF_UNIX) as bound, ScriptedServer() as server:
        bound.bind("plug")
        run = command.upload(folder, "--to", server.url)
    assert run.code == 1
    assert run.errors == {"NotRegularFile": 3}
    assert run.told("pipe:", "FIFO")
    assert run.told("plug:", "socket")
    assert run.told("dangling:", "symbolic link")
    assert run.files == {"total": 33, "ok": 30, "failed": 3, "skipped": 0}
    assert server.bodies() == good(folder)


def test_fifo_named_as_source(folder: Path) -> None:
    os.mkfifo(folder.parent / "pipe")
    with ScriptedServer() as server:
        run = command.upload(folder, folder.parent / "pipe", "--to", server.url)
    assert run.code == 1
    assert run.told("pipe", "FIFO")
    assert server.bodies() == good(folder)


def test_symlinks_are_skipped_and_counted(folder: Path) -> None:
    folder.joinpath("link").symlink_to("good-00.txt")
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url)
    assert run.code == 0
    assert run.files == {"total": 30, "ok": 30, "failed": 0, "skipped": 1}
    assert server.bodies() == good(folder)


def test_two_files_for_one_url(folder: Path) -> None:
    """The first one goes up; the second would overwrite it and is refused."""
    for name in ("one", "two"):
        folder.joinpath(name).mkdir()
        folder.joinpath(name, "same.txt").write_bytes(name.encode())
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url + "{name}")
    assert run.code == 1
    assert run.errors == {"DuplicateTarget": 1}
    assert run.told("same.txt:", "{path}")
    assert len(server.of("/same.txt")) == 1
    assert server.bodies()["/same.txt"] in (b"one", b"two")
    assert run.files == {"total": 32, "ok": 31, "failed": 1, "skipped": 0}


def test_two_sources_for_one_url(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    other.joinpath("good-00.txt").write_bytes(b"another")
    with ScriptedServer() as server:
        run = command.upload(folder, other, "--to", server.url)
    assert run.code == 1
    assert run.errors == {"DuplicateTarget": 1}
    assert run.told("good-00.txt:")
    assert server.bodies() == good(folder)


def test_summary_for_people_names_failures(folder: Path) -> None:
    """Without JSON: the summary groups failures by cause and tells the cure."""
    os.mkfifo(folder / "pipe")
    with ScriptedServer() as server:
        run = command.run("upload", folder, "--to", server.url)
    assert run.code == 1
    shown = run.out + run.err
    assert "NotRegularFile" in shown
    assert "pipe" in shown
    assert "save what it delivers to a file" in shown


# --- files that change while they are sent --------------------------------------------------------


class Withholding(Script):
    """Changes a file when the stream's window is used up, then lets the rest come.

    Args:
        path: the request path of the file.
        change: changes it; called for each of the first `times` attempts.
    """

    def __init__(self, path: str, change: Callable[[], None], times: int) -> None:
        self._path = path
        self._change = change
        self._left = times

    def received(self, peer: Peer, request: Request, octets: int) -> None:
        """Hold this file back at the end of its first window."""
        if request.path != self._path:
            peer.credit(request, octets)
        elif len(request.body) == STREAM_WINDOW:
            if self._left:
                self._left -= 1
                self._change()
            peer.credit(request, 4 * MIB)


def _shrink(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 300_000)


def _shrink_to_nothing_left(file: Path) -> None:
    """Leave less than was sent already: a map of it has no pages any more."""
    os.truncate(file, 70_000 if file.stat().st_size > 70_000 else 66_000)


def _grow(file: Path) -> None:
    with file.open("ab") as appended:
        appended.write(b"more")


def _rewrite(file: Path) -> None:
    """Other octets of the same number."""
    with file.open("r+b") as written:
        written.write(os.urandom(file.stat().st_size))


def _replace(file: Path) -> None:
    """Put another file of the same size in its place."""
    other = file.parent.with_name("another")
    other.write_bytes(os.urandom(file.stat().st_size))
    other.rename(file)


CHANGES = pytest.mark.parametrize("change", [_shrink, _shrink_to_nothing_left, _grow, _rewrite, _replace])
ENCRYPTION = pytest.mark.parametrize("encrypted", [False, True], ids=["cleartext", "tls"])


@ENCRYPTION
@CHANGES
def test_file_changes_once(
    folder: Path, certificates: servers.Certificates, change: Callable[[Path], None], encrypted: bool
) -> None:
    """The torn upload is cancelled, and one fresh attempt brings the file as it is now."""
    victim = folder / "victim.bin"
    victim.write_bytes(os.urandom(2 * MIB))
    script = Withholding("/victim.bin", lambda: change(victim), 1)
    with ScriptedServer(script, tls=certificates if encrypted else None) as server:
        run = command.upload(folder, "--to", server.url, "--cacert", certificates.cafile)
    torn, fresh = server.of("/victim.bin")
    assert (torn.ended, torn.reset) == (False, CANCEL)
    assert fresh.ended
    assert fresh.fields["content-length"] == str(victim.stat().st_size)
    assert server.bodies() == {**good(folder), "/victim.bin": victim.read_bytes()}
    assert run.code == 0
    assert run.report["attempts"] == {"retried": 1, "replayed": 0}
    assert run.report["bytes"]["wasted"] > 0


@ENCRYPTION
@CHANGES
def test_file_keeps_changing(
    folder: Path, certificates: servers.Certificates, change: Callable[[Path], None], encrypted: bool
) -> None:
    victim = folder / "victim.bin"
    victim.write_bytes(os.urandom(2 * MIB))
    script = Withholding("/victim.bin", lambda: change(victim), 99)
    with ScriptedServer(script, tls=certificates if encrypted else None) as server:
        run = command.upload(folder, "--to", server.url, "--cacert", certificates.cafile)
    assert [(request.ended, request.reset) for request in server.of("/victim.bin")] == [(False, CANCEL)] * 2
    assert server.bodies() == good(folder)
    assert run.code == 1
    assert run.errors == {"FileChanged": 1}
    assert run.told("victim.bin:", "changed while")
    assert run.files == {"total": 31, "ok": 30, "failed": 1, "skipped": 0}


@ENCRYPTION
def test_file_is_removed_while_sent(folder: Path, certificates: servers.Certificates, encrypted: bool) -> None:
    """An open file keeps its octets without a name, so the upload is whole."""
    victim = folder / "victim.bin"
    content = os.urandom(2 * MIB)
    victim.write_bytes(content)
    script = Withholding("/victim.bin", victim.unlink, 1)
    with ScriptedServer(script, tls=certificates if encrypted else None) as server:
        run = command.upload(folder, "--to", server.url, "--cacert", certificates.cafile)
    assert not victim.exists()
    assert run.code == 0
    assert server.bodies() == {**good(folder), "/victim.bin": content}


def test_files_vanish_before_their_turn(folder: Path) -> None:
    """Half of the files go when the first request comes; a few may be open by then, and arrive whole."""
    contents: dict[str, bytes] = {}
    for number in range(200):
        folder.joinpath(f"doomed-{number}").write_bytes(contents.setdefault(f"/doomed-{number}", os.urandom(900)))

    class Removing(Script):
        done = False

        def requested(self, peer: Peer, request: Request) -> None:
            if not self.done:
                self.done = True
                for path in folder.glob("doomed-*"):
                    path.unlink()

    with ScriptedServer(Removing(), max_concurrent_streams=1) as server:
        run = command.upload(folder, "--to", server.url, "--concurrency", "1")
    arrived = server.bodies()
    assert {path: body for path, body in arrived.items() if path in contents}.items() <= contents.items()
    assert good(folder).items() <= arrived.items()
    assert run.code == 1
    assert run.errors == {"FileVanished": 230 - len(arrived)}
    assert run.told("doomed-", "vanished")
    assert run.files == {"total": 230, "ok": len(arrived), "failed": 230 - len(arrived), "skipped": 0}


def _without_override() -> tuple[str, ...]:
    """Return a command prefix that takes root's right to read everything."""
    if os.geteuid():
        return ()
    setpriv = shutil.which("setpriv") or servers.missing("setpriv is not installed, and root may read every file")
    return (setpriv, "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search")
