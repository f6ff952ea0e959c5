"""One connection: how it opens, what it says when it can't, what it does when it stalls, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from h2.settings import SettingCodes
from h2_judge import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    goaway,
    number,
    rst_stream,
    settings_frame,
    window_update,
)
from in_process import (
    HOST,
    LOOPS,
    Answering,
    Raw,
    Results,
    Server,
    await_requests,
    batches,
    contents,
    drain,
    drive,
    files,
    greet,
    uploader,
)
from in_process import nothing_leaks as nothing_leaks
from integration.scripted import Peer, Request, Script
from integration.servers import Certificates, certificates

from fastpost import UploadResult, tls
from fastpost import connection as connections
from fastpost import target as targets
from fastpost._table import Attempt
from fastpost.config import Settings
from fastpost.connection import Connection
from fastpost.errors import (
    CertificateNotTrusted,
    ConnectFailed,
    ConnectionLost,
    FastpostError,
    NameNotResolved,
    NotHttp2,
    Stalled,
    TargetUnreachable,
    TlsFailed,
)
from fastpost.run import Run
from fastpost.sources import Upload
from fastpost.tls import client_context

pytestmark = pytest.mark.usefixtures("nothing_leaks")

CREATED = b"\x08\x03201"  # :status 201, a literal without indexing


def _unexpected(error: BaseException) -> None:
    raise error


def connection(url: str, **options: Any) -> Connection:
    settings = Settings(to=url, **options)

    return Connection(
        targets.parse(url),
        settings,
        context=lambda: client_context(settings),
        concurrency=1,
        rate_limit=None,
        on_finished=lambda *_: None,
        on_closed=lambda _: None,
        on_error=_unexpected,
    )


def opening(url: str, loop: str = "uvloop", **options: Any) -> None:
    """Open a connection and close it."""

    async def main() -> None:
        opened = connection(url, **options)
        try:
            await opened.open()
        except BaseException:
            assert opened.closed
            raise
        assert opened.session.plane.settled
        opened.close()
        opened.close()
        assert opened.closed

    drive(main(), loop)


def addresses(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, str]) -> None:
    """Have every name resolve to these."""

    async def resolve(self: object, host: bytes, port: int, **_: object) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in found]

    monkeypatch.setattr(asyncio.SelectorEventLoop, "getaddrinfo", resolve)


# --- TCP ------------------------------------------------------------------------------------------


@LOOPS
def test_opens_and_closes(loop: str) -> None:
    with Server() as server:
        opening(server.url, loop)
    assert server.connections == 1


@LOOPS
def test_an_ended_connection_is_gone_without_a_collection(loop: str) -> None:
    """Its buffers are some 250 kB, and a server may end thousands of connections between two collections."""

    async def main(url: str) -> None:
        opened = connection(url)
        await opened.open()
        session, whole = weakref.ref(opened.session), weakref.ref(opened)
        opened.close()
        del opened
        await asyncio.sleep(0)  # the loop may still hold a callback
        assert whole() is None
        assert session() is None

    gc.disable()
    try:
        with Server() as server:
            drive(main(server.url), loop)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.2"), (9999, "nonsense")],
    ids=["ipv6-refused", "ipv4-refused", "family-unknown"],
)
def test_next_address_is_tried(monkeypatch: pytest.MonkeyPatch, family: int, address: str) -> None:
    """Whatever is wrong with the first one, be it that this kernel has no such family."""
    addresses(monkeypatch, (family, address), (socket.AF_INET, HOST))
    with Server() as server:
        opening(server.url.replace(HOST, "store.example"), "asyncio")


def test_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, (9999, "nonsense"), (socket.AF_INET, "127.0.0.2"))
    with pytest.raises(ConnectFailed, match=r"store\.example:9 .*refused"):
        opening("http://store.example:9/", "asyncio")
    addresses(monkeypatch, (9999, "nonsense"))
    with pytest.raises(ConnectFailed, match="family"):
        opening("http://store.example:9/", "asyncio")
    addresses(monkeypatch)
    with pytest.raises(ConnectFailed, match="no address"):
        opening("http://store.example:9/", "asyncio")


def test_no_more_files_may_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE has a name too."""

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    addresses(monkeypatch, (socket.AF_INET, HOST))

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", full)
            await connection("http://store.example/").open()

    with pytest.raises(ConnectFailed, match="open files"):
        drive(main(), "asyncio")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".invalid", "a..invalid"])
def test_name_without_address(host: str) -> None:
    with pytest.raises((NameNotResolved, FastpostError), match=r"invalid"):
        opening(f"http://{host}/", "asyncio")


def test_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")

    def serve(stream: socket.socket, _: int) -> None:
        greet(stream)
        drain(stream)

    with Raw(serve, socket.AF_INET6) as server:
        opening(f"http://[::1]:{server.port}/")


@LOOPS
def test_refused(loop: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailed, match=rf"{HOST}:{port}.*[Rr]efused.*check"):
        opening(f"http://{HOST}:{port}/", loop)


