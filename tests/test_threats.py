"""Claims of docs/threat-model.md that no other test holds, through the command line; and that it names real tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hostile import PATIENCE, HostileServer, Line, Stream, check, folder_of, upload
from integration.servers import Certificates, certificates
from test_reliability import ROOT, missing_tests

from fastpost import cli, run
from fastpost._table import Attempt
from fastpost.config import Settings
from fastpost.redirects import Elsewhere
from fastpost.tally import Tally
from fastpost.target import Target, parse

pytestmark = pytest.mark.timeout(30)

SECRET = "s3cret-t0ken"


def test_the_threat_model_names_tests_that_exist() -> None:
    assert missing_tests(ROOT / "docs" / "threat-model.md", least=25) == []


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_leads_to_another_server_unasked(tmp_path: Path, status: int) -> None:
    """The other server sees no connection, so no credential either."""
    folder = folder_of(tmp_path, [100, 100_000])
    with HostileServer(lambda line: line.greet()) as other, leading(other.url, status) as server:
        outcome = upload(folder, server, "--oauth2-bearer", SECRET)
    check(outcome, folder, server, {path.name: "HttpStatus" for path in folder.iterdir()})
    assert other.lines == []
    assert SECRET not in outcome.err + str(outcome.report) + (tmp_path / "failures.ndjson").read_text()


def leading(where: str, status: int) -> HostileServer:
    """A server that sends every request elsewhere, at its first octet."""

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers":
            line.send(line.response(stream, status, location=where + stream.path.lstrip("/")))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    return HostileServer(scenario)


@pytest.mark.parametrize("status", [307, 308])
def test_nothing_that_was_given_for_one_server_goes_to_another(tmp_path: Path, status: int) -> None:
    """Under --location the files go there, all other fields of the request do not."""
    folder = folder_of(tmp_path, [0, 100, 100_000])
    with HostileServer(lambda line: line.greet()) as other, leading(other.url, status) as server:
        secrets = ("--oauth2-bearer", SECRET, "-H", f"X-Key: {SECRET}", "-H", f"Cookie: {SECRET}")
        outcome = upload(folder, server, *secrets, "--location")
    assert outcome.failed == {}
    assert outcome.report["connections"] == 2
    assert other.taken() == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(list(server.streams())) == len(list(other.streams())) == 3
    for stream in server.streams():
        assert SECRET in str(stream.fields)
    for stream in other.streams():
        assert SECRET not in str(stream.fields)
        assert {"authorization", "x-key", "cookie"}.isdisjoint(stream.fields)


def test_a_redirect_to_nowhere_fails_its_files_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100, 100, 100])

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event != "end" or stream.path != "/001":
            return False
        line.send(line.response(stream, 307, location="http://127.0.0.1:1/elsewhere"))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server, "--location", "--retries", "0")
    assert outcome.failed == {"001": "ConnectFailed"}
    assert outcome.code == 1


def test_two_servers_that_send_to_each_other_are_left(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100])
    whither: dict[bool, str] = {}

    def server_of(first: bool) -> HostileServer:
        def react(line: Line, stream: Stream, event: str) -> bool:
            if event == "end":
                line.send(line.response(stream, 307, location=whither[not first]))
            return True

        def scenario(line: Line) -> None:
            line.greet()
            line.serve(react)

        return HostileServer(scenario, times=9)

    with server_of(True) as first, server_of(False) as second:
        whither |= {True: first.url, False: second.url}
        outcome = upload(folder, first, "--location")
        requests = len(list(first.streams())) + len(list(second.streams()))
    assert outcome.failed == {"000": "HttpStatus"}
    assert "redirected 6 times" in outcome.err
    assert requests == 6


def test_more_are_led_to_another_server_than_may_be_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is answered there makes room for others."""
    monkeypatch.setattr(run, "_PUT_OFF_MOST", 2)
    folder = folder_of(tmp_path, [100] * 20)
    with HostileServer(lambda line: line.greet()) as other, leading(other.url, 307) as server:
        outcome = upload(folder, server, "--location", "--concurrency", "2")
    assert outcome.failed == {}
    assert other.taken() == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_client_certificate_stays_with_the_first_origin() -> None:
    """A server that leads a client elsewhere must not have it show there who it is."""
    given = Settings(
        to="https://store.example/",
        fields=(("authorization", SECRET),),
        cert=Path("cert"),
        key=Path("key"),
        location=True,
    )
    opened: list[Settings] = []

    class Other:
        tally = Tally()

        async def complete(self, batches: object, feed: object) -> None:
            await asyncio.get_running_loop().create_future()

        def take(self, attempts: list[Attempt]) -> None: ...

        def stop(self, grace: float) -> None: ...

        def pause(self, paused: bool) -> None: ...

    def open_run(settings: Settings, target: Target) -> Other:
        opened.append(settings)
        return Other()

    async def main() -> None:
        elsewhere = Elsewhere(given, parse(given.to), open_run, lambda failure: None)
        attempt = Attempt(None, b"/a", b"/a")
        elsewhere.take("https://elsewhere.example", attempt)
        assert elsewhere.outstanding == 1
        elsewhere.ended([attempt])
        assert elsewhere.outstanding == 0
        await elsewhere.close(Tally())

    asyncio.run(main())
    (there,) = opened
    assert (there.fields, there.cert, there.key) == ((), None, None)


