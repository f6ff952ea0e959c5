"""The walk in a thread of its own: batches for the loop, at most a few ahead of it."""

from __future__ import annotations

import threading
import typing

if typing.TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from fastpost.sources import Batch

#: Batches that the walk may be ahead of the loop.
_BATCHES_AHEAD = 4


class Arriving(typing.Protocol):
    """What brings batches to a run, on the loop."""

    @property
    def exhausted(self) -> bool:
        """True when nothing more will come."""

    def release(self) -> None:
        """Called when there is room for more."""

    def stop(self) -> None:
        """Bring nothing more."""


class Feed:
    """Walks `batches` in a thread and calls `arrived` on the loop: each batch, then None or what went wrong."""

    def __init__(
        self,
        batches: Iterable[Batch],
        loop: asyncio.AbstractEventLoop,
        arrived: Callable[[Batch | None, BaseException | None], None],
    ) -> None:
        self._batches = batches
        self._loop = loop
        self._arrived = arrived
        self._granted = _BATCHES_AHEAD
        self._grants = threading.Semaphore(_BATCHES_AHEAD)
        self._stopped = False
        self.exhausted = False
        self._thread = threading.Thread(target=self._walk, name="fastpost-walk", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the walk be the full number of batches ahead again."""
        if self._granted < _BATCHES_AHEAD and not self.exhausted:
            self._grants.release(_BATCHES_AHEAD - self._granted)
            self._granted = _BATCHES_AHEAD

    def stop(self) -> None:
        """Ask the walk to end; it does after the batch that it is at."""
        self._stopped = True
        self._grants.release()

    def join(self, seconds: float) -> None:
        """Wait until the walk has ended, after `stop`; so long at most."""
        self._thread.join(seconds)

    def _walk(self) -> None:
        try:
            batches = iter(self._batches)
            while self._grants.acquire() and not self._stopped:
                batch = next(batches, None)
                self._hand_over(batch, None)
                if batch is None:
                    return
        except BaseException as failure:
            self._hand_over(None, failure)

    def _hand_over(self, batch: Batch | None, failure: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._receive, batch, failure)
        except RuntimeError:
            # The loop is closed: the run is over.
            self._stopped = True

    def _receive(self, batch: Batch | None, failure: BaseException | None) -> None:
        self._granted -= 1
        if batch is None:
            self.exhausted = True
        self._arrived(batch, failure)