@LOOPS
@pytest.mark.parametrize(("scheme", "told"), [("http", "speaks HTTP/2, or"), ("https", r"speaks TLS \(https\), or")])
def test_server_accepts_and_says_nothing(loop: str, scheme: str, told: str) -> None:
    """In the middle of opening: for SETTINGS, or in the handshake."""
    with Raw(lambda stream, _: drain(stream)) as server, pytest.raises(ConnectFailed, match=told):
        opening(server.url.replace("http", scheme), loop, connect_timeout=0.05)


@LOOPS
def test_connecting_takes_too_long(loop: str) -> None:
    """The queue of the listener is full: a SYN is not answered."""
    with contextlib.ExitStack() as queue:
        listener = queue.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://{HOST}:{listener.getsockname()[1]}/"
        with Server() as server:

            async def main() -> None:
                for _ in range(3):
                    with pytest.raises(ConnectFailed, match="did not answer"):
                        await connection(url, connect_timeout=0.02).open()
                    # The fd of the one that was given up is taken again at once, and must work.
                    opened = connection(server.url)
                    await opened.open()
                    opened.close()

            drive(main(), loop)


# --- what answers is no HTTP/2 --------------------------------------------------------------------


@LOOPS
def test_http_1_answer(loop: str) -> None:
    def serve(stream: socket.socket, _: int) -> None:
        stream.recv(65536)
        stream.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with Raw(serve) as server, pytest.raises(NotHttp2, match=rf"{HOST}:{server.port}.*HTTP/2"):
        opening(server.url, loop)


@LOOPS
@pytest.mark.parametrize("rude", [False, True], ids=["fin", "rst"])
def test_closes_at_once(loop: str, rude: bool) -> None:
    def serve(stream: socket.socket, _: int) -> None:
        if rude:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with Raw(serve) as server, pytest.raises(TargetUnreachable, match=rf"{HOST}:{server.port}"):
        opening(server.url, loop)


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("last", [b"", goaway(0), goaway(0, 11)], ids=["eof", "goaway", "calm"])
def test_ends_behind_its_settings(loop: str, tls: bool, last: bytes, loopback: Certificates) -> None:
    """It does speak HTTP/2; it is just not to be had now, and may be later."""

    def serve(stream: socket.socket, _: int) -> None:
        with _server_tls(loopback).wrap_socket(stream, server_side=True) if tls else stream as through:
            # In one segment with what ends it: what comes later would meet a connection that is open already.
            through.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            greet(through, last)
            if not tls:
                through.shutdown(socket.SHUT_WR)
                drain(through)

    with Raw(serve) as server:
        options = {"cacert": loopback.cafile} if tls else {}
        url = server.url.replace("http", "https") if tls else server.url
        with pytest.raises(ConnectFailed, match=f"{HOST}:{server.port}") as told:
            opening(url, loop, **options)
    assert "HTTP/1.1" not in str(told.value)


