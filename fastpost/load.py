"""What a benchmark uploads, and when: batches without end, and the clock of an open loop.

A closed loop needs no clock: like an upload of files it begins the next upload when one has ended, so a slow server is
asked less often. An open loop begins each upload when it is due, whatever became of those before; what the server, or
this process, is late with counts in the latency, because that is counted from the moment the upload was due.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import random
import time
import typing

from fastpost._alarm import Alarm
from fastpost.errors import NothingMatched
from fastpost.feed import Feed
from fastpost.sources import Batch, Upload, walk

if typing.TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastpost._payload import Payload
    from fastpost.sizes import Sizes

T = typing.TypeVar("T")

#: Uploads in a batch.
_BATCH = 256
#: Octets between the beginnings of two uploads in the payload: a prime, so that contents differ.
_STRIDE = 1_000_003
#: Seconds between two looks at what is due, at least: what falls due within them leaves together.
_TICK = 0.0001
#: Seconds until the next look when nothing was in stock.
_STARVED = 0.001
#: Uploads in stock below which the walk is asked for more.
_STOCK_LOW = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One of `count` shares of a load, from 0 on: every count-th upload is its own."""

    index: int
    count: int

    def of(self, items: Sequence[T], first: int = 0) -> list[T]:
        """Return those of its own; `first` is the number of the first item."""
        return list(items[(self.index - first) % self.count :: self.count])


WHOLE: typing.Final = Part(0, 1)


def made_up(sizes: Sizes, payload: Payload, names: int, part: Part = WHOLE) -> Iterator[Batch]:
    """Yield uploads of such sizes without end; the same ones for the same part.

    Their names come again after `names` of them, so that a server which stores them is not filled. No two parts have
    a name in common.
    """
    rng = random.Random(1 + part.index)
    taken = itertools.cycle([b"fastpost-bench-%d.bin" % number for number in part.of(range(names))])
    start = part.index * _STRIDE
    while True:
        batch = Batch()
        for size, name in zip(sizes.draw(rng, _BATCH), taken, strict=False):
            batch.uploads.append(Upload(b"", name, size, content=payload.excerpt(start, size)))
            start += part.count * _STRIDE
        yield batch


def replayed(folder: str, payload: Payload | None, part: Part = WHOLE) -> Iterator[Batch]:
    """Yield the files of a folder, in the order of the walk, again and again; of what can't be uploaded, nothing.

    With a payload only their names and sizes are taken, and its octets are sent. Every part walks all of the folder and
    yields what is its own. Raises NothingMatched.
    """
    start = part.index * _STRIDE
    walked = 0
    for turn in itertools.count():
        found = 0
        for of_all in _turn(folder, sizes=payload is not None):
            batch = Batch()
            found += len(of_all)
            batch.uploads = part.of(of_all, walked)
            walked += len(of_all)
            if payload is not None:
                for upload in batch.uploads:
                    upload.content = payload.excerpt(start, max(upload.size, 0))
                    start += part.count * _STRIDE
            yield batch
        if not found:
            raise NothingMatched(
                f"--from {folder}: no file in it to take sizes from"
                if turn == 0
                else f"--from {folder}: it was emptied"
            )


def _turn(folder: str, *, sizes: bool) -> Iterator[list[Upload]]:
    """Yield the files of a folder, a batch or more at a time; those of a small one as often as make a batch.

    A walk takes 50 µs, however few files it finds: one for each turn of a few would keep a few in flight, not all.
    """
    held: list[Upload] = []
    small = True
    for batch in walk([folder], sizes=sizes):
        held += batch.uploads
        if len(held) >= _BATCH:
            small = False
            yield held
            held = []
    few = tuple(held)
    while small and few and len(held) < _BATCH:
        held += map(copy.copy, few)
    if held:
        yield held


def first(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """Yield the first `count` uploads."""
    for batch in batches:
        del batch.uploads[count:]
        count -= len(batch.uploads)
        yield batch
        if not count:
            return


class OpenLoop:
    """Brings uploads to a run by the clock, one every 1 ÷ rate seconds.

    Args:
        rate: uploads a second.
        most: uploads in flight above which those that fall due are dropped.
        begins: when the first upload is due (monotonic seconds); None: when it is started.
    """

    def __init__(self, rate: float, most: int, begins: float | None = None) -> None:
        self.exhausted = False
        #: Uploads brought that have not ended (`ended`).
        self.in_flight = 0
        #: Uploads that fell due while as many as allowed were in flight; they are never sent.
        self.dropped = 0
        self._rate = rate
        self._most = most
        self._stock: collections.deque[Upload] = collections.deque()
        self._due = 0
        self._begins = begins
        self._began = 0.0

    def start(
        self,
        batches: Iterable[Batch],
        loop: asyncio.AbstractEventLoop,
        arrived: Callable[[Batch | None, BaseException | None], None],
    ) -> OpenLoop:
        """Begin. Returns itself, as what feeds a run."""
        self._loop = loop
        self._arrived = arrived
        self._feed = Feed(batches, loop, self._stocked)
        self._alarm = Alarm()
        loop.add_reader(self._alarm.fd, self._look)
        self._began = time.monotonic() if self._begins is None else self._begins
        self._alarm.set(self._began)
        return self

    def release(self) -> None:
        """Do nothing: nobody is asked whether there is room."""

    def stop(self) -> None:
        """Bring nothing more."""
        if self._alarm.fd >= 0:
            self._loop.remove_reader(self._alarm.fd)
            self._alarm.close()
        self._feed.stop()

    def join(self, seconds: float) -> None:
        """Wait until the walk has ended, after `stop`; so long at most."""
        self._feed.join(seconds)

    def unfinished(self, now: float) -> int:
        """Return how many were due and have not ended: in flight, or not even brought where this process is late."""
        due = int((now - _STARVED - self._began) * self._rate) + 1  # what fell due since the last look is not late
        return self.in_flight + max(due - self._due, 0)

    def ended(self, count: int) -> None:
        """So many of those in flight have ended."""
        self.in_flight -= count

    def _stocked(self, batch: Batch | None, failure: BaseException | None) -> None:
        if failure is not None:
            self._arrived(None, failure)
        elif batch is not None:
            self._stock.extend(batch.uploads)

    def _look(self) -> None:
        """Bring what has fallen due; what is not in stock yet stays due."""
        self._alarm.take()
        now = time.monotonic()
        until = int((now - self._began) * self._rate)
        batch = Batch()
        while self._due <= until:
            if self.in_flight >= self._most:
                self.dropped += 1
            elif self._stock:
                upload = self._stock.popleft()
                upload.due = self._began + self._due / self._rate
                batch.uploads.append(upload)
                self.in_flight += 1
            else:
                break
            self._due += 1
        starved = self._due <= until
        self._alarm.set(now + _STARVED if starved else max(self._began + self._due / self._rate, now + _TICK))
        if len(self._stock) < _STOCK_LOW:
            self._feed.release()
        if batch.uploads:
            self._arrived(batch, None)
        if self._feed.exhausted and not self._stock and not self.exhausted:
            self.exhausted = True
            self.stop()
            self._arrived(None, None)
