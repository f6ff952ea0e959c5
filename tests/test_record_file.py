"""record_file, --log, --failures, --fail-early: what is written while a run goes on."""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hostile import HostileServer, Line, Stream, folder_of
from integration import command

from fastpost import cli
from fastpost.record_file import RecordFile
from fastpost.verify import Verifier

pytestmark = pytest.mark.timeout(30)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def run(folder: Path, server: HostileServer, *options: str) -> Result:
    arguments = ["upload", str(folder), *server.options, "--connections", "1", "--retry-delay", "0.001", *options]
    result = CliRunner().invoke(cli.main, arguments)
    assert "Traceback" not in result.output
    return result


def refusing(*names: str, status: int = 403) -> HostileServer:
    """A server that refuses these files."""

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers" and stream.path[1:] in names:
            line.send(line.response(stream, status))
        return False

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    return HostileServer(scenario)


def test_records_are_lines(tmp_path: Path) -> None:
    with_name = {"name": "ä\u2028\n", "octets": 3}
    file = RecordFile(str(tmp_path / "log"), lambda error: pytest.fail(str(error)))
    file.write([with_name, {"name": "b"}])
    assert lines(tmp_path / "log") == [with_name, {"name": "b"}]  # before it is closed
    file.write([])
    file.write([{"name": "c"}])
    file.close()
    file.close()
    assert [record["name"] for record in lines(tmp_path / "log")] == ["ä\u2028\n", "b", "c"]
    assert not file.lost


def test_a_disk_that_is_full_is_told_of_once() -> None:
    told: list[OSError] = []
    file = RecordFile("/dev/full", told.append)
    for _ in range(3):
        file.write([{"name": "a"}])
    file.close()
    assert [(error.filename, error.strerror) for error in told] == [("/dev/full", os.strerror(28))]
    assert file.lost


class Full(io.FileIO):
    """A disk on which there is room for 50 octets."""

    def write(self, octets: Any) -> int:
        if self.tell() >= 50:
            raise OSError(28, "No space left on device")
        return super().write(octets[: 50 - self.tell()]) or 0


def test_a_line_that_is_torn_is_cut_off(tmp_path: Path) -> None:
    told: list[OSError] = []
    path = tmp_path / "log"
    file = RecordFile(str(path), told.append)
    file._file.close()
    file._file = Full(path, "wb")
    for number in range(10):
        file.write([{"name": f"file {number}"}])
    file.close()
    assert [record["name"] for record in lines(path)] == ["file 0", "file 1"]
    assert path.read_bytes().endswith(b"\n")
    assert len(told) == 1


def test_the_log_has_a_line_for_each_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [0, 100, 70_000])
    os.mkfifo(folder / "pipe")
    log = tmp_path / "log"
    began = time.time()
    with refusing("001") as server:
        result = run(folder, server, "--log", str(log), "--failures", str(tmp_path / "failures"))
    assert result.exit_code == 1
    found = {record["name"]: record for record in lines(log)}
    assert len(lines(log)) == 4
    assert {name: record["error"] for name, record in found.items()} == {
        "000": None,
        "001": "HttpStatus",
        "002": None,
        "pipe": "NotRegularFile",
    }
    good = found["002"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", good["time"])
    assert good["file"] == str(folder / "002")
    assert good["url"] == f"{server.url}002"
    assert (good["status"], good["octets"], good["attempts"], good["message"]) == (201, 70_000, 1, None)
    assert 0 < good["seconds"] < time.time() - began
    stamp = datetime.datetime.fromisoformat(good["time"]).timestamp()
    assert began - 0.01 <= stamp <= time.time() + 0.01
    assert found["001"]["octets"] <= 100
    assert (found["001"]["status"], found["001"]["attempts"]) == (403, 1)
    assert (found["pipe"]["time"], found["pipe"]["attempts"]) == (None, 0)
    assert {record["name"] for record in lines(tmp_path / "failures")} == {"001", "pipe"}


def test_octets_are_those_that_were_sent(tmp_path: Path) -> None:
    """An upload that is answered before its end has not sent all of the file."""
    folder = folder_of(tmp_path, [3_000_000])

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers":
            line.send(line.response(stream, 413))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.credits = False
        line.serve(react)

    with HostileServer(scenario) as server:
        run(folder, server, "--log", str(tmp_path / "log"))
    (record,) = lines(tmp_path / "log")
    assert record["status"] == 413
    assert record["octets"] < 3_000_000


def test_attempts_are_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100])
    with refusing("000", status=503) as server:
        assert run(folder, server, "--log", str(tmp_path / "log"), "--retries", "2").exit_code == 1
    assert [record["attempts"] for record in lines(tmp_path / "log")] == [3]