@pytest.mark.parametrize(
    "octets",
    [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED),
        frame(PING, 0, 0, bytes(8)),
        frame(SETTINGS, ACK),
        frame(SETTINGS, 0, 1),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(WINDOW_UPDATE, 0, 0, number(0)),
        b"\xff" * 100,
        b"\0" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_no_settings_first(octets: bytes) -> None:
    """Each ends with a failure that says so, and none is waited for."""

    def serve(stream: socket.socket, _: int) -> None:
        stream.recv(65536)
        stream.sendall(octets)
        stream.shutdown(socket.SHUT_WR)
        drain(stream)

    with Raw(serve) as server, pytest.raises(NotHttp2, match=f"{HOST}:{server.port}"):
        opening(server.url)


# --- TLS ------------------------------------------------------------------------------------------


def _server_tls(made: Certificates, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.chain, made.key)
    context.set_alpn_protocols(list(protocols) or ["h2"])
    return context


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[str]:
    def serve(stream: socket.socket, _: int) -> None:
        with context.wrap_socket(stream, server_side=True) as through:
            drain(through)

    with Raw(serve) as server:
        yield server.url.replace("http", "https")


@LOOPS
def test_tls(loop: str, loopback: Certificates) -> None:
    with Server(tls=loopback) as server:
        opening(server.url, loop, cacert=server.cafile)
        opening(server.url, loop, insecure=True)


def test_who_looks_at_no_certificate_loads_none(loopback: Certificates) -> None:
    assert client_context(Settings(to="https://h/", insecure=True)).get_ca_certs() == []
    assert client_context(Settings(to="https://h/", insecure=True, cacert=loopback.cafile)).get_ca_certs() != []


def test_a_key_log_that_cannot_be_written_is_named_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, loopback: Certificates
) -> None:
    """The ssl module opens it, while it loads what is trusted: that is not to blame."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/nonexistent/keys")
    with pytest.raises(TlsFailed, match=r"^SSLKEYLOGFILE /nonexistent/keys: .*unset it$"):
        client_context(Settings(to="https://h/", cacert=loopback.cafile))


def test_the_connections_of_a_run_share_what_was_loaded_for_tls(
    tmp_path: Path, loopback: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Settings] = []

    def counted(settings: Settings) -> ssl.SSLContext:
        loaded.append(settings)
        return client_context(settings)

    monkeypatch.setattr(tls, "client_context", counted)
    with Server(tls=loopback) as server:
        tally = upload(server.url, files(tmp_path, 9), connections=3, concurrency=3, cacert=server.cafile)
    assert tally.connections == 3
    assert len(loaded) == 1


def test_certificate_of_nobody(loopback: Certificates) -> None:
    with tls_server(_server_tls(loopback)) as url, pytest.raises(CertificateNotTrusted, match=r"--cacert.*--insecure"):
        opening(url)


def test_certificate_of_another_host(tmp_path: Path) -> None:
    made = certificates(tmp_path, "elsewhere.example")
    with tls_server(_server_tls(made)) as url, pytest.raises(CertificateNotTrusted, match=HOST):
        opening(url, cacert=made.cafile)


@pytest.mark.parametrize("protocols", [["http/1.1"], ["http/1.0", "spdy/3"]])
def test_no_alpn(loopback: Certificates, protocols: list[str]) -> None:
    context = _server_tls(loopback, *protocols)
    with tls_server(context) as url, pytest.raises(NotHttp2, match=r"ALPN.*HTTP/1\.1"):
        opening(url, cacert=loopback.cafile)


def test_alpn_refused_by_alert(loopback: Certificates) -> None:
    """OpenSSL lets a server refuse by an alert only through its C interface, so the alert is written by hand."""

    def serve(stream: socket.socket, _: int) -> None:
        stream.recv(65536)
        stream.sendall(b"\x15\x03\x03\x00\x02\x02\x78")
        drain(stream)

    with Raw(serve) as server, pytest.raises(NotHttp2, match="ALPN"):
        opening(server.url.replace("http", "https"))


def test_tls_on_a_cleartext_port() -> None:
    def serve(stream: socket.socket, _: int) -> None:
        stream.recv(65536)
        stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        drain(stream)

    with Raw(serve) as server, pytest.raises(TlsFailed, match="http://"):
        opening(server.url.replace("http", "https"))


def test_old_tls_only(loopback: Certificates) -> None:
    def serve(stream: socket.socket, _: int) -> None:
        stream.recv(65536)
        stream.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # alert: protocol_version
        drain(stream)

    with Raw(serve) as server, pytest.raises(TlsFailed, match="handshake"):
        opening(server.url.replace("http", "https"))


@LOOPS
@pytest.mark.parametrize("when", ["at once", "after the hello"])
@pytest.mark.parametrize("rude", [False, True], ids=["fin", "rst"])
def test_server_ends_the_handshake(loop: str, when: str, rude: bool) -> None:
    """No word about trust or ALPN: it may be restarting, so connecting is tried again."""

    def serve(stream: socket.socket, _: int) -> None:
        if when == "after the hello":
            stream.recv(65536)
        if rude:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with Raw(serve) as server, pytest.raises(ConnectFailed, match=f"{HOST}:{server.port}"):
        opening(server.url.replace("http", "https"), loop)


def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    tmp_path.joinpath("no.pem").write_text("nothing")
    with Server() as server:
        url = server.url.replace("http", "https")
        with pytest.raises(TlsFailed, match=r"--cacert .*no\.pem"):
            opening(url, cacert=tmp_path / "no.pem")
        with pytest.raises(TlsFailed, match=r"--cacert .*missing"):
            opening(url, cacert=tmp_path / "missing")
        with pytest.raises(TlsFailed, match=r"--cert .*no\.pem"):
            opening(url, cert=tmp_path / "no.pem")


def test_client_certificate(tmp_path: Path, loopback: Certificates) -> None:
    context = _server_tls(loopback)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(loopback.cafile)
    seen: list[object] = []

    def serve(stream: socket.socket, _: int) -> None:
        with context.wrap_socket(stream, server_side=True) as through:
            seen.append(through.getpeercert())
            greet(through)
            drain(through)

    with Raw(serve) as server:
        url = server.url.replace("http", "https")
        opening(url, cacert=loopback.cafile, cert=loopback.both)
        opening(url, cacert=loopback.cafile, cert=loopback.chain, key=loopback.key)
    assert len(seen) == 2


# --- uploads through one connection ---------------------------------------------------------------


def upload(
    url: str, uploads: list[Upload], loop: str = "uvloop", results: Results | None = None, **options: Any
) -> Any:
    results = Results() if results is None else results

    async def main() -> Any:
        client = uploader(url, **options)
        await client.run(batches(uploads), results)
        return client.tally

    tally = drive(main(), loop)
    assert results.once(uploads)
    return tally


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_large_files(tmp_path: Path, loop: str, tls: bool, loopback: Certificates) -> None:
    """The socket takes a part of each gather list."""
    uploads = files(tmp_path, 3, 6_000_001)
    with Server(tls=loopback if tls else None) as server:
        tally = upload(server.url, uploads, loop, cacert=server.cafile)
    assert tally.ok == 3
    assert server.bodies() == contents(uploads)


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_server_answers_without_reading(tmp_path: Path, loop: str, tls: bool, loopback: Certificates) -> None:
    """All windows are open and the socket is full: the early answer is taken all the same."""
    uploads = files(tmp_path, 1, 30_000_000)

    def serve(stream: socket.socket, _: int) -> None:
        with _server_tls(loopback).wrap_socket(stream, server_side=True) if tls else stream as through:
            greet(
                through,
                settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}),
                window_update(0, 2**31 - 1 - 65535),
            )
            await_requests(through, 1)
            through.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED))
            drain(through)

    with Raw(serve) as server:
        options: dict[str, Any] = {"cacert": loopback.cafile} if tls else {}
        tally = upload(server.url.replace("http", "https") if tls else server.url, uploads, loop, **options)
    assert tally.ok == 1
    assert tally.payload < 30_000_000


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("rude", [False, True], ids=["fin", "rst"])
def test_end_in_the_middle_of_a_response(
    tmp_path: Path, loop: str, tls: bool, rude: bool, loopback: Certificates
) -> None:
    """Half a frame is no answer; and the end is seen at once though data came with it."""
    uploads = files(tmp_path, 2)

    def serve(stream: socket.socket, order: int) -> None:
        with _server_tls(loopback).wrap_socket(stream, server_side=True) if tls else stream as through:
            greet(through)
            await_requests(through, 2)
            through.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED))
            through.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 3, CREATED)[:-1])
            if rude:
                through.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    results = Results()
    with Raw(serve) as server:
        options = {"cacert": loopback.cafile} if tls else {}
        url = server.url.replace("http", "https") if tls else server.url
        upload(url, uploads, loop, results, retries=0, **options)
    assert set(results.failures()) == {"ConnectionLost"}


@LOOPS
def test_reset_behind_an_answer(tmp_path: Path, loop: str) -> None:
    """Answer and RST come in one turn of the loop: the connection is known to be lost without any timer."""
    uploads = files(tmp_path, 2)

    class Answering(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number == 0:
                if request.stream_id == 3:
                    peer.answer(peer.requests[1], 201)
                    peer.flush()
                    peer.drop(abort=True)
            else:
                peer.answer(request, 201)

    with Server(Answering()) as server:
        tally = upload(server.url, uploads, loop)
    assert tally.ok == 2
    assert server.connections == 2


def test_protocol_violation_is_answered_by_goaway(tmp_path: Path) -> None:
    uploads = files(tmp_path, 1)
    said = b""

    def serve(stream: socket.socket, _: int) -> None:
        nonlocal said
        greet(stream)
        await_requests(stream, 1)
        stream.sendall(frame(SETTINGS, 0, 1))
        while octets := stream.recv(65536):
            said += octets

    results = Results()
    with Raw(serve) as server:
        upload(server.url, uploads, results=results, retries=0)
    assert results.failures() == {"ProtocolViolation": 1}
    assert said == goaway(0, 1)


# --- crumbs ---------------------------------------------------------------------------------------


class Crumbs:
    """A peer with a connection window of 65,535 octets, by hand."""

    def __init__(self, act: Callable[[socket.socket, bytes], None]) -> None:
        self._act = act

    def __call__(self, stream: socket.socket, _: int) -> None:
        greet(stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**20}))
        got = 0
        while got < 65_535:
            octets = stream.recv(65536)
            if not octets:
                return
            got += len(octets)
        self._act(stream, b"")


@LOOPS
def test_held_crumbs_leave_in_the_end(tmp_path: Path, loop: str) -> None:
    """A window of a hundred octets is used too, once nobody enlarges it."""
    uploads = files(tmp_path, 1, 70_000)

    def act(stream: socket.socket, _: bytes) -> None:
        left = 70_000 - 65_535
        while left > 0:
            stream.sendall(window_update(0, min(left, 1500)))
            left -= 1500
        stream.recv(65536)
        stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED))
        drain(stream)

    with Raw(Crumbs(act)) as server:
        tally = upload(server.url, uploads, loop)
    assert tally.ok == 1


def test_nothing_spins_after_crumbs_were_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream for which they were held is gone: the timer must not fire for ever while another one waits."""
    small, large = files(tmp_path, 2, 0)
    Path(large.file.decode()).write_bytes(bytes(80_000))
    pause = threading.Event()
    fired = 0
    held = Connection._held

    def counted(self: Connection) -> None:
        nonlocal fired
        fired += 1
        held(self)

    monkeypatch.setattr(Connection, "_held", counted)

    def serve(stream: socket.socket, _: int) -> None:
        greet(stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**20}))
        got = 0
        while got < 65_535:
            got += len(stream.recv(65536))
        stream.sendall(window_update(0, 700))
        # The large one is refused by an early answer while 700 octets are held for it.
        stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 3, CREATED))
        for turn in range(60):
            stream.sendall(frame(PING, 0, 0, number(turn) + number(0)))
            stream.recv(65536)
            pause.wait(0.001)
        stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED))
        drain(stream)

    with Raw(serve) as server:
        tally = upload(server.url, [small, large])
    assert tally.ok == 2
    assert fired < 10


