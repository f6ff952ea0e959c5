"""What of a benchmark is drawn: its report → charts, each with its main figures in words."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final, Literal

from fastpost import bench_report, causes, hdr, timeline
from fastpost.bench_report import Setting, grouped
from fastpost.bench_text import ms, percentiles
from fastpost.page import BESIDE, Chart, Line, number
from fastpost.timeline import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastpost.bench_report import Json
    from fastpost.page import X

#: Points of a line over time: more are not told apart, and make the page large.
_POINTS: Final = 240
#: From largest to smallest so many times: the y axis becomes logarithmic.
_WIDE: Final = 20.0
#: Part of the blocked time below which a cause would be a line without height.
_SEEN: Final = 0.001
#: What is drawn along the axis of a sweep, the first that varies, and what it is called there.
_SWEPT: Final = {"concurrency": "uploads in flight", "processes": "processes", "connections": "connections"}


def in_words(setting: Setting, among: Sequence[Setting]) -> str:
    """Return in words what tells a setting from the others of its sweep; all of it when it is alone."""
    processes, number, concurrency = setting
    by = f"{processes} process{'' if processes == 1 else 'es'}"
    words = (by, bench_report.connections(number), f"{concurrency:,} in flight")
    differing = [word for place, word in enumerate(words) if len({other[place] for other in among}) > 1]
    return ", ".join(reversed(differing)) or setting.in_words()


# --- all measurements together ----------------------------------------------------------------------------------------


def sweep(report: Json) -> list[Chart]:
    """Return rate and p99 against what was swept, with the knee; none without a sweep."""
    groups = grouped(report["measurements"])
    swept = next((name for name in _SWEPT if len({getattr(setting, name) for setting in groups}) > 1), None)
    if swept is None:
        return []
    knee = report["knee"]
    mark: tuple[float, str] | None = None
    if knee is not None:
        mark = knee["concurrency"], f"knee: {in_words(Setting.of(knee), list(groups))}"
    rate = _against(groups, swept, mark, "Uploads a second", lambda one: float(one["uploads"]["rate"]))
    p99 = _against(groups, swept, mark, "p99 of latency, ms", lambda one: _number(one["latency_ms"]["p99"]))
    return [rate, p99._replace(log=_wide(p99.lines))]


def _rest(setting: Setting, swept: str) -> Setting:
    """Return what a line has in common: all but what is swept, and the connections that come with the processes."""
    if swept == "processes" and setting.connections == setting.processes:
        setting = setting._replace(connections=0)
    return setting._replace(**{swept: 0})


def _against(
    groups: Mapping[Setting, Sequence[Json]],
    swept: str,
    mark: tuple[float, str] | None,
    title: str,
    read: Callable[[Json], float | None],
) -> Chart:
    """Return a chart of one figure: a line for each setting of what is not swept, through the means of its runs."""
    kind: Literal["names", "numbers"] = "names" if swept == "connections" else "numbers"
    by_rest: dict[Setting, dict[X, list[float | None]]] = {}
    firsts: dict[Setting, Setting] = {}
    for setting, runs in groups.items():
        at = getattr(setting, swept)
        x: X = str(at) if kind == "names" else float(at)
        by_rest.setdefault(_rest(setting, swept), {})[x] = [read(one) for one in runs]
        firsts.setdefault(_rest(setting, swept), setting)
    lines, told = [], []
    for look, (rest, by_x) in enumerate(by_rest.items()):
        name = in_words(firsts[rest], list(firsts.values())) if len(firsts) > 1 else title
        points = [(x, _mean(several)) for x, several in by_x.items()]
        lines += [Line(name, points, look), *_each_run(name, by_x)]
        told.append(f"{name}: " + ", ".join(f"{number(y)} at {number(x)}" for x, y in points))
    of = _SWEPT[swept]
    words = f"{title}, against {of}. {'; '.join(told)}." + (f" Marked is the {mark[1]}." if mark else "")
    return Chart(title, words, kind, of, lines, mark=mark)


def _each_run(name: str, by_x: Mapping[X, Sequence[float | None]]) -> list[Line]:
    """Return the runs that a mean was taken of, as dots; none where each was the only one."""
    runs = max(map(len, by_x.values()))
    return [
        Line(
            "each run",
            [(x, several[run]) for x, several in by_x.items() if run < len(several)],
            BESIDE,
            dots=True,
            column=f"{name}, run {run + 1}",
        )
        for run in range(runs if runs > 1 else 0)
    ]


def together(measurements: Sequence[Json]) -> list[Chart]:
    """Return rate over time and latency by percentile of all measurements; runs of one setting look alike."""
    groups = grouped(measurements)
    rates, latencies, main = [], [], []
    for look, (setting, runs) in enumerate(groups.items()):
        name = in_words(setting, list(groups))
        for one in runs:
            column = f"{name}, run {one['run']}" if len(runs) > 1 else ""
            rates.append(Line(name, _over_time(rows(one), lambda row: row.ok), look, column=column))
            latencies.append(Line(name, hdr.curve(one["histogram"]["latency"]), look, column=column))
            main.append(f"{column or name}: {_main(one)}")
    told = f"{'; '.join(main)}."
    return [
        Chart("Uploads a second, over time", f"Uploads a second over time. {told}", "seconds", "seconds", rates),
        *_by_percentile(told, latencies),
    ]


# --- one measurement --------------------------------------------------------------------------------------------------


def details(one: Json, rate: float | None) -> list[Chart]:
    """Return the charts of one measurement; `rate` is that of an open loop."""
    latency, response = (hdr.curve(one["histogram"][name]) for name in ("latency", "response"))
    told = f"Latency: {percentiles(one['latency_ms'])}. From the last octet sent to the response: " + percentiles(
        one["response_ms"]
    )
    seconds = rows(one)
    return [
        _uploads(seconds, rate),
        _octets(seconds),
        *_by_percentile(
            told,
            [Line("latency", latency, 0), Line("last octet to response", response, 1)],
        ),
        *_latencies(seconds),
        *_blocked(one, seconds),
    ]


def rows(one: Json) -> list[Row]:
    """Return the timeline in at most 240 rows."""
    found = timeline.read(one["timeline"])
    width = -(-len(found) // _POINTS) or 1
    return [functools.reduce(Row.plus, found[at : at + width]) for at in range(0, len(found), width)]


def _over_time(seconds: Sequence[Row], read: Callable[[Row], float]) -> list[tuple[X, float]]:
    """Return what came in a second, at the end of the time that each row stands for."""
    return [(_at(row), read(row) / row.seconds) for row in seconds]


def _at(row: Row) -> float:
    # A timer is late by some milliseconds, and measurements are laid over each other. Not all are that long.
    end = row.at + row.seconds
    return round(end, 1 if end >= 1 else 4)


def _uploads(seconds: Sequence[Row], rate: float | None) -> Chart:
    lines = [Line("went well", _over_time(seconds, lambda row: row.ok), 0)]
    if any(row.failed for row in seconds):
        lines.append(Line("failed", _over_time(seconds, lambda row: row.failed), 1))
    if any(row.dropped for row in seconds):
        lines.append(Line("dropped", _over_time(seconds, lambda row: row.dropped), 3))
    if rate is not None:
        lines.append(Line("--rate", [(_at(row), rate) for row in seconds], BESIDE))
    return _timed("Uploads a second, over time", lines)


def _octets(seconds: Sequence[Row]) -> Chart:
    payload = Line("payload of uploads that ended", _over_time(seconds, lambda row: row.payload / 1e6), 0)
    return _timed("MB a second, over time", [payload, Line("sent", _over_time(seconds, lambda row: row.sent / 1e6), 1)])


def _latencies(seconds: Sequence[Row]) -> list[Chart]:
    ended = [row for row in seconds if row.ok]
    if not ended:
        return []
    lines = [
        Line("p50", [(_at(row), row.p50) for row in ended], 0),
        Line("p99", [(_at(row), row.p99) for row in ended], 1),
        Line("max", [(_at(row), row.max) for row in ended], 2),
    ]
    chart = _timed("Latency over time, ms", lines)
    return [chart._replace(log=_wide(lines))]


def _blocked(one: Json, seconds: Sequence[Row]) -> list[Chart]:
    """Return how many uploads waited for what: the stream-seconds of each second."""
    known = one["blocked_s"]
    total = sum(known.values())
    waited = [(look, cause) for look, cause in enumerate(causes.CAUSES) if known.get(cause, 0.0) > _SEEN * total]
    if not waited:
        return []
    told = ", ".join(f"{_words(cause)} {known[cause] / total:.1%}" for _, cause in waited)
    return [
        Chart(
            "Uploads waiting, over time, by what for",
            f"What uploads waited for, over time. In all: {told}.",
            "seconds",
            "seconds",
            [
                Line(_words(cause), [(_at(row), row.blocked.get(cause, 0.0) / row.seconds) for row in seconds], look)
                for look, cause in waited
            ],
            stacked=True,
        )
    ]


def _timed(title: str, lines: Sequence[Line]) -> Chart:
    told = []
    for line in lines:
        values = [float(y) for _, y in line.points if y is not None]
        told.append(f"{line.name} {number(min(values))} to {number(max(values))}" if values else f"{line.name} none")
    return Chart(title, f"{title}: {'; '.join(told)}.", "seconds", "seconds", lines)


def _by_percentile(told: str, lines: Sequence[Line]) -> list[Chart]:
    """Return the chart, or none of nothing that went well."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return []
    title, words = "Latency by percentile, ms", f"Latency by percentile. {told}"
    return [Chart(title, words, "percentiles", "percentile", drawn, log=_wide(drawn))]


# --- figures and words ------------------------------------------------------------------------------------------------


def _wide(lines: Sequence[Line]) -> bool:
    values = [float(y) for line in lines for _, y in line.points if y is not None]
    return bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _main(one: Json) -> str:
    return f"{number(one['uploads']['rate'])} uploads a second, p99 {ms(one['latency_ms']['p99'])} ms"


def _words(cause: str) -> str:
    return cause.replace("_", " ")
