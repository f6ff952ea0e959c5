"""The library: `upload` for scripts and `Uploader` for programs, against servers in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from in_process import (
    LOOPS,
    Moment,
    Results,
    Server,
    batches,
    contents,
    drive,
    files,
    quiet,
    uploader,
)
from in_process import nothing_leaks as nothing_leaks
from integration.scripted import Peer, Request, Script

import fastpost
from fastpost import Settings, Uploader, UploadResult, walk
from fastpost.errors import Interrupted, NothingMatched, NotRegularFile, TargetUnreachable, UsageError
from fastpost.sources import Batch, Rejected, Upload

pytestmark = pytest.mark.usefixtures("nothing_leaks")

MOMENTS = hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty files, three of them in folders, one empty."""
    files(tmp_path, 26, 5000)
    for name in ("a", "a/b", "c"):
        tmp_path.joinpath(name).mkdir()
        tmp_path.joinpath(name, "deep ü.txt").write_text(name)
    tmp_path.joinpath("empty").touch()
    return tmp_path


def of_folder(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix().replace(" ", "%20").replace("ü", "%C3%BC")
            found[f"/{name}"] = path.read_bytes()
    return found


# --- upload ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, os.fsencode, lambda path: [path], lambda path: (os.fsencode(path),)])
def test_one_path_of_any_kind(folder: Path, kind: Callable[[Path], Any]) -> None:
    with Server() as server:
        tally = fastpost.upload(kind(folder), server.url)
    assert server.bodies() == of_folder(folder)
    assert (tally.ok, tally.failed, tally.found) == (30, 0, 30)
    assert tally.payload == sum(len(body) for body in of_folder(folder).values())
    assert tally.sent > tally.payload
    assert tally.statuses == {201: 30}
    assert tally.latencies.total == 30
    assert tally.wasted == tally.retried == tally.replayed == tally.skipped == 0
    assert tally.connections == 1
    assert not tally.walking
    assert tally.finished >= tally.started > 0


def test_several_paths(folder: Path) -> None:
    with Server() as server:
        tally = fastpost.upload([folder / "a", str(folder / "c"), os.fsencode(folder / "empty")], server.url)
    # Both folders hold a file of this name.
    assert tally.errors == {"DuplicateTarget": 1}
    assert sorted(server.bodies()) == ["/b/deep%20%C3%BC.txt", "/deep%20%C3%BC.txt", "/empty"]


def test_options_reach_the_server(folder: Path) -> None:
    with Server() as server:
        fastpost.upload(
            folder, server.url + "in/{path}", method="POST", concurrency=2, connections=2, content_type="text/x",
            fields=(("X-One", "1"),), schedule="fifo", keep_responses=True,
        )  # fmt: skip
    assert {request.method for request in server.requests} == {"POST"}
    assert {(request.fields["x-one"], request.fields["content-type"]) for request in server.requests} == {
        ("1", "text/x")
    }
    assert server.connections == 2
    assert all(request.path.startswith("/in/") for request in server.requests)


def test_results_of_upload(folder: Path) -> None:
    results = Results()

    class Refusing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 403 if request.path == "/empty" else 200, b"because")

    with Server(Refusing()) as server:
        tally = fastpost.upload(folder, server.url, on_results=results)
    (refused,) = [result for result in results.all if not result.ok]
    assert refused.upload.name == b"empty"
    assert (refused.status, refused.body) == (403, b"because")
    assert tally.causes == {"HttpStatus 403": 1}
    assert tally.first_failures["HttpStatus 403"] == [("empty", str(refused.failure))]
    assert tally.statuses == {200: 29, 403: 1}


def test_links_are_followed_on_demand(tmp_path: Path) -> None:
    tmp_path.joinpath("real").mkdir()
    tmp_path.joinpath("up").mkdir()
    tmp_path.joinpath("real/file").write_bytes(b"1")
    tmp_path.joinpath("up/link").symlink_to("../real")
    tmp_path.joinpath("up/file").write_bytes(b"2")
    with Server() as server:
        assert fastpost.upload(tmp_path / "up", server.url).skipped == 1
        assert fastpost.upload(tmp_path / "up", server.url, follow_symlinks=True).ok == 2


