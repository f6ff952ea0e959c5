"""The page of a benchmark: verdicts, figures, and what is drawn."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from reports import measured, report
from rich.console import Console
from test_page import HOSTILE, Seen

from fastpost import bench_charts, bench_page, bench_report, bench_text
from fastpost.bench_report import Setting


def seen(made: dict[str, Any]) -> Seen:
    return Seen(bench_page.drawn(made))


def charts(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is drawn, by titles: of one title the last."""
    return {chart["title"]: chart for chart in seen(made).data("charts")}


def sweep(*settings: tuple[int | str, int, int], runs: int = 1) -> dict[str, Any]:
    """Return a report of connections, concurrency and rate each."""
    taken = [
        measured(concurrency, run, connections=connections, rate=rate + run)
        for run in range(1, runs + 1)
        for connections, concurrency, rate in settings
    ]
    return report(*taken, knee=bench_report.knee(taken))


def test_one_run_is_told_and_drawn() -> None:
    made = report(measured())
    page = seen(made)
    assert page.data("report") == made
    for words in ("PUT http://store.example/dav/", "60% of the time the server had not", "Closed loop", "1,000"):
        assert words in page.words
    assert list(charts(made)) == [
        "Uploads a second, over time",
        "MB a second, over time",
        "Latency by percentile, ms",
        "Latency over time, ms",
        "Uploads waiting, over time, by what for",
    ]


def test_the_figures_drawn_are_those_of_the_report() -> None:
    one = measured()
    drawn = charts(report(one))
    (uploads,) = drawn["Uploads a second, over time"]["lines"]
    assert uploads["points"] == [[1, 1000], [2, 1000], [3, 1000], [4, 1000], [5, 1000]]
    latency, response = drawn["Latency by percentile, ms"]["lines"]
    by_place = dict(latency["points"])
    assert [by_place[place] for place in (2, 4, 10, 100, 1000)] == [
        one["latency_ms"][name] for name in ("p50", "p75", "p90", "p99", "p999")
    ]
    assert latency["points"][-1] == [5000, pytest.approx(one["latency_ms"]["max"], rel=1e-3)]
    assert response["points"][-1][0] == 5000
    waited = {line["name"]: line["points"] for line in drawn["Uploads waiting, over time, by what for"]["lines"]}
    assert waited == {
        "connection window": [[at, 20] for at in range(1, 6)],
        "server": [[at, 30] for at in range(1, 6)],
    }
    assert drawn["Uploads waiting, over time, by what for"]["stacked"]


def test_a_sweep_shows_rate_and_p99_with_the_knee() -> None:
    made = sweep((1, 1, 300), (1, 10, 990), (1, 100, 1000))
    drawn = charts(made)
    (rate,) = drawn["Uploads a second"]["lines"]
    assert rate["points"] == [[1, 301], [10, 991], [100, 1001]]
    assert drawn["Uploads a second"]["mark"] == drawn["p99 of latency, ms"]["mark"] == [10, "knee: 10 in flight"]
    assert "The knee is at 10 in flight, with 991 uploads/s: the fewest" in seen(made).words
    assert {line["name"] for line in drawn["Uploads a second, over time"]["lines"]} == {"went well"}


def test_a_knee_at_the_end_of_the_sweep_says_nothing_of_more_in_flight() -> None:
    """The rate still rose there: nobody has seen that more of them only wait."""
    for made, last in (
        (sweep((1, 1, 300), (1, 10, 990)), True),
        (sweep((1, 1, 300), (1, 10, 990), (1, 50, 990)), False),
    ):
        for told in (seen(made).words, bench_text.drawn(made, Console(width=200))):
            assert ("the most that were measured; more of them may be faster" in told) is last
            assert ("more of them only wait longer" in told) is not last


def test_a_sweep_of_connections_too_has_a_line_for_each() -> None:
    made = sweep((1, 1, 300), (1, 50, 800), (4, 1, 300), (4, 50, 1000))
    drawn = charts(made)
    assert [line["name"] for line in drawn["Uploads a second"]["lines"]] == ["1 connection", "4 connections"]
    assert drawn["Uploads a second"]["mark"][1] == "knee: 50 in flight, 4 connections"


def test_a_sweep_of_processes_alone_is_one_line_although_their_connections_come_with_them() -> None:
    taken = [measured(50, 1, connections=by, rate=100 * by) | {"processes": by} for by in (1, 2, 4)]
    (line,) = charts(report(*taken, knee=bench_report.knee(taken)))["Uploads a second"]["lines"]
    assert line["points"] == [[1, 100], [2, 200], [4, 400]]


def test_one_setting_of_several_processes_is_named_whole() -> None:
    alone = Setting(2, 2, 50)
    assert bench_charts.in_words(alone, [alone]) == "50 in flight on 2 connections by 2 processes"


def test_a_sweep_of_connections_alone_has_them_across() -> None:
    drawn = charts(sweep((1, 50, 300), (4, 50, 800), ("auto", 50, 900)))
    chart = drawn["Uploads a second"]
    assert (chart["axis"], chart["x"], chart["mark"]) == ("names", "connections", None)
    assert chart["lines"][0]["points"] == [["1", 301], ["4", 801], ["auto", 901]]


