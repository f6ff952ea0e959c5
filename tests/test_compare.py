"""`fastpost compare`: reports in, verdicts out."""

from __future__ import annotations

import importlib.resources
import json
import pathlib
import random
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from fastpost import cli, compare
from fastpost.errors import UsageError


def measured(rng: random.Random, run: int, speed: float, concurrency: int, seconds: int) -> dict[str, Any]:
    """Return a measurement of a server whose rate wavers by 2 % from run to run and from second to second."""
    own = speed * rng.gauss(1, 0.02)
    rows = []
    for at in range(seconds):
        now = own * rng.gauss(1, 0.02)
        ok = round(1000 * now)
        rows.append({"at": float(at), "seconds": 1.0, "ok": ok, "payload": 4096 * ok,
                     "p50": 5 / now, "p90": 8 / now, "p99": 20 / now})  # fmt: skip
    return {
        "concurrency": concurrency, "connections": 1, "run": run,
        "uploads": {"ok": sum(row["ok"] for row in rows), "failed": 0, "dropped": 0, "rate": 1000 * own},
        "bytes": {"rate": 4_096_000 * own},
        "latency_ms": {"p50": 5 / own, "p90": 8 / own, "p99": 20 / own},
        "client": {"lower_bound": False},
        "timeline": rows,
    }  # fmt: skip


def report(
    seed: int, speed: float = 1.0, runs: int = 5, concurrencies: tuple[int, ...] = (50,), seconds: int = 10, **load: Any
) -> dict[str, Any]:
    rng = random.Random(seed)
    return {
        "schema": "fastpost.bench/1", "fastpost": "0.1.0", "began": "2026-01-01T00:00:00+00:00",
        "machine": {"cores": 2, "kernel": "6", "python": "3"}, "target": "http://x/", "method": "PUT",
        "load": {"loop": "closed", "rate": None, "size": "4KiB", "from": None, "with_content": False, "warm_up_s": 1.0,
                 "duration_s": 10.0, "count": None}
        | load,
        "measurements": [
            measured(rng, run, speed, most, seconds) for run in range(1, runs + 1) for most in concurrencies
        ],
        "interrupted": False,
    }  # fmt: skip


def verdicts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    (one,) = compare.compared(before, after, ("a", "b"))["comparisons"]
    return {figure["figure"]: figure["verdict"] for figure in one["figures"]}


def test_a_faster_and_a_slower_server_are_called_so() -> None:
    assert set(verdicts(report(1), report(2, speed=1.2)).values()) == {"faster"}
    assert set(verdicts(report(1), report(2, speed=0.8)).values()) == {"slower"}


def test_seconds_without_uploads_are_in_the_rate_of_a_single_run() -> None:
    """A server that stood still for a third of the time is slower, though not in the seconds in which it answered."""
    before, after = report(1, runs=1, seconds=30), report(2, runs=1, seconds=30)
    for at in range(1, 30, 3):
        after["measurements"][0]["timeline"][at] |= {"ok": 0, "payload": 0, "p50": 0.0, "p90": 0.0, "p99": 0.0}
    (one,) = compare.compared(before, after, ("a", "b"))["comparisons"]
    found = {figure["figure"]: figure for figure in one["figures"]}
    assert found["rate"]["verdict"] == found["throughput"]["verdict"] == "slower"
    assert found["rate"]["change"] == pytest.approx(-1 / 3, abs=0.05)
    assert found["p99"]["change"] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (report(2, duration_s=60.0), "duration: 10.0 and 60.0"),
        (report(2, count=1000), "count: None and 1000"),
        (report(2) | {"target": "https://x/"}, "target: one was reached by TLS, the other in cleartext"),
        (report(2) | {"target": "http://y/"}, None),
    ],
)
def test_other_circumstances_are_told(after: dict[str, Any], told: str | None) -> None:
    assert compare.compared(report(1), after, ("a", "b"))["differences"] == ([] if told is None else [told])


def test_more_failures_on_one_side_are_told() -> None:
    before, after = report(1), report(2)
    for one in after["measurements"]:
        one["uploads"] |= {"ok": 900, "failed": 100}
    assert compare.compared(before, before, ("a", "b"))["differences"] == []
    sent = sum(one["uploads"]["ok"] for one in before["measurements"])
    assert compare.compared(before, after, ("a", "b"))["differences"] == [
        f"failed: with 50 in flight on 1 connection 0 of {sent:,} uploads before, 500 of 5,000 after; the figures are "
        "of those that went well"
    ]