def test_nothing_matched(tmp_path: Path) -> None:
    with Server() as server:
        with pytest.raises(NothingMatched):
            fastpost.upload(tmp_path, server.url)
        with pytest.raises(NothingMatched):
            fastpost.upload([], server.url)
    assert server.connections == 0


def test_what_can_not_be_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"upload\(\).*'speed'"):
        fastpost.upload(tmp_path, "http://store.example/", speed=9)
    with pytest.raises(UsageError, match="concurrency"):
        fastpost.upload(tmp_path, "http://store.example/", concurrency=0)
    with pytest.raises(UsageError):
        fastpost.upload(tmp_path, "store.example")
    with pytest.raises(UsageError, match="missing"):
        fastpost.upload(tmp_path / "missing", "http://store.example/")
    with pytest.raises(UsageError):
        Uploader(Settings(to="http://store.example/{nonsense}"))


def test_upload_inside_a_running_loop(folder: Path) -> None:
    """A script's function in a program's loop: it says so and does nothing, and no coroutine is left over."""

    async def main() -> None:
        fastpost.upload(folder, "http://127.0.0.1:9/")

    with pytest.raises((UsageError, RuntimeError)):
        drive(main())


def test_upload_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    tmp_path.joinpath("file").write_bytes(b"1")
    with Server() as server:
        tally = fastpost.upload(tmp_path, server.url)
    assert tally.errors == {"NotRegularFile": 1}
    assert tally.ok == 1


def test_unreachable() -> None:
    with pytest.raises(TargetUnreachable):
        fastpost.upload(__file__, "http://127.0.0.1:1/", retries=0)


# --- Uploader.run ---------------------------------------------------------------------------------


@LOOPS
def test_two_runs_in_sequence_add_up(tmp_path: Path, loop: str) -> None:
    uploads = files(tmp_path, 40, 3000)

    async def main() -> None:
        client = uploader(server.url)
        await client.run(batches(uploads[:30]))
        first = client.tally.sent
        await client.run(batches(uploads[30:]))
        tally = client.tally
        assert tally.ok == 40
        assert tally.payload == 40 * 3000
        assert tally.sent >= tally.payload
        assert tally.sent > first
        assert tally.connections == 2

    with Server() as server:
        drive(main(), loop)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    uploads = files(tmp_path, 10)

    async def main() -> None:
        client = uploader(server.url)
        running = asyncio.create_task(client.run(batches(uploads)))
        await asyncio.sleep(0)
        with pytest.raises(UsageError):
            await client.run(batches(uploads))
        with pytest.raises(UsageError):
            async for _ in client.results(batches(uploads)):
                raise AssertionError
        await running
        assert client.tally.ok == 10
        await client.run(batches(uploads))
        assert client.tally.ok == 20

    with Server() as server:
        drive(main())


def test_rejected_files_are_told(tmp_path: Path) -> None:
    (upload,) = files(tmp_path, 1)
    batch = Batch()
    batch.uploads = [upload]
    batch.rejected = [Rejected(b"pipe", b"/pipe", NotRegularFile("no"))]
    batch.skipped = 3
    told: list[Rejected] = []

    async def main() -> None:
        client = uploader(server.url)
        await client.run([batch], on_rejected=told.extend)
        assert (client.tally.found, client.tally.ok, client.tally.failed, client.tally.skipped) == (2, 1, 1, 3)

    with Server() as server:
        drive(main())
    assert told == batch.rejected


@LOOPS
@pytest.mark.parametrize("after", [0, 1, 5])
def test_walk_that_raises(tmp_path: Path, loop: str, after: int) -> None:
    uploads = files(tmp_path, 100)

    class Trouble(Exception):
        pass

    def walking() -> Iterator[Batch]:
        for number, batch in enumerate(batches(uploads, 10)):
            if number == after:
                raise Trouble
            yield batch

    async def main() -> None:
        client = uploader(server.url)
        with pytest.raises(Trouble):
            await client.run(walking())
        assert not client.tally.walking

    with Server() as server:
        drive(main(), loop)


