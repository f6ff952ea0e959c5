"""The arithmetic of bench/instructions.py: a callgrind file in, a verdict out. No valgrind runs here."""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import instructions
from bench.instructions import Cost, cost, difference, excesses, improved, judge, limits, parse

OURS = "/src/fastpost/_gather.cpython-311-x86_64-linux-gnu.so"
LIBC = "/lib/libc.so.6"

CALLGRIND = f"""\
# callgrind format
version: 1
cmd:  python -m bench.in_memory small 10 20 /tmp/x
positions: line
events: Ir
summary: 166

ob=(1) {OURS}
fl=(1) fastpost/_gather.c
fn=(1) commit
11 14
+13 2
fi=(2) object.h
142 3
fe=(1)
-2 1
cob=(2) {LIBC}
cfi=(3) memmove.S
cfn=(2) __memcpy_avx_unaligned_erms
calls=2 551
* 62
* 4

ob=(2)
fl=(3)
fn=(2)
551 62

fn=(3) _PyEval_EvalFrameDefault
7 30
cfn=(4) _PyEval_EvalFrameDefault'2
calls=1 7
7 50

fn=(4)
7 50
"""


def profile(text: str) -> instructions.Profile:
    return parse(text.splitlines(keepends=True))


def test_own_cost_is_told_from_that_of_calls() -> None:
    assert profile(CALLGRIND) == {
        (OURS, "commit"): 24,
        (LIBC, "__memcpy_avx_unaligned_erms"): 62,
        (LIBC, "_PyEval_EvalFrameDefault"): 80,  # with its recursion
    }


def test_nothing_of_the_summary_is_lost() -> None:
    assert sum(profile(CALLGRIND).values()) == 166


def test_the_part_that_tells_where_the_time_goes() -> None:
    ours = {"_7DataPlane_split_time": 3, "_11BlockedTime_begin": 1, "_7DataPlane__fill": 196}
    assert instructions.splitting(collections.Counter({(OURS, name): own for name, own in ours.items()})) == 0.02
    assert instructions.splitting(collections.Counter()) == 0.0


def test_costs_of_a_unit_by_part() -> None:
    assert cost(profile(CALLGRIND), 2) == Cost(fastpost=12.0, copies=31.0, elsewhere=40.0)


@pytest.mark.parametrize("name", ["memcpy", "__memcpy_avx_unaligned_erms", "__memmove_sse2_unaligned", "__mempcpy_chk"])
def test_copying_has_many_names(name: str) -> None:
    assert cost(collections.Counter({(LIBC, name): 5}), 1).copies == 5


@pytest.mark.parametrize(
    ("path", "function"),
    [(LIBC, "__memset_avx2"), (LIBC, "memchr"), ("/src/fastpost/x.so", "f"), ("/x/_socket.so", "g")],
)
def test_what_is_neither_ours_nor_a_copy(path: str, function: str) -> None:
    assert cost(collections.Counter({(path, function): 5}), 1) == Cost(0, 0, 5)


def test_difference_cancels_start_up() -> None:
    start_up, work = ("/usr/bin/python3.11", "import"), (OURS, "commit")
    fewer = collections.Counter({start_up: 1_000_000, work: 100})
    more = collections.Counter({start_up: 1_000_000, work: 200})
    assert difference(more, fewer) == {work: 100}


RECORDED = Cost(fastpost=1000, copies=10, elsewhere=1000)
OCTETS = 6400  # of which a copy costs 200 at least


@pytest.mark.parametrize(
    ("measured", "parts"),
    [
        (RECORDED, []),
        (Cost(1050, 110, 1050), []),
        (Cost(1051, 110, 1050), ["fastpost"]),
        (Cost(1000, 210, 1000), ["copies"]),
        (Cost(1000, 10, 1051), ["elsewhere"]),
        (Cost(1051, 111, 1051), ["fastpost", "copies", "elsewhere"]),
        (Cost(1, 1, 1), []),
    ],
)
def test_excesses(measured: Cost, parts: list[str]) -> None:
    assert excesses(measured, limits(RECORDED, OCTETS, same_build=True)) == parts


def test_another_build_of_python_may_cost_more_elsewhere_only() -> None:
    assert limits(RECORDED, OCTETS, same_build=False) == Cost(1050, 110, 1250)


def test_only_our_own_part_improves() -> None:
    assert improved(Cost(949, 10, 1000), RECORDED)
    assert not improved(Cost(950, 0, 1), RECORDED)


def record(measured: dict[str, Cost]) -> dict[str, Any]:
    figures = {case: figure._asdict() for case, figure in measured.items()}
    other = {"made_with": {"cython": "0.29", "python": "2.7"}, "figures": {}}
    return {"builds": [other, {"made_with": {"cython": "0.29", "python": sys.version}, "figures": figures}]}


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> dict[str, Cost]:
    monkeypatch.setattr(instructions, "made_with", lambda: {"cython": "3.1", "python": sys.version})
    return {measure.case: Cost(1000, 10, 1000) for measure in instructions.MEASURES}


def test_equal_figures_pass(same: dict[str, Cost], capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(same, record(same)) == 0
    assert "record" not in capsys.readouterr().out


def test_a_dearer_figure_fails_and_says_what_else_changed(
    same: dict[str, Cost], capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge({**same, "small": Cost(1100, 10, 1000)}, record(same)) == 1
    told = capsys.readouterr()
    assert "| small, per upload | 1,100 | 1,050 |" in told.out
    assert "**more: fastpost**" in told.out
    assert "cython: 0.29 → 3.1" in told.err


def test_a_cheaper_figure_asks_for_a_new_record(same: dict[str, Cost], capsys: pytest.CaptureFixture[str]) -> None:
    assert judge({**same, "small": Cost(900, 10, 1000)}, record(same)) == 0
    assert "--record" in capsys.readouterr().out


def test_what_can_not_be_compared_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "instructions.json"
    there.write_text(json.dumps({"environment": {"python": "2.7", "machine": "vax"}}))
    monkeypatch.setattr(instructions, "RECORD", there)
    monkeypatch.setattr("sys.argv", ["instructions"])
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/valgrind")
    assert instructions.main() == 0
    assert "not compared" in capsys.readouterr().out


def test_without_valgrind_the_cure_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["instructions"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert instructions.main() == 2
    assert "apt install valgrind" in capsys.readouterr().err


def test_the_record_has_every_figure() -> None:
    recorded = json.loads(instructions.RECORD.read_text())
    assert recorded["schema"] == instructions.SCHEMA
    for build in recorded["builds"]:
        figures = {case: Cost(**figure) for case, figure in build["figures"].items()}
        assert figures.keys() == {measure.case for measure in instructions.MEASURES}
