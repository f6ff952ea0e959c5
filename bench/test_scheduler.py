"""The scheduler: what a turn costs, and leaving and joining the ring, by the number of streams."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastpost._scheduler import Scheduler

QUANTUM = 16384


def ring(streams: int, fair: bool) -> Scheduler:
    scheduler = Scheduler(QUANTUM, fair)
    for slot in range(streams):
        scheduler.join(slot)
    return scheduler


@pytest.mark.benchmark(group="scheduler: 1,000 turns")
@pytest.mark.parametrize("fair", [True, False], ids=["fair", "fifo"])
@pytest.mark.parametrize("streams", [1, 10, 100, 1000])
def test_turns(benchmark: BenchmarkFixture, streams: int, fair: bool) -> None:
    scheduler = ring(streams, fair)

    def turns() -> None:
        for _ in range(1000):
            scheduler.charge(QUANTUM)

    benchmark(turns)


@pytest.mark.benchmark(group="scheduler: 1,000 turns, scarce window")
@pytest.mark.parametrize("streams", [1, 10, 100, 1000])
def test_scarce_turns(benchmark: BenchmarkFixture, streams: int) -> None:
    """Turns that grow with what a stream has had: asked for, then charged."""
    scheduler = ring(streams, True)
    scheduler.scarce = True

    def turns() -> None:
        for _ in range(1000):
            turn = scheduler.turn()
            assert turn is not None
            scheduler.charge(turn[1])

    benchmark(turns)


@pytest.mark.benchmark(group="scheduler: block and resume 1,000 times")
@pytest.mark.parametrize("fair", [True, False], ids=["fair", "fifo"])
@pytest.mark.parametrize("streams", [1, 10, 100, 1000])
def test_block_and_resume(benchmark: BenchmarkFixture, streams: int, fair: bool) -> None:
    """Under fifo a stream goes back to its place by arrival, which is searched from the tail."""
    scheduler = ring(streams, fair)

    def block_and_resume() -> None:
        for slot in range(1000):
            scheduler.leave(slot % streams)
            scheduler.resume(slot % streams)

    benchmark(block_and_resume)