def test_callback_that_raises(tmp_path: Path) -> None:
    """What the caller's function raises comes out of `run`; it neither vanishes nor hangs the run."""
    uploads = files(tmp_path, 30)

    class Trouble(Exception):
        pass

    def raising(results: object) -> None:
        raise Trouble

    async def main() -> None:
        with pytest.raises(Trouble):
            await uploader(server.url).run(batches(uploads), raising)
        rejecting = Batch()
        rejecting.rejected = [Rejected(b"pipe", b"/pipe", NotRegularFile("no"))]
        with pytest.raises(Trouble):
            await uploader(server.url).run([rejecting], None, raising)

    with Server() as server:
        drive(main())


def test_run_ends_while_connections_are_being_opened(tmp_path: Path) -> None:
    """Nothing is left of those that came too late."""
    uploads = files(tmp_path, 3)

    async def main() -> None:
        for _ in range(20):
            client = uploader(server.url, connections=4)
            await client.run(batches(uploads))
            assert client.tally.ok == 3
            assert not asyncio.all_tasks() - {asyncio.current_task()}

    with Server() as server:
        drive(main())


# --- results --------------------------------------------------------------------------------------


@LOOPS
def test_results_as_they_come(tmp_path: Path, loop: str) -> None:
    uploads = files(tmp_path, 200)

    async def main() -> None:
        results = Results()
        client = uploader(server.url, concurrency=7)
        async for result in client.results(batches(uploads)):
            results([result])
            assert len(results.all) <= client.tally.ok
        assert results.once(uploads)

    with Server() as server:
        drive(main(), loop)
    assert server.bodies() == contents(uploads)


def test_first_result_comes_while_the_walk_goes_on(tmp_path: Path) -> None:
    uploads = files(tmp_path, 20)
    seen = threading.Event()

    def walking() -> Iterator[Batch]:
        yield from batches(uploads[:10])
        assert seen.wait(20)
        yield from batches(uploads[10:])

    async def main() -> None:
        count = 0
        async for _ in uploader(server.url).results(walking()):
            seen.set()
            count += 1
        assert count == 20

    with Server() as server:
        drive(main())


def test_slow_consumer_holds_the_upload_back(tmp_path: Path) -> None:
    """Until it takes results, neither the walk nor the server sees more than a bounded part of an endless tree."""
    (upload,) = files(tmp_path, 1, 1)
    walked = 0

    def endless() -> Iterator[Batch]:
        nonlocal walked
        while True:
            batch = Batch()
            batch.uploads = [upload] * 256
            walked += 256
            yield batch

    async def main() -> None:
        client = uploader(server.url + "inbox", concurrency=50)
        iterator = client.results(endless())
        await anext(iterator)
        while client.tally.ok <= 4096:
            await asyncio.sleep(0)
        await quiet(5000)
        assert client.tally.ok <= 4096 + 8 * 50
        assert walked <= client.tally.ok + 3000
        assert len(server.requests) <= client.tally.ok + 100
        for _ in range(5000):
            await anext(iterator)
        await aclose(iterator)

    with Server() as server:
        drive(main())


async def aclose(iterator: AsyncIterator[UploadResult]) -> None:
    await iterator.aclose()  # type: ignore[attr-defined]


@LOOPS
@pytest.mark.parametrize("take", [0, 1, 10])
def test_break_cancels_the_run(tmp_path: Path, loop: str, take: int) -> None:
    uploads = files(tmp_path, 600)

    async def main() -> None:
        client = uploader(server.url, concurrency=3)
        left = take
        async for _ in client.results(batches(uploads)):
            if left == 0:
                break
            left -= 1
        await quiet()
        assert not client.stopping
        assert client._run is None
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    with Server() as server:
        drive(main(), loop)
    assert len(server.requests) < 600


