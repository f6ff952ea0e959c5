"""`fastpost probe`: scripted servers for what only they do, and the arithmetic of the ceiling."""

from __future__ import annotations

import errno
import importlib.resources
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from h2.settings import SettingCodes
from h2_judge import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, frame, goaway, settings_frame, window_update
from in_process import Raw, Server, greet
from in_process import nothing_leaks as nothing_leaks
from integration.scripted import Peer, Request, Script
from integration.servers import certificates, nginx

from fastpost import cli, probe, reach, servers

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.main, ["probe", *arguments])
    assert "Traceback" not in result.stderr
    return result


def look(url: str, *options: str) -> dict[str, Any]:
    """Probe, and validate what comes."""
    result = run(url, "--output-format", "json", *options)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    text = importlib.resources.files("fastpost").joinpath("schemas", "probe-1.json").read_text("utf-8")
    jsonschema.Draft202012Validator(json.loads(text)).validate(found)
    return found


def test_settings_windows_and_updates_as_they_come() -> None:
    with Server(max_concurrent_streams=7) as server:
        found = look(server.url, "--budget", "300000")
    assert found["settings"]["MAX_CONCURRENT_STREAMS"] == 7
    assert found["max_concurrent_streams"] == 7
    assert found["windows"]["stream_initial"] == 65_535
    assert found["windows"]["connection_initial"] == 2**31 - 1
    assert found["window_updates"]["stream"]["count"] > 3
    assert found["upload"] | {"seconds": 0} == {"octets": 300_000, "seconds": 0, "status": 201, "ended": "complete"}
    assert found["ping_ms"]["count"] == 10
    assert found["tls"] is None
    assert found["times_ms"]["tls"] is None


def test_never_more_than_the_budget() -> None:
    for budget in ("0", "1", "65536"):
        with Server() as server:
            assert look(server.url, "--budget", budget)["upload"]["octets"] == int(budget)


def test_an_early_answer_stops_the_body() -> None:
    class Refusing(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 401)
            peer.reset(request, 0)

        def received(self, peer: Peer, request: Request, octets: int) -> None:
            pass

        def completed(self, peer: Peer, request: Request) -> None:
            pass

    with Server(Refusing()) as server:
        found = look(server.url)
    assert found["upload"]["status"] == 401
    assert found["upload"]["ended"] == "answered before its end"
    assert found["upload"]["octets"] < 16 << 20