def test_who_has_nothing_more_is_not_asked_with_each_credit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file alone leaves room all the time, and thousands of times a second something arrives."""
    told: list[int] = []
    credits = 0
    ended, received = Run._attempts_ended, Connection._receive

    def count(self: Run, connection: Connection, attempts: list[Attempt]) -> None:
        told.append(len(attempts))
        ended(self, connection, attempts)

    def receive(self: Connection, now: float, turn: float = 0.0) -> bool:
        nonlocal credits
        credits += 1
        return received(self, now, turn)

    monkeypatch.setattr(Run, "_attempts_ended", count)
    monkeypatch.setattr(Connection, "_receive", receive)
    monkeypatch.setattr(connections, "_CHECK_INTERVAL", 100.0)
    uploads = files(tmp_path, 1, 4_000_000)
    with Server() as server:
        assert upload(server.url, uploads, busy_poll=False).ok == 1
    assert sum(told) == 1
    assert credits > 50
    assert len(told) < 10


def test_who_has_nothing_more_is_asked_again_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forgets to bring what there is has lost a second, and no more."""
    monkeypatch.setattr(connections, "_CHECK_INTERVAL", 0.01)
    often = asyncio.Event()
    told = 0

    def tell(*_: object) -> None:
        nonlocal told
        told += 1
        if told > 3:
            often.set()

    async def main(url: str) -> None:
        one = connection(url)
        one._on_finished = tell
        await one.open()
        await often.wait()
        one.close()

    with Server() as server:
        drive(main(server.url))


