"""Forked processes: shares, orders and words, ends."""

from __future__ import annotations

import asyncio
import signal
import threading
from multiprocessing.connection import Connection

import pytest

from fastpost import forks
from fastpost.config import Settings
from fastpost.signals import signals_held, signals_taken


@pytest.mark.parametrize("connections", ["auto", 3, 8])
def test_shares_add_up(connections: int | str) -> None:
    settings = Settings(to="http://a/", concurrency=50, connections=connections)  # type: ignore[arg-type]
    shares = [forks.share(settings, 3, index) for index in range(3)]
    assert [share.concurrency for share in shares] == [17, 17, 16]
    if connections == "auto":
        assert all(share.connections == "auto" and share.most_connections == 2 for share in shares)
    else:
        assert sum(int(share.connections) for share in shares) == connections


def echo(orders: Connection, told: Connection) -> None:
    while (order := orders.recv()) is not None:
        told.send((order, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def test_it_obeys_tells_and_ends() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    child = forks.fork(echo, ())
    child.order("one")
    order, blocked = child.told.recv()
    assert order == "one"
    assert {signal.SIGINT, signal.SIGTERM} <= blocked
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    child.order(None)
    assert child.wait() == child.wait() == "ended with 0"
    child.kill()  # of what has ended nothing is killed
    child.signal(signal.SIGTERM)  # nor is anything else told: number 0 would be this whole process group
    child.order("nobody there")
    child.close()


def test_how_it_was_killed_is_told() -> None:
    child = forks.fork(echo, ())
    child.kill()
    assert child.wait() == "was killed by SIGKILL"
    child.close()


def test_what_it_raises_is_its_exit_code_and_nothing_of_the_parent_is_done_twice() -> None:
    def fails(orders: Connection, told: Connection) -> None:
        raise OSError

    child = forks.fork(fails, ())
    assert child.wait() == "ended with 1"
    child.close()


def test_each_sees_the_end_of_its_parent_though_others_were_forked_later() -> None:
    first = forks.fork(echo, ())
    second = forks.fork(echo, [first])
    first.close()
    assert first.wait() == "ended with 1"  # EOFError: the second one holds no end of its pipes
    second.order(None)
    second.wait()
    second.close()


def test_signals_between_two_loops_meet_the_next_one() -> None:
    met: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came = loop.create_future()

        def take(_: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
            met.append(number)
            came.set_result(None)

        with signals_taken(loop, take):
            await asyncio.wait_for(came, 20)

    with signals_held():
        # To this thread: another one, of a test before, may not hold it.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        asyncio.run(main())
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert met == [signal.SIGINT]
