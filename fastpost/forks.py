"""Processes that share the work of this one: told what to do, and waited for.

They are forked while it has neither a loop nor a thread, with all that is loaded; or later started from nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

    from fastpost.config import Settings

#: What is blocked in a new process until it can take it.
_BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def part(whole: int, count: int, index: int) -> int:
    """Return how much of a whole the process of that number has, from 0 on; together they have all of it."""
    return whole // count + (index < whole % count)


def share(settings: Settings, count: int, index: int) -> Settings:
    """Return one process's settings: its share of the concurrency and of the connections."""
    return dataclasses.replace(
        settings,
        concurrency=part(settings.concurrency, count, index),
        connections="auto" if settings.connections == "auto" else part(settings.connections, count, index),
        most_connections=max(settings.most_connections // count, 1),
    )


class Parents(Protocol):
    """What of a parent's a child must not keep open."""

    def close(self) -> None:
        """Close it."""


class Other:
    """A process of ours that may be signalled, and is waited for once.

    Attributes:
        pid: its process id; 0 once it has been waited for.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status = 0

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has been waited for: its number may be another's then, and 0 is a whole group."""
        if self.pid:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Stop it at once, unless it has been waited for."""
        self.signal(signal.SIGKILL)

    def wait(self) -> str:
        """Wait for its end; returns in words how it came."""
        if self.pid:
            _, self._status = os.waitpid(self.pid, 0)
            self.pid = 0
        return ended(self._status)


class Child(Other):
    """A forked process as its parent sees it.

    Attributes:
        orders: goes both ways: what it is to do, and what it asks for. At end of file it knows that its parent is gone.
        told: receives what it tells.
    """

    def __init__(self, pid: int, orders: Connection, told: Connection) -> None:
        super().__init__(pid)
        self.orders = orders
        self.told = told

    def order(self, what: object) -> None:
        """Send it an order, unless it is gone."""
        with contextlib.suppress(OSError):
            self.orders.send(what)

    def close(self) -> None:
        """Close the parent's ends; a child that was forked later has to, or this one would never see its parent end."""
        self.orders.close()
        self.told.close()


def fork(live: Callable[[Connection, Connection], object], others: Iterable[Child]) -> Child:
    """Fork a process that calls `live` with its ends of `orders` and `told`, and ends with it.

    Args:
        live: what it does, as in `forked`.
        others: those that were forked before.
    Raises OSError when there can be no more processes or pipes.
    """
    from multiprocessing.connection import Pipe  # 5 ms: not for who has pipes of his own

    orders, its_orders = Pipe()
    told, its_told = Pipe(duplex=False)
    pid = forked(lambda: live(its_orders, its_told), [Child(0, orders, told), *others])
    its_orders.close()
    its_told.close()
    return Child(pid, orders, told)


def forked(live: Callable[[], object], parents: Iterable[Parents]) -> int:
    """Fork a process that calls `live` and ends with it; returns its process id.

    SIGINT, SIGTERM and SIGUSR1 are blocked in it: one that comes before it can take it would meet the parent's handler.

    Args:
        live: what it does; OSError out of it means that the parent is gone.
        parents: the parent's ends of all pipes, which it closes: else nobody would see the parent end.
    Raises OSError when there can be no more processes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        pid = os.fork()
        if pid == 0:
            for ends in parents:
                ends.close()
            _be(live)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def started(code: str, orders: int, told: int) -> int:
    """Start an interpreter that runs `code`, from any thread; returns its process id. It is ready after some 0.1 s.

    It imports from where this one does, and not from the current folder (-P). Signals are blocked in it as in `forked`.

    Args:
        code: what it runs.
        orders: the descriptor that is its standard input.
        told: the one that is its standard output.
    Raises OSError when there can be no more processes.
    """
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {[str(path) for path in sys.path]!r}; {code}"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, orders, 0), (os.POSIX_SPAWN_DUP2, told, 1)],
        setsigmask=_BLOCKED,
    )


def ended(status: int) -> str:
    """Say how a process came to its end, by its wait status."""
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _be(live: Callable[[], object]) -> NoReturn:
    """Be that process to the end of it: nothing of the parent's is cleaned up or flushed twice."""
    code = 1
    try:
        live()
        code = 0
    except OSError:
        pass  # the parent is gone, and with it whoever would want to know
    finally:
        os._exit(code)