class Few(Script):
    """Answers three requests, and all others once those are told."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.answered = 0

    def completed(self, peer: Peer, request: Request) -> None:
        self.answered += 1
        if self.answered > 3:
            peer.flush()
            self.told.wait(20)
        peer.answer(request, 201)


def test_what_ended_is_told_though_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not each time, as more of it may come at once, but soon."""
    monkeypatch.setattr(connections, "_CHECK_INTERVAL", 100.0)
    uploads = files(tmp_path, 20)
    script = Few()

    class Told(Results):
        def __call__(self, results: list[UploadResult]) -> None:
            super().__call__(results)
            if len(self.all) == 3:
                script.told.set()

    with Server(script) as server:
        assert upload(server.url, uploads, results=Told(), concurrency=10).ok == 20
    assert script.told.is_set()


class Holding(Script):
    """Answers nothing until it may."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.connections: set[int] = set()

    def completed(self, peer: Peer, request: Request) -> None:
        self.connections.add(peer.number)
        self.answers.wait(20)
        peer.answer(request, 201)


@pytest.mark.parametrize("wanted", [True, False])
def test_waiting_awake_is_allowed_and_not_in_the_midst_of_a_run(tmp_path: Path, wanted: bool) -> None:
    """By the connections that are there, and by those that come."""
    script = Holding()

    async def main(url: str) -> None:
        client = uploader(url, concurrency=10, connections=2, busy_poll=wanted)
        client.allow_busy_poll(False)  # there is no run yet: for nobody
        running = asyncio.ensure_future(client.run(batches(files(tmp_path, 100))))
        while len(script.connections) < 2:
            await asyncio.sleep(0.001)
        assert client._run is not None
        first, second = pool = client._run._pool.connections
        assert [one.busy_poll for one in pool] == [wanted, wanted]
        client.allow_busy_poll(False)
        assert [one.busy_poll for one in pool] == [False, False]
        client.limit(4, 1)
        client.limit(10, 2)
        while client.tally.connections < 3:  # for the one that drains
            await asyncio.sleep(0.001)
        (third,) = {*pool} - {first, second}
        assert not third.busy_poll
        client.allow_busy_poll(True)
        assert [one.busy_poll for one in (first, second, third)] == [wanted] * 3
        script.answers.set()
        await running

    with Server(script) as server:
        drive(main(server.url))


def test_streams_and_connections_that_were_lowered_can_be_raised_again(tmp_path: Path) -> None:
    script = Holding()

    async def main(url: str) -> Any:
        client = uploader(url, concurrency=10, connections=2)
        running = asyncio.ensure_future(client.run(batches(files(tmp_path, 100))))
        while len(script.connections) < 2:
            await asyncio.sleep(0.001)
        assert not client.limit(4, 1), "what is open is not cut off"
        assert client.limit(10, 2)
        while client.tally.connections < 3:  # for the one that drains
            await asyncio.sleep(0.001)
        script.answers.set()
        await running
        return client.tally

    with Server(script) as server:
        tally = drive(main(server.url))
    assert tally.ok == 100
    assert tally.connections == 3


def test_what_was_answered_before_a_run_is_cancelled_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was to be told together with what comes next."""
    monkeypatch.setattr(connections, "_UNTOLD", 100.0)
    script = Few()
    results = Results()

    async def main(url: str) -> Any:
        client = uploader(url, concurrency=10)
        running = asyncio.ensure_future(client.run(batches(files(tmp_path, 200)), results))
        while script.answered < 4:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert not results.all, "all that is to be begun is in line: they wait for more of their kind"
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        script.told.set()
        return client.tally

    with Server(script) as server:
        tally = drive(main(server.url))
    assert tally.ok == 3
    assert [result.status for result in results.all if result.failure is None] == [201] * 3


