"""The command line: options, messages, signals, exit codes. The uploader and the embedded server are stand-ins."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import click
import pytest
from click.testing import CliRunner, Result
from outcomes import ended

from fastpost import __version__, cli, report, target, upload_run
from fastpost._table import Attempt
from fastpost.config import Settings
from fastpost.errors import Exit, FastpostError, HttpStatus, NotHttp2, ServeFailed
from fastpost.sources import Batch, Upload
from fastpost.tally import Tally

STORE = "https://store.example/dav/"
SECRET = "s3cret"


def outcome_of(upload: Upload, **values: Any) -> Attempt:
    found = os.stat(upload.file)
    return ended(upload, identity=(found.st_size, found.st_mtime_ns, found.st_ino), **values)


class Uploader:
    """Stands in for fastpost.uploader.Uploader: every file gets the result that the test chooses."""

    latest: ClassVar[Uploader]
    #: What becomes of an upload.
    outcome: ClassVar[Callable[[Upload], Attempt]]
    #: What happens while files are in flight.
    interlude: ClassVar[Callable[[Uploader], None]]

    def __init__(self, settings: Settings) -> None:
        Uploader.latest = self
        self.settings = settings
        self.target = target.parse(settings.to, method=settings.method, content_type=settings.content_type)
        self.tally = Tally()
        self.stops: list[float] = []

    async def run(
        self,
        batches: Iterable[Batch],
        on_results: Callable[[Any], None] | None = None,
        on_rejected: Callable[[Any], None] | None = None,
        *,
        distinct: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.distinct = distinct
        self.tally.started = 1.0
        for batch in batches:
            self.tally.found += len(batch.uploads)
            self.tally.found_octets += sum(max(0, upload.size) for upload in batch.uploads)
            self.tally.skipped += batch.skipped
            self.tally.recorded += len(batch.recorded)
            self.tally.reject(batch.rejected)
            if on_rejected is not None and batch.rejected:
                on_rejected(batch.rejected)
            type(self).interlude(self)
            results: Any = [type(self).outcome(upload) for upload in batch.uploads]
            self.tally.add(results)
            if on_results is not None:
                on_results(results)
        self.tally.walking = False
        self.tally.finished = 2.0

    def stop(self, grace: float = 10.0) -> None:
        self.stops.append(grace)


class Patient(Uploader):
    """Gives the progress the time for a frame."""

    async def run(self, *args: Any, **options: Any) -> None:
        await super().run(*args, **options)
        await asyncio.sleep(0.01)


class Ingest:
    """Stands in for the embedded server."""

    running: ClassVar[int] = 0
    arguments: ClassVar[dict[str, Any]] = {}
    url = "http://127.0.0.1:4321/"
    cafile: pathlib.Path | None = None

    def __init__(self, **arguments: Any) -> None:
        type(self).arguments = arguments
        if arguments.get("tls"):
            self.cafile = pathlib.Path("/run/ca.pem")

    def __enter__(self) -> Ingest:
        type(self).running += 1
        return self

    def __exit__(self, *_: object) -> None:
        type(self).running -= 1

    def wait(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    Uploader.outcome = outcome_of
    Uploader.interlude = lambda _: None
    monkeypatch.setattr(upload_run, "Uploader", Uploader)
    monkeypatch.setattr("fastpost.ingest.Ingest", Ingest)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        (folder / name).write_bytes(name.encode())
    return folder


def run(*args: object, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(cli.main, [str(arg) for arg in args], env=env)
    assert "Traceback" not in result.stderr
    return result


def upload(*args: object, env: dict[str, str] | None = None) -> Result:
    return run("upload", *args, "--to", STORE, env=env)


def refuse(name: str, failure: FastpostError, status: int = 0) -> None:
    """Make one file fail."""

    def outcome(one: Upload) -> Attempt:
        if one.name != name.encode():
            return outcome_of(one)
        return outcome_of(one, status=status, failure=failure, started=1.0, retried=2)

    Uploader.outcome = outcome


# --- what is uploaded, and how ----------------------------------------------------------------------------------------


def test_options_default_to_those_of_the_library(tree: pathlib.Path) -> None:
    assert upload(tree).exit_code == 0
    assert Uploader.latest.settings == Settings(to=STORE)


def test_every_option_reaches_the_settings(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("")
    options = (
        "--method POST -c 7 --connections 3 --schedule fifo --content-type a/b --insecure --connect-timeout 1.5 "
        "--stall-timeout 2 --retries 9 --retry-delay 0.25 --retry-max-time 60 --retry-post --location "
        "--digest sha-512 --verify "
        f"--cacert {pem} --cert {pem} --key {pem}"
    ).split()
    assert upload(tree, *options, "-H", "X-One: 1", "-H", "X-Empty:", "-H", "X-Time: 10:30").exit_code == 0
    assert Uploader.latest.settings == Settings(
        to=STORE,
        method="POST",
        concurrency=7,
        connections=3,
        schedule="fifo",
        content_type="a/b",
        insecure=True,
        connect_timeout=1.5,
        stall_timeout=2.0,
        retries=9,
        retry_delay=0.25,
        retry_max_time=60.0,
        retry_post=True,
        location=True,
        digest="sha-512",
        keep_responses=True,
        cacert=pem,
        cert=pem,
        key=pem,
        fields=(("X-One", "1"), ("X-Empty", ""), ("X-Time", "10:30")),
    )


@pytest.mark.parametrize("value", ["AUTO", "two", "1.5", ""])
def test_what_is_neither_a_number_nor_the_word_is_told_with_both(tree: pathlib.Path, value: str) -> None:
    done = run("upload", tree, "--to", STORE, "--connections", value)
    assert done.exit_code == Exit.USAGE
    assert f"{value!r} is no whole number: write one, or auto" in done.stderr


def test_the_environment_sets_options(tree: pathlib.Path) -> None:
    env = {
        "FASTPOST_URL": STORE,
        "FASTPOST_UPLOAD_CONCURRENCY": "9",
        "FASTPOST_UPLOAD_HEADER": "X-One: 1 2\nX-Two: 3",
        "FASTPOST_UPLOAD_QUIET": "1",
    }
    assert run("upload", tree, env=env).exit_code == 0
    assert Uploader.latest.settings == Settings(to=STORE, concurrency=9, fields=(("X-One", "1 2"), ("X-Two", "3")))


def test_the_command_line_outdoes_the_environment(tree: pathlib.Path) -> None:
    upload(tree, "-c", "3", env={"FASTPOST_UPLOAD_CONCURRENCY": "9", "FASTPOST_URL": "https://other.example/"})
    assert (Uploader.latest.settings.to, Uploader.latest.settings.concurrency) == (STORE, 3)


def test_every_option_of_the_environment_is_documented_by_its_name() -> None:
    command = cli.main.get_command(click.Context(cli.main), "upload")
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option):
            assert f"--{(option.name or '').replace('_', '-')}" in option.opts


def test_symbolic_links_are_followed_on_request(tree: pathlib.Path) -> None:
    (tree / "link").symlink_to(tree / "a.txt")
    assert "1 symbolic links skipped (--follow-symlinks)" in upload(tree).stdout
    assert Uploader.latest.tally.found == 3
    upload(tree, "--follow-symlinks")
    assert Uploader.latest.tally.found == 4


def test_the_names_of_one_source_are_known_to_differ(tree: pathlib.Path) -> None:
    upload(tree)
    assert Uploader.latest.distinct
    upload(tree / "a.txt", tree / "b.txt")
    assert not Uploader.latest.distinct


# --- reports ----------------------------------------------------------------------------------------------------------


def test_the_summary_is_on_stdout_and_stderr_is_silent(tree: pathlib.Path) -> None:
    result = upload(tree)
    assert result.stdout.startswith(f"target      {STORE}\nfiles       3 ok · 0 failed\n")
    assert result.stderr == ""


def test_json_is_all_that_is_on_stdout(tree: pathlib.Path) -> None:
    result = upload(tree, "--output-format", "json", "--show-response", "-vv", "--progress")
    report = json.loads(result.stdout)
    assert report["schema"] == "fastpost.upload/1"
    assert report["files"] == {"total": 3, "ok": 3, "failed": 0, "skipped": 0}
    assert report["status"] == {"201": 3}
    assert report["verified"] is None


def test_quiet_says_nothing_when_all_is_well(tree: pathlib.Path) -> None:
    result = upload(tree, "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_quiet_tells_failures_in_one_line(tree: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403), 403)
    result = upload(tree, "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "fastpost: 1 of 3 files failed\n"


def test_a_failed_file_is_named_with_its_cause_and_the_others_go_up(tree: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403, "no entry"), 403)
    result = upload(tree)
    assert result.exit_code == 1
    assert "2 ok · 1 failed" in result.stdout
    assert "1 × HttpStatus 403\n              a.txt: status 403: no entry" in result.stdout


def test_verbose_names_failures_as_they_happen(tree: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403, "no entry"), 403)
    assert upload(tree, "-v").stderr == "fastpost: a.txt: status 403: no entry\n"


def test_more_verbose_names_each_upload(tree: pathlib.Path) -> None:
    assert f"fastpost: 201 PUT {STORE}sub/c.txt\n" in upload(tree, "-vv").stderr


def test_the_failures_file_has_a_line_for_each_failure(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403, "no entry"), 403)
    os.mkfifo(os.fsencode(tree) + b"/\xffpipe")
    result = upload(tree, "--failures", tmp_path / "failures")
    assert result.exit_code == 1
    records = {record["error"]: record for record in map(json.loads, (tmp_path / "failures").read_text().splitlines())}
    assert records["HttpStatus"] == {
        "name": "a.txt",
        "file": f"{tree}/a.txt",
        "url": f"{STORE}a.txt",
        "error": "HttpStatus",
        "message": "status 403: no entry",
        "status": 403,
        "attempts": 3,
    }
    pipe = records["NotRegularFile"]
    assert (pipe["name"], pipe["name_b64"], pipe["attempts"]) == ("\\xffpipe", "/3BpcGU=", 0)
    assert pipe["url"] == f"{STORE}%FFpipe"


def test_a_failures_file_of_a_run_without_failures_is_empty(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "failures").write_text("old")
    upload(tree, "--failures", tmp_path / "failures")
    assert (tmp_path / "failures").read_text() == ""


@pytest.mark.parametrize("name", ["a.txt", "new", "sub/new"])
def test_a_failures_file_takes_no_place_of_what_is_uploaded(tree: pathlib.Path, name: str) -> None:
    before = (tree / "a.txt").read_text()
    result = upload(tree, "--failures", tree / name)
    assert result.exit_code == 2
    assert f"--failures {tree}/{name} lies in {tree} and would be uploaded with it: put it elsewhere" in result.stderr
    assert (tree / "a.txt").read_text() == before


def test_a_failures_file_without_a_name_is_refused(tree: pathlib.Path) -> None:
    result = upload(tree, "--failures", "")
    assert result.exit_code == 2
    assert "--failures is given an empty name" in result.stderr


def test_a_failures_file_that_cannot_be_made_is_an_error_before_anything_is_sent(tree: pathlib.Path) -> None:
    result = upload(tree, "--failures", tree / "no" / "such" / "folder")
    assert result.exit_code == 2
    assert f"--failures {tree}/no/such/folder: its folder doesn't exist" in result.stderr


def test_a_full_disk_under_stderr_ends_no_upload(tree: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403), 403)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastpost", "upload", str(tree), "-v"],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
        )
    assert done.returncode == 0
    assert "3 ok" in done.stdout


@pytest.mark.parametrize("name", ["FASTPOST_URL", "FASTPOST_UPLOAD_TO"])
def test_an_empty_target_in_the_environment_is_no_target(tree: pathlib.Path, name: str) -> None:
    result = CliRunner().invoke(cli.main, ["upload", str(tree)], env={name: ""})
    assert result.exit_code == 2
    assert f"{name} is set but empty" in result.stderr


def test_a_full_disk_under_the_failures_file_ends_no_upload(tree: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403), 403)
    result = upload(tree, "--failures", "/dev/full")
    assert result.exit_code == 1
    assert "2 ok · 1 failed" in result.stdout
    assert result.stderr.count("No space left on device") == 1


def test_responses_are_shown_with_status_fields_and_body(tree: pathlib.Path) -> None:
    Uploader.outcome = lambda one: outcome_of(
        one, fields=[(b"server", b"x\x1b[2J")], body=b"stored\tas\n\x1b[31mone\xff"
    )
    result = upload(tree / "a.txt", "--show-response")
    shown = "server: x\\x1b[2J\n\nstored  as\n\\x1b[31mone\\xff\n"
    assert f"201 PUT {STORE}a.txt\n{shown}" in result.stdout
    assert Uploader.latest.settings.keep_responses
    result = upload(tree / "a.txt", "--show-response", "--output-format", "json")
    assert shown in result.stderr


def test_progress_in_a_log_is_plain_and_asked_for(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_run, "_FIRST_FRAME", 0.0)
    assert "files/s" not in upload(tree).stderr
    Uploader.outcome = lambda one: outcome_of(one, payload=one.size)
    monkeypatch.setattr(upload_run, "Uploader", Patient)
    shown = upload(tree, "--progress").stderr
    assert shown.startswith("fastpost: 3 of 3 files, ETA 0:00, ")
    assert f" of {len('a.txtb.txtsub/c.txt')} B" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("env", "redrawn", "coloured"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_a_summary_on_a_terminal_has_colours_for_those_who_want_them(
    env: dict[str, str], redrawn: bool, coloured: bool, tree: pathlib.Path
) -> None:
    script = "import sys; sys.path.insert(0, 'tests'); import test_cli; test_cli.upload_with_stand_ins(sys.argv[1])"
    outer, inner = os.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
    done = subprocess.run(
        [sys.executable, "-c", script, tree],
        cwd=pathlib.Path(__file__).parent.parent,
        env=plain | {"TERM": "xterm-256color"} | env,
        stdin=subprocess.DEVNULL,
        stdout=inner,
        stderr=inner,
        check=False,
    )
    shown = os.read(outer, 1 << 16).decode()
    os.close(outer)
    os.close(inner)
    assert done.returncode == 0
    assert "3 ok · 0 failed" in shown
    assert ("\x1b[2K" in shown) == redrawn
    assert ("\x1b[32m" in shown) == coloured


def upload_with_stand_ins(tree: str) -> None:
    """Run in a process of its own, on a terminal, with progress from the start."""
    Uploader.outcome = outcome_of
    Uploader.interlude = lambda _: None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload_run, "Uploader", Patient)
        patch.setattr(upload_run, "_FIRST_FRAME", 0.0)
        cli.main(["upload", tree, "--to", STORE])


# --- the embedded server ----------------------------------------------------------------------------------------------


def test_without_a_target_the_embedded_server_takes_the_files_and_digests_are_compared(tree: pathlib.Path) -> None:
    def outcome(one: Upload) -> Attempt:
        assert Ingest.running == 1
        content = b"other" if one.name == b"b.txt" else one.name
        digest = base64.b64encode(hashlib.sha256(content).digest())
        return outcome_of(one, payload=len(one.name), fields=[(b"repr-digest", b"sha-256=:%b:" % digest)])

    Uploader.outcome = outcome
    result = run("upload", tree, "--output-format", "json", "-v")
    assert Ingest.running == 0
    assert Uploader.latest.settings == Settings(to=Ingest.url, keep_responses=True)
    assert result.exit_code == 1
    assert result.stderr.startswith("fastpost: no --to: uploading to an embedded server on loopback")
    assert "fastpost: b.txt: the server received other octets" in result.stderr
    report = json.loads(result.stdout)
    assert report["files"] == {"total": 3, "ok": 2, "failed": 1, "skipped": 0}
    assert report["errors"] == {"DigestMismatch": 1}
    assert report["verified"] == 2
    assert "2 of 3 arrived intact" in run("upload", tree).stdout


def test_a_dry_run_starts_no_server_and_connects_to_nothing(tree: pathlib.Path) -> None:
    Ingest.arguments = {"untouched": True}
    result = run("upload", tree, "--dry-run")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert "no --to" in result.stderr
    assert Ingest.arguments == {"untouched": True}


def test_serve_prints_its_url_and_its_end_is_a_success(tmp_path: pathlib.Path) -> None:
    result = run("serve", "--root", tmp_path, "--port", "0")
    assert result.exit_code == 0
    assert result.stdout == Ingest.url + "\n"
    assert Ingest.arguments == {
        **{"root": str(tmp_path), "host": "127.0.0.1", "port": 0, "tls": False},
        **{"max_body": None, "max_requests": 10_000},
    }
    assert Ingest.running == 0


def test_serve_has_limits(tmp_path: pathlib.Path) -> None:
    run("serve", "--max-body", "1000", "--max-requests", "7")
    assert (Ingest.arguments["max_body"], Ingest.arguments["max_requests"]) == (1000, 7)
    assert run("serve", "--max-requests", "0").exit_code == 2


def test_serve_with_tls_prints_the_ca_file_too() -> None:
    result = run("serve", "--tls")
    assert result.stdout == f"{Ingest.url}\n/run/ca.pem\n"
    assert "--cacert /run/ca.pem" in result.stderr


def test_a_server_that_ends_by_itself_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_: Ingest) -> None:
        raise ServeFailed("the embedded server ended by itself: killed by signal 9")

    monkeypatch.setattr(Ingest, "wait", wait)
    result = run("serve")
    assert result.exit_code == 4
    assert result.stderr.endswith("fastpost: the embedded server ended by itself: killed by signal 9\n")


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--bogus"],
        ["bogus"],
        ["upload"],
        ["upload", "{tree}", "--bogus"],
        ["upload", "{tree}", "-c", "many"],
        ["upload", "{tree}", "-c", "0"],
        ["upload", "{tree}", "--schedule", "rude"],
        ["upload", "{tree}", "--cacert", "/no/such/file"],
        ["upload", "{tree}", "--key", "{tree}/a.txt"],
        ["upload", "{tree}", "--method", "PUT IT"],
        ["upload", "{tree}", "-H", "no colon"],
        ["upload", "{tree}", "-H", "Connection: close"],
        ["upload", "{tree}/no-such-thing"],
        ["upload", "{tree}", "--to", "ftp://store.example/"],
        ["upload", "{tree}", "--to", "store"],
        ["upload", "{tree}", "--to", ""],
        ["serve", "--port", "70000"],
    ],
)
def test_usage_errors_exit_with_2_and_a_message(args: list[str], tree: pathlib.Path) -> None:
    result = run(*(arg.format(tree=tree) for arg in args))
    assert result.exit_code == 2
    assert result.stdout == ""
    if args:
        assert result.stderr.startswith("fastpost: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "header",
    [f"Authorization {SECRET}", f"Authorization\n: {SECRET}", f"{SECRET} x: y", f"Authorization: {SECRET}\nX-Two: 2"],
)
def test_a_bad_header_is_refused_without_repeating_it(header: str, tree: pathlib.Path) -> None:
    result = upload(tree, "-H", header)
    assert result.exit_code == 2
    assert SECRET not in result.output


def test_a_bearer_token_comes_from_a_file_or_the_environment(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    for given in (["--oauth2-bearer", f"@{file}"], ["--oauth2-bearer", SECRET]):
        assert upload(tree, *given).exit_code == 0
        assert Uploader.latest.settings.fields == (("Authorization", f"Bearer {SECRET}"),)
    env = {"FASTPOST_UPLOAD_OAUTH2_BEARER": f"@{file}"}
    assert SECRET not in upload(tree, "-vv", "--show-response", env=env).output
    assert Uploader.latest.settings.fields == (("Authorization", f"Bearer {SECRET}"),)


@pytest.mark.parametrize("command", ["upload", "bench", "probe"])
def test_the_variable_that_the_help_names_is_the_one_that_is_read(command: str) -> None:
    variable = f"FASTPOST_{command.upper()}_OAUTH2_BEARER"
    told = " ".join(CliRunner().invoke(cli.main, [command, "--help"]).stdout.split())
    assert re.findall(r"FASTPOST_[A-Z0-9]+_OAUTH2_BEARER", told) == [variable]
    read = CliRunner().invoke(cli.main, [command, "http://127.0.0.1:1/"], env={variable: "no token!"})
    assert read.exit_code == 2
    assert "a token has letters" in read.stderr


def test_a_bearer_token_that_can_not_be_one(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "two").write_text(f"{SECRET}\nX-Other: 1\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for given in (f"{SECRET}\r\nX: 1", f"@{tmp_path / 'two'}", f"@{tmp_path / 'binary'}", f"@{tmp_path / 'none'}", ""):
        result = upload(tree, "--oauth2-bearer", given)
        assert result.exit_code == 2
        assert SECRET not in result.output
    assert "No such file" in upload(tree, "--oauth2-bearer", f"@{tmp_path / 'none'}").stderr
    both = upload(tree, "--oauth2-bearer", SECRET, "-H", f"authorization: Basic {SECRET}")
    assert both.exit_code == 2
    assert SECRET not in both.output


def test_no_secret_is_ever_printed(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    refuse("a.txt", HttpStatus(403), 403)
    result = run(
        *("upload", tree, "-H", f"Authorization: Bearer {SECRET}", "-vv", "--show-response"),
        *("--to", f"https://store.example/?token={SECRET}", "--failures", tmp_path / "failures"),
    )
    assert result.exit_code == 1
    assert SECRET not in result.output + (tmp_path / "failures").read_text()
    assert SECRET not in run("upload", tree, "--to", f"https://me:{SECRET}@store.example/").output
    assert SECRET not in run("upload", tree, "--to", f"https://store.example/?token={SECRET}", "--dry-run").output


# --- exit codes -------------------------------------------------------------------------------------------------------


def test_an_empty_folder_matches_nothing(tmp_path: pathlib.Path) -> None:
    result = upload(tmp_path)
    assert result.exit_code == 3
    assert result.stderr == f"fastpost: nothing to upload: no file in {tmp_path}\n"


def test_a_folder_of_links_matches_nothing_and_says_why(tmp_path: pathlib.Path, tree: pathlib.Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "link").symlink_to(tree / "a.txt")
    result = upload(folder)
    assert result.exit_code == 3
    assert "1 symbolic links were skipped (--follow-symlinks)" in result.stderr


def test_an_unreachable_target_is_exit_4_with_the_cure(tree: pathlib.Path) -> None:
    def fail(_: Uploader) -> None:
        raise NotHttp2("store.example speaks HTTP/1.1 only: enable HTTP/2 there")

    Uploader.interlude = fail
    result = upload(tree)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "fastpost: store.example speaks HTTP/1.1 only: enable HTTP/2 there\n"
    result = upload(tree, "--output-format", "json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["files"]["ok"] == 0


def test_what_nobody_foresaw_is_one_line_and_with_vv_a_traceback(tree: pathlib.Path) -> None:
    def fail(_: Uploader) -> None:
        raise ValueError("odd\n")

    Uploader.interlude = fail
    result = upload(tree)
    assert result.exit_code == 1
    assert result.stderr == (
        "fastpost: an error in fastpost itself, please report it: ValueError: odd\\n (-vv shows where)\n"
    )
    result = CliRunner().invoke(cli.main, ["upload", str(tree), "--to", STORE, "-vv"])
    assert "Traceback" in result.stderr


# --- signals ----------------------------------------------------------------------------------------------------------


class Waiting(Uploader):
    """An uploader whose uploads are in flight until it is stopped often enough."""

    signals: ClassVar[tuple[signal.Signals, ...]]

    async def run(self, batches: Iterable[Batch], *_: Any, **options: Any) -> None:
        self.stopped = asyncio.Event()
        self.tally.found = 3
        self.tally.started, self.tally.finished = 1.0, 2.0
        for number in type(self).signals:
            self.stopped.clear()
            os.kill(os.getpid(), number)
            await self.stopped.wait()

    def stop(self, grace: float = 10.0) -> None:
        super().stop(grace)
        self.stopped.set()


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((signal.SIGINT,), 130),
        ((signal.SIGTERM,), 143),
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGTERM, signal.SIGINT), 143),
    ],
)
@pytest.mark.parametrize("to", [["--to", STORE], []])
def test_signals_stop_the_run_and_report(
    signals: tuple[signal.Signals, ...],
    code: int,
    to: list[str],
    tree: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Waiting.signals = signals
    monkeypatch.setattr(upload_run, "Uploader", Waiting)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = run("upload", tree, *to)
    assert result.exit_code == code
    assert Uploader.latest.stops == [10.0] * len(signals)
    assert "in flight have 10 s to finish; once more stops them at once" in result.stderr
    assert "0 ok · 0 failed · 3 not sent" in result.stdout
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert Ingest.running == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_run_ends_quietly_and_stops_the_server(
    number: signal.Signals, code: int, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_settings: Settings) -> None:
        os.kill(os.getpid(), number)
        signal.pause()

    monkeypatch.setattr(upload_run, "Uploader", interrupted)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = run("upload", tree)
    assert result.exit_code == code
    assert Ingest.running == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_raises_nothing_where_the_first_one_is_told(
    number: signal.Signals, tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is in the midst of ending would end with a traceback."""
    handlers = []

    def interrupted(_settings: Settings) -> None:
        os.kill(os.getpid(), number)
        signal.pause()

    def told(text: str) -> str:
        handlers.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
        return text

    monkeypatch.setattr(upload_run, "Uploader", interrupted)
    monkeypatch.setattr(report, "safe", told)
    run("upload", tree, "--to", STORE)
    assert handlers[-1] == (signal.SIG_DFL, signal.SIG_DFL)


