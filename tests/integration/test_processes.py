"""`--processes`: one run and one report, whoever of them sends; nothing lost when one of them is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import command
from .scripted import Peer, Request, Script, ScriptedServer

FILES = 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files in a few folders, 7.5 MB in all."""
    for number in range(FILES):
        place = tmp_path / f"{number % 7}"
        place.mkdir(exist_ok=True)
        (place / f"{number:03}.bin").write_bytes(b"%03d" % number * (25_000 + number))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {f"/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.bin")}


@pytest.mark.parametrize("count", [2, 3])
def test_every_file_is_sent_once_and_counted_in_one_report(folder: Path, count: int) -> None:
    with ScriptedServer() as server:
        run = command.upload(folder, "--to", server.url, "--processes", str(count), code=command.SPREAD)
    assert run.code == 0
    assert run.files == {"total": FILES, "ok": FILES, "failed": 0, "skipped": 0}
    assert run.report["status"] == {"201": FILES}
    assert run.report["connections"] >= count
    assert run.report["bytes"]["payload"] == sum(map(len, contents(folder).values())) < run.report["bytes"]["sent"]
    assert run.report["latency_ms"]["max"] > 0
    assert len(server.requests) == FILES
    assert server.bodies() == contents(folder)
    assert len({request.number for request in server.requests}) >= count, "each of them had a share"


