"""What several processes tell of one measurement, added up; and what is said of their load on the machine."""

from __future__ import annotations

import asyncio
import dataclasses
import types
from multiprocessing.connection import Connection
from typing import Any

import pytest
from in_process import drive

from fastpost import bench_report, causes, forks
from fastpost._meter import Counted
from fastpost.bench_processes import SharedMeasurement, _Member, parts
from fastpost.bench_worker import Done, Ready, Second
from fastpost.config import Settings
from fastpost.measurement import Plan, Reading, together
from fastpost.tally import Peer, Shares, Tally


def plan(**options: Any) -> Plan:
    settings = Settings(to="http://a/", concurrency=7, connections=3)
    return dataclasses.replace(Plan(settings=settings, batches=lambda part: iter(()), processes=3), **options)


def reading(at: float, sent: int = 0, shares: Shares | None = None) -> Reading:
    return Reading(
        at=at,
        sent=sent,
        dropped=1,
        unfinished=1,
        blocked={"server": at},
        busy=at,
        cpu=at,
        queued=0.0,
        shares=shares or Shares(),
    )


def told(number: int, *, over: bool = False, late: float = 0.0) -> Second:
    """What one of them tells: 10 octets a second after 1,000, and one failed upload; its window begins at 100."""
    counted, tally = Counted(), Tally()
    counted.latency.record(number / 1000)
    tally.sent, tally.connections, tally.errors = 10 * number, 1, {"StreamReset": 1}
    tally.peer = Peer(settings={"MAX_FRAME_SIZE": 16_384})
    now = reading(100.0 + number + late, 1000 + 10 * number)
    ended = now.at if over else None
    return Second(number, reading(100.0, 1000), now, counted, tally, ended)


@pytest.fixture
def shared() -> SharedMeasurement:
    """One of two processes, which are played."""
    one = SharedMeasurement(plan(processes=2))
    one._members = [_Member(None, number) for number in (1, 2)]  # type: ignore[arg-type]
    return one


def test_everything_is_shared_out() -> None:
    found = parts(plan(rate=90.0, count=10, warm_up=2.0))
    assert [each.count for each in found] == [4, 3, 3]
    assert [each.rate for each in found] == [30.0] * 3
    assert [each.settings.concurrency for each in found] == [3, 2, 2]
    assert [each.settings.connections for each in found] == [1, 1, 1]
    assert all(each.warm_up == 2.0 and each.count is not None for each in found)
    assert all(each.rate is None and each.count is None for each in parts(plan(duration=1.0)))


def test_a_second_is_added_up_when_all_have_told_it(shared: SharedMeasurement) -> None:
    first, second = shared._members
    shared._hear(first, told(1, late=0.002))
    shared._hear(first, told(2))
    assert shared.first is None
    shared._hear(second, told(1))
    (row,) = shared.timeline.rows
    assert (row.at, row.sent, row.dropped) == (0.0, 20, 0)
    assert row.seconds == pytest.approx(1.002)
    assert row.blocked == {"server": pytest.approx(2.002)}
    assert shared.meter.whole.latency.total == 2
    assert shared.tally.errors == {"StreamReset": 2}
    assert shared.tally.connections == 2
    shared._hear(second, told(2, over=True))
    shared._hear(first, told(3, over=True))
    assert [each.sent for each in shared.timeline.rows] == [20, 20, 10]
    assert shared.tally.peer.settings == {"MAX_FRAME_SIZE": 16_384}
    assert [last.at for _, last in shared.clients] == [103.0, 102.0]
    assert shared.tally.errors == {"StreamReset": 5}
    assert shared.meter.whole.latency.total == 5


def test_the_cure_is_for_uploads_without_end(shared: SharedMeasurement) -> None:
    """A load has as many as may be in flight; what each process has found of them is not told."""
    for each in shared._members:
        shared._hear(each, told(1))
    verdict = causes.verdict(bench_report._windowed(shared, {"server": 1.0}), processes=2)
    assert verdict is not None
    assert "(--concurrency)" in verdict.sentence


def test_one_that_skipped_a_second_is_late_and_loses_nothing(shared: SharedMeasurement) -> None:
    first, second = shared._members
    for at in (1, 2, 3):
        shared._hear(first, told(at, over=at == 3))
    shared._hear(second, told(2))
    shared._hear(second, told(3, over=True))
    assert [each.sent for each in shared.timeline.rows] == [10, 30, 20]
    assert [each.dropped for each in shared.timeline.rows] == [0, 0, 0]
    assert shared.first is not None
    assert shared.first.sent == 2000
    assert shared.tally.sent == 60