def test_who_stopped_it_is_not_told_that_there_was_nothing(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Early(Waiting):
        signals = (signal.SIGINT,)

        async def run(self, batches: Iterable[Batch], *arguments: Any, **options: Any) -> None:
            await super().run(batches, *arguments, **options)
            self.tally.found = 0

    monkeypatch.setattr(upload_run, "Uploader", Early)
    result = run("upload", tree, "--to", STORE)
    assert result.exit_code == 130
    assert "nothing to upload" not in result.stderr


# --- as a process -----------------------------------------------------------------------------------------------------


def process(*args: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "fastpost", *map(os.fspath, args)]  # type: ignore[arg-type]
    return subprocess.run(command, check=False, timeout=60, **options)


def test_the_version_is_told_at_once_without_loading_more_than_click() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fastpost", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"fastpost {__version__}\n"
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {name for name in loaded if name.startswith("fastpost")} == {
        *("fastpost", "fastpost.cli", "fastpost.cli_network", "fastpost.cli_process", "fastpost.cli_selection"),
        "fastpost.cli_types",
        *("fastpost.collector", "fastpost.errors"),
    }
    assert not loaded & {"rich", "asyncio", "uvloop", "ssl", "h2", "socket", "json", "importlib.metadata"}


@pytest.mark.parametrize("module", ["typing", "click.core", "fastpost.cli_types", "fastpost.ingest"])
def test_ctrl_c_at_any_moment_of_a_start_is_no_failure_of_its_own(module: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, CtrlC())\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = process("serve", env=os.environ | {"PYTHONPATH": paths}, capture_output=True)
    assert (done.returncode, done.stdout) == (130, b"")
    assert done.stderr.split() in ([], [b"fastpost:", b"interrupted"])


def test_a_reader_that_leaves_early_ends_it_quietly(tree: pathlib.Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as gone:
        done = process("upload", tree, "--to", STORE, "--dry-run", stdout=gone, stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_failure(closed: str, tree: pathlib.Path) -> None:
    script = f'"$0" -m fastpost upload "$1" --to {STORE} --dry-run {closed}'
    assert subprocess.run(["sh", "-c", script, sys.executable, tree], check=False, timeout=60).returncode == 0


def test_a_full_disk_under_stdout_is_told(tree: pathlib.Path) -> None:
    with pathlib.Path("/dev/full").open("wb") as full:
        done = process("upload", tree, "--to", STORE, "--dry-run", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"fastpost: standard output: No space left on device\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("upload", "--help"), ("probe", "--help")])
def test_a_full_disk_under_help_and_version_is_told(arguments: tuple[str, ...], unbuffered: str) -> None:
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with pathlib.Path("/dev/full").open("wb") as full:
        done = process(*arguments, stdout=full, stderr=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (1, b"fastpost: standard output: No space left on device\n")


def test_a_usage_that_can_not_be_told_is_one_all_the_same() -> None:
    with pathlib.Path("/dev/full").open("wb") as full:
        done = process(stdout=subprocess.PIPE, stderr=full)
    assert (done.returncode, done.stdout) == (2, b"")


def test_names_are_told_in_any_locale(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ü\udcff.txt").write_bytes(b"")
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = process("upload", tmp_path, "--to", STORE, "--dry-run", capture_output=True, env=env)
    assert done.returncode == 0
    assert b"%C3%BC%FF.txt" in done.stdout
