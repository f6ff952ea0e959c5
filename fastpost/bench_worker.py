"""One process of a measurement that several share: measures its part, and tells what it has counted by the second.

It tells what was counted since it told the last time: some 200 µs of its loop, however long the window. It obeys its
parent alone: SIGINT and SIGTERM, of a terminal or a supervisor, stay blocked as `forks` has left them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import uvloop

from fastpost.errors import FastpostError
from fastpost.measurement import Measured, Measurement, Plan, Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from fastpost._meter import Counted
    from fastpost._table import Attempt
    from fastpost.load import Part
    from fastpost.tally import Tally
    from fastpost.timeline import Row

    Described = Callable[[float, list[Attempt]], str]

#: Characters of described uploads that are told together.
_TOGETHER: Final = 65_536


class Ready(NamedTuple):
    """It could begin at once."""


class Second(NamedTuple):
    """What there is to tell at the end of a second of the window, or at the window's own end.

    Attributes:
        number: which, from 1 on; after a loop that was held up, the last of several.
        first, now: the readings at the window's beginning and at present.
        counted, tally: what was counted since the last one was told; what connections measure are sums.
        ended: when the window ended (monotonic seconds); None: it goes on.
    """

    number: int
    first: Reading
    now: Reading
    counted: Counted
    tally: Tally
    ended: float | None


class Uploads(NamedTuple):
    """Uploads that count, described."""

    text: str


class Notice(NamedTuple):
    """Something that is told at once: a failed try to connect is followed by another one."""

    text: str


class Done(NamedTuple):
    """It has ended; `failure` is why it could not measure."""

    failure: Exception | None = None


Told = Ready | Second | Uploads | Notice | Done


class Worker:
    """Measures one part.

    Args:
        plan: of this part: the rate, the count, the concurrency and the connections are its own.
        part: which.
        described: makes the text that is told of uploads that count, from when the window began; None: none is told.
        orders: receives a float, the moment to begin (monotonic seconds), and None: stop.
        told: sends Ready, Second, Uploads, Notice and, as its last word, Done.
    """

    def __init__(
        self, plan: Plan, part: Part, described: Described | None, orders: Connection, told: Connection
    ) -> None:
        self._plan = plan
        self._part = part
        self._described = described
        self._orders = orders
        self._told = told
        self._measurement: Measurement | None = None
        self._stopped = False
        self._texts: list[str] = []
        self._length = 0

    def work(self) -> None:
        """Measure when the parent says so. Raises OSError: the parent is gone."""
        try:
            uvloop.run(self._run())
            done = Done()
        except (FastpostError, OSError) as error:
            done = Done(error)
        except Exception as error:
            done = Done(RuntimeError(f"{type(error).__name__}: {error}"))
        self._told.send(done)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._ordered: asyncio.Future[float] = loop.create_future()
        loop.add_reader(self._orders.fileno(), self._obey)
        self._told.send(Ready())
        begins = await self._ordered
        while not self._stopped and (left := begins - time.monotonic()) > 0:
            await asyncio.sleep(left)  # timers are a millisecond early at times: what ends before that counts nowhere
        if self._stopped:
            return
        self._measurement = Measurement(
            self._plan,
            on_counted=self._on_counted if self._described is not None else None,
            on_second=self._on_second,
            on_notice=lambda text: self._told.send(Notice(text)),
            part=self._part,
            begins=begins,
        )
        await self._measurement.complete()

    def _obey(self) -> None:
        try:
            order = self._orders.recv()
        except (EOFError, OSError):
            assert self._task is not None
            self._task.cancel()  # the parent is gone: nobody wants what is left
            asyncio.get_running_loop().remove_reader(self._orders.fileno())
            return
        if not self._ordered.done():
            self._ordered.set_result(order)
        if order is None:
            self._stopped = True
            if self._measurement is not None:
                self._measurement.stop()

    def _on_counted(self, one: Measurement, uploads: list[Attempt]) -> None:
        assert self._described is not None
        self._texts.append(self._described(one.meter.begins, uploads))
        self._length += len(self._texts[-1])
        if self._length >= _TOGETHER:
            self._tell_uploads()

    def _tell_uploads(self) -> None:
        if self._texts:
            self._told.send(Uploads("".join(self._texts)))
            self._texts.clear()
            self._length = 0

    def _on_second(self, _one: Measured, _row: Row, counted: Counted) -> None:
        one = self._measurement
        assert one is not None
        assert one.first is not None
        assert one.latest is not None
        self._tell_uploads()
        ended = None if one.last is None else one.meter.ends
        self._told.send(Second(one.second, one.first, one.latest, counted, one.tally.cut(), ended))