def test_nobody_waits_for_one_whose_window_never_began(shared: SharedMeasurement) -> None:
    first, second = shared._members
    shared._done = type("Future", (), {"done": lambda self: False})()
    shared._hear(first, told(1))
    shared._hear(second, Done())
    assert [each.sent for each in shared.timeline.rows] == [10]


def test_a_measurement_that_is_over_before_its_window_leaves_no_timer(shared: SharedMeasurement) -> None:
    shared.plan = plan(processes=2, warm_up=100.0)
    for member in shared._members:
        member.child = types.SimpleNamespace(order=lambda order: None)  # type: ignore[assignment]
        member.listen = lambda heard: None  # type: ignore[method-assign]

    async def main() -> None:
        measuring = asyncio.ensure_future(shared.complete())
        await asyncio.sleep(0)
        for member in shared._members:
            shared._hear(member, Ready())
        for member in shared._members:
            shared._hear(member, Done())
        await measuring

    drive(main(), "asyncio")


def test_readings_of_one_moment_make_one() -> None:
    both = together([reading(1.0, 5)._replace(blocked={"disk": 1.0}), reading(1.1, 6)])
    assert (both.at, both.sent, both.dropped, both.unfinished, both.blocked) == (
        1.1,
        11,
        2,
        2,
        {"disk": 1.0, "server": 1.1},
    )


def test_fairness_is_that_of_the_window(shared: SharedMeasurement) -> None:
    """Before it one upload had nine times what the other had; of those that end in it one has three times that."""
    uneven = Shares(2, 1.8 + 0.2, 1.8**2 + 0.2**2, 0.2, 1.8)
    in_window = Shares(2, 1.5 + 0.5, 1.5**2 + 0.5**2, 0.5, 1.5)
    begin, end = reading(100.0, 0, uneven), reading(101.0, 0, uneven.plus(in_window))
    for member, last in zip(shared._members, (end, begin._replace(at=101.0)), strict=True):
        shared._hear(member, told(1, over=True)._replace(first=begin, now=last))
    shared.tally.shares = uneven.plus(end.shares)
    shared._close(shared._reading())
    assert bench_report.measured(shared, 1)["fairness"]["jain"] == 0.8


def test_fairness_of_a_window_in_which_no_large_upload_ended_is_not_told(shared: SharedMeasurement) -> None:
    begin = reading(100.0, 0, Shares(2, 2.0, 2.0, 1.0, 1.0))
    for member in shared._members:
        shared._hear(member, told(1, over=True)._replace(first=begin, now=begin._replace(at=101.0)))
    shared._close(shared._reading())
    assert bench_report.measured(shared, 1)["fairness"]["jain"] is None


def client(busy: float, queued: float = 0.0) -> dict[str, float]:
    return {"cpu_s": 1.0, "busy": busy, "queued": queued}


def test_the_figure_is_a_lower_bound_when_one_core_was_busy_and_it_says_which() -> None:
    assert bench_report._lower_bound([client(0.5), client(0.89)]) is None
    assert bench_report._lower_bound([client(0.95)]) == (
        "fastpost itself was the limit: its thread kept a core 95% busy. "
        "The rate is a lower bound of what the server takes"
    )
    sentence = bench_report._lower_bound([client(0.5), client(0.93), client(0.5, 0.45)])
    assert sentence is not None
    assert "of its 3 processes number 2 kept a core 93% busy, number 3 was busy 50% of the time and waited" in sentence


@pytest.mark.parametrize(("processes", "cure"), [(1, "--processes 2"), (2, "cores of its 2 processes")])
def test_the_cure_of_a_busy_client_knows_how_many_there_are(processes: int, cure: str) -> None:
    tally = Tally()
    tally.blocked = {"client": 1.0}
    verdict = causes.verdict(tally, processes)
    assert verdict is not None
    assert cure in verdict.sentence


def test_a_knee_is_that_of_the_row_with_the_best_rate() -> None:
    rates = {(1, 10): 90.0, (1, 50): 100.0, (2, 10): 190.0, (2, 50): 200.0}
    taken = [
        {"processes": by, "connections": 2, "concurrency": many, "uploads": {"rate": rate}}
        for (by, many), rate in rates.items()
    ]
    assert bench_report.knee(taken) == {"processes": 2, "connections": 2, "concurrency": 10, "rate": 190.0}


def test_what_nobody_reads_does_not_hold_up_its_end() -> None:
    """More is told than the loop, which is closed, may have ahead."""

    def tells(orders: Connection, told: Connection) -> None:
        for number in range(100):
            told.send(number)

    child = forks.fork(tells, ())
    member = _Member(child, 1)
    member.listen(lambda *_: None)
    member.end()
    assert child.pid == 0
