"""cli_network: who the user is, the way to the server, how long an upload may take; through the command line."""

from __future__ import annotations

import base64
import json
import re
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
    assert re.search("netrc, line [0-9]", refused("--netrc"))
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
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path / ("x" * 120), "too long")):
        result = told("--unix-socket", str(path))
        assert result.exit_code == 4
        assert f"the Unix socket {path}" in result.stderr
        assert why in result.stderr
        assert "check its path" in result.stderr


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


@pytest.mark.parametrize("detour", ["a", "a:1:b", "a:1:b:x", "a:99999:b:1", "::1:1:b:1", "a:1:b:1:c"])
def test_a_detour_that_can_not_be_meant(detour: str) -> None:
    assert "write HOST:PORT:HOST:PORT" in refused("--connect-to", detour)


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
