"""What a benchmark came to as one HTML page: verdicts, figures, charts. Reads the JSON of `bench_report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastpost import bench_charts
from fastpost.bench_report import Setting, empty, grouped
from fastpost.bench_text import INTERRUPTED, chosen, knee_means, load, ms, rows
from fastpost.page import Page, number
from fastpost.report import three_digits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LOOPS: Final = {
    "closed": "Closed loop: a new upload began when one had ended, and latency counts from its own start. When the "
    "server pauses, nobody asks meanwhile, so that the percentiles hardly show it.",
    "open": "Open loop: uploads began on schedule, whatever became of the others, and latency counts from the "
    "scheduled moment: the pauses of the server are in it.",
}


def drawn(report: Mapping[str, Any]) -> str:
    """Return the page."""
    measurements = report["measurements"]
    one = chosen(report)
    page = Page(f"fastpost bench of {report['target']}, {report['began']}")
    page.heading(f"{report['method']} {report['target']}", level=1)
    page.paragraph(f"fastpost bench · {report['began']} · {load(report)}", "faint")
    page.terms(_key_figures(one), "key")
    if len(measurements) > 1:
        page.paragraph(f"These are the figures of {_name(one, measurements)}.", "faint")
    _verdicts(page, report, one)
    _thresholds(page, report["thresholds"])
    if len(measurements) > 1:
        page.heading("Measurements")
        page.charts(bench_charts.sweep(report))
        page.table(_HEADER, _table(measurements), "Measurements")
        page.charts(bench_charts.together(measurements))
    page.heading("In detail")
    _details(page, report, one)
    page.heading("What was measured, and where")
    page.terms(_circumstances(report))
    return page.drawn(report)


def _key_figures(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    latency, uploads = one["latency_ms"], one["uploads"]
    yield "uploads/s", three_digits(uploads["rate"])
    yield "MB/s", three_digits(one["bytes"]["rate"] / 1e6)
    yield "p50, ms", ms(latency["p50"])
    yield "p99, ms", ms(latency["p99"])
    yield "failed", f"{uploads['failed']:,}"


def _verdicts(page: Page, report: Mapping[str, Any], one: Mapping[str, Any]) -> None:
    """Add what follows from the figures, one sentence each."""
    if report["interrupted"]:
        page.paragraph(f"Interrupted: {INTERRUPTED}.", "bad")
    if one["client"]["sentence"]:
        page.paragraph(f"Lower bound. {one['client']['sentence']}.", "bad")
    for sentence in empty(report["measurements"]):
        page.paragraph(f"{sentence[0].upper()}{sentence[1:]}.", "bad")
    if failed := sum(each["uploads"]["failed"] for each in report["measurements"]):
        page.paragraph(f"{failed:,} uploads failed; latencies are of those that went well.", "bad")
    if one["limited_by"]:
        page.paragraph(f"What was the limit: {one['limited_by']['sentence']}.")
    if (knee := report["knee"]) is not None:
        at = bench_charts.in_words(Setting.of(knee), list(grouped(report["measurements"])))
        page.paragraph(f"The knee is at {at}, with {three_digits(knee['rate'])} uploads/s: {knee_means(report)}.")
    page.paragraph(_LOOPS[report["load"]["loop"]])


def _thresholds(page: Page, thresholds: Sequence[Mapping[str, Any]]) -> None:
    if not thresholds:
        return
    page.heading("Thresholds")
    rows = [(one["condition"], "✗ missed" if one["missed"] else "✓ kept", one["told"] or "–") for one in thresholds]
    page.table(("--fail-if", "verdict", "measured"), rows, "Thresholds")


_HEADER: Final = (
    "measurement", "uploads/s", "MB/s", "p50 ms", "p99 ms", "max ms", "ok", "failed", "limit", "",
)  # fmt: skip


def _table(measurements: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for one in measurements:
        latency, limit = one["latency_ms"], one["limited_by"]
        yield (
            _name(one, measurements),
            three_digits(one["uploads"]["rate"]),
            three_digits(one["bytes"]["rate"] / 1e6),
            *(ms(latency[name]) for name in ("p50", "p99", "max")),
            f"{one['uploads']['ok']:,}",
            f"{one['uploads']['failed']:,}",
            f"{limit['cause'].replace('_', ' ')} {limit['share']:.0%}" if limit else "–",
            "lower bound" if one["client"]["lower_bound"] else "",
        )


def _name(one: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]]) -> str:
    """Return what tells a measurement from the others."""
    groups = grouped(measurements)
    name = bench_charts.in_words(Setting.of(one), list(groups))
    return f"{name}, run {one['run']}" if any(len(runs) > 1 for runs in groups.values()) else name


def _details(page: Page, report: Mapping[str, Any], one: Mapping[str, Any]) -> None:
    """Add all of each measurement; of several, those that are not told above are folded away."""
    measurements = report["measurements"]
    for each in measurements:
        if len(measurements) > 1:
            page.begin_details(_name(each, measurements), opened=each is one)
        page.charts(bench_charts.details(each, report["load"]["rate"]))
        page.terms(rows(each))
        if len(measurements) > 1:
            page.end_details()


def _circumstances(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    asked, machine = report["load"], report["machine"]
    yield "target", f"{report['method']} {report['target']}"
    yield "load", load(report)
    yield "began", report["began"]
    until = f"{asked['count']:,} uploads" if asked["count"] else f"{number(asked['duration_s'])} s"
    yield "until", f"{until}, each measurement"
    yield "warm-up", f"{number(asked['warm_up_s'])} s, not counted"
    yield "runs", f"{asked['runs']:,}"
    yield "machine", f"{machine['cores']} cores · Linux {machine['kernel']} · Python {machine['python']}"
    yield "fastpost", report["fastpost"]
