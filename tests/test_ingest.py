"""The embedded server as a process: it starts, serves HTTP/2, and always ends."""

from __future__ import annotations

import base64
import collections
import contextlib
import hashlib
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import IO

import h2.connection
import h2.events
import h2.settings
import pytest

from fastpost import ingest
from fastpost.errors import Exit, ServeFailed, UsageError
from fastpost.ingest import Ingest

REPOSITORY = pathlib.Path(__file__).parent.parent
#: Seconds that anything here may take before a test fails; none is waited for when all is well.
PATIENCE = 30.0

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt install curl")


class Client:
    """One HTTP/2 connection with prior knowledge."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None
        self._authority = parts.netloc
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
        self.h2 = h2.connection.H2Connection()
        self._pending: collections.deque[h2.events.Event] = collections.deque()
        self.h2.initiate_connection()
        self.flush()
        next(event for event in self.events() if isinstance(event, h2.events.RemoteSettingsChanged))

    def flush(self) -> None:
        self._socket.sendall(self.h2.data_to_send())

    def begin(self, path: str, part: bytes = b"", length: int | None = None) -> int:
        """Send the head of a PUT and the first part of its body; return the stream's id."""
        stream_id = self.h2.get_next_available_stream_id()
        head = [(":method", "PUT"), (":scheme", "http"), (":authority", self._authority), (":path", path)]
        self.h2.send_headers(stream_id, head + ([] if length is None else [("content-length", str(length))]))
        self.h2.send_data(stream_id, part)
        self.flush()
        return stream_id

    def end(self, stream_id: int, part: bytes = b"") -> None:
        self.h2.send_data(stream_id, part, end_stream=True)
        self.flush()

    def reset(self, stream_id: int) -> None:
        self.h2.reset_stream(stream_id, 8)
        self.flush()

    def events(self) -> Iterator[h2.events.Event]:
        """Yield what arrives, each event once, until the server closes the connection."""
        while True:
            while self._pending:
                yield self._pending.popleft()
            if not (octets := self._socket.recv(65536)):
                return
            self._pending.extend(self.h2.receive_data(octets))
            self.flush()

    def answer(self, stream_id: int) -> tuple[int, dict[bytes, bytes]]:
        """Wait for a response."""
        for event in self.events():
            if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream_id:
                fields = {bytes(name): bytes(value) for name, value in event.headers}
                return int(fields[b":status"]), fields
        raise AssertionError("the server closed the connection")

    def put(self, path: str, body: bytes) -> tuple[int, dict[bytes, bytes]]:
        stream_id = self.begin(path)
        self.end(stream_id, body)
        return self.answer(stream_id)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def connected(server: Ingest) -> Iterator[Client]:
    with contextlib.closing(Client(server.url)) as client:
        yield client


@pytest.fixture(scope="module")
def server() -> Iterator[Ingest]:
    with Ingest() as server:
        yield server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def storing(root: pathlib.Path) -> Iterator[Ingest]:
    with Ingest(root=root) as server:
        yield server


def field(body: bytes) -> bytes:
    return b"sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()) + b":"


def files(root: pathlib.Path) -> set[str]:
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


def curl(*arguments: str | os.PathLike[str]) -> str:
    """Run curl; return the status and the body."""
    command = ["curl", "--silent", "--show-error", "--path-as-is", "--write-out", "%{http_code} %{http_version}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


# --- what it serves ---------------------------------------------------------------------------------


def test_it_hashes_what_it_receives(server: Ingest) -> None:
    body = os.urandom(60_000)
    with connected(server) as client:
        status, fields = client.put("/any", body)
    assert (status, fields[b"repr-digest"]) == (200, field(body))


def test_its_windows_and_streams_are_no_bottleneck(server: Ingest) -> None:
    with connected(server) as client:
        client.put("/any", b"x")
        settings = client.h2.remote_settings
        assert settings.initial_window_size >= 8 << 20
        assert settings.max_frame_size >= 1 << 16
        assert client.h2.outbound_flow_control_window >= (8 << 20) - 1
        assert settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] >= 1000


def test_a_thousand_uploads_at_once(server: Ingest) -> None:
    with connected(server) as client:
        streams = [client.begin("/any", b"x") for _ in range(1000)]
        for stream_id in streams:
            client.end(stream_id, b"y")
        statuses = []
        for event in client.events():
            if isinstance(event, h2.events.ResponseReceived):
                fields = {bytes(name): bytes(value) for name, value in event.headers}
                statuses.append((fields[b":status"], fields[b"repr-digest"]))
                if len(statuses) == len(streams):
                    break
    assert set(statuses) == {(b"200", field(b"xy"))}


@pytest.mark.unsanitized
def test_memory_does_not_grow_with_the_body(server: Ingest) -> None:
    chunk = bytes(1 << 16)
    with connected(server) as client:
        stream_id = client.begin("/any")
        sent = 0
        while sent < 256 << 20:
            while client.h2.local_flow_control_window(stream_id) >= len(chunk):
                size = min(len(chunk), client.h2.max_outbound_frame_size)
                client.h2.send_data(stream_id, chunk[:size])
                sent += size
            client.flush()
            next(event for event in client.events() if isinstance(event, h2.events.WindowUpdated))
        client.end(stream_id)
        assert client.answer(stream_id)[0] == 200
    assert peak_memory(server) < 160 << 20


