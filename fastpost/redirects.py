"""Uploads that a redirect has led to another origin: a run of their own there, without what is meant for the first.

Fields of `-H`, bearer tokens and client certificates were given for one origin and stay there (RFC 9110 §15.4). The
results go back to the run that they came from, which counts them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Protocol

from fastpost import target as targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.sources import Batch
    from fastpost.tally import Tally
    from fastpost.target import Target


class OtherRun(Protocol):
    """A run at another origin, as far as it matters here."""

    tally: Tally

    async def complete(self, batches: Iterable[Batch], feed: Callable[..., Led]) -> None:
        """Run until it is cancelled."""

    def take(self, attempts: list[Attempt]) -> None:
        """Upload these too."""

    def stop(self, grace: float) -> None:
        """As the first run."""

    def pause(self, paused: bool) -> None:
        """As the first run."""


class Led:
    """The feed of such a run: what it uploads is led to it, one by one, for as long as the first run lasts."""

    exhausted = False

    def __init__(self, *_: object) -> None: ...

    def release(self) -> None:
        """There is nothing to ask for more."""

    def stop(self) -> None:
        """There is nothing to stop."""


class Elsewhere:
    """The runs at other origins.

    Args:
        settings, target: those of the first run.
        open_run: makes a run with these instead; its results are to be given to `ended` too.
        on_error: called with what ended such a run early.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        open_run: Callable[[Settings, Target], OtherRun],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._target = target
        self._open_run = open_run
        self._on_error = on_error
        self._runs: dict[str, OtherRun] = {}
        self._tasks: list[asyncio.Task[None]] = []
        #: Uploads that are there and not yet final.
        self.outstanding = 0

    def take(self, origin: str, attempt: Attempt) -> None:
        """Send an attempt to another origin."""
        if origin not in self._runs:
            run = self._runs[origin] = self._open(origin)
            task = asyncio.ensure_future(run.complete((), Led))
            task.add_done_callback(self._over)
            self._tasks.append(task)
        self.outstanding += 1
        self._runs[origin].take([attempt])

    def _open(self, origin: str) -> OtherRun:
        """Open a run to which nothing goes that was given for the first origin."""
        settings = dataclasses.replace(self._settings, to=f"{origin}/", fields=(), cert=None, key=None, busy_poll=False)
        return self._open_run(settings, targets.parse(settings.to, method=self._target.method.decode()))

    def ended(self, results: list[Attempt]) -> None:
        """Note results of these runs as final."""
        self.outstanding -= len(results)

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._on_error(failure)

    def stop(self, grace: float) -> None:
        """Stop all of them, as the first run is stopped."""
        for run in self._runs.values():
            run.stop(grace)

    def pause(self, paused: bool) -> None:
        """Pause all of them, as the first run is paused."""
        for run in self._runs.values():
            run.pause(paused)

    async def close(self, tally: Tally) -> None:
        """End them, and add to `tally` what their connections have measured and their repeats have wasted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for run in self._runs.values():
            tally.include(run.tally)