def test_exception_of_the_consumer_cancels_the_run(tmp_path: Path) -> None:
    uploads = files(tmp_path, 500)

    async def main() -> None:
        client = uploader(server.url, concurrency=3)
        async with contextlib.aclosing(client.results(batches(uploads))) as results:  # type: ignore[type-var]
            with pytest.raises(ZeroDivisionError):
                async for _ in results:
                    raise ZeroDivisionError
        assert client._run is None

    with Server() as server:
        drive(main())
    assert len(server.requests) < 500


def test_results_of_an_unreachable_target(tmp_path: Path) -> None:
    uploads = files(tmp_path, 3)

    async def main() -> None:
        failures = []
        with pytest.raises(TargetUnreachable):
            async for result in uploader("http://127.0.0.1:1/", retries=0).results(batches(uploads)):
                failures.append(result.failure)
        assert all(isinstance(failure, TargetUnreachable) for failure in failures)

    drive(main())


# --- cancellation ---------------------------------------------------------------------------------


class Slow(Script):
    """Refuses some, resets some, and never answers some before the client says something else."""

    def completed(self, peer: Peer, request: Request) -> None:
        """Do as the number of the stream says."""
        match request.stream_id % 16:
            case 1:
                peer.reset(request, 7)
            case 3:
                peer.answer(request, 503)
            case 5:
                peer.reset(request, 2)
            case _:
                peer.answer(request, 201)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@given(events=st.integers(0, 60), turns=st.integers(0, 8), connections=st.integers(1, 3))
@MOMENTS
def test_cancelled_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, loop: str, events: int, turns: int, connections: int
) -> None:
    uploads = _some(tmp_path_factory)
    results = Results()

    async def main() -> None:
        client = uploader(server.url, concurrency=6, connections=connections)
        running = asyncio.create_task(client.run(batches(uploads, 50), results))
        with pytest.MonkeyPatch.context() as patch:
            moment = Moment(patch, events, turns, running.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await running
        if running.cancelled():
            assert moment.came
        else:
            assert results.once(uploads)
        names = [result.upload.name for result in results.all]
        assert len(names) == len(set(names))
        assert not asyncio.all_tasks() - {asyncio.current_task()}
        ended = len(results.all)
        await quiet()
        assert len(results.all) == ended

    with Server(Slow()) as server:
        drive(main(), loop)
    # The server's threads are joined: no connection was left open.


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@given(
    events=st.integers(0, 60), turns=st.integers(0, 8), connections=st.integers(1, 3), grace=st.sampled_from([0, 60])
)
@MOMENTS
def test_stopped_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, loop: str, events: int, turns: int, connections: int, grace: float
) -> None:
    """Each file that was found ends exactly once, and what was done is done."""
    uploads = _some(tmp_path_factory)
    results = Results()

    async def main() -> None:
        client = uploader(server.url, concurrency=6, connections=connections)
        with pytest.MonkeyPatch.context() as patch:
            Moment(patch, events, turns, lambda: client.stop(grace))
            await client.run(batches(uploads, 50), results)
        tally = client.tally
        names = [result.upload.name for result in results.all]
        assert len(names) == len(set(names)) == tally.found == tally.ok + tally.failed
        assert not client.stopping
        assert tally.ok == sum(1 for result in results.all if result.ok)

    with Server(Slow()) as server:
        drive(main(), loop)


def _some(factory: pytest.TempPathFactory) -> list[Upload]:
    """Return the same hundred and fifty files each time; one in ten is larger than a window."""
    folder = factory.getbasetemp() / "some"
    if not folder.exists():
        folder.mkdir()
        for number, upload in enumerate(files(folder, 150)):
            if number % 10 == 0:
                Path(os.fsdecode(upload.file)).write_bytes(bytes(150_000))
    return [Upload(os.fsencode(path), path.name.encode()) for path in sorted(folder.iterdir())]


# --- stop -----------------------------------------------------------------------------------------


