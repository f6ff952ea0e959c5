"""cli_network: who the user is, the way to the server, how long an upload may take; through the command line."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hostile import HostileServer, Line, Stream, check, folder_of, upload
from integration.servers import Certificates, certificates

from fastpost import cli

pytestmark = pytest.mark.timeout(30)

SECRET = "s3cr:t pässword"
BASIC = "Basic " + base64.b64encode(f"anna:{SECRET}".encode()).decode()


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"), "store.example")


def good(**options: object) -> HostileServer:
    return HostileServer(lambda line: line.greet(), **options)  # type: ignore[arg-type]


def authorizations(tmp_path: Path, *options: str) -> set[str | None]:
    """Upload with these options; returns the Authorization fields that came."""
    folder = folder_of(tmp_path, [10, 20])
    with good() as server:
        outcome = upload(folder, server, *options)
    check(outcome, folder, server)
    assert SECRET not in outcome.err
    return {stream.fields.get("authorization") for stream in server.streams()}


def refused(*options: str) -> str:
    """Run with options that can't be meant; returns the message."""
    result = told(*options)
    assert result.exit_code == 2, result.output
    assert SECRET not in result.output
    return result.stderr


def told(*options: str) -> Result:
    result = CliRunner().invoke(
        cli.main, ["upload", __file__, "--to", "http://127.0.0.1:1/", "--retries", "0", *options]
    )
    assert "Traceback" not in result.output
    return result


# --- who the user is ------------------------------------------------------------------------------


def test_name_and_password(tmp_path: Path) -> None:
    assert authorizations(tmp_path, "-u", f"anna:{SECRET}") == {BASIC}


def test_name_and_password_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "login").write_text(f"anna:{SECRET}\n")
    assert authorizations(tmp_path, "--user", f"@{tmp_path / 'login'}") == {BASIC}


def test_a_file_with_more_than_a_name_and_a_password(tmp_path: Path) -> None:
    (tmp_path / "login").write_text(f"anna:{SECRET}\n# the old one\n")
    assert "has more than one line" in refused("--user", f"@{tmp_path / 'login'}")
    (tmp_path / "login").write_bytes(b"\xef\xbb\xbfanna: blanks \r\n")
    folder = folder_of(tmp_path, [10])
    with good() as server:
        upload(folder, server, "-u", f"@{tmp_path / 'login'}")
    (stream,) = server.streams()
    assert base64.b64decode(stream.fields["authorization"][6:]) == b"anna: blanks "


def test_name_and_password_that_can_not_be_meant(tmp_path: Path) -> None:
    assert "write NAME:PASSWORD" in refused("-u", SECRET.replace(":", ""))
    assert "No such file" in refused("-u", "@/nowhere")
    for other in (["--oauth2-bearer", "abc"], ["-H", f"authorization: {SECRET}"]):
        assert "both say who you are" in refused("-u", f"anna:{SECRET}", *other)


@pytest.mark.parametrize("named", ["home", "NETRC"])
def test_a_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    file = tmp_path / ".netrc"
    file.write_text(f'machine other.example login eve password x\nmachine 127.0.0.1 login anna password "{SECRET}"\n')
    file.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path) if named == "home" else "/nowhere")
    monkeypatch.delenv("NETRC", raising=False)
    if named == "NETRC":
        monkeypatch.setenv("NETRC", str(file))
    assert authorizations(tmp_path, "--netrc") == {BASIC}


def test_a_header_counts_before_a_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login eve password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    folder = folder_of(tmp_path, [10])
    with good() as server:
        outcome = upload(folder, server, "--netrc", "-H", "Authorization: mine")
    check(outcome, folder, server)
    assert {stream.fields["authorization"] for stream in server.streams()} == {"mine"}


def test_what_a_command_line_says_counts_before_a_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", "/nowhere")
    assert authorizations(tmp_path, "--netrc", "-u", f"anna:{SECRET}") == {BASIC}


def test_a_netrc_file_that_does_not_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    assert "can't be read (No such file" in refused("--netrc")
    file.write_text("machine other.example login eve password x\n")
    assert "has no entry for 127.0.0.1" in refused("--netrc")
    file.write_text(f"machine 127.0.0.1\nlogin anna\npassworx {SECRET}\n")
    assert re.search("netrc can't be understood, about line [0-9]", refused("--netrc"))
    file.write_text("machine 127.0.0.1 login anna password two W0RDS\n")
    assert "W0RDS" not in refused("--netrc")
    file.write_text("machine 127.0.0.1 login an:na password x\n")
    assert "holds a colon" in refused("--netrc")
    file.write_bytes(b"\xff\xfe")
    assert "not text" in refused("--netrc")


# --- the way there --------------------------------------------------------------------------------


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("connections", ["1", "auto"])
def test_a_unix_socket(tmp_path: Path, loopback: Certificates, encrypted: bool, connections: str) -> None:
    """Names aren't resolved, and URL and certificate are those of the host."""
    folder = folder_of(tmp_path)
    with good(path=tmp_path / "socket", tls=loopback if encrypted else None) as server:
        outcome = upload(folder, server, "--connections", connections)
    check(outcome, folder, server)
    assert {stream.fields[":authority"] for stream in server.streams()} == {"store.example"}


def test_a_unix_socket_at_which_nobody_listens(tmp_path: Path) -> None:
    result = told("--unix-socket", str(tmp_path / "none"))
    assert result.exit_code == 4
    assert f"the Unix socket {tmp_path / 'none'}" in result.stderr
    assert "No such file" in result.stderr
    assert "check its path" in result.stderr
    assert "longer than the 107 octets" in refused("--unix-socket", str(tmp_path / ("x" * 120)))


