"""The run layer in this process: event loops, moments, peers that are no scripts, and what must be gone afterwards."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from h2.connection import ConnectionState
from h2.exceptions import StreamClosedError
from h2_judge import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, window_update
from integration.scripted import Peer, Script, ScriptedServer

from fastpost import Settings, Uploader, UploadResult
from fastpost._chunker import live_objects
from fastpost._table import live_attempts
from fastpost.connection import Connection
from fastpost.sources import Batch, Upload

HOST = "127.0.0.1"
#: Seconds after which a run is said to hang; nothing here takes a tenth of it.
WATCHDOG = 20.0
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

T = TypeVar("T")


def drive(main: Coroutine[Any, Any, T], loop: str = "uvloop") -> T:
    """Run to the end on a new event loop, and assert that nothing stays on it and no callback raised."""
    raised: list[object] = []

    async def watched() -> T:
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: raised.append(context.get("exception") or context))
        try:
            async with asyncio.timeout(WATCHDOG):
                return await main
        finally:
            await quiet()
            gone = asyncio.all_tasks() - {asyncio.current_task()}
            assert not gone, "tasks"
            if loop == "asyncio":
                scheduled: list[asyncio.TimerHandle] = running._scheduled  # type: ignore[attr-defined]
                assert not [timer for timer in scheduled if not timer.cancelled()], "timers"
            assert not raised, "a callback of the loop raised"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(watched())


async def quiet(turns: int = 20) -> None:
    """Let what is under way on the loop end: cancelled tasks need a few turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.fixture
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves an fd, a thread of the walk, a source, a mapping or an attempt."""
    uvloop.new_event_loop().close()  # the first one opens what stays
    gc.collect()
    fds, attempts, failed = _fds(), live_attempts(), request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return  # the report holds the frames of the failed test, and they hold what it opened
    for thread in threading.enumerate():
        if thread.name == "fastpost-walk":
            thread.join(WATCHDOG)
            assert not thread.is_alive(), "the walk"
    if _fds() != fds or live_attempts() > attempts or live_objects() != (0, 0):
        gc.collect()
    assert _fds() == fds, "fds"
    assert live_objects() == (0, 0), "sources, mappings"
    assert live_attempts() <= attempts, "attempts"


def _fds() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
    return sorted(found)


# --- what is uploaded -----------------------------------------------------------------------------


def files(folder: Path, count: int, size: int = 100) -> list[Upload]:
    """Write files of `size` octets, each with its own content, and return them as uploads."""
    uploads = []
    for number in range(count):
        name = f"{number:05}.bin"
        folder.joinpath(name).write_bytes(f"{number:05} ".encode() * (size // 6) + b"." * (size % 6))
        uploads.append(Upload(os.fsencode(folder / name), name.encode(), size))
    return uploads


def batches(uploads: Iterable[Upload], size: int = 256) -> Iterator[Batch]:
    """Return them as a walk would."""
    waiting = list(uploads)
    for at in range(0, len(waiting), size):
        batch = Batch()
        batch.uploads = waiting[at : at + size]
        yield batch


def contents(uploads: Iterable[Upload]) -> dict[str, bytes]:
    """Return what the server must have in the end."""
    return {"/" + upload.name.decode(): Path(os.fsdecode(upload.file)).read_bytes() for upload in uploads}


def uploader(url: str, **options: Any) -> Uploader:
    return Uploader(Settings(to=url, **{"retry_delay": 0.001, "connections": 1, **options}))


class Results:
    """Takes final results, and knows that each upload has exactly one."""

    def __init__(self) -> None:
        self.all: list[UploadResult] = []

    def __call__(self, results: list[UploadResult]) -> None:
        assert results, "nobody is told of nothing"
        self.all += results

    def failures(self) -> collections.Counter[str]:
        return collections.Counter(type(result.failure).__name__ for result in self.all if result.failure)

    def once(self, uploads: Iterable[Upload]) -> bool:
        """Tell whether each upload ended exactly once."""
        names = collections.Counter(result.upload.name for result in self.all)
        return names == collections.Counter(upload.name for upload in uploads)


# --- moments --------------------------------------------------------------------------------------


class Moment:
    """Acts at the n-th thing that happens on any connection, and a few turns of the loop later.

    Args:
        events: how many readable, writable and scheduled ticks go before.
        turns: how many turns of the loop more.
        act: what is done then, once.
    """

    def __init__(self, patch: pytest.MonkeyPatch, events: int, turns: int, act: Callable[[], object]) -> None:
        self._left = events
        self._turns = turns
        self._act = act
        self.came = False
        for name in ("_readable", "_writable", "_tick", "_establish"):
            patch.setattr(Connection, name, self._counted(getattr(Connection, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            result = method(*arguments)
            self._left -= 1
            if self._left < 0 and not self.came:
                self.came = True
                self._later(self._turns)
            return result

        return counted

    def _later(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._later, turns - 1)
        else:
            self._act()


# --- peers ----------------------------------------------------------------------------------------


class Server(ScriptedServer):
    """Forgives the script what it can't know: that the client ended the connection or stream in the same segment.

    What the client sends is judged before that.

    Args:
        script: what to do.
        instead: what is done with connections of these numbers instead; the socket is closed afterwards.
        options: as of ScriptedServer.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        instead: Mapping[int, Callable[[socket.socket], None]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(script, **options)
        self._instead = instead or {}

    def _serve(self, stream: socket.socket, number: int) -> None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if number in self._instead:
            with stream, contextlib.suppress(OSError):
                self._instead[number](stream)
        else:
            super()._serve(stream, number)

    def _take(self, peer: Peer, event: Any) -> None:
        if peer.h2.state_machine.state is ConnectionState.CLOSED:
            peer.drop()
        with contextlib.suppress(StreamClosedError):
            super()._take(peer, event)


# --- peers that are no scripts --------------------------------------------------------------------


class Raw:
    """A TCP peer that does what a function says with each connection.

    Args:
        serve: called on a thread with the accepted socket and its number; the socket is closed afterwards.
    """

    def __init__(self, serve: Callable[[socket.socket, int], None], family: int = socket.AF_INET) -> None:
        self._serve = serve
        self._listener = socket.create_server((HOST if family == socket.AF_INET else "::1", 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}/"
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Raw:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WATCHDOG)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                thread = threading.Thread(target=self._one, args=(stream, self.connections), daemon=True)
                self.connections += 1
                self._threads.append(thread)
                thread.start()

    def _one(self, stream: socket.socket, number: int) -> None:
        with stream, contextlib.suppress(OSError):
            self._serve(stream, number)


_NEVER = threading.Event()
_CREATED = b"\x88"  # HPACK: :status 200


class Answering:
    """Reads frames and answers each upload that is complete, after a pause for each read.

    Args:
        greeting: frames behind the server's first SETTINGS.
        credit: WINDOW_UPDATE by stream (0: the connection) for each DATA frame, after the pause.
        pause: seconds.
        piece: most octets of one read.
    """

    def __init__(self, *greeting: bytes, credit: str = "", pause: float = 0.0, piece: int = 65_536) -> None:
        self._greeting = greeting
        self._credit = credit
        self._pause = pause
        self._piece = piece

    def __call__(self, stream: socket.socket, _: int) -> None:
        # What lies in the kernel's buffers has left fastpost: little may.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        greet(stream, *self._greeting)
        octets = b""
        while got := stream.recv(self._piece):
            octets += got
            if self._pause:
                _NEVER.wait(self._pause)
            while len(octets) >= 9 and len(octets) >= (length := 9 + int.from_bytes(octets[:3], "big")):
                self._take(stream, octets[:length])
                octets = octets[length:]

    def _take(self, stream: socket.socket, one: bytes) -> None:
        kind, flags, stream_id = one[3], one[4], int.from_bytes(one[5:9], "big")
        if kind == DATA and len(one) > 9:
            if "stream" in self._credit and not flags & END_STREAM:
                stream.sendall(window_update(stream_id, len(one) - 9))
            if "connection" in self._credit:
                stream.sendall(window_update(0, len(one) - 9))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, _CREATED))


def greet(stream: socket.socket, *more: bytes) -> None:
    """Take the client's preface and send our SETTINGS, with more behind them in the same segment."""
    got = b""
    while len(got) < len(PREFACE):
        octets = stream.recv(len(PREFACE) - len(got))
        if not octets:
            return
        got += octets
    stream.sendall(frame(SETTINGS) + b"".join(more))


def await_requests(stream: socket.socket, count: int) -> None:
    """Read until so many requests have begun: what is said of a stream earlier is a violation."""
    octets = b""
    while count:
        while len(octets) < 9 or len(octets) < 9 + int.from_bytes(octets[:3], "big"):
            got = stream.recv(65_536)
            if not got:
                raise OSError("the client is gone")
            octets += got
        count -= octets[3] == HEADERS
        octets = octets[9 + int.from_bytes(octets[:3], "big") :]


def drain(stream: socket.socket) -> None:
    """Read until the client closes."""
    while stream.recv(65_536):
        pass
