"""The curves' own judgement: what counts as not flat, and as a cliff; which points there are."""

from __future__ import annotations

import pytest

from bench.curves import Figures, points, table, verdicts


def at(axis: str, value: int, cpu_us: float, wall: float = 2.0) -> Figures:
    return Figures(axis, value, 10_000, 10_240_000, wall, cpu_us, 35_000_000)


@pytest.mark.parametrize("number", [100_000, 1_000_000])
@pytest.mark.parametrize(("many", "missed"), [(11.4, 0), (11.6, 1), (5.0, 0)])
def test_cpu_a_file_may_grow_by_15_percent(number: int, many: float, missed: int) -> None:
    assert len(verdicts([at("files", 1000, 20.0), at("files", 10_000, 10.0), at("files", number, many)])) == missed


@pytest.mark.parametrize(("wide", "missed"), [(14.9, 0), (15.1, 1)])
def test_a_thousand_streams_may_not_be_a_cliff(wide: float, missed: int) -> None:
    assert len(verdicts([at("concurrency", 50, 10.0), at("concurrency", 1000, wide)])) == missed


@pytest.mark.parametrize(("wall", "missed"), [(2.3, 0), (2.5, 1)])
def test_nor_may_it_be_one_by_files_a_second(wall: float, missed: int) -> None:
    assert len(verdicts([at("concurrency", 50, 10.0), at("concurrency", 1000, 10.0, wall)])) == missed


def test_what_was_not_measured_is_not_judged() -> None:
    assert verdicts([at("files", 10_000, 10.0), at("connections", 4, 99.0)]) == []


def test_the_axes_reach_as_far_as_they_are_said_to() -> None:
    reach = {
        axis: [one.value for one in points(False) if one.axis == axis] for axis in {one.axis for one in points(False)}
    }
    assert (min(reach["files"]), max(reach["files"])) == (1_000, 1_000_000)
    assert (min(reach["size"]), max(reach["size"])) == (1, 1 << 30)
    assert (min(reach["concurrency"]), max(reach["concurrency"])) == (1, 1_000)
    assert (min(reach["connections"]), max(reach["connections"])) == (1, 16)
    assert all(one.files.octets <= 1 << 30 for one in points(False) if one.axis == "size")


def test_rates_count_the_whole_run() -> None:
    assert "| files | 10,000 | 5,000 | 5 | 10.0 | 35 |" in table([at("files", 10_000, 10.0)])