class Holding(Script):
    """Answers nothing until told, and says when `streams` requests are complete."""

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self.full = threading.Event()
        self.go = threading.Event()

    def completed(self, peer: Peer, request: Request) -> None:
        """Wait with the last one."""
        if sum(one.ended for one in peer.requests.values()) == self._streams:
            self.full.set()
            if self.go.wait(20):
                for one in peer.requests.values():
                    peer.answer(one, 201)


@LOOPS
def test_stop_lets_finish_what_is_in_flight(tmp_path: Path, loop: str) -> None:
    uploads = files(tmp_path, 500)
    script = Holding(5)
    results = Results()

    async def main() -> None:
        client = uploader(server.url, concurrency=5)
        running = asyncio.create_task(client.run(batches(uploads), results))
        await asyncio.to_thread(script.full.wait, 20)
        client.stop(grace=1000.0)
        assert client.stopping
        interrupted = results.failures()["Interrupted"]
        assert interrupted == len(results.all) == client.tally.found - 5
        script.go.set()
        await running
        assert not client.stopping
        assert client.tally.ok == 5
        assert results.failures() == {"Interrupted": client.tally.found - 5}

    with Server(script) as server:
        drive(main(), loop)
    names = [result.upload.name for result in results.all]
    assert len(names) == len(set(names))
    assert len(server.requests) == 5


@LOOPS
@pytest.mark.parametrize("how", ["grace of 0", "second stop", "grace over"])
def test_stop_at_once(tmp_path: Path, loop: str, how: str) -> None:
    uploads = files(tmp_path, 300)
    script = Holding(5)
    results = Results()

    async def main() -> None:
        client = uploader(server.url, concurrency=5)
        running = asyncio.create_task(client.run(batches(uploads), results))
        await asyncio.to_thread(script.full.wait, 20)
        if how == "second stop":
            client.stop(1000.0)
            client.stop(1000.0)
        else:
            client.stop(0.0 if how == "grace of 0" else 0.001)
        script.go.set()
        await running
        assert client.tally.found == client.tally.failed + client.tally.ok
        if how != "grace over":
            assert client.tally.ok == 0
            assert results.failures() == {"Interrupted": client.tally.found}
        failure = next(result.failure for result in results.all if result.failure)
        assert isinstance(failure, Interrupted)

    script.go.clear()
    with Server(script) as server:
        drive(main(), loop)


def test_stop_while_the_walk_blocks(tmp_path: Path) -> None:
    """A dead network drive does not keep the user from stopping."""
    uploads = files(tmp_path, 5)
    never = threading.Event()
    done = threading.Event()

    def blocking() -> Iterator[Batch]:
        yield from batches(uploads)
        never.wait(20)
        yield from batches(uploads)

    def all_done(results: list[UploadResult]) -> None:
        seen.extend(results)
        if len(seen) == 5:
            done.set()

    seen: list[UploadResult] = []

    async def main() -> None:
        client = uploader(server.url)
        running = asyncio.create_task(client.run(blocking(), all_done))
        await asyncio.to_thread(done.wait, 20)
        client.stop()
        await running
        assert client.tally.ok == client.tally.found == 5
        never.set()

    with Server() as server:
        drive(main())


def test_stop_while_nothing_can_be_reached(tmp_path: Path) -> None:
    uploads = files(tmp_path, 5)
    results = Results()

    async def main() -> None:
        client = uploader("http://127.0.0.1:1/", retries=1000, retry_delay=1000.0)
        running = asyncio.create_task(client.run(batches(uploads), results))
        while not client.tally.found:
            await asyncio.sleep(0)
        await quiet(100)
        client.stop()
        await running
        assert results.failures() == {"Interrupted": 5}

    drive(main())


def test_stop_while_a_retry_waits(tmp_path: Path) -> None:
    uploads = files(tmp_path, 1)
    asked = threading.Event()
    results = Results()

    class Later(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 503, retry_after="3000")
            asked.set()

    async def main() -> None:
        client = uploader(server.url)
        running = asyncio.create_task(client.run(batches(uploads), results))
        while not client.tally.wasted:
            await asyncio.sleep(0)
        client.stop()
        await running
        assert results.failures() == {"Interrupted": 1}
        assert client.tally.retried == 1

    with Server(Later()) as server:
        drive(main())
    assert len(server.requests) == 1