def test_what_a_process_cannot_read_for_its_digest_fails_once(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each has some of the files that are gone when their turn comes."""
    failures = tmp_path_factory.mktemp("failures") / "failures.ndjson"
    for number in range(400):
        (tmp_path / f"{number:03}").write_bytes(bytes(50_000))

    class Removing(Script):
        def __init__(self) -> None:
            self._gone = False

        def requested(self, peer: Peer, request: Request) -> None:
            if not self._gone:
                self._gone = True
                for path in sorted(tmp_path.iterdir())[100:]:
                    path.unlink(missing_ok=True)

    options = ("--processes", "2", "--digest", "sha-256", "--failures", failures)
    with ScriptedServer(Removing()) as server:
        run = command.upload(tmp_path, "--to", server.url, *options, code=command.SPREAD)
    assert run.code == 1
    failed = [json.loads(line)["name"] for line in failures.read_text().splitlines()]
    assert len(failed) == len(set(failed)) == run.files["failed"] > 0
    assert run.files["ok"] + run.files["failed"] == run.files["total"] == 400
    assert set(run.errors) <= {"FileVanished", "FileChanged"}


def test_few_files_are_shared_out_too(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}").write_bytes(bytes(100_000))
    with ScriptedServer() as server:
        run = command.upload(tmp_path, "--to", server.url, "--processes", "2", code=command.SPREAD)
    assert run.files["ok"] == 4
    shares = [request.number for request in server.requests]
    assert sorted(shares.count(number) for number in set(shares)) == [2, 2]


class Counting(Script):
    """Counts the uploads in flight; takes 10 ms for each of the first ones, so that cores are idle."""

    def __init__(self, slow: int = 0) -> None:
        self.most = 0
        self._in_flight = 0
        self._slow = slow
        self._lock = threading.Lock()

    def requested(self, peer: Peer, request: Request) -> None:
        with self._lock:
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)

    def completed(self, peer: Peer, request: Request) -> None:
        if self._slow > 0:
            time.sleep(0.01)
        with self._lock:
            self._slow -= 1
            self._in_flight -= 1
        peer.answer(request, 201)


def test_concurrency_and_connections_are_those_of_all_together(folder: Path) -> None:
    script = Counting()
    with ScriptedServer(script) as server:
        options = ("--processes", "2", "--connections", "3", "--concurrency", "7")
        run = command.upload(folder, "--to", server.url, *options, code=command.SPREAD)
    assert run.code == 0
    assert run.report["connections"] == server.connections == 3, "two of the first process, one is left to the other"
    assert 2 <= script.most <= 7


#: A machine with an idle core and a first process that is busy, whatever else runs on it.
IDLE = (
    "from fastpost import cli, cores, portions, processes; "
    "cores.Cores.idle = lambda self: 1.0; portions._BUSY = processes._LASTS = 0; cli.main()"
)


def test_small_files_are_shared_once_cores_are_seen_to_be_idle(tmp_path: Path) -> None:
    """And the cores are the first process's again when the other one is done."""
    told = "from fastpost.uploader import Uploader; Uploader.allow_busy_poll = lambda self, may: print('awake', may); "
    for number in range(5000):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    script = Counting(slow=200)
    with ScriptedServer(script) as server:
        done = subprocess.run(
            [
                *(sys.executable, "-c", told + IDLE, "upload", str(tmp_path), "--to", server.url),
                *("--output-format", "json", "--processes", "2", "--connections", "2", "--concurrency", "8"),
            ],
            stdout=subprocess.PIPE,
            env=command.environment(),
            check=True,
        )
    *awake, report = done.stdout.decode().splitlines()
    assert json.loads(report)["files"]["ok"] == len(server.requests) == 5000
    assert (awake[0], awake[-1]) == ("awake False", "awake True")
    assert server.connections == 3, "two of the first process, which leaves one of them to the second"
    assert script.most <= 8


class Holding(Counting):
    """Takes its time for the first uploads; holds those on a third connection, a worker's, until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(slow=200)
        self.held = threading.Event()
        self.go_on = threading.Event()
        self._first: set[int] = set()

    def completed(self, peer: Peer, request: Request) -> None:
        if len(self._first) < 2:
            self._first.add(request.number)
        if request.number not in self._first:
            peer.flush()
            self.held.set()
            self.go_on.wait(60)
        super().completed(peer, request)


@contextlib.contextmanager
def joined(folder: Path, *options: str, code: str = IDLE) -> Iterator[tuple[subprocess.Popen[bytes], Holding]]:
    """A run of small files that a second process has joined: its uploads are not answered."""
    for number in range(5000):
        (folder / f"{number}").write_bytes(b"%d" % number)
    script = Holding()
    options = ("--processes", "2", "--connections", "2", "--concurrency", "8", *options)
    with running(folder, script, *options, code=code) as process:
        yield process, script


@contextlib.contextmanager
def running(folder: Path, script: Holding | Slow, *options: str, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """An upload to a server that holds some of it; at the end it goes on, and the process is gone."""
    with ScriptedServer(script) as server:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", code, "upload", str(folder), "--to", server.url),
                *("--output-format", "json", "--no-progress", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.environment(),
        )
        try:
            yield process
        finally:
            script.go_on.set()
            process.kill()
            process.communicate()


def test_one_that_joined_and_is_killed_is_told_and_its_files_fail_by_name(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    failures = tmp_path_factory.mktemp("failures") / "failures.ndjson"
    with joined(tmp_path, "--failures", str(failures)) as (process, script):
        assert script.held.wait(20)
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
        script.go_on.set()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"killed by SIGKILL" in err
    report = json.loads(out)
    records = [json.loads(line) for line in failures.read_text().splitlines()]
    assert {(record["error"], record["attempts"]) for record in records} == {("WorkerLost", 1)}
    assert report["files"]["failed"] == len({record["name"] for record in records}) > 0
    assert report["files"]["ok"] + len(records) == report["files"]["total"] == 5000
    assert report["connections"] == 3, "the one that was left to it is opened again; its own was not told yet"


def test_one_that_joined_and_is_told_to_stop_leaves_its_room(tmp_path: Path) -> None:
    with joined(tmp_path) as (process, script):
        assert script.held.wait(20)
        (child,) = children(process.pid)
        os.kill(child, signal.SIGTERM)
        script.go_on.set()
        out, err = process.communicate(timeout=20)
    assert process.returncode in (0, 1), err
    assert b"told to stop (SIGTERM), by somebody else" in err
    assert json.loads(out)["connections"] == 4, "two, that of the second process, and the one that was left to it again"


def test_one_that_joined_stops_with_the_run(tmp_path: Path) -> None:
    with joined(tmp_path) as (process, script):
        assert script.held.wait(20)
        (child,) = children(process.pid)
        os.kill(child, signal.SIGINT)  # the terminal's goes to both
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"stopping" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert json.loads(out)["files"]["failed"] > 0
    assert not alive(child)


def test_one_that_joined_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with joined(tmp_path) as (process, script):
        assert script.held.wait(20)
        (child,) = children(process.pid)
        process.kill()
        process.wait()
        until(lambda: not alive(child))


#: No process; and no descriptor for the module that talks to one.
NO_PROCESS = "import os\ndef none(*a, **k): raise BlockingIOError(11, 'no more')\nos.posix_spawn = none\n"
NO_MODULE = """
import sys
class NoMore:
    def find_spec(self, name, *where):
        if name == "fastpost.worker":
            raise OSError(24, "no more")
sys.meta_path.insert(0, NoMore())
"""


@pytest.mark.parametrize("none_left", [NO_PROCESS, NO_MODULE])
def test_where_no_process_can_join_the_others_go_on(tmp_path: Path, none_left: str) -> None:
    with joined(tmp_path, code=none_left + IDLE) as (process, script):
        script.go_on.set()
        out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    assert b"no further process could be started: no more" in err
    report = json.loads(out)
    assert report["files"]["ok"] == 5000
    assert report["connections"] == 3, "the one that was left to it is opened again"


def test_one_that_cannot_be_heard_ends_the_run_and_does_not_hang_it(tmp_path: Path) -> None:
    deaf = "from fastpost import workers\ndef deaf(self): raise RuntimeError('deaf')\nworkers.Worker.hear = deaf\n"
    with joined(tmp_path, code=deaf + IDLE) as (process, script):
        script.go_on.set()
        _, err = process.communicate(timeout=50)
    assert process.returncode not in (0, -9)
    assert b"deaf" in err


#: The second step of the walk is made for a worker, which is killed meanwhile; the run hears of that before it goes on.
DIES_WAITING = f"""{command.SPREADING}
import threading, time
from fastpost import portions, workers
from fastpost.__main__ import main
made, dead, take, walk_on, init = (
    [], threading.Event(), portions.Portions.take, portions.Portions._walk_on, workers.Worker.__init__
)
def known(self, *given):
    init(self, *given)
    made.append(self)
def late(self, process):
    if process == 0 and self._begun:
        dead.wait(20)
    return take(self, process)
def dying(self):
    if self._begun and not dead.is_set():
        made[0].kill()
        while not (made[0].done or self._gone):
            time.sleep(0.01)
        dead.set()
    walk_on(self)
workers.Worker.__init__, portions.Portions.take, portions.Portions._walk_on = known, late, dying
main()
"""


def test_files_that_are_found_for_one_that_is_gone_are_not_lost(tmp_path: Path) -> None:
    for number in range(200):  # folders: each step of the walk finds but some of them
        (tmp_path / f"{number}").mkdir()
        for name in ("a", "b"):
            with (tmp_path / f"{number}" / name).open("wb") as file:
                file.truncate(70_000)
    with running(tmp_path, Slow(10_000), "--processes", "2", code=DIES_WAITING) as process:
        out, err = process.communicate(timeout=50)
    files = json.loads(out)["files"]
    assert b"killed by SIGKILL" in err
    assert process.returncode == 1
    assert files["total"] == files["ok"] + files["failed"] == 400
    assert files["failed"] < 200, "what was found later is sent by the other one"


class Few(Counting):
    """Speaks to so many connections, and ends any further one at once."""

    def __init__(self, connections: int) -> None:
        super().__init__()
        self._connections = connections

    def accepts(self, number: int) -> bool:
        return number < self._connections


@pytest.mark.parametrize(("processes", "connections"), [(2, 1), (4, 2), (4, 3)])
def test_the_files_of_those_that_get_no_connection_are_for_the_others(
    folder: Path, processes: int, connections: int
) -> None:
    with ScriptedServer(Few(connections)) as server:
        options = ("--processes", str(processes), "--concurrency", "40", "--retry-delay", "0.05")
        run = command.upload(folder, "--to", server.url, *options, code=command.SPREAD)
    assert run.code == 0, run.report["errors"]
    assert run.files["ok"] == len(server.requests) == FILES
    assert run.told("one of the processes has no connection")


def test_failures_are_named_and_written_whichever_process_had_them(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Refusing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 403 if request.path.endswith("5.bin") else 201, b"not you")

    failures = tmp_path_factory.mktemp("failures") / "failures.ndjson"
    with ScriptedServer(Refusing()) as server:
        run = command.upload(
            folder, "--to", server.url, "--processes", "2", "--failures", failures, code=command.SPREAD
        )
    expected = {f"{number % 7}/{number:03}.bin" for number in range(5, FILES, 10)}
    assert run.code == 1
    assert run.errors == {"HttpStatus": len(expected)}
    records = [json.loads(line) for line in failures.read_text().splitlines()]
    assert {record["name"] for record in records} == expected
    assert all(record["status"] == 403 and "not you" in record["message"] for record in records)
    assert all(run.told(name, "not you") for name in expected)


def test_two_files_for_one_url_are_met_although_two_processes_have_them(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for number in range(20):
            (tmp_path / place / f"{number:02}").write_text(place)
    with ScriptedServer() as server:
        run = command.upload(tmp_path / "a", tmp_path / "b", "--to", server.url, "--processes", "2")
    assert run.code == 1
    assert run.errors == {"DuplicateTarget": 20}
    assert run.files == {"total": 40, "ok": 20, "failed": 20, "skipped": 0}
    assert len(server.requests) == 20


def test_responses_are_shown_by_the_parent_alone(folder: Path) -> None:
    with ScriptedServer() as server:
        run = command.run(
            "upload", folder, "--to", server.url, "--processes", "2", "--show-response", code=command.SPREAD
        )
    assert run.code == 0
    assert sum(line.startswith("201 PUT") for line in run.out.splitlines()) == FILES


def test_the_embedded_server_compares_what_all_of_them_sent(folder: Path) -> None:
    run = command.upload(folder, "--processes", "2", code=command.SPREAD)
    assert run.code == 0
    assert run.report["verified"] == FILES


def test_no_server_for_many_files_ends_it_too(tmp_path: Path) -> None:
    """More than are found before that is known: nobody waits for the rest."""
    for number in range(1500):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate(100_000)
    run = command.run("upload", tmp_path, "--to", "http://127.0.0.1:1/", "--processes", "3", "--retries", "0", limit=20)
    assert run.code == 4


def test_no_server_is_one_message_and_exit_code_4(folder: Path) -> None:
    run = command.run("upload", folder, "--to", "http://127.0.0.1:1/", "--processes", "2", "--retries", "0")
    assert run.code == 4
    assert sum("can't connect" in line for line in run.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (("--processes", "3", "--concurrency", "2"), "--concurrency 3"),
        (("--processes", "3", "--connections", "2"), "--connections 3"),
    ],
)
def test_too_little_to_share_out_is_refused_with_the_cure(folder: Path, options: tuple[str, ...], cure: str) -> None:
    run = command.upload(folder, "--to", "http://127.0.0.1:1/", *options)
    assert run.code == 2
    assert cure in run.err


ALONE = "from fastpost.__main__ import main; main()"


class Slow(Script):
    """Answers a few uploads, and then none on any connection until `go_on` is set."""

    def __init__(self, answered: int) -> None:
        self.left = answered
        self.waiting = 0
        self.go_on = threading.Event()
        self._lock = threading.Lock()

    def completed(self, peer: Peer, request: Request) -> None:
        with self._lock:
            self.left -= 1
            held = self.left < 0 and not self.go_on.is_set()
            self.waiting += held
        if held:
            peer.flush()
            self.go_on.wait(60)
        peer.answer(request, 201)


@pytest.fixture
def begun(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Slow]]:
    with begin(folder) as run:
        yield run


@contextlib.contextmanager
def begin(
    folder: Path, *options: str, at_work: int = 2, code: str = command.SPREAD
) -> Iterator[tuple[subprocess.Popen[bytes], Slow]]:
    """A run of three processes in the midst of its work: those that joined have uploads that are not answered."""
    script = Slow(40)
    with running(folder, script, "--processes", "3", "--concurrency", "20", *options, code=code) as process:
        until(lambda: script.waiting == at_work)
        yield process, script


def until(holds: object) -> None:
    deadline = time.monotonic() + 20
    assert callable(holds)
    while not holds():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """All of them, whichever thread has begun them."""
    told = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in told for child in children.split()]


def alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_two_signals_stop_all_of_them_and_the_report_is_one(
    begun: tuple[subprocess.Popen[bytes], Slow], folder: Path
) -> None:
    process, _ = begun
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    files = json.loads(out)["files"]
    assert files["ok"] <= 40, "answers may be on their way still"
    found = sum(path.is_file() for path in folder.rglob("*"))
    assert files["ok"] + files["failed"] == files["total"] == found, "what nobody had begun, too"
    assert not any(map(alive, workers))


def test_processes_that_are_not_needed_are_not_begun(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(b"x")
    with begin(tmp_path, at_work=1, code=ALONE) as (process, _):
        assert children(process.pid) == []
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"stopping" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    files = json.loads(out)["files"]
    assert files["ok"] <= 40, "answers may be on their way still"
    assert files["ok"] + files["failed"] == files["total"]


def test_workers_end_with_a_parent_that_was_killed(
    begun: tuple[subprocess.Popen[bytes], Slow],
) -> None:
    process, _ = begun
    workers = children(process.pid)
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, workers)))


def test_a_worker_that_is_killed_is_told_and_its_files_fail_by_name(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    failures = tmp_path_factory.mktemp("failures") / "failures.ndjson"
    with begin(folder, "--failures", str(failures)) as (process, script):
        first, second = children(process.pid)
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGTERM)
        os.kill(second, signal.SIGTERM)
        until(lambda: not alive(first) and not alive(second))
        script.go_on.set()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"killed by SIGKILL" in err
    assert b"told to stop" in err
    assert b"Traceback" not in err
    report = json.loads(out)
    records = [json.loads(line) for line in failures.read_text().splitlines()]
    lost = {record["name"] for record in records if record["error"] == "WorkerLost"}
    assert len(lost) == report["errors"]["WorkerLost"] > 0
    assert report["files"]["failed"] == len(records) == len({record["name"] for record in records})
    assert report["files"]["total"] == FILES
    assert report["files"]["ok"] + len(records) == FILES
