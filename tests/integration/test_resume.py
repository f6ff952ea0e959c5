"""Runs that are killed, interrupted or starved of disk, and resumed with their journal until all is done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastpost.recorded import Contents

from . import command
from .scripted import Peer, Request, Script, ScriptedServer

#: A process that may write files of this many octets at most, as on a disk with no more room than that.
LIMITED = (
    "import os, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); os.execvp(sys.argv[2], sys.argv[2:])"
)


def fill(folder: Path, count: int) -> Path:
    """Make a folder of small files, no two alike."""
    for number in range(count):
        path = folder / f"{number // 500:03}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%05d " % number * (number % 40))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {f"/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.bin")}


def recorded(journal: Path) -> set[str]:
    """Return the paths that a journal holds, whole records only."""
    if not journal.exists():
        return set()
    with journal.open("rb") as file:
        return {"/" + entry.name.decode() for entry in Contents(file, str(journal)).entries()}


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastpost", "upload", "-q", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Killing(Script):
    """Sends a signal to a process at its n-th request: when that begins, or when it is complete and not answered."""

    def __init__(self) -> None:
        self._left = 0
        self._complete = False
        self._pid = 0
        self._number = signal.SIGKILL
        self._armed = threading.Event()

    def aim(self, after: int, *, complete: bool = False, number: signal.Signals = signal.SIGKILL) -> None:
        """Choose the moment; `hit` tells whom."""
        self._left, self._complete, self._number = after, complete, number
        self._armed.clear()

    def hit(self, process: subprocess.Popen[bytes]) -> None:
        """Be the one whom the signal hits."""
        self._pid = process.pid
        self._armed.set()

    def requested(self, peer: Peer, request: Request) -> None:
        if not self._complete:
            self._count()

    def completed(self, peer: Peer, request: Request) -> None:
        if self._complete:
            self._count()
        peer.answer(request, 201)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._armed.wait()
            os.kill(self._pid, self._number)


def kill_until_done(tree: Path, journal: Path, kills: int, most: int, rng: random.Random) -> int:
    """Upload with a kill each time after up to `most` requests, then without; return how often it was killed.

    No run may request what the journal held when it began; and in the end everything must be at the server, intact.
    """
    script = Killing()
    expected = contents(tree)
    killed = 0
    with ScriptedServer(script) as server:
        while killed < kills:
            known, before = recorded(journal), len(server.requests)
            script.aim(rng.randint(1, most), complete=rng.random() < 0.5)
            with start(tree, "--to", server.url, "--journal", journal) as process:
                script.hit(process)
                code = process.wait(command.LIMIT)
            assert not known & {request.path for request in server.requests[before:]}
            assert recorded(journal) <= {request.path for request in server.requests if request.ended}
            if code == 0:
                break
            assert code == -signal.SIGKILL
            killed += 1
        script.aim(0)
        known, before = recorded(journal), len(server.requests)
        run = command.upload(tree, "--to", server.url, "--journal", journal)
        sent = [request.path for request in server.requests[before:]]
    assert run.code == 0
    assert run.files == {"total": len(sent), "ok": len(sent), "failed": 0, "skipped": len(known)}
    assert set(sent) == set(expected) - known
    assert server.bodies() == expected
    assert recorded(journal) == set(expected)
    repeats = sum(request.ended for request in server.requests) - len(expected)
    print(f"{killed} kills; {repeats} uploads of {len(expected)} files were repeats")
    return killed


def test_a_run_killed_at_random_moments_is_resumed_until_done(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", 4_000)
    assert kill_until_done(tree, tmp_path / "journal", 4, 2_500, random.Random()) > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_kills_of_runs_of_20_000_files(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", 20_000)
    rng = random.Random()
    killed = 0
    for number in range(100):
        if killed >= 100:
            break
        killed += kill_until_done(tree, tmp_path / f"journal{number}", 100 - killed, 6_000, rng)
    assert killed == 100


def test_an_interrupted_run_goes_on_where_it_was_and_repeats_nothing(tmp_path: Path) -> None:
    """SIGINT: what is in flight ends, is recorded and synced."""
    tree, journal = fill(tmp_path / "tree", 1_000), tmp_path / "journal"
    script = Killing()
    script.aim(300, number=signal.SIGINT)
    with ScriptedServer(script) as server:
        with start(tree, "--to", server.url, "--journal", journal) as process:
            script.hit(process)
            assert process.wait(command.LIMIT) == 130
        assert 0 < len(recorded(journal)) < 1_000
        run = command.upload(tree, "--to", server.url, "--journal", journal)
    assert run.code == 0
    assert server.bodies() == contents(tree)
    assert len(server.requests) == 1_000


def test_a_run_that_finds_everything_recorded_connects_to_nothing(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 60), tmp_path / "journal"
    with ScriptedServer() as server:
        url = server.url
        assert command.upload(tree, "--to", url, "--journal", journal).code == 0
    run = command.run("upload", tree, "--to", url, "--journal", journal)
    assert run.code == 0
    assert "60 skipped, uploaded before (--journal)" in run.out
    run = command.upload(tree, "--to", url, "--journal", journal)
    assert run.files == {"total": 0, "ok": 0, "failed": 0, "skipped": 60}
    assert run.report["connections"] == 0


def test_what_changed_or_failed_is_sent_again_and_the_rest_is_not(tmp_path: Path) -> None:
    class Refusing(Script):
        refuses = True

        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 403 if self.refuses and request.path == "/000/00007.bin" else 201)

    tree, journal = fill(tmp_path / "tree", 20), tmp_path / "journal"
    script = Refusing()
    with ScriptedServer(script) as server:
        assert command.upload(tree, "--to", server.url, "--journal", journal).code == 1
        script.refuses = False
        (tree / "000" / "00003.bin").write_bytes(b"changed")
        (tree / "000" / "new.bin").write_bytes(b"new")
        dry = command.run("upload", tree, "--to", server.url, "--journal", journal, "--dry-run")
        run = command.upload(tree, "--to", server.url, "--journal", journal)
        expected = ["/000/00003.bin", "/000/00007.bin", "/000/new.bin"]
        assert sorted(request.path for request in server.requests[20:]) == expected
    assert run.files == {"total": 3, "ok": 3, "failed": 0, "skipped": 18}
    assert len(dry.out.splitlines()) == 3
    assert dry.told("3 files", "18 more are uploaded already")
    assert len(server.of("/000/00003.bin")) == 2
    assert server.of("/000/00003.bin")[1].body == b"changed"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_file_dated_in_the_year_2300_is_recorded_like_any_other(tmp_path: Path, processes: str) -> None:
    tree, journal = fill(tmp_path / "tree", 20), tmp_path / "journal"
    os.utime(tree / "000" / "00003.bin", ns=(0, 10_413_792_000 * 10**9))
    with ScriptedServer() as server:
        arguments: list[str | Path] = [tree, "--to", server.url, "--journal", journal, "--processes", processes]
        assert command.upload(*arguments).files["ok"] == 20
        assert command.upload(*arguments).files["skipped"] == 20
    assert len(server.requests) == 20


def test_several_processes_share_one_journal(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 600), tmp_path / "journal"
    with ScriptedServer() as server:
        arguments: list[str | Path] = [tree, "--to", server.url, "--journal", journal, "--processes", "2"]
        assert command.upload(*arguments).code == 0
        assert recorded(journal) == set(contents(tree))
        (tree / "000" / "00003.bin").write_bytes(b"changed")
        run = command.upload(*arguments)
        assert [request.path for request in server.requests[600:]] == ["/000/00003.bin"]
    assert run.code == 0
    assert run.files == {"total": 1, "ok": 1, "failed": 0, "skipped": 599}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_two_files_for_one_url_are_found_though_one_was_sent_by_an_earlier_run(tmp_path: Path, processes: str) -> None:
    """It would overwrite the one that the server has."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.bin").write_text(name)
    sources = (tmp_path / "first", tmp_path / "second")
    with ScriptedServer() as server:
        for _ in range(2):
            run = command.upload(
                *sources, "--to", server.url, "--journal", tmp_path / "journal", "--processes", processes
            )
            assert run.code == 1
            assert run.errors == {"DuplicateTarget": 1}
    assert [request.body for request in server.requests] == [b"first"]