def test_more_arrivals_dropped_on_one_side_are_told() -> None:
    """In an open loop the rate is what was asked for: this alone tells of a server that does not keep up."""
    before, after = report(1, loop="open", rate=1000.0), report(1, loop="open", rate=1000.0)
    after["measurements"][0]["uploads"]["dropped"] = 7
    (told,) = compare.compared(before, after, ("a", "b"))["differences"]
    assert told.startswith("dropped: with 50 in flight on 1 connection 0 of ")


def test_runs_that_are_left_out_are_told() -> None:
    before, after = report(1), report(2)
    after["measurements"][3]["uploads"] |= {"ok": 0, "rate": 0.0}
    comparison = compare.compared(before, after, ("a", "b"))
    assert comparison["comparisons"][0]["runs"] == [5, 4]
    assert comparison["differences"] == [
        "runs: with 50 in flight on 1 connection no upload went well in 1 of 5 runs after, which are left out"
    ]


def test_another_fastpost_is_told() -> None:
    before, after = report(1), report(2) | {"fastpost": "0.2.0"}
    assert compare.compared(before, after, ("a", "b"))["differences"] == ["fastpost: 0.1.0 and 0.2.0"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (True, False, ["the benchmark before was interrupted"]),
        (False, True, ["the benchmark after was interrupted"]),
        (True, True, ["the benchmark before and the one after were interrupted"]),
        (False, False, []),
    ],
)
def test_an_interrupted_benchmark_is_told_first(before: bool, after: bool, told: list[str]) -> None:
    one, other = report(1) | {"interrupted": before}, report(2) | {"interrupted": after, "fastpost": "0.2.0"}
    *interrupted, version = compare.compared(one, other, ("a", "b"))["differences"]
    assert [text.partition(": ")[2].partition(",")[0] for text in interrupted] == told
    assert version.startswith("fastpost: ")


def test_of_pairs_from_one_server_at_most_a_twentieth_are_called_different() -> None:
    pairs = [verdicts(report(seed), report(seed + 10_000)) for seed in range(200)]
    for figure in ("rate", "p99"):
        assert sum(pair[figure] != "no difference shown" for pair in pairs) <= 10


def test_one_run_is_taken_in_parts_and_says_what_it_can_not_see() -> None:
    comparison = compare.compared(report(1, runs=1), report(2, runs=1, speed=0.7), ("a", "b"))
    (one,) = comparison["comparisons"]
    assert (one["by"], one["runs"]) == ("parts", [1, 1])
    assert {figure["verdict"] for figure in one["figures"]} == {"slower"}


def test_too_short_a_run_says_nothing() -> None:
    (one,) = compare.compared(report(1, runs=1, seconds=4), report(2, runs=1, seconds=4), ("a", "b"))["comparisons"]
    assert {(figure["verdict"], figure["change"]) for figure in one["figures"]} == {("no difference shown", None)}


def test_each_setting_of_a_sweep_is_compared_with_itself() -> None:
    comparison = compare.compared(
        report(1, concurrencies=(1, 10, 50)), report(2, concurrencies=(10, 50, 100)), ("a", "b")
    )
    assert [one["concurrency"] for one in comparison["comparisons"]] == [10, 50]
    assert comparison["differences"] == [
        f"settings: with {number} in flight on 1 connection uploads went well {side} only, so that is not compared"
        for number, side in ((1, "before"), (100, "after"))
    ]


def test_settings_are_told_apart_by_their_processes_too_and_old_reports_had_one() -> None:
    before, after = report(1), report(2, concurrencies=(50, 50))
    for at, one in enumerate(after["measurements"]):
        one["processes"] = 1 + at % 2
    comparison = compare.compared(before, after, ("a", "b"))
    assert [(one["processes"], one["runs"]) for one in comparison["comparisons"]] == [(1, [5, 5])]
    for one in after["measurements"]:
        one["processes"] = 2
    with pytest.raises(UsageError, match=r"50 in flight on 1 connection, b has 50 in flight on 1 connection by 2 proc"):
        compare.compared(before, after, ("a", "b"))


def test_a_rate_that_was_asked_for_has_no_verdict() -> None:
    opened = verdicts(report(1, loop="open", rate=100), report(2, loop="open", rate=100))
    assert set(opened) == {"p50", "p90", "p99"}


def test_other_differences_are_told() -> None:
    other = report(2, size="1MiB")
    other["machine"]["cores"] = 64
    other["measurements"][0]["client"]["lower_bound"] = True
    told = compare.differences(report(1), other)
    assert told[0] == "size: 4KiB and 1MiB"
    assert [one.partition(":")[0] for one in told] == ["size", "machine", "client"]


# --- the command ------------------------------------------------------------------------------------------------------


def run(tmp_path: pathlib.Path, before: object, after: object, *options: str) -> Result:
    paths = []
    for name, content in (("a.json", before), ("b.json", after)):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        paths.append(str(path))
    result = CliRunner().invoke(cli.main, ["compare", *paths, *options])
    assert "Traceback" not in result.stderr
    return result