def test_what_is_verified_is_in_the_log_once(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100, 200, 300])

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "end" and stream.path == "/000":
            wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
            line.send(line.response(stream, 201, **{"repr-digest": wrong}))
        if event == "headers" and stream.path == "/001":
            line.send(line.response(stream, 403))
        return False

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        run(folder, server, "--log", str(tmp_path / "log"), "--verify")
    found = lines(tmp_path / "log")
    assert sorted((one["name"], one["error"]) for one in found if one["error"]) == [
        ("000", "DigestMismatch"),
        ("001", "HttpStatus"),
    ]
    assert len(found) == 3


def test_what_could_not_be_compared_any_more_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, [100] * 5)
    monkeypatch.setattr(Verifier, "_compare", lambda self, results: self.abandon())
    with HostileServer(lambda line: line.greet()) as server:
        run(folder, server, "--log", str(tmp_path / "log"), "--verify")
    assert sorted(record["name"] for record in lines(tmp_path / "log")) == ["000", "001", "002", "003", "004"]


def test_a_log_on_a_full_disk_takes_no_response_away(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [10] * 6)
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder, server, "--log", "/dev/full", "--show-response", "-c", "1")
    assert result.exit_code == 1
    assert result.stdout.count("201 PUT") == 6


@pytest.mark.parametrize(("path", "why"), [("-", "is no file: name one"), ("files/log", "would be uploaded with it")])
def test_a_log_that_can_not_be_meant(tmp_path: Path, path: str, why: str) -> None:
    folder = folder_of(tmp_path, [10])
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder, server, "--log", path if path == "-" else str(tmp_path / path))
    assert result.exit_code == 2
    assert why in result.stderr


@pytest.mark.parametrize("option", ["--log", "--failures", "--journal"])
@pytest.mark.parametrize("reader", ["-u", "--oauth2-bearer", "--cacert", "--files-from", "--filter-from"])
def test_nothing_is_written_to_what_another_option_reads(tmp_path: Path, option: str, reader: str) -> None:
    read = tmp_path / "read"
    octets = {"-u": b"a:b", "--oauth2-bearer": b"token"}.get(reader, b"+ x")
    read.write_bytes(octets)
    given = f"@{read}" if reader in ("-u", "--oauth2-bearer") else str(read)
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder_of(tmp_path, [10]), server, option, str(read), reader, given)
    assert result.exit_code == 2
    assert "are one file: name two" in result.stderr
    assert read.read_bytes() == octets


def test_nothing_is_written_to_what_is_standard_input(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("000\n")
    arguments = ["upload", str(folder_of(tmp_path, [10])), "--to", "http://127.0.0.1:1/", "--files-from", "-"]
    with names.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "fastpost", *arguments, "--log", str(names)],
            stdin=stdin,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert "and --files-from standard input are one file" in done.stderr
    assert names.read_text() == "000\n"


def test_nothing_is_written_to_a_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder_of(tmp_path, [10]), server, "--netrc", "--log", str(tmp_path / "netrc"))
    assert result.exit_code == 2
    assert "--netrc" in result.stderr


def test_a_benchmark_writes_to_nothing_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("certificate")
    arguments = ["bench", "http://127.0.0.1:1/", "--count", "1", "--cacert", str(tmp_path / "ca")]
    result = CliRunner().invoke(cli.main, [*arguments, "--csv", str(tmp_path / "ca")])
    assert result.exit_code == 2
    assert "are one file" in result.stderr
    assert (tmp_path / "ca").read_text() == "certificate"