def test_what_ended_is_told_soon_though_answers_come_one_by_one(tmp_path: Path) -> None:
    """A turn that leaves nothing to send is over at once: a timer tells, long before the line has to be filled."""

    class Slow(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            time.sleep(0.004)
            peer.answer(request, 201)
            peer.flush()

    told: list[float] = []

    async def main(url: str) -> Any:
        client = uploader(url, concurrency=100)
        await client.run(batches(files(tmp_path, 400)), lambda _: told.append(time.monotonic()))
        return client.tally

    with Server(Slow()) as server:
        assert drive(main(server.url)).ok == 400
    assert told[-1] - told[0] > 1.0
    assert max(after - before for before, after in itertools.pairwise(told)) < 0.8


def test_many_that_ended_one_by_one_are_told_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    ended = Run._attempts_ended

    def count(self: Run, connection: Connection, attempts: list[Attempt]) -> None:
        told.append(len(attempts))
        ended(self, connection, attempts)

    monkeypatch.setattr(Run, "_attempts_ended", count)
    with Raw(Answering(pause=0.001, piece=200)) as server:
        assert upload(server.url, files(tmp_path, 100), concurrency=20).ok == 100
    assert sum(told) == 100
    assert len(told) < 40


# --- answers that are waited for awake -----------------------------------------------------------


@LOOPS
def test_the_loop_gets_its_turn_though_answers_come_at_once(
    tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a server that never lets it sleep; without its turn the loop could not even be stopped."""
    asked = 0

    def at_once(self: Connection) -> bool:
        nonlocal asked
        asked += 1
        assert asked < 100_000, "the loop never got its turn"
        return not self.closed

    monkeypatch.setattr(Connection, "_waits_on", lambda self, now: at_once(self))
    uploads = files(tmp_path, 30, 100_000)
    with Server() as server:
        tally = upload(server.url, uploads, loop)
    assert tally.ok == 30
    assert server.bodies() == contents(uploads)
    assert asked


def test_slow_ticks_among_answers_that_come_at_once_leave_the_loop_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a cold disk, or a program that takes its time with results: its other tasks wait for one of them."""
    ticks: list[float] = []
    clock = 0.0

    def advance(self: Connection, now: float) -> None:
        nonlocal clock
        ticks.append(now)
        clock += 0.01

    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(Connection, "_receive", lambda self, now, turn: len(ticks) < 10)
    monkeypatch.setattr(Connection, "_advance", advance)
    monkeypatch.setattr(Connection, "_waits_on", lambda self, now: True)

    async def main() -> None:
        connection("http://127.0.0.1/")._readable()

    drive(main())
    assert ticks == [0.0]


@pytest.mark.parametrize("how", ["busy_poll", "naps"])
@pytest.mark.parametrize(
    ("allowed", "others", "writing", "waits"),
    [(True, 0, False, True), (False, 0, False, False), (True, 1, False, False), (True, 0, True, False)],
)
def test_who_waits_at_the_socket(how: str, allowed: bool, others: int, writing: bool, waits: bool) -> None:
    """Not where it was asked not to, nor while another connection has to wait for that or more can be sent."""
    asked = {"busy_poll": False, "naps": False, how: allowed}
    plane = SimpleNamespace(awaits_credit=how == "busy_poll", awaits_answers=50, responses=7)
    willing = SimpleNamespace(watch=lambda fd: fd >= 0, nap=lambda *told: told == (50, 7, 1.0))

    async def main(url: str) -> None:
        opened = [connection(url, **asked) for _ in range(1 + others)]
        for one in opened:
            await one.open()
        first = opened[0]
        sessions = [one.session for one in opened]
        first.session = SimpleNamespace(plane=plane)  # type: ignore[assignment]
        first._patience = willing  # type: ignore[assignment]
        first._want_write(writing)
        assert first._waits_on(1.0) == waits
        wire, first._wire = first._wire, SimpleNamespace(gave_up=True)  # type: ignore[assignment]
        assert first._waits_on(1.0) == (waits and how == "naps")  # credit was waited for a moment ago
        first._wire = wire
        first.session = sessions[0]
        for one in opened:
            one.close()

    with Server() as server:
        drive(main(server.url))


# --- stalls ---------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often and wait little: what is tested is what happens, not when."""
    monkeypatch.setattr(connections, "_CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(connections, "_PING_TIMEOUT", 0.15)


def _pong(stream: socket.socket, octets: bytes) -> None:
    """Answer the PINGs among the frames; each comes alone, as nothing else moves."""
    at = octets.find(b"\0\0\x08\x06\0\0\0\0\0")
    if at >= 0:
        stream.sendall(frame(PING, ACK, 0, octets[at + 9 : at + 17]))


#: What stalls, as (octets of the file, the server's settings): a response that never comes, a stream's window that
#: never opens, the connection's.
STALLS = pytest.mark.parametrize(
    ("size", "stream_window"),
    [(10, 65_535), (200_000, 1000), (200_000, 2**20)],
    ids=["response", "stream-window", "connection-window"],
)


@LOOPS
@STALLS
@pytest.mark.usefixtures("impatient")
def test_ping_answered(tmp_path: Path, loop: str, size: int, stream_window: int) -> None:
    """The connection lives, so the stream is reset and the upload tried again on it."""
    uploads = files(tmp_path, 1, size)
    resets = []

    def serve(stream: socket.socket, _: int) -> None:
        greet(stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: stream_window}))
        while octets := stream.recv(65536):
            _pong(stream, octets)
            if rst_stream(1, 8) in octets:
                resets.append(1)

    results = Results()
    with Raw(serve) as server:
        upload(server.url, uploads, loop, results, retries=1, stall_timeout=0.1)
        assert server.connections == 1
    assert resets == [1]
    assert results.failures() == {"Stalled": 1}
    assert results.all[0].retried == 1
    assert "PING" in str(results.all[0].failure)


@LOOPS
@STALLS
@pytest.mark.usefixtures("impatient")
def test_ping_unanswered(tmp_path: Path, loop: str, size: int, stream_window: int) -> None:
    """The connection is dead: all of it is given up, and the retry goes to a new one."""
    uploads = files(tmp_path, 1, size)

    def serve(stream: socket.socket, _: int) -> None:
        greet(stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: stream_window}))
        drain(stream)

    results = Results()
    with Raw(serve) as server:
        upload(server.url, uploads, loop, results, retries=1, stall_timeout=0.1)
        assert server.connections == 2
    assert results.failures() == {"Stalled": 1}
    assert "unanswered" in str(results.all[0].failure)


