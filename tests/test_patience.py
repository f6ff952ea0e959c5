"""_patience, and who asks it: answers are waited for awake, or napped for, where that pays and as long as it does."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from h2.settings import SettingCodes
from h2_judge import OPEN, WIDE, Files, Script, session, window_update
from h2_judge import files as files

from fastpost._patience import Patience

# --- answers that are waited for awake -----------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_what_arrives_at_once_is_waited_for_awake(pair: Pair) -> None:
    ours, theirs = pair
    patience = Patience()
    assert not patience.watch(ours.fileno())
    theirs.send(b"x")
    assert patience.watch(ours.fileno())
    ours.recv(1)
    assert not patience.watch(ours.fileno())
    theirs.close()  # the end is no less an answer
    assert patience.watch(ours.fileno())


def test_the_time_that_was_waited_awake_is_known(pair: Pair) -> None:
    """And no other: not what was slept for."""
    ours, theirs = pair
    patience = Patience()
    assert patience.awake == 0.0
    before = time.monotonic()
    assert not patience.watch(ours.fileno())
    in_vain = patience.awake
    assert 0.0 < in_vain <= time.monotonic() - before
    theirs.send(b"x")
    assert patience.watch(ours.fileno())
    assert in_vain < patience.awake <= time.monotonic() - before
    ours.recv(1)
    for _ in range(100):
        patience.watch(ours.fileno())  # it has given up in the midst of them
    waited = patience.awake
    patience.watch(ours.fileno())
    assert patience.awake == waited


def test_late_answers_are_waited_for_awake_only_now_and_then(pair: Pair) -> None:
    ours, theirs = pair
    patience = Patience()
    assert not any(patience.watch(ours.fileno()) for _ in range(100))
    theirs.send(b"x")
    tried = [patience.watch(ours.fileno()) for _ in range(100)]
    assert not tried[0]
    # And it finds out that they come at once now.
    assert all(tried[tried.index(True) :])


def test_an_answer_at_once_makes_up_for_a_late_one(pair: Pair) -> None:
    ours, theirs = pair
    patience = Patience()
    for _ in range(200):
        assert not patience.watch(ours.fileno())
        theirs.send(b"x")
        assert patience.watch(ours.fileno())
        ours.recv(1)


def waiting(files: Files, *, window: int = 0) -> Script:
    """Return a peer that an upload waits for; that it is near its first credit has shown."""
    script = Script(session(), OPEN, window=window)
    script.submit(files(100))
    script.take()
    script.send(window_update(0, 100))
    return script


def test_credit_is_awaited_for_a_small_window_that_is_opened_at_once(files: Files) -> None:
    near, wide, idle, distant = (
        waiting(files),
        waiting(files, window=2_000_000),
        Script(session(), OPEN),
        waiting(files),
    )
    # Shut for a second before each credit.
    distant.submit(files(250_000))
    for _ in range(3):
        distant.take()
        distant.now += 1.0
        distant.send(window_update(0, 65535))
    awaited = [script.client.plane.awaits_credit for script in (near, wide, idle, distant)]
    assert awaited == [True, False, False, False]
    near.submit(files(100))
    near.client.plane.fill(near.now)
    assert not near.client.plane.awaits_credit  # there is something to send
    for script in (near, wide, idle, distant):
        script.close()


# --- answers that are napped for -----------------------------------------------------------------

#: Uploads in flight, and seconds that a server which works off one after the other takes for each: a nap is for 12.
IN_FLIGHT = 50
EACH = 20e-6


class Peer:
    """A server, as its answers come in on a clock of its own: `burst` of them in a turn that doesn't nap."""

    def __init__(self, *, burst: int = 1, each: float = EACH) -> None:
        self.patience = Patience()
        self.now = 1.0
        self.answers = 0
        self.burst = burst
        self.each = each

    def turn(self, nap_brings: int = 12, nap_takes: float = 12 * EACH) -> bool:
        """Wait for answers once; returns whether that was a nap."""
        napped = self.patience.nap(IN_FLIGHT, self.answers, self.now)
        self.answers += nap_brings if napped else self.burst
        self.now += nap_takes if napped else self.burst * self.each
        return napped

    def naps(self, turns: int, **nap: float) -> float:
        """Return what part of so many turns napped."""
        return sum(self.turn(**nap) for _ in range(turns)) / turns  # type: ignore[arg-type]


def test_a_long_line_is_napped_for() -> None:
    assert Peer().naps(6000) > 0.7


def test_what_comes_in_bursts_anyway_is_not_napped_for() -> None:
    assert Peer(burst=6).naps(3000) == 0


def test_slow_answers_are_not_napped_for() -> None:
    """In the longest nap so few would come that to wake for them costs nothing."""
    assert Peer(each=100e-6).naps(3000) == 0


def test_naps_that_cost_are_left_alone() -> None:
    """As where every answer that waits keeps the server idle: fewer come by naps, so they are tried ever less often."""
    peer = Peer()
    costly = {"nap_brings": 12, "nap_takes": 14 * EACH}
    assert 0 < peer.naps(6000, **costly) < 0.2
    first = sum(peer.turn(**costly) for _ in range(30_000))  # type: ignore[arg-type]
    later = sum(peer.turn(**costly) for _ in range(30_000))  # type: ignore[arg-type]
    assert later <= first <= 2 * 1024


def test_few_in_flight_are_not_napped_for() -> None:
    """They are all that the server has: it would be kept waiting."""
    patience = Patience()
    assert not any(patience.nap(31, count, count * EACH) for count in range(3000))
    # And what passed meanwhile is in no measurement.
    now = 1000.0
    napped = 0
    for count in range(3000, 3600):
        napped += patience.nap(IN_FLIGHT, count, now)
        now += EACH
    assert napped > 300


def test_a_connection_awaits_answers_while_all_is_sent(files: Files) -> None:
    script = Script(session(concurrency=4), OPEN, window=WIDE)
    plane = script.client.plane
    assert plane.awaits_answers == 0
    script.submit(files(*[10] * 6))
    while script.take():
        pass
    assert plane.awaits_answers == 4
    script.send(script.response(1))
    assert plane.awaits_answers == 3
    plane.fill(script.now)  # the next upload, which the socket does not take yet
    assert plane.awaits_answers == 0
    script.take()
    assert plane.awaits_answers == 4
    script.close()


@pytest.mark.parametrize(("window", "size"), [(0, 10), (WIDE, 200)], ids=["scarce", "stream-window"])
def test_a_connection_that_waits_for_a_window_awaits_no_answers(files: Files, window: int, size: int) -> None:
    script = Script(session(), {SettingCodes.INITIAL_WINDOW_SIZE: 100}, window=window)
    script.submit(files(10, size))
    while script.take():
        pass
    assert script.client.plane.open_streams == 2
    assert script.client.plane.awaits_answers == 0
    script.close()
