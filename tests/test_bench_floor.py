"""bench.floor: which bars can't be reached, whatever is written."""

from __future__ import annotations

import pytest

from bench.bars import Sample
from bench.cells import Record
from bench.floor import Floor, floors, share

SPENT = {
    "start-up": 70.0, "send": 30.0, "receive, wait": 20.0, "files": 25.0, "encrypt": 5.0,
    "copy": 5.0, "Python": 25.0, "own code": 15.0, "rest": 5.0,
}  # fmt: skip


def sample(wall: float, cpu: float, server: float = 0.1) -> Sample:
    return Sample(wall, cpu, 0.0, 0, server, server, {"201": 1})


def record(kind: str = "small", *, server: float = 0.1, tls: bool = False, **rivals: tuple[float, float]) -> Record:
    made = Record("s", tls, kind, "", 1, 1, False, 50, "", {}, 0)
    made.runs = {
        "fastpost": [sample(1.0, 0.8, server)],
        **{n.replace("_", " "): [sample(*t)] for n, t in rivals.items()},
    }
    return made


def test_the_kernel_and_the_packages_stay() -> None:
    assert share(SPENT, 50.0) == pytest.approx(130 / 200)
    assert share(SPENT, 1000.0) == pytest.approx(150 / 200)  # no start costs more than the whole one


def test_bars_above_and_below_the_floor() -> None:
    found = list(floors(record(libcurl=(1.2, 1.0), h2load=(1.0, 0.5)), 0.75))
    assert [(one.opponent, one.measure) for one in found] == [
        ("libcurl", "wall"), ("libcurl", "cpu"), ("h2load", "wall"), ("h2load", "cpu"),
    ]  # fmt: skip
    wall, cpu, wall_h2load, cpu_h2load = found
    assert (wall.allowed, wall.taken, wall.floor) == pytest.approx((0.804, 1.0, 0.8))
    assert wall.missed
    assert wall.reachable
    assert (cpu.allowed, cpu.floor) == pytest.approx((0.5, 0.6))
    assert not cpu.reachable
    assert not wall_h2load.missed
    assert not cpu_h2load.missed


def test_the_wall_is_not_judged_where_the_server_limits_it() -> None:
    assert [one.measure for one in floors(record(server=0.95, libcurl=(1.2, 1.0)), 0.75)] == ["cpu"]


def test_the_raw_limit_has_no_wall() -> None:
    found = list(floors(record("large", raw_limit=(1.0, 0.5)), 0.75))
    assert [(one.opponent, one.measure, one.allowed) for one in found] == [("raw limit", "cpu", 0.625)]


def test_without_a_run_of_ours_there_is_no_floor() -> None:
    made = record(libcurl=(1.0, 1.0))
    del made.runs["fastpost"]
    assert list(floors(made, 0.5)) == []
    assert Floor("x", "wall", 1.0, 1.0, 1.0).reachable
