"""One measured run: what becomes of uploads in flight when it is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from h2.settings import SettingCodes
from h2_judge import settings_frame
from in_process import Answering, Raw, Server, drive
from in_process import nothing_leaks as nothing_leaks
from integration.scripted import Peer, Request, Script

from fastpost import load, sizes
from fastpost._payload import Payload
from fastpost.config import Settings
from fastpost.load import Part
from fastpost.measurement import Measurement, Plan
from fastpost.sources import Batch

pytestmark = pytest.mark.usefixtures("nothing_leaks")


class Holds(Script):
    """Says that it has an upload, and answers when it may."""

    def __init__(self) -> None:
        self.taken, self.may_answer = threading.Event(), threading.Event()

    def completed(self, peer: Peer, request: Request) -> None:
        self.taken.set()
        assert self.may_answer.wait(30)
        super().completed(peer, request)


def stopped(warm_up: float) -> Measurement:
    """Stop a measurement while its first upload is in flight, and have that answered a little later."""

    def batches(part: Part) -> Iterator[Batch]:
        return load.made_up(sizes.parse("1KiB"), payload, 10, part)

    async def main(url: str) -> Measurement:
        settings = Settings(to=url, concurrency=1, connections=1)
        measurement = Measurement(Plan(settings=settings, batches=batches, duration=100.0, warm_up=warm_up))
        measuring = asyncio.ensure_future(measurement.complete())
        await asyncio.get_running_loop().run_in_executor(None, script.taken.wait, 30)
        measurement.stop()
        await asyncio.wait([measuring], timeout=warm_up + 0.2)  # it would be reset at once
        assert not measuring.done()
        script.may_answer.set()
        await measuring
        return measurement

    payload, script = Payload(65_536), Holds()
    with Server(script) as server:
        return drive(main(server.url))


def test_what_is_in_flight_when_it_is_stopped_may_end() -> None:
    measurement = stopped(warm_up=0.0)
    assert measurement.last is not None
    assert measurement.meter.ended == 0


def test_no_window_opens_behind_the_stop_of_a_warm_up() -> None:
    measurement = stopped(warm_up=0.5)
    assert measurement.first is None
    assert measurement.meter.ended == 0


def test_the_shares_of_what_ended_are_read_with_the_window() -> None:
    payload = Payload(65_536)

    def batches(part: Part) -> Iterator[Batch]:
        return load.made_up(sizes.parse("4MiB"), payload, 10, part)

    async def main(url: str) -> Measurement:
        settings = Settings(to=url, concurrency=2, connections=1)
        measurement = Measurement(Plan(settings=settings, batches=batches, count=4))
        await measurement.complete()
        return measurement

    wide = Answering(settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**20}), credit="stream connection")
    with Raw(wide) as server:
        measurement = drive(main(server.url))
    assert measurement.first is not None
    assert measurement.last is not None
    assert measurement.first.shares.uploads == 0
    assert 0 < measurement.last.shares.uploads <= 4
