"""One process of a run spread over several: a loop of its own, files by portions, results by message.

It asks for a portion when its backlog is low, and tells what became of it: counts four times a second, whole results
where the parent looks at them. It prints nothing, and obeys the parent's SIGTERM as a run obeys the user's.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import signal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import uvloop

from fastpost.errors import FastpostError
from fastpost.sources import Batch, Upload
from fastpost.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.sources import Rejected

#: Seconds between the counts of a worker.
_COUNTS: Final = 0.25


class Message(NamedTuple):
    """What a worker tells: a cut of its tally ("counts", "done"), "results", "rejected", "notice", "broken" and why."""

    kind: str
    content: Any
    failure: FastpostError | None = None


def packed(uploads: list[Upload] | None) -> bytes:
    """Return a portion as a message; None: there is no more. marshal takes a fifth of pickle's time."""
    if uploads is None:
        return b""
    return marshal.dumps([(one.file, one.name, one.size, one.content_type, one.follow) for one in uploads])


class Worker:
    """The run of one process.

    Args:
        settings: with this process's share of the concurrency and the connections.
        portions: sends True to ask for a portion, and receives it as it was `packed`.
        told: sends every `Message`.
        tells_results: the parent wants the results, not only their counts.
        grace: seconds that uploads have to finish after the first SIGTERM.
    """

    def __init__(
        self, settings: Settings, portions: Connection, told: Connection, *, tells_results: bool, grace: float
    ) -> None:
        self._uploader = Uploader(settings)
        self._portions = portions
        self._told = told
        self._tells_results = tells_results
        self._grace = grace

    def work(self) -> None:
        """Upload until there is no more; the last message is "done" or "broken". Raises OSError: the parent is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, meant for the parent
        try:
            uvloop.run(self._run())
        except Exception as error:
            self._tell("broken", f"{type(error).__name__}: {error}")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._uploader.stop, self._grace)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        counting = loop.create_task(self._count())
        failure: FastpostError | None = None
        try:
            await self._uploader.run(
                self._batches(),
                self._on_results if self._tells_results else None,
                self._on_rejected if self._tells_results else None,
                distinct=True,
                on_notice=lambda notice: self._tell("notice", notice),
            )
        except FastpostError as error:
            failure = error
        counting.cancel()
        # While SIGTERM is still taken: without this message all that it had would count as lost.
        self._tell("done", self._uploader.tally.cut(), failure)

    def _batches(self) -> Iterator[Batch]:
        """Ask for portions, in the walk's thread."""
        while True:
            try:
                self._portions.send(True)
                portion = self._portions.recv_bytes()
            except (EOFError, OSError):
                return  # the parent is gone; `_count` meets it too
            if not portion:
                return
            batch = Batch()
            batch.uploads = [Upload(*parts) for parts in marshal.loads(portion)]
            yield batch

    def _on_results(self, results: list[Attempt]) -> None:
        self._tell("results", results)

    def _on_rejected(self, rejected: list[Rejected]) -> None:
        """The walk is the parent's: what is rejected here could not be read for its digest."""
        self._tell("rejected", rejected)

    async def _count(self) -> None:
        try:
            while True:
                await asyncio.sleep(_COUNTS)
                self._tell("counts", self._uploader.tally.cut())
        except OSError:
            self._uploader.stop(0.0)  # the parent is gone: nobody wants what is left

    def _tell(self, kind: str, content: Any, failure: FastpostError | None = None) -> None:
        self._told.send(Message(kind, content, failure))


def live(worker: Worker) -> None:
    """Be a worker process to the end of it: nothing of the parent's is cleaned up or flushed twice."""
    code = 1
    try:
        worker.work()
        code = 0
    except OSError:
        pass  # the parent is gone, and with it whoever would want to know
    finally:
        os._exit(code)
