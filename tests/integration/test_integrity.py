"""Digests sent along and digests compared, through the command line."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import command
from .scripted import STREAM_WINDOW, Peer, Request, Script, ScriptedServer
from .servers import Certificates

ALGORITHMS = pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])


def digest(algorithm: str, octets: bytes | bytearray) -> str:
    """Return a member of a digest field (RFC 9530 §2)."""
    value = hashlib.new(algorithm.replace("-", ""), octets).digest()
    return f"{algorithm}=:{base64.b64encode(value).decode()}:"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty, small and large files: read, and mapped."""
    (tmp_path / "up").mkdir()
    for number, size in enumerate((0, 1, 1000, 65_536, 65_537, 1_000_000)):
        (tmp_path / "up" / f"{number}.bin").write_bytes(os.urandom(size))
    return tmp_path / "up"


def contents(folder: Path) -> dict[str, bytes]:
    return {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}


def intact(server: ScriptedServer, algorithm: str) -> bool:
    """Every complete body is what its request said."""
    done = [request for request in server.requests if request.ended]
    return all(request.fields["content-digest"] == digest(algorithm, request.body) for request in done)


@ALGORITHMS
@pytest.mark.parametrize("secure", [False, True], ids=["cleartext", "tls"])
def test_every_upload_states_its_digest(folder: Path, certificates: Certificates, algorithm: str, secure: bool) -> None:
    with ScriptedServer(tls=certificates if secure else None) as server:
        trust = ("--cacert", server.cafile) if server.cafile else ()
        run = command.upload(folder, "--to", server.url, "--digest", algorithm, *trust)
    assert run.code == 0
    assert server.bodies() == contents(folder)
    assert intact(server, algorithm)


def test_without_the_option_no_digest_is_sent(folder: Path) -> None:
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url)
    assert run.code == 0
    assert all("content-digest" not in request.fields for request in server.requests)
    assert run.report["verified"] is None


class Changing(Script):
    """Changes the last file when the first one has arrived: then its digest is computed and nothing of it is sent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def completed(self, peer: Peer, request: Request) -> None:
        if request.path == "/0.bin":
            # Another inode with its own content, as an editor would leave it.
            new = self._path.with_suffix(".new")
            new.write_bytes(b"changed")
            new.replace(self._path)
        peer.answer(request, 201)


@ALGORITHMS
def test_a_file_that_changed_since_its_digest_gets_a_new_one(folder: Path, algorithm: str) -> None:
    script = Changing(folder / "5.bin")
    with ScriptedServer(script) as server:
        run = command.upload(
            *sorted(folder.iterdir()), "--to", f"{server.url}{{path}}", "--digest", algorithm, "-c", "1",
            "--retry-delay", "0.01",
        )  # fmt: skip
    assert run.code == 0
    assert run.report["attempts"]["retried"] == 1
    assert server.bodies() == contents(folder)
    assert [request.body for request in server.of("/5.bin")] == [b"changed"]
    assert intact(server, algorithm)


def test_a_file_that_goes_on_changing_fails_by_name(folder: Path) -> None:
    """It changes in the middle of each attempt: a stream's window is less than it is long."""

    class Growing(Script):
        def received(self, peer: Peer, request: Request, octets: int) -> None:
            if request.path != "/5.bin":
                peer.credit(request, octets)
            elif len(request.body) == STREAM_WINDOW:
                with (folder / "5.bin").open("ab") as file:
                    file.write(b"more")
                peer.credit(request, 10_000_000)

    with ScriptedServer(Growing()) as server:
        run = command.upload(folder, "--to", server.url, "--digest", "sha-256", "--retry-delay", "0.01")
    assert run.code == 1
    assert run.errors == {"FileChanged": 1}
    assert run.told("5.bin", "changed while uploading")
    assert len(server.of("/5.bin")) == 2
    first, second = (request.fields["content-digest"] for request in server.of("/5.bin"))
    assert first != second
    assert "/5.bin" not in server.bodies()
    assert intact(server, "sha-256")


def test_what_cannot_be_read_for_its_digest_fails_by_name(folder: Path) -> None:
    (folder / "link").symlink_to("0.bin")
    os.mkfifo(folder / "fifo")
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url, "--digest", "sha-256")
    assert run.code == 1
    assert run.errors == {"NotRegularFile": 1}
    assert run.files == {"total": 7, "ok": 6, "failed": 1, "skipped": 1}


def test_digest_options_that_cannot_be_meant(folder: Path) -> None:
    run = command.upload(folder, "--to", "http://127.0.0.1:9/", "--digest", "md5")
    assert run.code == 2
    assert run.told("sha-256", "sha-512")
    run = command.upload(
        folder, "--to", "http://127.0.0.1:9/", "--digest", "sha-256", "-H", "Content-Digest: sha-256=:AA==:"
    )
    assert run.code == 2
    assert run.told("Content-Digest", "leave out one of the two")


# --- what the server says ---------------------------------------------------------------------------------------------


class Telling(Script):
    """Answers with a field by path, made of the body by a function; other paths get none."""

    def __init__(self, fields: dict[str, tuple[str, str]]) -> None:
        self.fields = fields

    def completed(self, peer: Peer, request: Request) -> None:
        name, value = self.fields.get(request.path, ("x_other", "1"))
        peer.answer(request, 201, b"", **{name: value})