@LOOPS
@pytest.mark.usefixtures("impatient")
def test_server_stops_reading(tmp_path: Path, loop: str) -> None:
    """The socket is full, so not even PING gets through: dead."""
    uploads = files(tmp_path, 1, 30_000_000)
    over = threading.Event()

    def serve(stream: socket.socket, _: int) -> None:
        greet(
            stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}), window_update(0, 2**31 - 1 - 65535)
        )
        over.wait(20)

    results = Results()
    with Raw(serve) as server:
        upload(server.url, uploads, loop, results, retries=0, stall_timeout=0.1)
        over.set()
    assert results.failures() == {"Stalled": 1}


@pytest.mark.usefixtures("impatient")
def test_slow_but_alive(tmp_path: Path) -> None:
    """A window that opens a little, again and again, is progress."""
    uploads = files(tmp_path, 1, 68_000)

    def serve(stream: socket.socket, _: int) -> None:
        greet(stream)
        got = 0
        while got < 65_535:
            got += len(stream.recv(65536))
        for _ in range(5):
            for one in (0, 1):
                stream.sendall(window_update(one, 600))
            _pong(stream, stream.recv(65536))
        stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED))
        while octets := stream.recv(65536):
            _pong(stream, octets)

    with Raw(serve) as server:
        tally = upload(server.url, uploads, stall_timeout=0.3, retries=0)
    assert tally.ok == 1


# --- cancellation ---------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("turns", range(12))
def test_opening_is_cancelled(loop: str, turns: int) -> None:
    async def main() -> None:
        opened = connection(server.url)
        task = asyncio.create_task(opened.open())
        for _ in range(turns * 5):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        opened.close()
        assert opened.closed

    with Server() as server:
        drive(main(), loop)


def test_what_was_submitted_comes_back_when_it_closes(tmp_path: Path) -> None:
    (upload_,) = files(tmp_path, 1)
    ended: list[Attempt] = []
    closed: list[Connection] = []

    async def main() -> None:
        settings = Settings(to=server.url)
        opened = Connection(
            targets.parse(server.url),
            settings,
            context=lambda: client_context(settings),
            concurrency=1,
            rate_limit=None,
            on_finished=lambda _, attempts: ended.extend(attempts),
            on_closed=closed.append,
            on_error=_unexpected,
        )
        await opened.open()
        attempts = [Attempt(upload_, upload_.file, b"/%d" % n) for n in range(3)]
        opened.submit(attempts)
        opened.close()
        assert closed == [opened]
        assert [*ended, *opened.session.take_unsent()] == attempts
        assert all(isinstance(attempt.failure, ConnectionLost | Stalled) for attempt in ended)

    with Server() as server:
        drive(main())