def test_a_log_where_the_report_goes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [10])
    with HostileServer(lambda line: line.greet()) as server, (tmp_path / "out").open("w") as out:
        arguments = [sys.executable, "-m", "fastpost", "upload", str(folder), *server.options, "--log", "/dev/stdout"]
        done = subprocess.run(arguments, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "is where standard output goes too" in done.stderr


def test_two_records_may_go_to_nowhere(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [10])
    with HostileServer(lambda line: line.greet()) as server:
        assert run(folder, server, "--log", "/dev/null", "--failures", "/dev/null").exit_code == 0


def test_a_log_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [10, 20])
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder, server, "--log", "/dev/full")
    assert result.exit_code == 1
    assert len(server.taken()) == 2
    assert result.stderr.count("/dev/full: No space left on device; the uploads go on without it") == 1


@pytest.mark.parametrize("other", ["--failures", "--journal"])
def test_two_options_do_not_write_to_one_file(tmp_path: Path, other: str) -> None:
    path = str(tmp_path / "log")
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder_of(tmp_path, [10]), server, "--log", path, other, path)
    assert result.exit_code == 2
    assert "are one file: name two" in result.stderr


# --- --fail-early ---------------------------------------------------------------------------------


def test_the_first_failure_stops_the_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100] * 40)
    with refusing("003") as server:
        result = run(folder, server, "--fail-early", "-c", "1", "--order-by", "name", "--failures", str(tmp_path / "f"))
    assert result.exit_code == 1
    assert sorted(server.taken()) == ["000", "001", "002"]
    assert len(list(server.streams())) <= 5
    assert result.stderr.count("003: status 403; stopping, as --fail-early asks for") == 1
    errors = [record["error"] for record in lines(tmp_path / "f")]
    assert errors.count("HttpStatus") == 1
    assert set(errors) == {"HttpStatus", "Interrupted"}


def test_what_is_in_flight_then_has_no_time_left(tmp_path: Path) -> None:
    """The others are never answered: with ten seconds of grace it would wait for them."""
    folder = folder_of(tmp_path, [100] * 4)

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "end" and len(line.streams) == 4 and not any(each.status for each in line.streams.values()):
            line.send(line.response(line.streams[min(line.streams)], 403))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    began = time.monotonic()
    with HostileServer(scenario) as server:
        result = run(folder, server, "--fail-early", "--failures", str(tmp_path / "f"))
    assert result.exit_code == 1
    assert time.monotonic() - began < 8
    assert sorted(record["error"] for record in lines(tmp_path / "f")) == ["HttpStatus", *["Interrupted"] * 3]


def test_several_processes_stop_as_early(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100] * 30)

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "end" and stream.path == "/007":
            refusal.wait(5)
            line.send(line.response(stream, 403))
        return True  # the others are never answered

    def scenario(line: Line) -> None:
        line.greet()
        if len(server.lines) == 2:
            refusal.set()
        line.serve(react)

    refusal = threading.Event()
    began = time.monotonic()
    options = ("--processes", "2", "--connections", "2", "-c", "60", "--fail-early", "--failures", tmp_path / "f")
    with HostileServer(scenario, times=9) as server:
        done = command.upload(folder, "--to", server.url, *options, code=command.SPREAD)
    assert done.code == 1
    assert time.monotonic() - began < 9
    assert done.files["total"] == 30
    assert {record["error"] for record in lines(tmp_path / "f")} == {"HttpStatus", "Interrupted"}


def test_what_is_tried_again_is_no_failure_yet(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100] * 3)
    seen: list[str] = []

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers" and stream.path not in seen:
            seen.append(stream.path)
            line.send(line.response(stream, 503))
        return False

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(scenario) as server:
        assert run(folder, server, "--fail-early").exit_code == 0
    assert len(server.taken()) == 3


def test_a_file_that_can_not_be_sent_at_all_is_a_failure_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [100])
    os.mkfifo(folder / "pipe")
    with HostileServer(lambda line: line.greet()) as server:
        result = run(folder, server, "--fail-early")
    assert result.exit_code == 1
    assert "pipe: a named pipe" in result.stderr
    assert "stopping, as --fail-early asks for" in result.stderr