NOWHERE = ["http://u:p@127.0.0.1:1/", "ftp://127.0.0.1/", "http://[::1", "http://a b/"]


@pytest.mark.parametrize("location", NOWHERE)
def test_locations_that_lead_nowhere_are_failures(tmp_path: Path, location: str) -> None:
    folder = folder_of(tmp_path, [100])
    with leading(location, 307) as server:
        outcome = upload(folder, server, "--location")
    assert outcome.failed == {"000": "HttpStatus"}
    assert outcome.code == 1
    assert "u:p@" not in outcome.err + str(outcome.report)


def test_a_server_that_repeats_the_credential_and_more(tmp_path: Path) -> None:
    """What it writes reaches the terminal without control characters, whatever it is."""
    folder = folder_of(tmp_path, [100])

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "end":
            line.send(line.response(stream, 302, location="\x1b]0;owned\x07\x1b[2J\x9b31m\tx", server="\x1b[31m"))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        outcome = upload(folder, server)
    assert set(outcome.failed.values()) == {"HttpStatus"}
    assert "\\x1b]0;owned" in outcome.err
    assert all(line.isprintable() for line in outcome.err.splitlines())


@pytest.mark.unsanitized
@pytest.mark.parametrize("given", ["file", "environment"])
def test_a_token_is_not_in_the_process_list(tmp_path: Path, loopback: Certificates, given: str) -> None:
    """Neither on the command line, which all users may read, nor in what the run writes; the server gets it."""
    folder = folder_of(tmp_path, [100])
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    begun, released = threading.Event(), threading.Event()

    def scenario(line: Line) -> None:
        line.greet()
        line.begun(1)
        begun.set()
        released.wait(PATIENCE)

    with HostileServer(scenario, tls=loopback) as server:
        arguments = [sys.executable, "-m", "fastpost", "upload", str(folder), *server.options, "-vv", "--show-response"]
        arguments += ["--oauth2-bearer", f"@{token}"] * (given == "file")
        env = {**os.environ, **({"FASTPOST_UPLOAD_OAUTH2_BEARER": SECRET} if given == "environment" else {})}
        with subprocess.Popen(
            arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert begun.wait(PATIENCE)
            listed = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            released.set()
            out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert SECRET.encode() not in listed
    assert SECRET not in out
    (stream,) = server.streams()
    assert stream.fields["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("name", [b"a\r\nx-other: 1", b"a\nb", b"a?b#c", b"%0d%0a", b"..%2f..", b"\xff\x7f\x1b[2J"])
def test_a_name_is_a_path_and_nothing_else(tmp_path: Path, name: bytes) -> None:
    """No octet of it ends the path, begins a query or another field, or leaves its folder."""
    folder = folder_of(tmp_path, [])
    with open(os.fsencode(folder) + b"/" + name, "wb") as file:
        file.write(b"content")
    with HostileServer(lambda line: line.greet()) as server:
        outcome = upload(folder, server, "--method", "PUT")
    assert outcome.code == 0
    assert all(line.isprintable() for line in outcome.err.splitlines())
    (stream,) = server.streams()
    assert stream.path.count("/") == 1
    assert not set(stream.path) & set("?#\r\n \x7f\x1b")
    assert stream.fields.keys() <= {
        *(":method", ":scheme", ":authority", ":path", "content-type", "content-length", "user-agent"),
    }
    assert bytes(stream.body) == b"content"


def test_a_link_leads_nowhere_unless_asked(tmp_path: Path) -> None:
    """Neither one to a file nor one to a folder, inside the tree or out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.joinpath("secret").write_text("secret")
    folder = folder_of(tmp_path, [100])
    folder.joinpath("file").symlink_to(outside / "secret")
    folder.joinpath("folder").symlink_to(outside)
    folder.joinpath("relative").symlink_to("../outside")
    with HostileServer(lambda line: line.greet()) as server:
        outcome = upload(folder, server)
    assert outcome.code == 0
    assert outcome.report["files"] == {"total": 1, "ok": 1, "failed": 0, "skipped": 3}
    assert [stream.path for stream in server.streams()] == ["/000"]


@pytest.mark.parametrize("value", ["caf\u00e9", "\udcff\udc80", "a\tb"])
def test_a_field_goes_out_as_it_was_given(tmp_path: Path, value: str) -> None:
    """Octets that are no UTF-8 too: they are legal in a value (RFC 9110 \u00a75.5)."""
    folder = folder_of(tmp_path, [1])
    with HostileServer(lambda line: line.greet()) as server:
        outcome = upload(folder, server, "-H", f"X-Name: {value}")
    check(outcome, folder, server)
    assert [stream.fields["x-name"] for stream in server.streams()] == [value]


@pytest.mark.parametrize("octet", ["\0", "\r", "\n", "\x1b", "\x7f"])
def test_no_field_holds_a_control_character(tmp_path: Path, octet: str) -> None:
    folder = folder_of(tmp_path, [1])
    with HostileServer(lambda line: line.greet()) as server:
        given = ["upload", str(folder), "--to", server.url, "-H", f"X-Name: {SECRET}{octet}X-Other: 1"]
        result = CliRunner().invoke(cli.main, given)
    assert result.exit_code == 2
    assert "control character" in result.stderr
    assert SECRET not in result.output
    assert server.lines == []