# --- ends of every kind ---------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_violation_and_reset_in_one(tmp_path: Path, loop: str, tls: bool, loopback: Certificates) -> None:
    """Our GOAWAY meets a socket that is reset already: the connection ends all the same, once."""
    uploads = files(tmp_path, 5)

    def serve(stream: socket.socket, order: int) -> None:
        with _server_tls(loopback).wrap_socket(stream, server_side=True) if tls else stream as through:
            greet(through)
            await_requests(through, 5)
            through.sendall(frame(SETTINGS, 0, 1))
            through.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    results = Results()
    with Raw(serve) as server:
        options: dict[str, Any] = {"cacert": loopback.cafile} if tls else {}
        url = server.url.replace("http", "https") if tls else server.url
        upload(url, uploads, loop, results, retries=0, **options)
    assert set(results.failures()) <= {"ProtocolViolation", "ConnectionLost"}
    assert len(results.all) == 5


@pytest.mark.usefixtures("impatient")
def test_a_slow_line_is_no_stalled_one(tmp_path: Path) -> None:
    """It takes many times the stall timeout, and every moment of it something arrives."""
    uploads = files(tmp_path, 40, 60_000)
    pause = threading.Event()

    def serve(stream: socket.socket, _: int) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        greet(
            stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}), window_update(0, 2**31 - 1 - 65535)
        )
        octets = b""
        while got := stream.recv(30_000):
            pause.wait(0.02)
            octets += got
            while len(octets) >= 9 and len(octets) >= (length := 9 + int.from_bytes(octets[:3], "big")):
                kind, flags, stream_id = octets[3], octets[4], int.from_bytes(octets[5:9], "big")
                if kind == PING and not flags:
                    stream.sendall(frame(PING, ACK, 0, octets[9:17]))
                if kind == DATA and flags & END_STREAM:
                    stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, CREATED))
                octets = octets[length:]

    results = Results()
    with Raw(serve) as server:
        upload(server.url, uploads, results=results, retries=0, stall_timeout=0.25)
        assert server.connections == 1
    assert results.failures() == {}


@pytest.mark.usefixtures("impatient")
def test_credit_that_nobody_can_use_is_no_progress(tmp_path: Path) -> None:
    uploads = files(tmp_path, 1)
    pause = threading.Event()

    def serve(stream: socket.socket, _: int) -> None:
        greet(stream)
        await_requests(stream, 1)
        while True:
            stream.sendall(window_update(1, 1) + window_update(0, 1))
            _pong(stream, stream.recv(65_536) if _readable(stream) else b"")
            pause.wait(0.01)

    results = Results()
    with Raw(serve) as server:
        upload(server.url, uploads, results=results, retries=0, stall_timeout=0.1)
    assert results.failures() == {"Stalled": 1}


def _readable(stream: socket.socket) -> bool:
    return bool(select.select([stream], [], [], 0)[0])


@pytest.mark.usefixtures("impatient")
def test_dead_host_that_allows_no_stream(tmp_path: Path) -> None:
    """MAX_CONCURRENT_STREAMS 0 is waited for, but not on a connection whose other end is gone."""
    uploads = files(tmp_path, 1)

    def serve(stream: socket.socket, order: int) -> None:
        greet(stream, settings_frame({SettingCodes.MAX_CONCURRENT_STREAMS: 0}) if order == 0 else b"")
        if order:
            await_requests(stream, 1)
            stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 1, CREATED))
        drain(stream)

    with Raw(serve) as server:
        tally = upload(server.url, uploads, stall_timeout=0.1)
        assert server.connections == 2
    assert tally.ok == 1


def test_nothing_spins_while_the_socket_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crumbs of the window are held, and what was gathered before them does not leave."""
    uploads = files(tmp_path, 12, 800_003)
    fired = 0
    held = Connection._held

    def counted(self: Connection) -> None:
        nonlocal fired
        fired += 1
        held(self)

    monkeypatch.setattr(Connection, "_held", counted)
    over = threading.Event()

    def serve(stream: socket.socket, _: int) -> None:
        # Any of these windows may be the one that ends in crumbs while the socket is full.
        greet(
            stream,
            settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}),
            window_update(0, 8_000_000 - 65_535),
        )
        over.wait(20)

    async def main() -> None:
        client = uploader(server.url, retries=0)
        running = asyncio.create_task(client.run(batches(uploads)))
        await asyncio.sleep(0.3)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    with Raw(serve) as server:
        drive(main())
        over.set()
    assert fired < 50


def test_first_address_swallows_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is tried within the time that connecting may take."""
    with contextlib.ExitStack() as queue:
        listener = queue.enter_context(socket.socket())
        listener.bind(("127.0.0.3", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        server = queue.enter_context(Server())
        live = int(server.url.rsplit(":", 1)[1].strip("/"))

        async def resolve(self: object, host: bytes, port_: int, **_: object) -> list[Any]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.3", port)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, live)),
            ]

        monkeypatch.setattr(asyncio.SelectorEventLoop, "getaddrinfo", resolve)
        opening(f"http://store.example:{live}/", "asyncio", connect_timeout=0.4)