def peak_memory(server: Ingest) -> int:
    for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_it_stores(storing: Ingest, root: pathlib.Path) -> None:
    with connected(storing) as client:
        status, fields = client.put("/folder%20name/%ff%3F.bin?query", b"octets")
    assert (status, fields[b"repr-digest"]) == (201, field(b"octets"))
    assert (root / "folder name" / os.fsdecode(b"\xff?.bin")).read_bytes() == b"octets"


@pytest.mark.parametrize("path", ["/../evil", "/%2e%2e/evil", "/a/..%2f..%2fevil", "//evil", "/evil%00"])
def test_it_refuses_what_leaves_the_root(storing: Ingest, root: pathlib.Path, path: str) -> None:
    with connected(storing) as client:
        assert client.put(path, b"evil")[0] == 403
    assert not [name for name in files(root.parent) if "evil" in name]


@pytest.mark.parametrize("how", ["reset", "close", "too short", "too long"])
def test_an_upload_that_breaks_off_leaves_the_old_file(storing: Ingest, root: pathlib.Path, how: str) -> None:
    with connected(storing) as client:
        client.put("/broken/off", b"old")
        stream_id = client.begin("/broken/off", b"new" * 1000, length=6000)
        # The upload is on its way in when the next one is answered.
        client.put("/broken/other", b"")
        match how:
            case "reset":
                client.reset(stream_id)
            case "too short":
                client.end(stream_id)
            case "too long":
                client.end(stream_id, b"new" * 1001)
            case "close":
                client.close()
        with connected(storing) as another:
            for _ in range(10_000):  # requests, until the server has noticed
                another.put("/broken/other", b"")
                if sorted(os.listdir(root / "broken")) == ["off", "other"]:
                    break
    assert sorted(os.listdir(root / "broken")) == ["off", "other"]
    assert (root / "broken" / "off").read_bytes() == b"old"


def test_a_long_upload_is_refused_before_its_end(storing: Ingest) -> None:
    with connected(storing) as client:
        stream_id = client.begin("/", b"begun", length=1 << 30)
        assert client.answer(stream_id)[0] == 409


def test_limits(tmp_path: pathlib.Path) -> None:
    with Ingest(root=tmp_path, max_body=10, max_requests=1) as server, connected(server) as client:
        assert client.put("/a", b"x" * 11)[0] == 413
        stream_id = client.begin("/a", b"x" * 5)
        assert client.put("/b", b"x")[0] == 503
        client.end(stream_id, b"x" * 5)
        assert client.answer(stream_id)[0] == 201


@needs_curl
@pytest.mark.unsanitized
def test_curl_over_cleartext_and_http_1(server: Ingest, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    assert curl("--http2-prior-knowledge", "-T", tmp_path / "file", server.url) == "200 2"
    assert curl("-T", tmp_path / "file", server.url) == "200 1.1"


@needs_curl
@pytest.mark.unsanitized
def test_tls_with_a_certificate_for_this_run(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    with Ingest(tls=True) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert server.cafile is not None
        folder = server.cafile.parent
        trust: list[str | os.PathLike[str]] = ["--cacert", server.cafile, "--http2"]
        assert curl(*trust, "-T", tmp_path / "file", server.url) == "200 2"
        assert curl(*trust, "-T", tmp_path / "file", server.url.replace("127.0.0.1", "localhost")) == "200 2"
        with pytest.raises(subprocess.CalledProcessError, match="60"):  # CURLE_PEER_FAILED_VERIFICATION
            curl("-T", tmp_path / "file", server.url)
        assert os.listdir(folder) == [server.cafile.name]  # no private key
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    assert server.cafile is None


# --- how it starts ----------------------------------------------------------------------------------


def test_it_can_start_again(tmp_path: pathlib.Path) -> None:
    server = Ingest(root=tmp_path)
    for body in (b"one", b"two"):
        with server, connected(server) as client:
            assert client.put("/a", body)[0] == 201
        assert (server.url, server.pid) == ("", None)
    assert (tmp_path / "a").read_bytes() == b"two"


def test_it_starts_once(server: Ingest) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_a_port_is_as_wished() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Ingest(port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}/"


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeFailed, match=f"port {port} of 127.0.0.1 is in use: choose another") as caught:
            Ingest(port=port).start()
    assert caught.value.exit_code == Exit.UNREACHABLE


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "x" * 64 + ".invalid", ""])
def test_a_host_that_is_not_here_is_told(host: str) -> None:
    with pytest.raises(ServeFailed, match="address"):
        Ingest(host=host).start()


def test_a_server_on_every_address_is_reached_by_loopback() -> None:
    with Ingest(host="0.0.0.0") as server, connected(server) as client:
        assert server.url.startswith("http://127.0.0.1:")
        assert client.put("/a", b"x")[0] == 200


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_told(port: int) -> None:
    with pytest.raises(UsageError, match="no TCP port"):
        Ingest(port=port)


