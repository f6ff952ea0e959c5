"""One process of a run spread over several: a loop of its own, files by portions, results by message.

It asks for a portion when its backlog is low, and tells what became of it: counts four times a second, whole results
where the parent looks at them. It prints nothing, and obeys the parent's SIGTERM as a run obeys the user's; SIGUSR1
ends it without a grace.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import marshal
import os
import pickle
import signal
import socket
import threading
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import uvloop

from fastpost.collector import spare_running
from fastpost.errors import FastpostError, UsageError
from fastpost.open_files import raise_open_files
from fastpost.sources import Batch, Upload
from fastpost.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.sources import Rejected
    from fastpost.tally import Tally

#: Seconds between the counts of a worker.
_COUNTS: Final = 0.25


class Orders(NamedTuple):
    """What a worker is told before its first portion.

    Attributes:
        settings: with this process's share of the concurrency and the connections.
        tells_results: the parent wants the results, not only their counts.
        grace: seconds that uploads have to finish after the first SIGTERM.
    """

    settings: Settings
    tells_results: bool
    grace: float


class Message(NamedTuple):
    """What a worker tells: "counts", "done", "stopped" by a signal, "notice" with a text, "broken" with the reason.

    Attributes:
        cut: what was counted since the last message.
        ended: numbers of the uploads that `cut` counts, as unsigned 64-bit integers.
        results: their results, where the parent looks at them.
        rejected: uploads that could not be read for their digest; `cut` counts them too.
    """

    kind: str
    text: str = ""
    cut: Tally | None = None
    ended: bytes = b""
    results: Sequence[Attempt] = ()
    rejected: Sequence[Rejected] = ()
    failure: FastpostError | None = None


class Numbered(Upload):
    """An upload that the parent knows by its number."""

    __slots__ = ("number",)

    number: int


def packed(uploads: list[Upload] | None, first: int) -> bytes:
    """Return a portion as a message; None: there is no more. marshal takes a fifth of pickle's time.

    Args:
        uploads: the portion.
        first: the number of its first upload; the others follow.
    """
    if uploads is None:
        return marshal.dumps(None)
    return marshal.dumps((first, [(one.file, one.name, one.size, one.content_type, one.follow) for one in uploads]))


def unpacked(portion: IO[bytes]) -> list[Upload] | None:
    """Read a portion; returns its uploads, numbered, or None: there is no more. Raises EOFError: the parent is gone."""
    parts = marshal.load(portion)
    if parts is None:
        return None
    first, uploads = parts
    numbered: list[Upload] = []
    for number, parts in enumerate(uploads, start=first):
        upload = Numbered(*parts)
        upload.number = number
        numbered.append(upload)
    return numbered


def work(asks: socket.socket, told: IO[bytes]) -> None:
    """Upload until there is no more, as this whole process's work. Raises EOFError, OSError: the parent is gone.

    Args:
        asks: brings `Orders`, pickled, and portions as they were `packed`; takes an octet that asks for another one.
        told: takes every `Message`, pickled; the last one is "done" or "broken".
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, meant for the parent
    portions = asks.makefile("rb")
    orders: Orders = pickle.load(portions)
    with contextlib.suppress(UsageError, OSError):  # the parent has told it of its own
        raise_open_files(connections=orders.settings.connections_at_most)
    worker = _Worker(orders, asks, portions, told)
    try:
        uvloop.run(worker.run())
    except Exception as error:
        worker.tell(Message("broken", f"{type(error).__name__}: {error}"))


def main() -> NoReturn:
    """Be a worker that was started from nothing: it asks on its standard input, and tells on its standard output."""
    spare_running()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        work(socket.socket(fileno=0), os.fdopen(1, "wb"))
    os._exit(0)


class _Worker:
    """The run of one process."""

    def __init__(self, orders: Orders, asks: socket.socket, portions: IO[bytes], told: IO[bytes]) -> None:
        self._uploader = Uploader(orders.settings)
        self._asks = asks
        self._portions = portions
        self._told = told
        self._tells_results = orders.tells_results
        self._grace = orders.grace
        self._ended = array.array("Q")
        self._connected = threading.Event()

    async def run(self) -> None:
        """Upload what comes."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, self._grace)
        loop.add_signal_handler(signal.SIGUSR1, self._stop, 0.0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR1})
        counting = loop.create_task(self._count())
        failure: FastpostError | None = None
        try:
            await self._uploader.run(
                self._batches(),
                self._on_results,
                self._on_rejected,
                distinct=True,
                on_notice=lambda notice: self.tell(Message("notice", notice)),
                on_connected=lambda _: self._connected.set(),
                connects_first=True,
            )
        except FastpostError as error:
            failure = error
        counting.cancel()
        # While SIGTERM is still taken: without this message all that it had would count as lost.
        self._count_now("done", failure=failure)

    def _batches(self) -> Iterator[Batch]:
        """Ask for portions, in the walk's thread; not before there is a connection: one may not be had for each."""
        self._connected.wait()
        try:
            while True:
                self._asks.sendall(b"?")
                uploads = unpacked(self._portions)
                if uploads is None:
                    return
                batch = Batch()
                batch.uploads = uploads
                yield batch
        except (EOFError, OSError):
            return  # the parent is gone; `_count` meets it too

    def _on_results(self, results: list[Attempt]) -> None:
        self._ended.extend([result.upload.number for result in results])
        if self._tells_results:
            # Together with their counts: what the parent has seen of a worker that is lost, it has counted too.
            self._count_now("counts", results=results)

    def _on_rejected(self, rejected: list[Rejected]) -> None:
        """The walk is the parent's: what is rejected here could not be read for its digest."""
        self._count_now("counts", rejected=rejected)

    async def _count(self) -> None:
        try:
            while True:
                await asyncio.sleep(_COUNTS)
                self._count_now("counts")
        except OSError:
            self._uploader.stop(0.0)  # the parent is gone: nobody wants what is left

    def _count_now(self, kind: str, **more: Any) -> None:
        ended, self._ended = self._ended, array.array("Q")
        self.tell(Message(kind, cut=self._uploader.tally.cut(), ended=ended.tobytes(), **more))

    def tell(self, message: Message) -> None:
        """Tell the parent."""
        pickle.dump(message, self._told, pickle.HIGHEST_PROTOCOL)
        self._told.flush()

    def _stop(self, grace: float) -> None:
        self.tell(Message("stopped"))
        self._uploader.stop(grace)