def test_a_unix_socket_whose_server_is_busy(tmp_path: Path) -> None:
    """It takes no more connections at present: that is waited for, as by TCP."""
    path = tmp_path / "socket"
    folder = folder_of(tmp_path, [10])
    with good(path=path) as server:
        server._listener.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(str(path))
            waiting.append(one)
        outcome = upload(folder, server, "--retries", "0")
        for one in waiting:
            one.close()
    assert outcome.code == 0


@pytest.mark.parametrize("options", [["--unix-socket", "/run/x"], ["--connect-to", "::a:1"]])
def test_the_embedded_server_is_where_it_is(options: list[str]) -> None:
    """Else files would go to a server that nobody named by its URL."""
    for command in (["upload", __file__], ["bench", "--count", "1"]):
        result = CliRunner().invoke(cli.main, [*command, *options])
        assert result.exit_code == 2
        assert f"{options[0]} needs the URL of a server" in result.stderr


@pytest.mark.parametrize("encrypted", [False, True])
def test_another_host_and_port(tmp_path: Path, loopback: Certificates, encrypted: bool) -> None:
    folder = folder_of(tmp_path, [10, 70_000])
    with good(tls=loopback if encrypted else None) as server:
        there = server.host
        server.host = "store.example"
        server.url = server.url.replace(there, server.host)
        port = 443 if encrypted else 80
        outcome = upload(folder, server, "--connect-to", "x:1:y:2", "--connect-to", f"store.example:{port}:{there}")
    check(outcome, folder, server)
    assert {stream.fields[":authority"] for stream in server.streams()} == {"store.example"}


def test_messages_name_where_it_was_tried() -> None:
    result = told("--connect-to", "::localhost:1")
    assert result.exit_code == 4
    assert "localhost:1 (--connect-to)" in result.stderr
    result = told("--connect-to", "::nowhere.invalid:")
    assert "check the spelling of --connect-to" in result.stderr


def test_a_host_of_a_detour_is_written_as_in_a_url(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [10])
    for host, detoured in (
        ("[::1]", "[0:0:0:0:0:0:0:1]"),
        ("bücher.example", "BÜCHER.example"),
        ("store.example", "Store.Example"),
    ):
        with good() as server:
            there = server.host
            server.url = f"http://{host}:9/"
            outcome = upload(folder, server, "--connect-to", f"{detoured}:9:{there}")
        assert outcome.code == 0
        assert len(server.taken()) == 1


def test_a_server_without_http2_behind_a_detour(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer_http1, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        result = told("--connect-to", f"::127.0.0.1:{port}")
    assert result.exit_code == 4
    assert f"127.0.0.1:{port} (--connect-to)" in result.stderr


def _answer_http1(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        stream, _ = listener.accept()
        with stream:
            stream.recv(65536)
            stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    "detour",
    [
        "a",
        "a:1:b",
        "a:1:b:x",
        "a:99999:b:1",
        f"a:{'9' * 5000}:b:1",
        "a:1:b:0",
        "a:0:b:1",
        "a b:1:c:1",
        "[::g]:1:c:1",
        "::1:1:b:1",
        "a:1:b:1:c",
    ],
)
def test_a_detour_that_can_not_be_meant(detour: str) -> None:
    assert "can't be meant" in refused("--connect-to", detour)


@pytest.mark.parametrize("command", ["bench", "probe"])
def test_instruments_take_the_same_way(tmp_path: Path, command: str) -> None:
    path = tmp_path / "socket"
    options = ["--count", "20"] if command == "bench" else []
    with good(path=path) as server:
        arguments = [command, server.url, "--unix-socket", str(path), "-u", f"anna:{SECRET}", "--output-format", "json"]
        result = CliRunner().invoke(cli.main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    assert {stream.fields["authorization"] for stream in server.streams()} == {BASIC}


# --- how long, how fast ---------------------------------------------------------------------------


def test_an_upload_that_takes_too_long(tmp_path: Path) -> None:
    """It moves, so it isn't stalled; it is reset, tried again, and fails. The others go on."""
    folder = folder_of(tmp_path, [100, 200_000])
    slow = "/001"

    def react(line: Line, stream: Stream, event: str) -> bool:
        return stream.path == slow  # takes its octets, and never answers

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario, times=9) as server:
        outcome = upload(folder, server, "--max-time", "0.2", "--retries", "1")
    check(outcome, folder, server, {"001": "TookTooLong"})
    assert outcome.repeated == (1, 0)
    assert "allow more with --max-time" in outcome.err


def test_a_post_that_took_too_long_is_not_sent_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100])

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(lambda line, stream, event: True)

    with HostileServer(scenario, times=9) as server:
        outcome = upload(folder, server, "--max-time", "0.1", "--method", "POST")
    assert outcome.failed == {"000": "TookTooLong"}
    assert outcome.repeated == (0, 0)
    assert outcome.report["seconds"] < 0.9, "it is not the second's look for stalls that ends it"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--max-time", "0"], "max-time must be more than 0"),
        (["--limit-rate", "0"], "limit-rate must be at least 1"),
        (["--limit-rate", "fast"], "is no size"),
        (["--limit-rate", "1M", "--processes", "2"], "leave out --processes"),
    ],
)
def test_what_can_not_be_meant(options: list[str], why: str) -> None:
    assert why in refused(*options)