def test_a_root_that_is_none_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="create it first"):
        Ingest(root=tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        Ingest(root=tmp_path / "file")


def test_a_root_without_permission_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match="no permission"):
        Ingest(root=tmp_path)


def test_modules_in_the_current_folder_are_not_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("asyncio", "socket", "h2corn", "fastpost"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user has a file of this name')")
    monkeypatch.chdir(tmp_path)
    with Ingest() as server, connected(server) as client:
        assert client.put("/a", b"x")[0] == 200


def test_a_server_that_is_not_installed_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h2corn.py").write_text("raise ImportError('no h2corn')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ServeFailed, match=r"no h2corn.*install"):
        Ingest().start()


def test_a_process_that_dies_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServeFailed, match="exit status 1"):
        Ingest().start()


def test_a_process_that_can_not_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ServeFailed, match="/nowhere/python"):
        Ingest().start()


def test_a_failed_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupt(worker: ingest._Worker) -> None:
        started.append(worker.process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "_await_ready", interrupt)
    server = Ingest(tls=True)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert not alive(started[0])
    assert (server.url, server.pid, server.cafile) == ("", None, None)


# --- how it ends ------------------------------------------------------------------------------------


def test_stopping_leaves_no_process_and_no_half_file(tmp_path: pathlib.Path) -> None:
    server = Ingest(root=tmp_path)
    server.start()
    processes = session(server)
    with connected(server) as client:
        client.begin("/half", b"half")
        client.put("/whole", b"whole")
        server.stop()
    assert len(processes) >= 1
    assert not any(map(alive, processes))
    assert os.listdir(tmp_path) == ["whole"]
    server.stop()


def test_a_stopped_process_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Ingest()
    server.start()
    pid = server.pid
    assert pid is not None
    monkeypatch.setattr(ingest, "STOP_TIMEOUT", 0.01)
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not alive(pid)


def test_waiting_ends_when_another_thread_stops() -> None:
    with Ingest() as server:
        thread = threading.Thread(target=server.stop)
        thread.start()
        with contextlib.suppress(RuntimeError):  # stopped before the wait began
            server.wait()
        thread.join()


@pytest.mark.parametrize(("number", "why"), [(signal.SIGKILL, "killed by signal 9"), (signal.SIGTERM, "exit status 0")])
def test_waiting_tells_that_the_server_ended_by_itself(number: int, why: str) -> None:
    with Ingest() as server:
        assert server.pid is not None
        os.kill(server.pid, number)
        with pytest.raises(ServeFailed, match=why):
            server.wait()


def test_waiting_needs_a_server() -> None:
    with pytest.raises(RuntimeError, match="doesn't run"):
        Ingest().wait()


PARENT = """
import os, sys, time
from fastpost.ingest import Ingest
server = Ingest(root=sys.argv[1], tls="tls" in sys.argv)
server.start()
if "fork" in sys.argv and not os.fork():
    time.sleep({patience})  # holds a copy of everything that the parent has open
try:
    print(server.pid, server.url, server.cafile, flush=True)  # from here on SIGINT may come
    server.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.read()
    server.stop()
"""


@contextlib.contextmanager
def parent(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, str, str]]:
    """Run a process that runs a server; gives the server's process id, URL and CA file, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(patience=PATIENCE), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    with process:
        try:
            pid, url, cafile = line(process.stdout).split()
            yield process, int(pid), url, cafile
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


@pytest.mark.parametrize("arguments", [(), ("tls",), ("fork",)])
def test_it_ends_when_its_parent_is_killed(tmp_path: pathlib.Path, arguments: tuple[str, ...]) -> None:
    with parent(str(tmp_path), *arguments) as (process, pid, url, cafile):
        with contextlib.ExitStack() as stack:
            if "tls" not in arguments:
                client = stack.enter_context(contextlib.closing(Client(url)))
                client.begin("/half", b"half")
                client.put("/whole", b"whole")
            processes = [*members(pid)]
            assert pid in processes
            descriptors = [os.pidfd_open(member) for member in processes]
            process.kill()
            for descriptor in descriptors:
                ended, _, _ = select.select([descriptor], [], [], PATIENCE)
                os.close(descriptor)
                assert ended
        assert members(pid) == []
        assert not {name for name in os.listdir(tmp_path) if name != "whole"}
        if "tls" in arguments:
            assert not os.path.exists(os.path.dirname(cafile))


def test_ctrl_c_reaches_the_parent_only(tmp_path: pathlib.Path) -> None:
    with parent(str(tmp_path)) as (process, pid, url, _):
        os.killpg(process.pid, signal.SIGINT)  # what the terminal does
        assert line(process.stdout) == "interrupted\n"
        with contextlib.closing(Client(url)) as client:
            assert client.put("/after", b"x")[0] == 201
        process.communicate("", timeout=PATIENCE)
        assert process.returncode == 0
        assert members(pid) == []


def session(server: Ingest) -> list[int]:
    assert server.pid is not None
    return members(server.pid)


def members(session_id: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, _, _, own = pathlib.Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == session_id and state not in "ZX":
                found.append(int(name))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
