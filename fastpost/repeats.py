"""Attempts that failed, from then until they begin again: at once, later, at another origin, or not at all.

What follows a failure, `retry` says; here is who waits for it.
"""

from __future__ import annotations

import time
import typing

from fastpost import retry
from fastpost.errors import FileChanged, HttpStatus
from fastpost.target import masked
from fastpost.waiting import Waiting

if typing.TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.connection import Connection
    from fastpost.digest import Digester
    from fastpost.errors import FastpostError
    from fastpost.pool import Pool
    from fastpost.redirects import Elsewhere, OtherRun
    from fastpost.tally import Tally
    from fastpost.target import Redirect, Target

#: Redirects that one upload follows.
_MOST_REDIRECTS = 5
#: The server took nothing, and will take it elsewhere: the upload goes at once and is no retry.
_ELSEWHERE = retry.Verdict(0.0, True, counted=False)


class Repeats:
    """Owns those that wait; each comes out once: due, final, or taken back.

    Args:
        settings, target: those of the run.
        budget: what may be spent on trying again.
        pool: knows which connections bring nothing, whose uploads go again for nothing.
        tally: octets that were sent in vain are counted here.
        open_run: makes a run at another origin; its results are to be given to `ended_elsewhere`.
        loop: whose timers count the seconds.
        on_due: called with an attempt whose time has come.
        on_final: called with results that are final.
        on_error: called with what should never have been raised.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        budget: retry.Budget,
        pool: Pool,
        tally: Tally,
        *,
        open_run: Callable[[Settings, Target], OtherRun],
        loop: asyncio.AbstractEventLoop,
        on_due: Callable[[Attempt], None],
        on_final: Callable[[list[Attempt]], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._target = target
        self._budget = budget
        self._pool = pool
        self._tally = tally
        self._open_run = open_run
        self._on_final = on_final
        self._on_error = on_error
        self._waiting = Waiting(loop, on_due=on_due, on_failed=lambda attempt: on_final([attempt]), on_error=on_error)
        self._elsewhere: Elsewhere | None = None
        #: Has the digests of files that change, where digests go along.
        self.digester: Digester | None = None
        #: Nothing is tried again any more. (A run that has ended judges nothing.)
        self._stopped = False

    def __len__(self) -> int:
        """Return how many uploads are begun and wait, for a retry or at another origin."""
        return len(self._waiting) + (0 if self._elsewhere is None else self._elsewhere.outstanding)

    @property
    def delayed(self) -> int:
        """How many of them wait for the time of their retry."""
        return self._waiting.delayed

    def take(self, connection: Connection, failed: list[Attempt], now: float) -> tuple[list[Attempt], list[Attempt]]:
        """Judge what failed on a connection; returns, in order, what goes again at once, and what is final."""
        again: list[Attempt] = []
        final: list[Attempt] = []
        for attempt in failed:
            assert attempt.failure is not None
            redirect = self._redirect(attempt, attempt.failure)
            verdict = _ELSEWHERE if redirect is not None else self._verdict(connection, attempt, attempt.failure, now)
            if verdict.wait is None:
                attempt.failure = self._told(attempt, attempt.failure)
                final.append(attempt)
                continue
            self._tally.wasted += attempt.payload
            fresh = attempt.again(replay=verdict.replay, counted=verdict.counted)
            if redirect is not None:
                fresh.path = redirect.path
                fresh.redirected += 1
            if redirect is not None and redirect.origin != self._target.origin:
                self._lead_away(redirect.origin, fresh)
            elif self.digester is not None and isinstance(attempt.failure, FileChanged):
                self._waiting.digest(fresh, verdict.wait, self.digester)
            elif verdict.wait > 0:
                self._waiting.delay(fresh, verdict.wait)
            else:
                again.append(fresh)
        return again, final

    def _verdict(self, connection: Connection, attempt: Attempt, failure: FastpostError, now: float) -> retry.Verdict:
        if self._stopped:
            return retry.STOP
        if self._pool.is_in_vain(connection, failure):
            return _ELSEWHERE
        import random  # only for who has to wait

        return retry.judge(
            failure,
            retried=attempt.retried,
            replayed=attempt.replayed_in_a_row,
            elapsed=now - attempt.began,
            budget=self._budget,
            rng=random.random,
            wall=time.time(),
        )

    def _redirect(self, attempt: Attempt, failure: FastpostError) -> Redirect | None:
        """Return where a 307 or 308 leads, the same method and content with it (RFC 9110 §15.4)."""
        if not self._settings.location or self._stopped or attempt.redirected == _MOST_REDIRECTS:
            return None
        if not isinstance(failure, HttpStatus) or failure.status not in (307, 308) or failure.location is None:
            return None
        return self._target.redirected(attempt.path, failure.location)

    def _told(self, attempt: Attempt, failure: FastpostError) -> FastpostError:
        """Return a final failure as it is told: of a redirect, where it leads."""
        if not isinstance(failure, HttpStatus) or failure.location is None:
            return failure
        there = masked(failure.location)
        reason = f"redirected to {there}: if that is where it should go, give that URL with --to"
        if attempt.redirected == _MOST_REDIRECTS:
            reason = f"redirected {_MOST_REDIRECTS + 1} times, at last to {there}: do they lead in a circle?"
        return HttpStatus(failure.status, reason, failure.retry_after, failure.location)

    def _lead_away(self, origin: str, attempt: Attempt) -> None:
        if self._elsewhere is None:
            from fastpost.redirects import Elsewhere

            self._elsewhere = Elsewhere(self._settings, self._target, self._open_run, self._on_error)
        self._elsewhere.take(origin, attempt)

    def ended_elsewhere(self, results: list[Attempt]) -> None:
        """Take results of a run at another origin."""
        assert self._elsewhere is not None
        self._elsewhere.ended(results)
        self._on_final(results)

    def pause(self, paused: bool) -> None:
        """Pause the runs at other origins, as the first one is paused."""
        if self._elsewhere is not None:
            self._elsewhere.pause(paused)

    def stop(self, grace: float) -> list[Attempt]:
        """Try nothing again any more, and stop the runs at other origins; returns what waited for its time."""
        self._stopped = True
        if self._elsewhere is not None:
            self._elsewhere.stop(grace)
        return self.take_back()

    def take_back(self) -> list[Attempt]:
        """Return what waits for its time; nothing will be due any more."""
        return self._waiting.take_back()

    async def close(self) -> None:
        """End the runs at other origins; what they have measured is the tally's then."""
        if self._elsewhere is not None:
            await self._elsewhere.close(self._tally)