@pytest.mark.parametrize("options", [(), ("--processes", "2"), ("--digest", "sha-256")])
def test_a_recorded_file_is_a_duplicate_when_its_url_is_taken_in_this_run(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The later one would be skipped as recorded, and the server hold the other's octets."""
    first, second, journal = fill(tmp_path / "first", 3_000), tmp_path / "second", tmp_path / "journal"
    second.mkdir()
    for folder in (first, second):
        (folder / "same.bin").write_text(folder.name)
    with ScriptedServer() as server:
        assert command.upload(second, "--to", server.url, "--journal", journal).code == 0
        arguments = (first, second, "--to", server.url, "--journal", journal)
        dry = command.run("upload", *arguments, "--dry-run")
        run = command.upload(*arguments, *options)
    assert dry.code == 1
    assert dry.out.count("DUPLICATE") == 1
    assert run.code == 1
    assert run.errors == {"DuplicateTarget": 1}
    assert run.files["total"] - run.files["failed"] == run.files["ok"]


def test_a_torn_tail_is_dropped_with_a_warning(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 20), tmp_path / "journal"
    with ScriptedServer() as server:
        command.upload(tree, "--to", server.url, "--journal", journal)
        os.truncate(journal, journal.stat().st_size - 5)
        shown = command.run("journal", "show", journal)
        run = command.upload(tree, "--to", server.url, "--journal", journal)
    assert "19" in shown.out
    assert "not whole" in shown.out
    assert run.code == 0
    assert run.told(str(journal), "not whole", "uploaded again")
    assert run.files == {"total": 1, "ok": 1, "failed": 0, "skipped": 19}
    assert len(recorded(journal)) == 20


def test_a_journal_that_is_removed_during_the_run_is_told(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 20), tmp_path / "journal"

    class Removing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            journal.unlink(missing_ok=True)
            peer.answer(request, 201)

    with ScriptedServer(Removing()) as server:
        run = command.upload(tree, "--to", server.url, "--journal", journal)
    assert run.code == 1
    assert run.files == {"total": 20, "ok": 20, "failed": 0, "skipped": 0}
    assert run.told(str(journal), "moved or removed", "send again")


def test_a_damaged_octet_costs_one_file_and_no_more(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 20), tmp_path / "journal"
    with ScriptedServer() as server:
        command.upload(tree, "--to", server.url, "--journal", journal)
        octets = bytearray(journal.read_bytes())
        octets[octets.index(b"00007.bin")] ^= 1
        journal.write_bytes(octets)
        shown = command.run("journal", "show", journal)
        run = command.upload(tree, "--to", server.url, "--journal", journal)
        again = command.upload(tree, "--to", server.url, "--journal", journal)
    assert "octets in its midst" in shown.out
    assert "not whole" not in shown.out
    assert run.told(str(journal), "octets in its midst are damaged", "uploaded again")
    assert run.code == 0
    assert run.files == {"total": 1, "ok": 1, "failed": 0, "skipped": 19}
    assert again.files["skipped"] == 20


def test_two_runs_at_once_on_one_journal(tmp_path: Path) -> None:
    class Waiting(Script):
        begun, go_on = threading.Event(), threading.Event()

        def completed(self, peer: Peer, request: Request) -> None:
            self.begun.set()
            self.go_on.wait()
            peer.answer(request, 201)

    tree, journal, script = fill(tmp_path / "tree", 20), tmp_path / "journal", Waiting()
    with ScriptedServer(script) as server:
        with start(tree, "--to", server.url, "--journal", journal) as first:
            script.begun.wait()
            second = command.upload(tree, "--to", server.url, "--journal", journal)
            script.go_on.set()
            assert first.wait(command.LIMIT) == 0
        assert second.code == 2
        assert second.told("another run uses the journal", str(journal), "wait for its end")
    assert len(server.requests) == 20
    assert len(recorded(journal)) == 20


def test_journals_that_cannot_be_meant(tmp_path: Path) -> None:
    tree, url = fill(tmp_path / "tree", 1), "http://127.0.0.1:9/"
    letter, other, newer = (tmp_path / name for name in ("letter", "other", "newer"))
    letter.write_text("Dear reader\n")
    (tmp_path / "f").write_text("f")
    newer.write_text("fastpost journal 2\n")
    with ScriptedServer() as server:
        assert command.upload(tree, "--to", server.url, "--journal", other).code == 0
    refused: list[tuple[Path, tuple[str, ...]]] = [
        (letter, ("no journal of fastpost", "name another file")),
        (tmp_path / "f", ("no journal of fastpost", "name another file")),
        (newer, ("format 2", "name another file")),
        (other, (server.url, url, "name another file")),
        (tree / "journal", ("put it elsewhere",)),
        (tmp_path / "no" / "journal", ("its folder doesn't exist", "make it")),
    ]
    for journal, words in refused:
        run = command.upload(tree, "--to", url, "--journal", journal)
        assert run.code == 2
        assert run.told(str(journal), *words)
    assert letter.read_text() == "Dear reader\n"
    assert (tmp_path / "f").read_text() == "f"
    run = command.upload(tree, "--journal", tmp_path / "journal")
    assert run.code == 2
    assert run.told("--journal needs --to")
    run = command.upload(tree, "--to", url, "--journal", "")
    assert run.code == 2
    assert run.told("--journal is given an empty name", "name a file")


def test_a_journal_that_something_else_is_written_to(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 1), tmp_path / "journal"
    new = tmp_path / "new"
    with ScriptedServer() as server:
        assert command.upload(tree, "--to", server.url, "--journal", journal).code == 0
        before = journal.read_bytes()
        (tmp_path / "link").symlink_to(journal)
        (tmp_path / "hard").hardlink_to(journal)
        for other in (journal, tmp_path / "tree" / ".." / "journal", tmp_path / "link", tmp_path / "hard"):
            run = command.upload(tree, "--to", server.url, "--journal", journal, "--failures", other)
            assert run.code == 2
            assert run.told(str(journal), str(other), "one file", "name two")
        run = command.upload(tree, "--to", server.url, "--journal", new, "--failures", new)
        assert run.code == 2
        with (tmp_path / "out").open("w") as out:
            code = subprocess.run(
                [sys.executable, "-m", "fastpost", "upload", tree, "--to", server.url, "--journal", "/dev/stdout"],
                stdout=out,
                stderr=subprocess.DEVNULL,
            ).returncode
    assert code == 2
    assert journal.read_bytes() == before
    assert not new.exists()
    assert (tmp_path / "out").read_bytes() == b""
    assert len(server.requests) == 1


def test_a_journal_that_is_no_regular_file(tmp_path: Path) -> None:
    """Nothing waits for the other end of a FIFO."""
    tree, fifo = fill(tmp_path / "tree", 1), tmp_path / "fifo"
    os.mkfifo(fifo)
    for journal in (fifo, Path("/dev/null"), Path("/dev/stdout")):
        upload = ("upload", tree, "--to", "http://127.0.0.1:9/", "--journal", journal)
        for arguments in (upload, (*upload, "--dry-run"), ("journal", "show", journal)):
            run = command.run(*arguments)
            assert run.code == 2
            assert run.told(str(journal), "no regular file", "name another file")
    for arguments in (
        ("upload", tree, "--to", "http://127.0.0.1:9/", "--journal", tmp_path),
        ("journal", "show", tree),
    ):
        assert command.run(*arguments).told("is a directory")


def test_a_journal_that_a_followed_link_leads_to_is_not_uploaded(tmp_path: Path) -> None:
    tree, state = fill(tmp_path / "tree", 20), tmp_path / "state"
    state.mkdir()
    journal = state / "journal"
    (state / "other").write_text("other")
    (tree / "folder").symlink_to(state)
    (tree / "file").symlink_to(journal)
    with ScriptedServer() as server:
        arguments = (tree, "--to", server.url, "--journal", journal, "--follow-symlinks")
        journal.touch()
        dry = command.run("upload", *arguments, "--dry-run")
        first = command.upload(*arguments)
        again = command.upload(*arguments)
    assert len(dry.out.splitlines()) == first.files["ok"] == again.files["skipped"] == 21
    assert (first.code, again.code) == (0, 0)
    assert not {"/file", "/folder/journal"} & {request.path for request in server.requests}


def test_a_secret_in_the_target_is_not_in_the_journal(tmp_path: Path) -> None:
    tree, journal = fill(tmp_path / "tree", 1), tmp_path / "journal"
    with ScriptedServer() as server:
        run = command.upload(tree, "--to", f"{server.url}{{path}}?token=s3cret", "--journal", journal)
    assert run.code == 0
    assert b"s3cret" not in journal.read_bytes()


def test_another_value_that_is_masked_or_another_method_is_another_target(tmp_path: Path) -> None:
    """Nothing that the server doesn't have may count as sent."""
    tree, journal = fill(tmp_path / "tree", 1), tmp_path / "journal"
    with ScriptedServer() as server:
        url = f"{server.url}{{path}}?author="
        assert command.upload(tree, "--to", f"{url}me", "--journal", journal).code == 0
        for options in (("--to", f"{url}you"), ("--to", f"{url}me", "--method", "POST")):
            for dry in ((), ("--dry-run",)):
                run = command.upload(tree, *options, "--journal", journal, *dry)
                assert run.code == 2
                assert run.told(str(journal), "name another file")
        assert command.upload(tree, "--to", f"{url}me", "--journal", journal).files["skipped"] == 1
    assert len(server.requests) == 1


def test_no_space_for_the_journal(tmp_path: Path) -> None:
    """The uploads go on, what is recorded stays, and the run says that it is not all."""
    tree, journal = fill(tmp_path / "tree", 400), tmp_path / "journal"
    with ScriptedServer() as server:
        run = command.upload(
            tree, "--to", server.url, "--journal", journal, prefix=(sys.executable, "-c", LIMITED, "4096")
        )
        assert run.code == 1
        assert run.files == {"total": 400, "ok": 400, "failed": 0, "skipped": 0}
        assert run.told(str(journal), "File too large", "the uploads go on")
        assert run.err.count("File too large") == 1
        assert server.bodies() == contents(tree)
        known = recorded(journal)
        assert command.upload(tree, "--to", server.url, "--journal", journal).files["skipped"] == len(known)
    assert len(recorded(journal)) == 400


def test_no_space_for_failures_and_none_for_a_new_journal(tmp_path: Path) -> None:
    class Refusing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 403)

    tree, journal = fill(tmp_path / "tree", 5), tmp_path / "journal"
    with ScriptedServer(Refusing()) as server:
        run = command.upload(tree, "--to", server.url, "--failures", "/dev/full")
        assert run.code == 1
        assert run.files["failed"] == 5
        assert run.told("/dev/full", "No space left on device", "the uploads go on")
        none = command.upload(
            tree, "--to", server.url, "--journal", journal, prefix=(sys.executable, "-c", LIMITED, "10")
        )
        assert none.code == 1
        assert none.told(str(journal), "File too large")
        assert not journal.exists()
    assert len(server.requests) == 5