def test_text(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path, report(1), report(2, speed=0.8))
    assert result.exit_code == 0
    for word in ("a.json", "rate uploads/s", "p99 ms", "95% interval", "slower", "5 and 5 runs"):
        assert word in result.stdout
    assert "interrupted" not in result.stdout


def test_an_interrupted_benchmark_is_told_in_every_form(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.html"
    result = run(tmp_path, report(1), report(2) | {"interrupted": True}, "--html", str(page))
    told = "completeness: the benchmark after was interrupted"
    assert f"differs     {told}" in result.stdout
    assert f"They differ in {told}" in page.read_text("utf-8")


def test_json_is_what_its_schema_says(tmp_path: pathlib.Path) -> None:
    text = importlib.resources.files("fastpost").joinpath("schemas", "compare-1.json").read_text("utf-8")
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    for before, after in ((report(1), report(2)), (report(1, runs=1, seconds=3), report(2, runs=1))):
        result = run(tmp_path, before, after, "--output-format", "json")
        jsonschema.Draft202012Validator(schema).validate(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("speed", "limit", "code"), [(0.8, "5%", 5), (0.8, "0.05", 5), (0.8, "50%", 0), (1.2, "5%", 0), (1.0, "0%", 0)]
)
def test_slower_than_allowed_is_exit_code_5(tmp_path: pathlib.Path, speed: float, limit: str, code: int) -> None:
    result = run(tmp_path, report(1), report(2, speed=speed), "--fail-if-slower", limit)
    assert result.exit_code == code
    assert ("rate -" in result.stderr) == (code == 5)


NO_REPORTS = ["", "[]", "{}", "nonsense", '{"schema": "fastpost.upload/1"}', "\udcff", '{"schema": NaN}', "[" * 100_000]


@pytest.mark.parametrize("content", NO_REPORTS, ids=lambda content: content[:10])
def test_what_is_no_report_is_refused_by_name(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    (tmp_path / "b.json").write_text(json.dumps(report(1)))
    result = CliRunner().invoke(cli.main, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert result.exit_code == 2
    assert "a.json is no report" in result.stderr
    assert "--output-format json" in result.stderr


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("machine",), None),
        (("interrupted",), None),
        (("target",), 5),
        (("load", "size"), None),
        (("measurements",), {"a": 1}),
        (("measurements", 0), 7),
        (("measurements", 0, "connections"), []),
        (("measurements", 0, "concurrency"), "many"),
        (("measurements", 0, "uploads", "rate"), "fast"),
        (("measurements", 0, "latency_ms"), None),
        (("measurements", 0, "client"), None),
        (("measurements", 0, "timeline"), None),
        (("measurements", 0, "timeline", 0, "seconds"), "one"),
    ],
    ids=str,
)
def test_a_damaged_report_is_told_by_name(place: tuple[str | int, ...], value: object, tmp_path: pathlib.Path) -> None:
    damaged = report(2)
    holder: Any = damaged
    for step in place[:-1]:
        holder = holder[step]
    if value is None:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    result = run(tmp_path, report(1), damaged)
    assert result.exit_code == 2
    assert "b.json is a report of fastpost.bench/1, but damaged" in result.stderr
    assert "measure again" in result.stderr


def test_a_report_of_a_later_version_is_told_as_that(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path, report(1), report(2) | {"schema": "fastpost.bench/2"})
    assert result.exit_code == 2
    assert "b.json is a report of fastpost.bench/2, and fastpost" in result.stderr
    assert "reads fastpost.bench/1" in result.stderr


def test_an_empty_name_of_a_page_is_refused(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path, report(1), report(2), "--html", "")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--html is given an empty name" in result.stderr


@pytest.mark.parametrize("limit", ["5", "1.5"])
def test_a_share_without_its_percent_sign_is_asked_back(tmp_path: pathlib.Path, limit: str) -> None:
    result = run(tmp_path, report(1), report(2, speed=0.5), "--fail-if-slower", limit)
    assert result.exit_code == 2
    assert f"write {limit}% if that was meant" in result.stderr


def test_a_page_in_place_of_a_report_is_refused(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path, report(1), report(2), "--html", str(tmp_path / "b.json"))
    assert result.exit_code == 2
    assert "is one of the reports" in result.stderr
    assert json.loads((tmp_path / "b.json").read_text())["schema"] == "fastpost.bench/1"


def test_settings_that_have_nothing_in_common_are_refused(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path, report(1), report(1, concurrencies=(100,)))
    assert result.exit_code == 2
    assert "50 in flight on 1 connection" in result.stderr
    assert run(tmp_path, report(1), report(1), "--fail-if-slower", "fast").exit_code == 2
