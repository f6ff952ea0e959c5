"""One run: order, limits over all connections, and what follows each failure; every peer is in this process."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.events
import pytest
from h2.settings import SettingCodes
from h2_judge import END_HEADERS, END_STREAM, HEADERS, frame, goaway, settings_frame, window_update
from in_process import (
    LOOPS,
    Answering,
    Raw,
    Results,
    Server,
    await_requests,
    batches,
    contents,
    drain,
    drive,
    files,
    greet,
    uploader,
)
from in_process import nothing_leaks as nothing_leaks
from integration.scripted import Peer, Request, Script

from bench.relay import Relay
from fastpost.errors import (
    ConnectFailed,
    ServerOverloaded,
    TargetUnreachable,
)
from fastpost.sources import Batch, Upload, walk

pytestmark = pytest.mark.usefixtures("nothing_leaks")

REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11
#: Never set: to wait on it is to sleep.
_NEVER = threading.Event()


async def run(url: str, uploads: list[Upload], results: Results | None = None, **options: Any) -> Any:
    """Upload, and return the tally; each upload must have ended exactly once."""
    results = Results() if results is None else results
    client = uploader(url, **options)
    await client.run(batches(uploads), results)
    assert results.once(uploads)
    tally = client.tally
    assert tally.ok + tally.failed == tally.found == len(uploads)
    assert tally.sent >= tally.payload + tally.wasted - sum(r.payload for r in results.all if r.failure)
    return tally


# --- the limit on streams -------------------------------------------------------------------------


class Counting(Script):
    """Knows the most requests that ever were unanswered, over all connections."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0
        self._lock = threading.Lock()

    def requested(self, peer: Peer, request: Request) -> None:
        """Count it."""
        with self._lock:
            self.open += 1
            self.most = max(self.most, self.open)

    def completed(self, peer: Peer, request: Request) -> None:
        """Answer it."""
        with self._lock:
            self.open -= 1
        peer.answer(request, 201)


@LOOPS
@pytest.mark.parametrize(("connections", "concurrency"), [(1, 7), (2, 7), (4, 8), (3, 3), (5, 2)])
def test_concurrency_is_a_limit_over_all_connections(
    tmp_path: Path, loop: str, connections: int, concurrency: int
) -> None:
    uploads = files(tmp_path, 300)
    script = Counting()
    with Server(script) as server:
        drive(run(server.url, uploads, connections=connections, concurrency=concurrency), loop)
    assert script.most <= concurrency
    assert server.connections == min(connections, concurrency)
    assert server.bodies() == contents(uploads)


@pytest.mark.parametrize("streams", [1, 4, 5, 6])
def test_few_streams_are_kept_busy_with_digests_too(tmp_path: Path, streams: int) -> None:
    """Which are to be computed shortly before: the line is short then, but never empty."""
    uploads = files(tmp_path, 60)
    script = Counting()
    with Server(script, max_concurrent_streams=streams) as server:
        drive(run(server.url, uploads, concurrency=10, digest="sha-256"))
    assert script.most == streams
    assert server.bodies() == contents(uploads)


class Together(Script):
    """Answers nothing before all of its connections are there."""

    def __init__(self, connections: int) -> None:
        self._connections = threading.Barrier(connections)
        self._greeted: set[int] = set()
        self.numbers: collections.Counter[int] = collections.Counter()

    def arrived(self, peer: Peer) -> None:
        """Called when the client has taken a connection's SETTINGS."""
        if peer.number not in self._greeted:
            self._greeted.add(peer.number)
            self._connections.wait(20)

    def completed(self, peer: Peer, request: Request) -> None:
        """Answer."""
        self.numbers[peer.number] += 1
        peer.answer(request, 201)


def test_each_connection_gets_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = files(tmp_path, 300)
    script = Together(4)
    take = Server._take

    def greeted(server: Server, peer: Peer, event: Any) -> None:
        if isinstance(event, h2.events.SettingsAcknowledged):
            script.arrived(peer)
        take(server, peer, event)

    monkeypatch.setattr(Server, "_take", greeted)
    with Server(script) as server:
        tally = drive(run(server.url, uploads, connections=4, concurrency=12))
    assert tally.ok == 300
    assert tally.connections == server.connections == 4
    assert min(script.numbers[number] for number in range(4)) >= 3


