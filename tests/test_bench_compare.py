"""The comparison's silent parts: what clients are taken to have said, which runs count, who is judged how."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys

import pytest

from bench import clients, comparison_page
from bench.bars import BEST, H2LOAD, OURS, RAW, Bar, Sample, Verdict, bars, judge, overall
from bench.cells import Cell, Record
from bench.compare import Entry, report, rounds
from bench.measure import Contender, Outcome, RunFailed, check
from bench.servers import Absent, Server

H2LOAD_SAYS = """\
starting benchmark...
progress: 100% done

finished in 87.52ms, 57132.41 req/s, 1.56MB/s
requests: {total} total, {total} started, {total} done, {ok} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: {ok} 2xx, 0 3xx, {failed} 4xx, 0 5xx
traffic: 139.65KB (142999) total, 53.71KB (55000) headers (space savings 86.59%), 0B (0) data
"""


def sample(wall: float = 1.0, cpu: float = 1.0, server: float = 0.5) -> Sample:
    return Sample(wall, cpu / 2, cpu / 2, 30_000_000, server, server, {"200": 1})


def record(**runs: list[Sample]) -> Record:
    return Record("h2corn", True, "small", "2 × 4 KiB", 2, 8192, False, 50, "2024-01-01", {"go": "1.19"}, 1, runs=runs)


# --- what clients say -------------------------------------------------------------------------------


def test_h2load_is_read() -> None:
    said = H2LOAD_SAYS.format(total=5000, ok=5000, failed=0)
    assert clients.read_h2load(said, size=4096) == Outcome(5000, 5000, 5000 * 4096, {"2xx": 5000})


def test_h2load_ends_with_0_whatever_was_answered_but_its_failures_are_seen() -> None:
    outcome = clients.read_h2load(H2LOAD_SAYS.format(total=10, ok=7, failed=3), size=100)
    assert outcome == Outcome(10, 7, 700, {"2xx": 7, "4xx": 3})
    with pytest.raises(RunFailed, match="h2load"):
        check(Contender("h2load", [], lambda report: outcome), outcome, 10, 1000)


def test_h2load_that_reached_nobody_has_no_outcome() -> None:
    with pytest.raises(ValueError, match="summary"):
        clients.read_h2load("starting benchmark...\n", size=1)


def test_curl_is_read() -> None:
    said = "200 2 1 4096\n201 2 0 10\n507 2 0 4096\n000 0 0 0\n"
    statuses = {"200": 1, "201": 1, "507": 1, "000": 1}
    assert clients.read_curl(said) == Outcome(4, 2, 4106, statuses, connections=1)


def test_curl_that_fell_back_to_http_1_does_not_count() -> None:
    with pytest.raises(RunFailed, match=r"HTTP/1\.1"):
        clients.read_curl("200 1.1 1 4096\n")


# --- which runs count -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(2, 1, 8192, {"200": 1, "503": 1}, 1),
        Outcome(2, 2, 8192, {"200": 1, "503": 1}, 1),
        Outcome(1, 1, 8192, {"200": 1}, 1),
        Outcome(2, 2, 4096, {"200": 2}, 1),
        Outcome(2, 2, 8192, {"200": 2}, 2),
        Outcome(2, 2, 8192, {}, 1),
    ],
)
def test_a_run_with_anything_missing_or_more_connections_does_not_count(outcome: Outcome) -> None:
    with pytest.raises(RunFailed):
        check(Contender("one", [], lambda report: outcome), outcome, 2, 8192)


def says(name: str, code: int = 0, **report: object) -> Contender:
    script = f"import sys; print({json.dumps(report)!r}); sys.exit({code})"
    return Contender(name, [sys.executable, "-c", script], lambda out: Outcome(**json.loads(out)))


def test_who_fails_fast_leaves_the_cell_and_the_others_stay(tmp_path: pathlib.Path) -> None:
    (tmp_path / "files").mkdir()
    server = Server("fake", "http://127.0.0.1:1/", None, os.getpgid(0), tmp_path)
    good = says("good", files=2, ok=2, octets=8192, statuses={"200": 2})
    fast = says("fast", files=2, ok=0, octets=0, statuses={"503": 2})
    crash = says("crash", code=3, files=2, ok=2, octets=8192, statuses={"200": 2})
    measured = record()
    rounds([Entry(one, tmp_path / "files", server) for one in (fast, good, crash)], measured, 2)
    assert [len(samples) for samples in measured.runs.values()] == [2]
    assert list(measured.runs) == ["good"]
    assert measured.failed.keys() == {"fast", "crash"}


def test_what_a_storing_server_has_not_stored_does_not_count(tmp_path: pathlib.Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "files").mkdir()
    (store / "left.bin").write_bytes(b"torn")
    server = Server("fake", "http://127.0.0.1:1/", None, os.getpgid(0), tmp_path, store)
    liar = says("liar", files=2, ok=2, octets=8192, statuses={"201": 2})
    measured = record()
    rounds([Entry(liar, tmp_path / "files", server)], measured, 1)
    assert "stored" in measured.failed["liar"]
    assert list(store.iterdir()) == []


# --- verdicts ---------------------------------------------------------------------------------------


def test_the_best_uploader_is_another_one_for_wall_and_for_cpu() -> None:
    runs = {
        OURS: [sample(0.5, 0.5)],
        "quick": [sample(1.0, 4.0)],
        "thrifty": [sample(2.0, 2.0)],
        H2LOAD: [sample(0.1, 0.1)],
        RAW: [sample(0.1, 0.1)],
    }
    judged = judge(Bar(BEST, 0.67, 0.5), runs)
    assert (judged.wall_of, judged.cpu_of) == ("quick", "thrifty")
    assert (judged.wall, judged.cpu, judged.verdict) == (0.5, 0.25, Verdict.REACHED)


@pytest.mark.parametrize(
    ("wall", "cpu", "server", "verdict"),
    [
        (0.67, 0.5, 0.1, Verdict.REACHED),
        (0.68, 0.5, 0.1, Verdict.MISSED),
        (0.68, 0.5, 0.68 * 0.9, Verdict.BY_CPU),
        (0.67, 0.51, 0.67, Verdict.MISSED),
        (0.68, 0.51, 0.68, Verdict.MISSED),
    ],
)
def test_cpu_decides_where_the_server_limits(wall: float, cpu: float, server: float, verdict: Verdict) -> None:
    runs = {OURS: [sample(wall, cpu, server)], "rival": [sample(1.0, 1.0)]}
    assert judge(Bar(BEST, 0.67, 0.5), runs).verdict == verdict


def test_threads_that_are_busy_only_together_limit_nothing() -> None:
    busy = sample(0.68, 0.5)._replace(server_cpu=1.2, server_thread=0.4)
    assert judge(Bar(BEST, 0.67, 0.5), {OURS: [busy], "rival": [sample(1.0, 1.0)]}).verdict == Verdict.MISSED


def test_medians_are_judged() -> None:
    runs = {OURS: [sample(1), sample(9), sample(1)], "rival": [sample(1), sample(1), sample(0.01)]}
    assert judge(Bar(BEST, 1.0, 1.0), runs).verdict == Verdict.REACHED


def test_without_an_opponent_nothing_is_reached_and_without_fastpost_everything_is_missed() -> None:
    assert judge(Bar(H2LOAD, 1.0, 1.0), {OURS: [sample()]}).verdict == Verdict.OPEN
    assert judge(Bar(BEST, 1.0, 1.0), {OURS: [sample()], H2LOAD: [sample()]}).verdict == Verdict.OPEN
    assert judge(Bar(H2LOAD, 1.0, 1.0), {H2LOAD: [sample()]}).verdict == Verdict.FAILED


def test_the_worst_verdict_is_that_of_the_cell() -> None:
    runs = {OURS: [sample(0.5, 0.5)], "rival": [sample(1.0, 1.0)], H2LOAD: [sample(0.1, 0.1)]}
    judged = [judge(bar, runs) for bar in bars("small", tls=False)]
    assert [one.verdict for one in judged] == [Verdict.REACHED, Verdict.MISSED]
    assert overall(judged) == Verdict.MISSED
    assert overall([]) == Verdict.OPEN


def test_the_bars_are_those_that_were_set() -> None:
    best_many, best_large = Bar(BEST, 0.67, 0.5), Bar(BEST, 1.0, 0.6)
    assert bars("small", False) == [best_many, Bar(H2LOAD, 1.1, 2.0)]
    assert bars("tree", False) == [best_many]
    assert bars("medium", True) == [best_large, Bar(H2LOAD, 1.0, 0.8)]
    assert bars("large", False) == [best_large, Bar(H2LOAD, 1.0, 0.8), Bar(RAW, None, 1.25)]
    assert bars("large", True)[-1] == Bar(RAW, None, 1.2)


# --- what is kept, and the page ---------------------------------------------------------------------


def test_a_record_survives_its_file() -> None:
    one = record(fastpost=[sample()], rival=[sample(2)])
    assert Record.from_json(json.loads(json.dumps(one.to_json()))) == one
    with pytest.raises(ValueError, match="schema"):
        Record.from_json({})


def test_rounds_are_merged_with_those_of_the_same_machine_only() -> None:
    older, newer = record(fastpost=[sample(1)], rival=[sample(3)]), record(fastpost=[sample(2)])
    assert newer.merged(older).runs == {"fastpost": [sample(1), sample(2)], "rival": [sample(3)]}
    with pytest.raises(ValueError, match="machine"):
        newer.merged(dataclasses.replace(older, machine={"go": "1.20"}))


def test_who_failed_once_is_out_of_the_merged_cell_and_who_was_absent_once_is_not() -> None:
    older = record(fastpost=[sample(1)], rival=[sample(3)])
    newer = dataclasses.replace(record(other=[sample(2)]), failed={"fastpost": "exit code 1"})
    merged = newer.merged(dataclasses.replace(older, absent={"other": "not installed", "go": "not installed"}))
    assert merged.runs == {"rival": [sample(3)], "other": [sample(2)]}
    assert merged.failed == {"fastpost": "exit code 1"}
    assert merged.absent == {"go": "not installed"}


def test_an_absent_pycurl_is_absent_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Absent, match="pycurl is not installed"):
        clients.curl_multi(pathlib.Path("/folder"), Server("h2corn", "http://a/", None, 1, pathlib.Path("/w")))


def test_the_page_keeps_what_stands_around_the_table(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- table -->old<!-- /table -->\nafter\n")
    comparison_page.write("new", page)
    comparison_page.write("newer", page)
    assert page.read_text() == "before\n<!-- table -->\n\nnewer\n\n<!-- /table -->\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        comparison_page.write("new", page)


def test_the_page_names_who_is_absent_who_failed_and_what_was_not_run() -> None:
    one = record(fastpost=[sample(0.5, 0.4)], rival=[sample(1.0, 1.0)])
    one.absent["h2load"] = "not installed"
    one.failed["curl -Z"] = "used 9 connections"
    text = comparison_page.tables([one], [one.cell, Cell("nginx", True, "tree")])
    assert "h2load is absent: not installed." in text
    assert "curl -Z failed: used 9 connections." in text
    assert "Not run yet: nginx-tls-tree." in text
    assert "| best uploader (rival) | 0.50 | ≤ 0.67 | 0.40 | ≤ 0.5 | reached |" in text
    assert "| h2load | – | ≤ 1.1 | – | ≤ 2 | no opponent |" in text


def test_a_page_needs_its_rounds(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = record(fastpost=[sample()] * 5, rival=[sample()] * 4)
    (tmp_path / f"{one.cell.name}.json").write_text(json.dumps(one.to_json()))
    assert report(tmp_path, quick=False) == 1
    assert f"fewer than 5 rounds in {one.cell.name}" in capsys.readouterr().err
    assert report(tmp_path, quick=True) == 0


def test_the_page_counts_what_is_above_its_bar() -> None:
    ahead = record(fastpost=[sample(0.5, 0.4)], rival=[sample(1.0, 1.0)])
    behind = record(fastpost=[sample(1.2, 0.6)], rival=[sample(1.0, 1.0)], h2load=[sample(2.0, 0.2)])
    text = comparison_page.tables([ahead, behind], [])
    # Its wall and CPU against the rival, its CPU against h2load.
    assert "In 1 of 2 cells fastpost is the fastest uploader by wall time" in text
    assert "in the others it takes 1.20 to 1.20 × the best one's. 3 of 6 ratios are above their bars." in text
    assert comparison_page.tables([ahead], []).count("0 of 2 ratios are above") == 1