@pytest.mark.parametrize("grace", [0.0, 60.0])
@pytest.mark.parametrize("when", ["result", "rejected", "duplicate"])
def test_stop_from_a_callback(tmp_path: Path, when: str, grace: float) -> None:
    """What a limit on failures does: the callback itself stops the run."""
    uploads = files(tmp_path, 100)
    results = Results()

    def first(results_of_now: list[UploadResult]) -> None:
        results(results_of_now)
        if when == "result" or any(result.failure for result in results_of_now):
            client.stop(grace)

    batch = Batch()
    batch.uploads = uploads
    if when == "rejected":
        batch.rejected = [Rejected(b"pipe", b"/pipe", NotRegularFile("no"))]
    if when == "duplicate":
        batch.uploads = [*uploads, uploads[0]]

    async def main() -> None:
        await client.run([batch], first, lambda rejected: client.stop(grace))
        assert client.tally.found == client.tally.ok + client.tally.failed
        assert len(results.all) == len(batch.uploads)

    with Server() as server:
        client = uploader(server.url, concurrency=4)
        drive(main())


def test_stop_without_a_run() -> None:
    client = uploader("http://store.example/")
    client.stop()
    assert not client.stopping


def test_walk_in_the_middle_of_a_folder_is_closed(tmp_path: Path) -> None:
    """A cancelled run leaves no folder open."""
    files(tmp_path, 600, 6)

    async def main() -> None:
        client = uploader(server.url, concurrency=1)
        async for _ in client.results(walk([tmp_path], batch=16)):
            break
        await quiet()

    with Server() as server:
        drive(main())


# --- digests --------------------------------------------------------------------------------------


class ChangedOnce(Script):
    """Changes a file when another one is complete: its digest is computed by then, and nothing of it is sent."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def completed(self, peer: Peer, request: Request) -> None:
        if request.path == "/00000.bin":
            self._file.write_bytes(b"changed meanwhile")
        peer.answer(request, 201)


def test_stop_gives_up_what_waits_for_a_new_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastpost.digest import Digester

    uploads = files(tmp_path, 3)
    go_on, results = threading.Event(), Results()
    real = Digester.again

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again(digester: Digester, upload: Upload) -> Any:
            loop.call_soon_threadsafe(client.stop)
            go_on.wait()
            return real(digester, upload)

        monkeypatch.setattr(Digester, "again", again)
        try:
            await client.run(batches(uploads), results)
        finally:
            go_on.set()

    with Server(ChangedOnce(Path(os.fsdecode(uploads[-1].file)))) as server:
        client = uploader(server.url, digest="sha-256", concurrency=1)
        drive(main())
    assert results.once(uploads)
    assert results.failures() == {"Interrupted": 1}


def test_a_changed_file_that_vanishes_before_its_new_digest_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastpost.digest import Digester

    uploads, results = files(tmp_path, 3), Results()
    file = Path(os.fsdecode(uploads[-1].file))
    real = Digester.again

    def again(digester: Digester, upload: Upload) -> Any:
        file.unlink()
        return real(digester, upload)

    monkeypatch.setattr(Digester, "again", again)
    with Server(ChangedOnce(file)) as server:
        client = uploader(server.url, digest="sha-256", concurrency=1, retry_delay=0.0)
        drive(client.run(batches(uploads), results))
    assert results.once(uploads)
    assert results.failures() == {"FileVanished": 1}
    assert client.tally.ok == 2


def test_a_fault_in_computing_a_new_digest_comes_out_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastpost.digest import Digester

    def again(_digester: Digester, _upload: Upload) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(Digester, "again", again)
    uploads = files(tmp_path, 3)
    with Server(ChangedOnce(Path(os.fsdecode(uploads[-1].file)))) as server:
        client = uploader(server.url, digest="sha-256", concurrency=1)
        with pytest.raises(RuntimeError, match="broken"):
            drive(client.run(batches(uploads)))
