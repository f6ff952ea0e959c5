"""Attempts that wait before they are sent again: for the time of their retry, or for the digest of a changed file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from fastpost.errors import FileFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fastpost._table import Attempt
    from fastpost.digest import Digester
    from fastpost.sources import Digest


class Waiting:
    """Owns those attempts; each comes out once: due, failed, or taken back.

    Args:
        loop: whose timers count the seconds, and whose threads read the files.
        on_due: called with an attempt whose wait is over.
        on_failed: called with one whose file can't be read any more; its `failure` says why.
        on_error: called with what should never have been raised.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_due: Callable[[Attempt], None],
        on_failed: Callable[[Attempt], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self._on_due = on_due
        self._on_failed = on_failed
        self._on_error = on_error
        #: By the timer that ends the wait.
        self._delayed: dict[asyncio.TimerHandle, Attempt] = {}
        self._digesting: set[Attempt] = set()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._delayed) + len(self._digesting)

    @property
    def delayed(self) -> int:
        """How many of them wait for the time of their retry."""
        return len(self._delayed)

    def delay(self, attempt: Attempt, seconds: float) -> None:
        """Let an attempt wait so many seconds."""

        def due() -> None:
            del self._delayed[timer]
            self._on_due(attempt)

        timer = self._loop.call_later(seconds, due)
        self._delayed[timer] = attempt

    def digest(self, attempt: Attempt, seconds: float, digester: Digester) -> None:
        """Compute the digest of a file that has changed, in a thread, and then let its attempt wait `seconds`."""
        self._digesting.add(attempt)
        found = self._loop.run_in_executor(None, digester.again, attempt.upload)
        found.add_done_callback(functools.partial(self._digested, attempt, seconds, digester))

    def _digested(self, attempt: Attempt, seconds: float, digester: Digester, found: asyncio.Future[Digest]) -> None:
        failure = None if found.cancelled() else found.exception()
        if attempt not in self._digesting:
            return  # taken back meanwhile
        self._digesting.discard(attempt)
        if failure is None:
            digester.attach(attempt, found.result())
            self.delay(attempt, seconds)
        elif isinstance(failure, FileFailed):
            attempt.failure = failure
            self._on_failed(attempt)
        else:
            self._on_error(failure)

    def take_back(self) -> list[Attempt]:
        """Return all that wait; nothing will be due any more."""
        for timer in self._delayed:
            timer.cancel()
        taken = [*self._delayed.values(), *self._digesting]
        self._delayed.clear()
        self._digesting.clear()
        return taken
