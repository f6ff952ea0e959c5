"""The page of a comparison."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from reports import measured, report
from rich.console import Console
from test_page import HOSTILE, Seen

from fastpost import cli, compare, compare_page, compare_text


def runs(rate: int, count: int = 3) -> dict[str, Any]:
    return report(*(measured(run=run, rate=rate + run, seconds=(1.0, 1.0)) for run in range(1, count + 1)))


def compared(before: int, after: int, **changed: Any) -> dict[str, Any]:
    return compare.compared(runs(before) | changed, runs(after), ("a.json", "b.json"))


def seen(comparison: dict[str, Any], limit: float | None = None) -> Seen:
    return Seen(compare_page.drawn(comparison, limit))


def test_each_figure_has_its_verdict_and_its_interval() -> None:
    comparison = compared(1000, 800)
    page = seen(comparison, 0.05)
    assert page.data("report") == comparison
    for words in ("a.json", "b.json", "rate is slower (-20.0%)", "3 and 3 runs", "--fail-if-slower 5.0%"):
        assert words in page.words
    (chart,) = page.data("charts")
    rate = next(figure for figure in comparison["comparisons"][0]["figures"] if figure["figure"] == "rate")
    interval, point = chart["lines"][:2]
    assert interval["points"] == [[rate["low"], "rate"], [rate["high"], "rate"]]
    assert (point["name"], point["points"]) == ("slower", [[rate["change"], "rate"]])
    assert dict(map(reversed, chart["lines"][-1]["points"])) == {
        "rate": -0.05, "throughput": -0.05, "p50": 0.05, "p90": 0.05, "p99": 0.05,
    }  # fmt: skip


def test_differences_of_load_and_doubt_are_told() -> None:
    words = seen(compare.compared(runs(900, 1), runs(1000, 1) | {"method": "POST"}, ("a", "b"))).words
    assert "They differ in method: PUT and POST" in words
    assert "--runs 5 gives a verdict to trust" in words


def test_too_short_a_run_has_no_chart() -> None:
    page = seen(compare.compared(runs(900, 1), runs(1000, 1), ("a", "b")))
    assert page.data("charts") == []
    assert "too little to tell" in page.words


def test_a_report_is_json_though_an_interval_has_no_end() -> None:
    """Of three runs a resample may hold one three times: then nothing varies, and any change could be."""
    same = report(*(measured(run=run, rate=1000, seconds=(1.0, 1.0)) for run in (1, 2, 3)))
    comparison = compare.compared(same, runs(1000), ("a", "b"))
    rate = next(figure for figure in comparison["comparisons"][0]["figures"] if figure["figure"] == "rate")
    assert rate["low"] is not None
    assert rate["high"] is None
    json.dumps(comparison, allow_nan=False)
    assert "… any)" in compare_text.drawn(comparison, Console(width=120))


@pytest.mark.parametrize("width", [1, 20, 60])
def test_no_figure_is_cut_where_there_is_no_room_for_the_table(width: int) -> None:
    comparison = compared(1000, 1100)
    told = compare_text.drawn(comparison, Console(width=width))
    assert "…" not in told.replace(" … ", "")
    for figure in comparison["comparisons"][0]["figures"]:
        assert "  ".join(compare_text.cells(figure)[1:3]) in re.sub(" +", "  ", told)


def test_an_interval_without_end_is_drawn_to_somewhere() -> None:
    comparison = compared(1000, 1100)
    comparison["comparisons"][0]["figures"][0]["high"] = None
    page = seen(comparison)
    assert page.data("report")["comparisons"][0]["figures"][0]["high"] is None
    assert page.data("charts")[0]["lines"][0]["points"][1] == [1.0, "rate"]


def test_words_from_outside_are_words() -> None:
    def made(words: str) -> Seen:
        return seen(compare.compared(runs(1000) | {"target": words}, runs(900), (words, "b.json")))

    assert [tag for tag, _ in made(HOSTILE).elements] == [tag for tag, _ in made("words").elements]


# --- the command ------------------------------------------------------------------------------------------------------


def command(tmp_path: Path, page: Path) -> Result:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, rate in zip(paths, (1000, 800), strict=True):
        path.write_text(json.dumps(runs(rate)))
    arguments = ["compare", *map(str, paths), "--fail-if-slower", "5%", "--html", str(page)]
    return CliRunner().invoke(cli.main, arguments)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    result = command(tmp_path, tmp_path / "page.html")
    assert result.exit_code == 5
    assert "rate uploads/s" in result.stdout
    assert Seen((tmp_path / "page.html").read_text("utf-8")).data("report")["schema"] == "fastpost.compare/1"


@pytest.mark.parametrize("missing", ["nowhere/page.html", ".", "/dev/full"])
def test_a_page_that_can_not_be_written_is_told(tmp_path: Path, missing: str) -> None:
    result = command(tmp_path, tmp_path / missing)
    assert result.exit_code in (1, 2)
    assert str(tmp_path / missing) in result.stderr
    assert "Traceback" not in result.stderr