def truths(folder: Path) -> dict[str, tuple[str, str]]:
    """Return true statements of several kinds; nothing is said of 5.bin."""
    known = contents(folder)
    return {
        "/0.bin": ("repr_digest", digest("sha-256", known["/0.bin"])),
        "/1.bin": ("repr_digest", f"{digest('sha-512', known['/1.bin'])}, {digest('sha-256', known['/1.bin'])}"),
        "/2.bin": ("content_digest", digest("sha-256", known["/2.bin"])),
        "/3.bin": ("etag", f'"{hashlib.md5(known["/3.bin"]).hexdigest()}"'),
        "/4.bin": ("etag", f'"{hashlib.sha1(known["/4.bin"]).hexdigest()}"'),
    }


@pytest.mark.parametrize("options", [(), ("--digest", "sha-256"), ("--digest", "sha-512")])
def test_uploads_are_verified_where_the_server_tells_a_digest(folder: Path, options: tuple[str, ...]) -> None:
    with ScriptedServer(Telling(truths(folder))) as server:
        run = command.upload(folder, "--to", server.url, "--verify", *options)
    assert run.code == 0
    assert (run.report["verified"], run.report["unverifiable"], run.report["mismatched"]) == (5, 1, 0)
    assert run.files["ok"] == 6


@pytest.mark.parametrize("options", [(), ("--digest", "sha-256"), ("--digest", "sha-512")])
def test_a_mismatch_is_a_failure_with_its_row_and_is_not_recorded(folder: Path, options: tuple[str, ...]) -> None:
    said = truths(folder)
    said["/2.bin"] = ("repr_digest", digest("sha-256", b"damaged"))
    said["/3.bin"] = ("etag", f'"{hashlib.md5(b"damaged").hexdigest()}"')
    failures, journal = folder.parent / "failures", folder.parent / "journal"
    script = Telling(said)
    with ScriptedServer(script) as server:
        arguments: list[str | Path] = [folder, "--to", server.url, "--verify", "--journal", journal, *options]
        run = command.upload(*arguments, "--failures", failures)
        script.fields = truths(folder)
        again = command.upload(*arguments)
        assert sorted(request.path for request in server.requests[6:]) == ["/2.bin", "/3.bin"]
    assert run.code == 1
    assert run.files == {"total": 6, "ok": 4, "failed": 2, "skipped": 0}
    assert run.errors == {"DigestMismatch": 2}
    assert (run.report["verified"], run.report["unverifiable"], run.report["mismatched"]) == (3, 1, 2)
    assert run.told("2.bin", hashlib.sha256(b"damaged").hexdigest(), "upload it again")
    rows = [json.loads(line) for line in failures.read_text().splitlines()]
    assert sorted((row["name"], row["error"], row["status"]) for row in rows) == [
        ("2.bin", "DigestMismatch", 201),
        ("3.bin", "DigestMismatch", 201),
    ]
    assert again.code == 0
    assert again.files == {"total": 2, "ok": 2, "failed": 0, "skipped": 4}


def test_digests_are_sent_and_compared_by_every_process(folder: Path) -> None:
    with ScriptedServer(Telling(truths(folder))) as server:
        run = command.upload(folder, "--to", server.url, "--digest", "sha-512", "--verify", "--processes", "2")
    assert run.code == 0
    assert intact(server, "sha-512")
    assert (run.report["verified"], run.report["unverifiable"], run.report["mismatched"]) == (5, 1, 0)


def test_people_are_told_what_was_verified(folder: Path) -> None:
    said = truths(folder)
    said["/2.bin"] = ("repr_digest", digest("sha-256", b"damaged"))
    with ScriptedServer(Telling(said)) as server:
        run = command.run("upload", folder, "--to", server.url, "--verify")
    assert run.code == 1
    assert "4 of 6 arrived intact · 1 mismatched · 1 unverifiable" in run.out


def test_a_journal_lists_what_it_holds(folder: Path) -> None:
    journal = folder.parent / "journal"
    said = truths(folder)
    said["/5.bin"] = ("repr_digest", digest("sha-256", b"damaged"))
    with ScriptedServer(Telling(said)) as server:
        command.upload(folder, "--to", server.url, "--verify", "--journal", journal)
        shown = command.run("journal", "show", journal, "--output-format", "json", "--list")
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert sorted(line["name"] for line in lines[:-1]) == [f"{number}.bin" for number in range(5)]
    assert lines[-1]["files"] == 5


@pytest.mark.unsanitized  # a thread that reads is alive at the end, and what it holds counts as a leak
def test_a_file_whose_digest_was_being_computed_is_counted(tmp_path: Path) -> None:
    """SIGINT meanwhile: the report says that it was found and not sent."""
    huge = tmp_path / "huge.bin"
    huge.touch()
    os.truncate(huge, 1 << 42)  # takes an hour to read, and no room
    with ScriptedServer() as server:
        arguments = ("upload", "-v", "--output-format", "json", huge, "--to", server.url, "--digest", "sha-256")
        with subprocess.Popen(
            [sys.executable, "-m", "fastpost", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while not is_open(huge, process.pid):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=command.LIMIT)
    assert process.returncode == 130
    assert json.loads(out)["files"] == {"total": 1, "ok": 0, "failed": 1, "skipped": 0}
    assert json.loads(out)["errors"] == {"Interrupted": 1}
    assert "nothing to upload" not in err
    assert not server.requests


def is_open(file: Path, pid: int) -> bool:
    """Tell whether a process has a file open."""
    folder = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(FileNotFoundError):
        return any(os.readlink(fd) == str(file) for fd in folder.iterdir())
    return False