def test_concurrency_holds_while_a_connection_drains(tmp_path: Path) -> None:
    """The server has promised what is open there, and that is as much work for it as ever."""
    uploads = files(tmp_path, 40)
    most = 0
    lock = threading.Lock()
    unanswered: set[Request] = set()
    left: list[Request] = []

    class Leaving(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            nonlocal most
            with lock:
                unanswered.add(request)
                most = max(most, len(unanswered))

        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number:
                self._answer(peer, request)
                return
            left.append(request)
            if len(left) == 4:
                peer.goaway(max(peer.requests))
                # One after the other, and what the client begins elsewhere meanwhile shows.
                for one in left:
                    self._answer(peer, one)
                    peer.flush()

        def _answer(self, peer: Peer, request: Request) -> None:
            with lock:
                unanswered.discard(request)
            peer.answer(request, 201)

    with Server(Leaving()) as server:
        tally = drive(run(server.url, uploads, concurrency=4))
    assert tally.ok == 40
    assert most <= 4
    assert len(server.requests) == 40


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_new_stream_while_all_are_on_a_draining_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """The draining connection answers once the new one has been asked for anything, or has proved that it is not."""
    uploads = files(tmp_path, concurrency + 8)
    early: list[str] = []
    promised: list[Request] = []
    drained = threading.Event()
    second = threading.Event()

    class Leaving(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number == 0:
                promised.append(request)
                if len(promised) == concurrency:
                    peer.goaway(max(peer.requests))
                    assert second.wait(20)
                    drained.set()
                    for one in promised:
                        peer.answer(one, 201)
                return
            peer.answer(request, 201)

        def requested(self, peer: Peer, request: Request) -> None:
            if peer.number and not drained.is_set():
                early.append(request.path)
                second.set()

    take = Server._take

    def taken(server: Server, peer: Peer, event: Any) -> None:
        """Let the first connection go on when the second has answered PING: by then it would have had a request."""
        if peer.number and isinstance(event, h2.events.SettingsAcknowledged):
            peer.h2.ping(b"anything")
        if peer.number and isinstance(event, h2.events.PingAckReceived):
            second.set()
        take(server, peer, event)

    monkeypatch.setattr(Server, "_take", taken)
    with Server(Leaving()) as server:
        drive(run(server.url, uploads, concurrency=concurrency))
    assert early == []


def test_concurrency_holds_after_a_connection_was_lost(tmp_path: Path) -> None:
    """The survivors took over its share; the connection in its place waits until they gave it back."""
    uploads = files(tmp_path, 400)
    lock = threading.Lock()
    unanswered: set[Request] = set()
    most = 0

    class Losing(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            nonlocal most
            with lock:
                unanswered.add(request)
                most = max(most, len(unanswered))

        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number == 0 and len(peer.requests) > 20:
                with lock:
                    unanswered.difference_update(peer.requests.values())
                peer.drop()
            with lock:
                unanswered.discard(request)
            peer.answer(request, 201)

    with Server(Losing()) as server:
        tally = drive(run(server.url, uploads, connections=3, concurrency=6))
    assert tally.ok == 400
    assert most <= 6
    assert server.bodies() == contents(uploads)


def test_a_run_that_is_stopped_where_a_redirect_has_just_led_elsewhere(tmp_path: Path) -> None:
    """The run there begins with the next turn of the loop; what waits for it is given up all the same."""

    class Leading(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if len(peer.requests) == 20:
                for number, one in enumerate(peer.requests.values()):
                    peer.answer(one, 307 if number % 2 else 507, location=f"{other.url}{number}")

    results = Results()

    async def main(url: str, uploads: list[Upload]) -> None:
        client = uploader(url, location=True, concurrency=20)

        def stop(some: list[Any]) -> None:
            results(some)
            if any(one.status == 507 for one in some):
                client.stop()

        await client.run(batches(uploads), stop)

    uploads = files(tmp_path, 20)
    with Server() as other, Server(Leading()) as server:
        drive(main(server.url, uploads))
    assert results.once(uploads)
    assert results.failures()["HttpStatus"] == 10


# --- GOAWAY ---------------------------------------------------------------------------------------


class Leaving:
    """Says GOAWAY behind four requests, answers them late, and has meanwhile nothing for whoever connects anew."""

    def __init__(self, *, refusals: int, late: float) -> None:
        self.refusals = refusals
        self._late = late
        self.tries = 0
        self._answer = Answering()

    def __call__(self, stream: socket.socket, number: int) -> None:
        if number == 0:
            greet(stream, settings_frame({3: 4}))
            await_requests(stream, 4)
            stream.sendall(goaway(7))
            time.sleep(self._late)
            stream.sendall(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, one, b"\x88") for one in (1, 3, 5, 7)))
            drain(stream)
        elif self.tries < self.refusals:
            self.tries += 1
        else:
            self._answer(stream, number)


@pytest.mark.parametrize(("retries", "connections"), [(0, 1), (3, 1), (0, 4)])
def test_a_server_that_goes_away_slowly_is_not_hammered(tmp_path: Path, retries: int, connections: int) -> None:
    """Connection after connection fails while the first one still drains: once it is gone, what is left has one try."""
    leaving = Leaving(refusals=10**6, late=2.5)
    results = Results()
    with Raw(leaving) as server:
        options = {"retries": retries, "connections": connections, "concurrency": 16}
        drive(run(server.url, files(tmp_path, 30), results, **options))
    assert results.failures() == {"ConnectFailed": 26}
    most = 4 * (retries + 1) * connections
    assert leaving.tries <= most + connections, "at first, at once, after a second, two more, and when it was gone"


def test_nor_are_uploads_lost_that_it_takes_when_it_is_back(tmp_path: Path) -> None:
    with Raw(Leaving(refusals=1, late=2.0)) as server:
        assert not drive(run(server.url, files(tmp_path, 30), retries=0)).failed


def test_auto_may_grow_though_none_was_to_be_had_while_the_first_one_drained(tmp_path: Path) -> None:
    """That is no sign that the server lets us have only one: there was none."""
    leaving = Leaving(refusals=1, late=0.3)
    slow = Answering(settings_frame({3: 1}), pause=0.02)

    def serve(stream: socket.socket, number: int) -> None:
        (leaving if leaving.tries == 0 else slow)(stream, number)

    with Raw(serve) as server:
        tally = drive(run(server.url, files(tmp_path, 80), retries=0, connections="auto"))
    assert not tally.failed
    assert server.connections > 3, "the first, the one refused, the one in its place: and more, for more streams"


class Every(Script):
    """Ends each connection after so many requests, as nginx does with keepalive_requests.

    Args:
        requests: that are processed on one connection.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests

    def requested(self, peer: Peer, request: Request) -> None:
        """Say goodbye."""
        if len(peer.requests) == self._requests:
            peer.goaway(request.stream_id)

    def received(self, peer: Peer, request: Request, octets: int) -> None:
        """Nobody credits what is dropped."""
        if self._promised(request):
            peer.credit(request, octets)

    def completed(self, peer: Peer, request: Request) -> None:
        """Answer what was promised."""
        if self._promised(request):
            peer.answer(request, 201)

    def _promised(self, request: Request) -> bool:
        return request.stream_id < 2 * self._requests


@pytest.mark.parametrize(
    ("loop", "connections", "count"), [("uvloop", 1, 2000), ("uvloop", 3, 400), ("asyncio", 1, 400)]
)
def test_thousands_of_files_with_a_goaway_every_seven_requests(
    tmp_path: Path, loop: str, connections: int, count: int
) -> None:
    uploads = files(tmp_path, count)
    with Server(Every(7)) as server:
        tally = drive(run(server.url, uploads, connections=connections, concurrency=7, retries=0), loop)
    assert tally.ok == count
    assert tally.retried == 0
    assert server.bodies() == contents(uploads)


def test_goaway_every_seven_requests_of_fifty(tmp_path: Path) -> None:
    """Each connection does some work, so a file that was not reached yet has not used up its chances."""
    uploads = files(tmp_path, 350)
    with Server(Every(7)) as server:
        tally = drive(run(server.url, uploads, concurrency=50, retries=0))
    assert tally.errors == {}
    assert tally.ok == 350
    assert server.bodies() == contents(uploads)


def test_replays_keep_the_order_and_go_first(tmp_path: Path) -> None:
    uploads = files(tmp_path, 60)

    class Leaving(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            if peer.number == 0 and len(peer.requests) == 10:
                peer.goaway(0)

        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number:
                peer.answer(request, 201)

    with Server(Leaving()) as server:
        tally = drive(run(server.url, uploads, concurrency=10))
    assert tally.replayed == 10
    second = [request.path for request in server.requests if request.number == 1]
    assert second == [f"/{upload.name.decode()}" for upload in uploads]


def test_refused_streams_are_replayed_in_order(tmp_path: Path) -> None:
    uploads = files(tmp_path, 12)
    refused: set[str] = set()

    class Refusing(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            """All in one segment, when the last has come."""
            if len(peer.requests) == 12:
                for one in list(peer.requests.values()):
                    refused.add(one.path)
                    peer.reset(one, REFUSED_STREAM)

        def completed(self, peer: Peer, request: Request) -> None:
            if len(peer.requests) > 12:
                peer.answer(request, 201)

    with Server(Refusing()) as server:
        drive(run(server.url, uploads, concurrency=12))
    paths = [request.path for request in server.requests]
    assert paths[12:] == paths[:12]


def test_goaway_at_once_for_ever_ends(tmp_path: Path) -> None:
    """A server that is going down says SETTINGS and GOAWAY to everyone; nothing hangs, and nobody is hammered."""
    uploads = files(tmp_path, 5)

    def leave(stream: socket.socket, _: int) -> None:
        greet(stream, goaway(0))
        drain(stream)

    results = Results()
    with Raw(leave) as server:
        with contextlib.suppress(TargetUnreachable):
            drive(run(server.url, uploads, results, retries=1))
        assert server.connections < 100


@LOOPS
def test_goaway_behind_the_first_settings(tmp_path: Path, loop: str) -> None:
    uploads = files(tmp_path, 30)

    def leave(stream: socket.socket) -> None:
        greet(stream, goaway(0))
        drain(stream)

    with Server(instead={0: leave}) as server:
        tally = drive(run(server.url, uploads), loop)
    assert tally.ok == 30
    assert server.bodies() == contents(uploads)


@LOOPS
def test_closed_behind_the_first_settings(tmp_path: Path, loop: str) -> None:
    """The end of the connection comes while it is still being opened."""
    uploads = files(tmp_path, 30)

    def close(stream: socket.socket) -> None:
        greet(stream)
        stream.shutdown(socket.SHUT_WR)
        drain(stream)

    with Server(instead={0: close}) as server:
        tally = drive(run(server.url, uploads), loop)
    assert tally.ok == 30
    assert server.bodies() == contents(uploads)


def test_closed_behind_settings_for_ever_ends(tmp_path: Path) -> None:
    uploads = files(tmp_path, 5)

    def close(stream: socket.socket, _: int) -> None:
        greet(stream)
        stream.shutdown(socket.SHUT_WR)
        drain(stream)

    with Raw(close) as server:
        with contextlib.suppress(TargetUnreachable):
            drive(run(server.url, uploads, retries=1))
        assert server.connections < 100


# --- easing ---------------------------------------------------------------------------------------


class Calming(Script):
    """Asks for calm once, when `streams` requests are open; by RST_STREAM or by GOAWAY."""

    def __init__(self, streams: int, how: str) -> None:
        self._streams = streams
        self._how = how
        self._asked = False
        self._lock = threading.Lock()
        self.unanswered: set[Request] = set()
        self.most_after = 0

    def requested(self, peer: Peer, request: Request) -> None:
        """Ask, or count."""
        with self._lock:
            self.unanswered.add(request)
            if self._asked:
                self.most_after = max(self.most_after, len(self.unanswered))
        if not self._asked and len(peer.requests) == self._streams:
            self._asked = True
            if self._how == "farewell":
                peer.goaway(max(peer.requests), ENHANCE_YOUR_CALM)
                return
            # Before it is asked: the client may send them anew while this thread waits for its turn.
            self.unanswered.clear()
            if self._how == "goaway":
                peer.goaway(0, ENHANCE_YOUR_CALM)
                return
            for one in list(peer.requests.values()):
                peer.reset(one, ENHANCE_YOUR_CALM)

    def completed(self, peer: Peer, request: Request) -> None:
        """Answer, but nothing before the question."""
        if self._how == "goaway" and peer.number == 0:
            return
        if self._asked:
            for one in list(peer.requests.values()):
                if one in self.unanswered and one.ended:
                    self.unanswered.discard(one)
                    peer.answer(one, 201)


@pytest.mark.parametrize("how", ["reset", "goaway", "farewell"])
def test_calm_halves_the_streams(tmp_path: Path, how: str) -> None:
    uploads = files(tmp_path, 60)
    script = Calming(8, how)
    with Server(script) as server:
        tally = drive(run(server.url, uploads, concurrency=8))
    assert tally.ok == 60
    assert server.bodies() == contents(uploads)
    # "farewell" still has the first eight open.
    assert script.most_after <= (8 if how == "farewell" else 4)
    if how == "farewell":
        later = [request for request in server.requests if request.number == 1]
        assert len(later) == 52


def test_calm_reaches_below_the_number_of_connections(tmp_path: Path) -> None:
    """Half of two streams over two connections is one stream in all."""
    uploads = files(tmp_path, 60)
    calmed = threading.Event()
    lock = threading.Lock()
    unanswered: set[Request] = set()
    over: list[int] = []

    class Two(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            with lock:
                unanswered.add(request)
                if calmed.is_set() and request.number == 0 and len(peer.requests) > 12:
                    over.append(len(unanswered))

        def completed(self, peer: Peer, request: Request) -> None:
            with lock:
                unanswered.discard(request)
            if peer.number == 0 and len(peer.requests) == 5:
                calmed.set()
                peer.reset(request, ENHANCE_YOUR_CALM)
                return
            peer.answer(request, 201)

    with Server(Two()) as server:
        tally = drive(run(server.url, uploads, concurrency=2, connections=2))
    assert tally.ok == 60
    assert all(count <= 1 for count in over)


def test_calm_for_ever_gives_up_after_three(tmp_path: Path) -> None:
    uploads = files(tmp_path, 4)

    class Calm(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            peer.reset(request, ENHANCE_YOUR_CALM)

    results = Results()
    with Server(Calm()) as server:
        tally = drive(run(server.url, uploads, results, retries=9))
    assert tally.errors == {"ServerOverloaded": 4}
    assert all(len(server.of(path)) == 4 for path in contents(uploads))
    assert tally.retried == 12
    assert all(isinstance(result.failure, ServerOverloaded) for result in results.all)


def test_goaway_with_calm_loses_no_post(tmp_path: Path) -> None:
    """Above last_stream_id nothing was processed, whatever the code: any method is sent again (RFC 9113 §8.7)."""
    uploads = files(tmp_path, 20)
    with Server(Calming(8, "goaway")) as server:
        tally = drive(run(server.url, uploads, concurrency=8, method="POST"))
    assert tally.errors == {}
    assert server.bodies() == contents(uploads)


# --- connections that fail ------------------------------------------------------------------------


class Dying(Script):
    """Drops its first connections, each after so many complete requests; RST when abort."""

    def __init__(self, connections: int, after: int, abort: bool = False) -> None:
        self._connections = connections
        self._after = after
        self._abort = abort

    def completed(self, peer: Peer, request: Request) -> None:
        """Answer or die."""
        if peer.number < self._connections and len(peer.requests) > self._after:
            peer.flush()
            peer.drop(abort=self._abort)
        peer.answer(request, 201)


@LOOPS
@pytest.mark.parametrize("abort", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("connections", [1, 4])
def test_lost_connections_are_replaced(tmp_path: Path, loop: str, abort: bool, connections: int) -> None:
    uploads = files(tmp_path, 200)
    with Server(Dying(4, 5, abort)) as server:
        tally = drive(run(server.url, uploads, connections=connections, concurrency=8, retries=9), loop)
    assert tally.ok == 200
    assert tally.connections == server.connections
    assert tally.retried >= 4
    assert server.bodies() == contents(uploads)


def test_post_is_sent_once(tmp_path: Path) -> None:
    uploads = files(tmp_path, 100)
    results = Results()
    with Server(Dying(2, 10)) as server:
        tally = drive(run(server.url, uploads, results, method="POST", concurrency=8))
    assert set(tally.errors) == {"ConnectionLost"}
    assert tally.retried == 0
    assert 2 <= tally.failed <= 16
    assert all(len(server.of(path)) <= 1 for path in contents(uploads))


@pytest.mark.parametrize(
    "options", [{"retry_post": True}, {"fields": (("Idempotency-Key", "a1"),)}], ids=["option", "key"]
)
def test_post_is_repeated_on_demand(tmp_path: Path, options: dict[str, Any]) -> None:
    uploads = files(tmp_path, 100)
    with Server(Dying(2, 10)) as server:
        tally = drive(run(server.url, uploads, method="POST", concurrency=8, retries=9, **options))
    assert tally.ok == 100
    assert server.bodies() == contents(uploads)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_budget_of_retries(tmp_path: Path, retries: int) -> None:
    uploads = files(tmp_path, 6)

    class Down(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 500, b"no")

    with Server(Down()) as server:
        tally = drive(run(server.url, uploads, retries=retries))
    assert tally.errors == {"HttpStatus": 6}
    assert tally.retried == 6 * retries
    assert tally.wasted == 600 * (retries + 1)
    assert tally.payload == 0
    assert {len(server.of(path)) for path in contents(uploads)} == {retries + 1}


def test_no_time_for_retries(tmp_path: Path) -> None:
    uploads = files(tmp_path, 3)

    class Down(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 503, retry_after="600")

    with Server(Down()) as server:
        tally = drive(run(server.url, uploads, retry_max_time=5.0))
    assert tally.errors == {"HttpStatus": 3}
    assert tally.retried == 0
    assert len(server.requests) == 3


def test_nobody_listens(tmp_path: Path) -> None:
    uploads = files(tmp_path, 3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    results = Results()
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
        drive(run(f"http://127.0.0.1:{port}/", uploads, results, connections=3))
    assert results.failures() == {"ConnectFailed": 3}


def test_all_connections_refused_after_a_success(tmp_path: Path) -> None:
    """Each file still gets its result, those included that the walk had not found yet."""
    uploads = files(tmp_path, 3000)
    ended: list[str] = []

    class Last(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if len(peer.requests) > 100:
                server._listener.shutdown(socket.SHUT_RDWR)
                peer.flush()
                peer.drop()
            ended.append(request.path)
            peer.answer(request, 201)

    results = Results()
    with Server(Last()) as server:
        tally = drive(run(server.url, uploads, results, retries=1))
    assert tally.ok >= 100
    assert set(tally.errors) <= {"ConnectFailed", "ConnectionLost"}
    assert tally.errors["ConnectFailed"] > 2000
    assert tally.connections == 1


@LOOPS
def test_server_restarts_on_the_same_port(tmp_path: Path, loop: str) -> None:
    """Between the two it is refused, which the retries of connecting bridge."""
    uploads = files(tmp_path, 300)
    again: list[Server] = []

    class First(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if len(peer.requests) > 50:
                listener = first._listener
                port = listener.getsockname()[1]
                listener.shutdown(socket.SHUT_RDWR)
                listener.close()
                second = Server()
                second._listener.close()
                second._listener = socket.create_server(("127.0.0.1", port))
                second.__enter__()
                again.append(second)
                peer.flush()
                peer.drop()
            peer.answer(request, 201)

    with contextlib.ExitStack() as servers:
        first = servers.enter_context(_Restarting(First()))
        tally = drive(run(first.url, uploads, retries=9), loop)
        for second in again:
            servers.push(second)
    assert tally.ok == 300
    assert tally.connections == 2
    bodies = first.bodies()
    bodies.update(again[0].bodies())
    assert bodies == contents(uploads)


class _Restarting(Server):
    def __exit__(self, *error: Any) -> None:
        with contextlib.suppress(OSError):
            super().__exit__(*error)


def test_another_protocol_after_a_restart(tmp_path: Path) -> None:
    """The port is taken by something else for a moment: it did speak HTTP/2 before, so it is asked again."""
    uploads = files(tmp_path, 60)

    class Once(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number == 0 and len(peer.requests) > 10:
                peer.flush()
                peer.drop()
            peer.answer(request, 201)

    def other(stream: socket.socket) -> None:
        stream.recv(65536)
        stream.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        drain(stream)

    with Server(Once(), instead={1: other}) as server:
        tally = drive(run(server.url, uploads))
    assert tally.ok == 60
    assert tally.connections == 2


def test_one_of_the_connections_can_not_be_had(tmp_path: Path) -> None:
    """The others carry on, and the run does not fail."""
    uploads = files(tmp_path, 100)
    with Server(instead=dict.fromkeys(range(1, 20), socket.socket.close)) as server:
        tally = drive(run(server.url, uploads, connections=2, concurrency=4))
    assert tally.ok == 100
    assert tally.connections == 1


class OneOnly(Script):
    """Serves the first connection; what it does to a request on any further one, `way` says."""

    def __init__(self, way: str) -> None:
        self.way = way
        self._served = threading.Event()

    def requested(self, peer: Peer, request: Request) -> None:
        """Nothing is done on further connections before the first one's answers have arrived."""
        if peer.number:
            self._served.wait(5.0)
            if self.way == "refuse":
                peer.reset(request, REFUSED_STREAM)
            elif self.way in ("go away", "be calm"):
                peer.goaway(0, ENHANCE_YOUR_CALM if self.way == "be calm" else 0)
                peer.drop()
            else:
                peer.drop(abort=self.way == "reset")

    def completed(self, peer: Peer, request: Request) -> None:
        """Answer, slowly enough that the further connections have their turn."""
        if not peer.number:
            _NEVER.wait(0.002)
            peer.answer(request, 201)
            peer.flush()
            if len(peer.requests) > 20:
                self._served.set()


@pytest.mark.parametrize("way", ["refuse", "go away", "be calm", "close", "reset"])
def test_further_connections_that_bring_nothing_are_done_without(tmp_path: Path, way: str) -> None:
    """Their files go to the one that answers; no further one is opened again and again."""
    uploads = files(tmp_path, 400)
    with Server(OneOnly(way)) as server:
        tally = drive(run(server.url, uploads, connections=8, concurrency=40))
    assert tally.ok == 400
    assert tally.retried == 0
    assert server.bodies() == contents(uploads)
    assert tally.connections <= 8


def test_further_connections_that_auto_opens_in_vain(tmp_path: Path) -> None:
    uploads = files(tmp_path, 300)
    with Server(OneOnly("refuse"), max_concurrent_streams=1) as server:
        tally = drive(run(server.url, uploads, connections="auto", concurrency=40))
    assert tally.ok == 300
    assert tally.connections == 2


class Mute(Script):
    """Says nothing on further connections; takes 50 ms for each upload on the first one."""

    def accepts(self, number: int) -> bool:
        if number:
            _NEVER.wait(6.0)
        return not number


def test_a_connection_that_is_being_opened_for_long_keeps_no_streams_from_the_others(tmp_path: Path) -> None:
    uploads = files(tmp_path, 80)
    counting = Counting()

    class Slow(Mute):
        def requested(self, peer: Peer, request: Request) -> None:
            counting.requested(peer, request)

        def completed(self, peer: Peer, request: Request) -> None:
            _NEVER.wait(0.05)
            counting.completed(peer, request)

    with Server(Slow()) as server:
        tally = drive(run(server.url, uploads, connections=8, concurrency=8, connect_timeout=5.0))
    assert tally.ok == 80
    assert counting.most > 4, "after a second in which the others had their part"


@pytest.mark.parametrize("concurrency", [1, 20])
def test_a_server_that_never_answered_anybody_is_given_up(tmp_path: Path, concurrency: int) -> None:
    uploads = files(tmp_path, 500)

    class Dead(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.drop()

    with Server(Dead()) as server, contextlib.suppress(TargetUnreachable):
        drive(run(server.url, uploads, concurrency=concurrency))
    assert server.connections < 20


def test_a_server_that_goes_away_from_each_upload_is_given_up(tmp_path: Path) -> None:
    """GOAWAY for the first request, and the client may close: no upload is to blame for that."""
    uploads = files(tmp_path, 2000)

    class Leaving(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            peer.goaway(0)

        def completed(self, peer: Peer, request: Request) -> None:
            """Nothing more."""

    with Server(Leaving()) as server, contextlib.suppress(TargetUnreachable):
        drive(run(server.url, uploads, concurrency=20))
    assert server.connections < 20


def test_a_stream_that_a_further_connection_refuses_does_not_cost_that_connection(tmp_path: Path) -> None:
    """It has more than it wants, and works at what it took."""
    uploads = files(tmp_path, 300)

    class Choosy(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            if peer.number and len(peer.requests) == 10:
                peer.reset(request, REFUSED_STREAM)

        def completed(self, peer: Peer, request: Request) -> None:
            _NEVER.wait(0.002)
            if not request.refused and not (peer.number and len(peer.requests) < 10):
                for one in list(peer.requests.values()):
                    if one.ended and not one.refused and one not in answered:
                        answered.append(one)
                        peer.answer(one, 201)

    answered: list[Request] = []
    with Server(Choosy()) as server:
        tally = drive(run(server.url, uploads, connections=2, concurrency=40))
    assert tally.ok == 300
    assert {request.number for request in server.requests[-100:]} == {0, 1}


def test_files_that_end_each_connection_take_no_others_with_them(tmp_path: Path) -> None:
    """Three in a row, tried four times each: that is no server which answers nobody."""
    uploads = files(tmp_path, 60)
    poison = {f"/{number:05}.bin" for number in (5, 6, 7, 30, 31, 59)}

    class Poisoned(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if request.path in poison:
                peer.drop(abort=True)
            peer.answer(request, 201)

    results = Results()
    with Server(Poisoned()) as server:
        tally = drive(run(server.url, uploads, results, concurrency=1))
    assert tally.ok == 54, tally.first_failures
    assert results.failures() == {"ConnectionLost": 6}


def test_answers_in_the_last_segment_count(tmp_path: Path) -> None:
    """The server answers and closes at once: what it said before it closed is not lost."""
    uploads = files(tmp_path, 5)

    class Closing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if len([one for one in peer.requests.values() if one.ended]) == 5:
                for one in peer.requests.values():
                    peer.answer(one, 201)
                peer.flush()
                peer.drop()

    with Server(Closing()) as server:
        tally = drive(run(server.url, uploads, retries=0))
    assert tally.ok == 5
    assert server.connections == 1


def test_idle_connections_that_end_say_nothing_of_the_server(tmp_path: Path) -> None:
    """The server's timer ends them one after the other; then the one that worked is lost, and is replaced."""
    uploads = files(tmp_path, 1)
    idle = threading.Semaphore(0)

    def leave(stream: socket.socket) -> None:
        greet(stream)
        stream.sendall(goaway(0))
        drain(stream)
        idle.release()

    class Losing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if peer.number == 0:
                for _ in range(2):
                    assert idle.acquire(timeout=20)
                peer.drop(abort=True)
            peer.answer(request, 201)

    with Server(Losing(), instead=dict.fromkeys(range(1, 7), leave)) as server:
        tally = drive(run(server.url, uploads, connections=3, concurrency=3))
    assert tally.ok == 1


def test_many_connections_that_end_together_count_once(tmp_path: Path) -> None:
    uploads = files(tmp_path, 100)

    class Crashing(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            if peer.number < 8:
                peer.drop(abort=True)

    with Server(Crashing()) as server:
        tally = drive(run(server.url, uploads, connections=8, concurrency=16, retries=9))
    assert tally.ok == 100


def test_a_server_that_never_allows_a_stream_is_given_up(tmp_path: Path) -> None:
    uploads = files(tmp_path, 3)

    def close(stream: socket.socket, _: int) -> None:
        greet(stream, settings_frame({SettingCodes.MAX_CONCURRENT_STREAMS: 0}))
        stream.shutdown(socket.SHUT_WR)
        drain(stream)

    with Raw(close) as server:
        with contextlib.suppress(TargetUnreachable):
            drive(run(server.url, uploads, retries=0))
        assert server.connections < 20


def test_a_server_that_puts_everything_off(tmp_path: Path) -> None:
    """What waits for its retry is bounded: no new upload is begun for each one that was put off."""
    (file,) = files(tmp_path, 1)
    uploads = [Upload(file.file, b"%06d" % number, 100) for number in range(6000)]
    waiting = 0

    class Later(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 503, retry_after="3000")

    async def main() -> None:
        nonlocal waiting
        client = uploader(server.url, concurrency=50)
        results = Results()
        running = asyncio.create_task(client.run(batches(uploads), results))
        while client.tally.wasted < 1024 * 100:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        waiting = client.tally.wasted // 100
        client.stop(0.0)
        await running
        assert client.tally.found == len(results.all)

    with Server(Later()) as server:
        drive(main())
    assert 1024 <= waiting <= 1024 + 4 * 50


def test_few_descriptors_for_many_connections(tmp_path: Path) -> None:
    """One that finds none free waits for the others."""
    uploads = files(tmp_path, 200, 70_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        results = Results()
        client = uploader(server.url, connections=4, concurrency=60)
        running = asyncio.create_task(client.run(batches(uploads), results))
        while client.tally.connections < 4:
            await asyncio.sleep(0)
        # Sockets of the server's in this process are open already.
        spare = os.open("/", os.O_RDONLY)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 6, hard))
        try:
            await running
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert results.once(uploads)
        assert client.tally.errors == {}

    with Server() as server:
        drive(main())
    assert server.bodies() == contents(uploads)


def test_post_that_never_left_is_sent_again(tmp_path: Path) -> None:
    """The socket took nothing of the later requests before the connection was lost."""
    uploads = files(tmp_path, 40, 1_000_000)
    requested = threading.Event()

    def lose(stream: socket.socket) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        greet(stream, settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}), window_update(0, 2**30))
        await_requests(stream, 1)
        requested.set()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    results = Results()
    with Server(instead={0: lose}) as server:
        tally = drive(run(server.url, uploads, results, method="POST", concurrency=2, schedule="fifo"))
    assert set(tally.errors) <= {"ConnectionLost"}
    assert tally.failed <= 2
    assert all(len(server.of(path)) <= 1 for path in contents(uploads))


def test_a_burst_of_calm_halves_once(tmp_path: Path) -> None:
    """Streams that were begun before the first reset can't tell how the server takes half as many."""
    uploads = files(tmp_path, 200)
    most = 0
    lock = threading.Lock()
    pause = threading.Event()
    unanswered: set[Request] = set()

    class Bursting(Script):
        def requested(self, peer: Peer, request: Request) -> None:
            nonlocal most
            with lock:
                unanswered.add(request)
                if request.stream_id > 63:
                    most = max(most, len(unanswered))
            if request.stream_id == 63:
                for one in list(peer.requests.values())[:5]:
                    unanswered.discard(one)
                    peer.reset(one, ENHANCE_YOUR_CALM)
                    peer.flush()
                    pause.wait(0.02)

        def completed(self, peer: Peer, request: Request) -> None:
            if len(peer.requests) < 32:
                return
            for one in [one for one in unanswered if one.ended]:
                unanswered.discard(one)
                peer.answer(one, 201)

    with Server(Bursting()) as server:
        tally = drive(run(server.url, uploads, concurrency=32))
    assert tally.ok == 200
    assert most > 8


def test_a_file_that_became_a_symbolic_link(tmp_path: Path) -> None:
    """Only what was asked for leaves the folder: the link is not followed."""
    tmp_path.joinpath("secret").write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.joinpath("file").write_text("harmless")
    found = list(walk([folder]))
    folder.joinpath("file").unlink()
    folder.joinpath("file").symlink_to("../secret")
    results = Results()

    async def main() -> None:
        await uploader(server.url).run(found, results)

    with Server() as server:
        drive(main())
    assert results.failures() == {"NotRegularFile": 1}
    assert "--follow-symlinks" in str(results.all[0].failure)
    assert server.requests == []


# --- who goes where -------------------------------------------------------------------------------


def test_two_files_for_one_url(tmp_path: Path) -> None:
    uploads = files(tmp_path, 10)
    twins = [Upload(upload.file, upload.name, upload.size) for upload in uploads[:3]]
    results = Results()
    with Server() as server:
        drive(_batched(server.url, [uploads, twins], results))
    assert results.failures() == {"DuplicateTarget": 3}
    assert all(result.started == 0.0 for result in results.all if result.failure)
    assert len(server.requests) == 10
    message = str(next(result.failure for result in results.all if result.failure))
    assert server.url in message
    assert "{path}" in message


def test_base_names_meet_at_one_url(tmp_path: Path) -> None:
    for name in "ab":
        tmp_path.joinpath(name).mkdir()
    uploads = [*files(tmp_path / "a", 3), *files(tmp_path / "b", 3)]
    for upload, folder in zip(uploads, "aaabbb", strict=True):
        upload.name = folder.encode() + b"/" + upload.name
    results = Results()
    with Server() as server:
        drive(_batched(server.url + "{name}", [uploads], results, distinct=True))
    assert results.failures() == {"DuplicateTarget": 3}
    assert len(server.requests) == 3


def test_one_url_for_all(tmp_path: Path) -> None:
    """Without a placeholder each file is meant for the same URL: nothing is a duplicate."""
    uploads = files(tmp_path, 10)
    with Server() as server:
        tally = drive(run(server.url + "inbox", uploads, method="POST"))
    assert tally.ok == 10
    assert [request.path for request in server.requests] == ["/inbox"] * 10


def test_all_duplicates_open_no_connection(tmp_path: Path) -> None:
    (upload,) = files(tmp_path, 1)
    results = Results()
    with Server() as server:
        drive(_batched(server.url, [[upload]] + [[upload] * 5] * 20, results))
    assert results.failures() == {"DuplicateTarget": 100}
    assert len(server.requests) == 1


async def _batched(url: str, groups: list[list[Upload]], results: Results, distinct: bool = False) -> None:
    def walk() -> Iterator[Batch]:
        for group in groups:
            batch = Batch()
            batch.uploads = group
            yield batch

    await uploader(url).run(walk(), results, distinct=distinct)


def test_a_name_that_no_url_can_have(tmp_path: Path) -> None:
    """Batches may come from a program: a name of its own making fails alone."""
    uploads = files(tmp_path, 3)
    uploads[1].name = b"../up"
    with Server() as server:
        tally = drive(run(server.url, uploads))
    assert tally.errors == {"UsageError": 1}
    assert tally.ok == len(server.requests) == 2


def test_files_that_fail_are_no_reason_to_stop(tmp_path: Path) -> None:
    uploads = files(tmp_path, 300)
    for upload in itertools.islice(uploads, 0, None, 3):
        Path(upload.file.decode()).unlink()
    with Server() as server:
        tally = drive(run(server.url, uploads, concurrency=5))
    assert tally.errors == {"FileVanished": 100}
    assert tally.ok == len(server.requests) == 200


def test_nothing_but_missing_files(tmp_path: Path) -> None:
    uploads = files(tmp_path, 1000)
    for upload in uploads:
        Path(upload.file.decode()).unlink()
    with Server() as server:
        tally = drive(run(server.url, uploads))
    assert tally.errors == {"FileVanished": 1000}
    assert server.requests == []


# --- as many connections as are worth it ----------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "octets", "concurrency", "least"),
    [(40, 150_000, 16, 2), (60, 100_000, 50, 4)],
    ids=["more files than streams", "all files in line on the first connection"],
)
def test_auto_opens_more_where_the_line_is_long(
    tmp_path: Path, number: int, octets: int, concurrency: int, least: int
) -> None:
    """Windows of 64 KiB and a round trip of 50 ms: one connection carries 1.3 MB/s, whatever the line could."""
    uploads = files(tmp_path, number, octets)
    windows = Answering(settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**20}), credit="connection")
    with Raw(windows) as server, Relay(server.port, 0.05) as relay:
        url = f"http://127.0.0.1:{relay.port}/"
        tally = drive(run(url, uploads, connections="auto", concurrency=concurrency))
    assert tally.ok == number
    assert least <= tally.connections <= 8


@pytest.mark.parametrize(("number", "pause", "least"), [(14, 0.4, 3), (18, 0.8, 8)])
def test_auto_opens_more_where_few_streams_are_allowed_and_each_answer_takes_long(
    tmp_path: Path, number: int, pause: float, least: int
) -> None:
    """Between two answers nothing wakes the connection; that uploads wait all that time is to be known anyway.

    No step is taken back before the answers to what it began can have come.
    """
    uploads = files(tmp_path, number)
    slow = Answering(settings_frame({SettingCodes.MAX_CONCURRENT_STREAMS: 1}), pause=pause)
    with Raw(slow) as server:
        tally = drive(run(server.url, uploads, connections="auto"))
    assert tally.ok == number
    assert least <= tally.connections == server.connections <= 8, "none was closed and opened again"


def test_auto_stays_with_one_where_nothing_waits(tmp_path: Path) -> None:
    uploads = files(tmp_path, 2000)
    with Server() as server:
        tally = drive(run(server.url, uploads, connections="auto"))
    assert tally.ok == 2000
    assert tally.connections == 1