@pytest.mark.parametrize("status", ["abc", "", "2 0 0", "-12", "9999", "099"])
def test_a_status_that_is_none_is_told(status: str) -> None:
    class Odd(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.h2.config.validate_outbound_headers = peer.h2.config.normalize_outbound_headers = False
            peer.h2.send_headers(request.stream_id, [(":status", status)], end_stream=True)

    with Server(Odd()) as server:
        found = look(server.url, "--budget", "1000")
    assert found["upload"]["status"] is None
    assert found["upload"]["ended"] == f"the connection ended: '{status}' is no status"


def test_goaway_is_told() -> None:
    class Leaving(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 201)
            peer.goaway(request.stream_id)

    with Server(Leaving()) as server:
        found = look(server.url, "--budget", "1000")
    assert found["upload"]["status"] == 201
    assert found["goaway"]["code"] == "NO_ERROR"
    assert found["goaway"]["last_stream_id"] == 1


def test_after_how_many_requests_goaway_comes() -> None:
    """As nginx does: the last one taken is named, what came behind it is not."""

    class Leaving(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 201, b"taken")
            if request.stream_id == 2 * 30 - 1:
                peer.goaway(request.stream_id)

    with Server(Leaving(), max_concurrent_streams=7) as server:
        found = look(server.url, "--budget", "1000", "--requests", "100")
        told = run(server.url, "--budget", "1000", "--requests", "100").stdout
    assert found["upload"]["status"] == 201
    assert found["goaway"]["after_requests"] == 30
    assert 30 <= found["requests"] <= 37
    assert "NO_ERROR after 30 of 3" in told


@pytest.mark.parametrize("after", [1, 20], ids=["during the upload", "among the empty ones"])
def test_a_connection_that_ends_is_no_server_that_does_not_answer(after: int) -> None:
    class Leaving(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if len(peer.requests) >= after:
                peer.drop()
            peer.answer(request, 201)

    with Server(Leaving(), max_concurrent_streams=1) as server:
        found = look(server.url, "--budget", "1000", "--requests", "100")
        told = run(server.url, "--budget", "1000", "--requests", "100").stdout
    assert found["answered"] == after - 1 < found["requests"]
    assert found["goaway"] is None
    assert f"none came in {after - 1} answered" in told
    assert ("closed the connection" in found["upload"]["ended"]) == (after == 1)


def test_an_answer_without_end_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_UPLOAD_LIMIT", 1.0)

    class Endless(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.h2.send_headers(request.stream_id, [(":status", "200")])
            peer.flush()
            while True:  # until nobody takes it; frames of no octets need no window
                peer._stream.sendall(100 * frame(DATA, 0, request.stream_id))

    with Server(Endless()) as server:
        found = look(server.url, "--budget", "1000")
    assert found["upload"]["status"] == 200
    assert found["upload"]["ended"] == "not answered to the end within 1 s"


def test_an_answer_that_is_cut_short_is_one() -> None:
    class Cut(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.h2.send_headers(request.stream_id, [(":status", "200")])
            peer.drop()

    with Server(Cut()) as server:
        found = look(server.url, "--budget", "1000")
    assert found["upload"]["status"] == 200
    assert found["upload"]["ended"] == "the server closed the connection in the midst of its answer"


def test_a_reset_is_no_answer() -> None:
    class Resetting(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if request.stream_id <= 2 * 3:
                peer.answer(request, 201)
            else:
                peer.reset(request, 7)

    with Server(Resetting()) as server:
        found = look(server.url, "--budget", "1000", "--requests", "20")
    assert (found["requests"], found["answered"]) == (21, 3)


def test_no_goaway_in_so_many_requests() -> None:
    with Server() as server:
        found = look(server.url, "--budget", "1000", "--requests", "200")
        assert "none came in 201 answered requests" in run(server.url, "--budget", "0", "--requests", "200").stdout
    assert found["requests"] == 201
    assert found["goaway"] is None
    assert found["upload"]["ended"] == "complete"
    assert [len(request.body) for request in server.requests[:3]] == [1000, 0, 0]


def test_nginx_says_goaway_after_a_thousand_requests(tmp_path: Path) -> None:
    with nginx(tmp_path, None) as server:
        found = look(server.url, "--budget", "1000", "--requests", "1500")
    assert found["goaway"]["after_requests"] == 1000
    assert "keepalive_requests" in found["server"]["goaway"]


def test_text_for_people() -> None:
    with Server() as server:
        result = run(server.url, "--budget", "10000")
    assert result.exit_code == 0
    for word in ("settings", "window of 65,535 octets", "ping", "ceiling", "goaway", "status 201"):
        assert word in result.stdout
    assert "connection: 1 of mostly 2,147,418,112 octets, before anything was sent" in result.stdout


@pytest.mark.parametrize(
    ("server", "told"),
    [("Caddy", "knob        none is known: caddy"), ("own/1", ""), ("nginx", "knob        stream limit:")],
)
def test_a_known_server_without_knobs_is_told(server: str, told: str) -> None:
    class Named(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 201, server=server)

    with Server(Named()) as running:
        text = run(running.url, "--budget", "1000").stdout
    assert told in text
    assert ("knob" in text) is bool(told)


def test_http_1_1_is_exit_code_4_with_the_cure() -> None:
    def old(stream: socket.socket, _: int) -> None:
        stream.recv(1000)
        stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        while stream.recv(65_536):
            pass  # it keeps the connection open; that is not waited for

    with Raw(old) as server:
        result = run(server.url)
    assert result.exit_code == 4
    assert "needs HTTP/2" in result.stderr


def test_goaway_at_once_makes_no_upload() -> None:
    def leaving(stream: socket.socket, _: int) -> None:
        stream.sendall(settings_frame({}) + window_update(0, 1000) + goaway(0))
        while stream.recv(65_536):
            pass

    with Raw(leaving) as server:
        found = look(server.url)
    assert found["upload"]["octets"] == 0
    assert found["goaway"] is not None
    assert found["ceiling"] is None


class Deafened(socket.socket):
    """Sends the preface; then its peer takes nothing any more."""

    told = threading.Event()
    sent = False

    def send(self, octets: Any, /, flags: int = 0) -> int:
        if self.sent:
            self.told.set()
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.sent = True
        return super().send(octets, flags)


def test_goaway_is_read_although_nothing_can_be_sent_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, deafened = reach._connect, Deafened.told
    monkeypatch.setattr(reach, "_connect", lambda *given: Deafened(fileno=connect(*given).detach()))

    def leaving(stream: socket.socket, _: int) -> None:
        stream.sendall(settings_frame({}))
        assert deafened.wait(30)
        stream.sendall(goaway(0, 11))
        while stream.recv(65_536):
            pass

    with Raw(leaving) as server:
        found = look(server.url)
    assert found["goaway"]["code"] == "ENHANCE_YOUR_CALM"
    assert found["upload"]["octets"] == 0


class Slow:
    """Takes a little at a time and answers when all has come; if `dead`, takes nothing of a body but its beginning."""

    def __init__(self, *, dead: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.over = threading.Event()
        self._dead = dead
        self._tls = tls

    def __call__(self, stream: socket.socket, _: int) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        if self._tls is None:
            self._serve(stream)
        else:
            with self._tls.wrap_socket(stream, server_side=True) as through:
                self._serve(through)

    def _serve(self, stream: socket.socket) -> None:
        wide = {SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1, SettingCodes.MAX_FRAME_SIZE: 2**24 - 1}
        greet(stream, settings_frame(wide), window_update(0, 2**31 - 1 - 65_535))
        octets = b""
        while got := stream.recv(20_000):
            octets += got
            while len(octets) >= 9 and len(octets) >= (length := 9 + int.from_bytes(octets[:3], "big")):
                kind, flags, stream_id = octets[3], octets[4], int.from_bytes(octets[5:9], "big")
                if kind == PING and not flags:
                    stream.sendall(frame(PING, ACK, 0, octets[9:17]))
                if kind == DATA and flags & END_STREAM:
                    stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, b"\x88"))
                octets = octets[length:]
            if len(octets) > 9:  # in the midst of a body
                self.over.wait(60 if self._dead else 0.01)


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_a_slow_line_is_waited_for_while_octets_arrive(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One frame takes many times what may pass without anything that moves."""
    monkeypatch.setattr(probe, "_QUIET", 0.25)
    made = certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.chain, made.key)
    context.set_alpn_protocols(["h2"])
    with Raw(Slow(tls=context if tls else None)) as server:
        url = server.url.replace("http", "https") if tls else server.url
        found = look(url, "--budget", "1MiB", "--cacert", str(made.cafile))
    assert found["upload"] | {"seconds": 0} == {"octets": 1 << 20, "seconds": 0, "status": 200, "ended": "complete"}


def test_a_line_that_is_too_slow_ends_with_what_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_UPLOAD_LIMIT", 0.5)
    with Raw(Slow()) as server:
        found = look(server.url, "--budget", "100MiB", "--requests", "5")
    assert found["upload"]["ended"] == "stopped after 0.5 s though octets still arrived: the line or the server is slow"
    assert 0 < found["upload"]["octets"] < 100 << 20
    assert found["requests"] == 1
    assert found["ceiling"] is not None


def test_a_dead_line_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_QUIET", 0.25)
    dead = Slow(dead=True)
    with Raw(dead) as server:
        found = look(server.url, "--requests", "5")
        dead.over.set()
    assert found["upload"]["ended"].startswith("stopped as nothing arrived for 0.25 s: the line is dead")
    assert found["upload"]["octets"] < 16 << 20
    assert found["requests"] == 1


def test_a_server_that_has_all_and_says_nothing_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            pass

    monkeypatch.setattr(probe, "_QUIET", 0.25)
    with Server(Silent()) as server:
        found = look(server.url, "--budget", "100000")
    assert found["upload"] | {"seconds": 0} == {
        "octets": 100_000, "seconds": 0, "status": None, "ended": "not answered within 0.25 s",
    }  # fmt: skip


def test_a_server_that_allows_no_stream() -> None:
    with Server(max_concurrent_streams=0) as server:
        found = look(server.url, "--requests", "5")
    assert found["requests"] == 0
    assert "allows no stream" in found["upload"]["ended"]
    assert found["ceiling"]["one_upload"] == 0


@pytest.mark.parametrize(("budget", "cure"), [("1", ": give --budget more than 65,535"), ("300000", "")])
def test_a_ceiling_of_windows_that_were_not_filled_is_told(budget: str, cure: str) -> None:
    with Server() as server:
        found = look(server.url, "--budget", budget)
        told = run(server.url, "--budget", budget).stdout
    assert found["ceiling"]["unfilled"] is bool(cure)
    assert ("octets did not fill them" in told) is bool(cure)
    assert cure in told


def test_another_address_is_tried_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: str, port: int, **how: Any) -> list[Any]:
        return [*resolve("127.0.0.2", 1, **how), *resolve(host, port, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with Server() as server:
        assert look(server.url, "--budget", "1")["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("http://127.0.0.1:1/",), 4, "can't connect to 127.0.0.1:1"),
        (("http://no-such-host.invalid/",), 4, "has no address"),
        (("http://127.0.0.1:1/", "--budget", "big"), 2, "--budget: 'big' is no size"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_what_fails_is_told(arguments: tuple[str, ...], code: int, told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert told in result.stderr


def test_the_ceiling_is_window_by_round_trip() -> None:
    found = probe.ceiling(0.05, 65_535, 65_535, 100)
    assert found is not None
    assert found["one_upload"] == 1_310_700
    rates = [one["octets_per_s"] for one in found["connections"]]  # type: ignore[attr-defined]
    assert rates == [number * 1_310_700 for number in range(1, 9)]


def test_few_streams_use_no_large_connection_window() -> None:
    found = probe.ceiling(0.1, 10_000, 1_000_000, 5)
    assert found is not None
    assert found["one_upload"] == 100_000
    assert found["connections"][0]["octets_per_s"] == 500_000  # type: ignore[index]
    assert probe.ceiling(None, 1, 1, None) is None


@pytest.mark.parametrize(
    ("field", "settings", "name", "by"),
    [
        ("nginx/1.22.1", {"MAX_CONCURRENT_STREAMS": 128}, "nginx", "server field"),
        ("Apache/2.4", {"MAX_CONCURRENT_STREAMS": 100}, "apache", "server field"),
        ("granian", {"ENABLE_CONNECT_PROTOCOL": 1, "MAX_CONCURRENT_STREAMS": 100}, "HAProxy", "settings"),
        ("granian", {"INITIAL_WINDOW_SIZE": 1 << 20, "MAX_CONCURRENT_STREAMS": 200, "MAX_FRAME_SIZE": 16384}, "granian",
         "server field"),
        ("", {"INITIAL_WINDOW_SIZE": 1 << 20, "MAX_CONCURRENT_STREAMS": 200, "MAX_FRAME_SIZE": 16384}, "hyper",
         "settings"),
        ("Caddy", {"MAX_FRAME_SIZE": 1 << 20, "MAX_CONCURRENT_STREAMS": 250, "INITIAL_WINDOW_SIZE": 1 << 20,
                   "MAX_HEADER_LIST_SIZE": 1048896}, "caddy", "server field"),
        ("", {"MAX_FRAME_SIZE": 1 << 20, "MAX_CONCURRENT_STREAMS": 250, "INITIAL_WINDOW_SIZE": 1 << 20}, "Go net/http",
         "settings"),
        ("", {}, "Node", "settings"),
    ],
)  # fmt: skip
def test_servers_are_recognised(field: str, settings: dict[str, int], name: str, by: str) -> None:
    found = servers.recognised(field, settings)
    assert found is not None
    assert found[:2] == (name, by)


def test_others_are_not() -> None:
    assert servers.recognised("my own", {"MAX_CONCURRENT_STREAMS": 3}) is None
    assert servers.recognised("my own", {}) is None