def test_several_runs_are_dots_about_their_mean_and_lines_of_one_look() -> None:
    made = sweep((1, 10, 500), (1, 50, 900), runs=3)
    mean, *runs = charts(made)["Uploads a second"]["lines"]
    assert mean["points"] == [[10, 502], [50, 902]]
    assert [line["points"] for line in runs] == [[[10, 500 + run], [50, 900 + run]] for run in (1, 2, 3)]
    together = next(chart for chart in seen(made).data("charts") if chart["title"] == "Latency by percentile, ms")
    looks = {(line["name"], line["look"]) for line in together["lines"]}
    assert looks == {("10 in flight", 0), ("50 in flight", 1)}
    assert "50 in flight, run 3" in seen(made).words


def test_runs_of_one_setting_are_laid_over_each_other() -> None:
    made = report(measured(run=1), measured(run=2))
    titles = [chart["title"] for chart in seen(made).data("charts")]
    assert titles[:2] == ["Uploads a second, over time", "Latency by percentile, ms"]
    assert len(titles) == 2 + 2 * 5


def test_an_open_loop_shows_what_was_asked_for_and_what_was_dropped() -> None:
    one = measured()
    for row in one["timeline"]:
        row["dropped"] = 500
    made = report(one)
    made["load"] |= {"loop": "open", "rate": 1500.0}
    lines = {line["name"]: line["points"][0][1] for line in charts(made)["Uploads a second, over time"]["lines"]}
    assert lines == {"went well": 1000, "dropped": 500, "--rate": 1500}
    assert "Open loop" in seen(made).words


def test_what_went_wrong_is_told_first() -> None:
    failed = measured(uploads={"ok": 4990, "failed": 10, "dropped": 0, "unfinished": 0, "rate": 998.0})
    failed["client"] |= {"lower_bound": True, "sentence": "fastpost itself was the limit: it was busy"}
    words = seen(report(failed, interrupted=True)).words
    assert (
        words.index("Interrupted") < words.index("Lower bound. fastpost itself was") < words.index("10 uploads failed")
    )
    assert words.index("10 uploads failed") < words.index("Closed loop")


def test_thresholds_have_their_verdicts() -> None:
    missed = {"condition": "p99>5ms", "missed": True, "told": "40.0 ms with 50 in flight"}
    kept = {"condition": "rate<10", "missed": False, "told": ""}
    words = seen(report(measured(), thresholds=[missed, kept])).words
    for told in ("p99>5ms", "✗ missed", "40.0 ms with 50 in flight", "rate<10", "✓ kept"):
        assert told in words


def test_a_run_in_which_all_failed_has_a_page() -> None:
    nothing = dict.fromkeys(("p50", "p75", "p90", "p99", "p999", "p9999", "max", "mean"))
    waited = dict.fromkeys(measured()["blocked_s"], 0.0)
    one = measured(rate=0, latency_ms=nothing, response_ms=nothing, limited_by=None, blocked_s=waited)
    one["uploads"]["failed"] = 5
    one["timeline"][0]["failed"] = 5
    drawn = charts(report(one))
    assert list(drawn) == ["Uploads a second, over time", "MB a second, over time"]
    assert [line["name"] for line in drawn["Uploads a second, over time"]["lines"]] == ["went well", "failed"]


def test_a_sliver_at_the_end_belongs_to_the_row_before_it() -> None:
    rows = bench_charts.rows(measured(seconds=(1.0, 1.0, 0.001)))
    assert [(row.at, row.seconds) for row in rows] == [(0.0, 1.0), (1.0, pytest.approx(1.001))]


def test_a_run_of_a_moment_is_drawn_over_that_moment() -> None:
    (uploads,) = charts(report(measured(seconds=(0.0162,))))["Uploads a second, over time"]["lines"]
    assert uploads["points"] == [[0.0162, pytest.approx(1000, rel=0.02)]]


def test_a_long_run_has_no_more_points_than_can_be_told_apart() -> None:
    rows = bench_charts.rows(measured(rate=1, seconds=[1.0] * 1200))
    assert len(rows) == 240
    assert sum(row.ok for row in rows) == 1200


def test_words_from_outside_are_words() -> None:
    def made(words: str) -> Seen:
        one = measured(errors={"HttpStatus": 1}, examples={"HttpStatus 404": words})
        one["peer"]["server"] = words
        hostile = report(one, target=words)
        hostile["load"] |= {"from": words, "size": None}
        return seen(hostile)

    hostile = made(HOSTILE)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in made("words").elements]
    assert "img" not in {tag for tag, _ in hostile.elements}
    assert hostile.data("report")["target"] == HOSTILE


def test_without_html_nothing_of_it_is_loaded() -> None:
    script = "import sys, fastpost.bench_run, fastpost.cli_bench, fastpost.compare_text; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"fastpost.page", "fastpost.bench_page", "fastpost.compare_page"} & set(loaded) == set()
