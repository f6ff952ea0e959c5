"""Two reports of `fastpost bench`: what changed, by how much, and whether that is shown or may be chance."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fastpost import __version__, bench_report, bootstrap
from fastpost.bench_report import Setting, grouped
from fastpost.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastpost.bench_report import Json

SCHEMA: Final = "fastpost.compare/1"
#: What the schemas of all versions of a benchmark's report begin with.
_FAMILY: Final = bench_report.SCHEMA.rpartition("/")[0] + "/"

#: Parts of a run that stand for runs when there are fewer than three.
_PARTS: Final = 5
_PERCENTILES: Final = ("p50", "p90", "p99")
#: The figures of which more is better; of a latency less is.
RATES: Final = ("rate", "throughput")
_SAME: Final = "no difference shown"

Verdict = Literal["faster", "slower", "no difference shown"]


class Figure(NamedTuple):
    """One compared figure; `change`, `low` and `high` are relative, None when there is too little to tell.

    `high` alone is None when the interval has no upper end. `before` and `after` are uploads or octets a second, or
    milliseconds.
    """

    figure: str
    before: float
    after: float
    change: float | None
    low: float | None
    high: float | None
    verdict: Verdict

    def slower_by(self) -> float:
        """Return by how much it is shown to be slower, 0.0 when it isn't."""
        return abs(self.change or 0.0) if self.verdict == "slower" else 0.0


def load(path: str) -> dict[str, Any]:
    """Read a report. Raises UsageError when it is none, or not whole; OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            report: dict[str, Any] = json.load(file, parse_constant=_refuse)
        schema = report["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        schema = None
    if not isinstance(schema, str) or not schema.startswith(_FAMILY):
        raise UsageError(
            f"{path} is no report of {bench_report.SCHEMA}: make one with fastpost bench --output-format json > FILE"
        )
    if schema != bench_report.SCHEMA:
        raise UsageError(
            f"{path} is a report of {schema}, and fastpost {__version__} reads {bench_report.SCHEMA}: use the one that "
            "made it, or measure again"
        )
    try:
        _read(report)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UsageError(
            f"{path} is a report of {schema}, but damaged ({type(error).__name__}: {error}): measure again"
        ) from None
    return report


def _refuse(constant: str) -> float:
    """Refuse NaN and infinities, which JSON does not have."""
    raise ValueError(constant)


def _read(report: Json) -> None:
    """Read once what will be compared. Raises what it raises for a report that is not whole."""
    _cut_short(report, report)
    differences(report, report)
    _lost(report, report)
    if not all(isinstance(text, str) for text in _side(report, "").values()):
        raise TypeError("a text is none")
    for one in report["measurements"]:
        Setting.of(one).in_words()
        for unit in [one, *parts(one)] if one["uploads"]["ok"] else []:
            for read in _READERS.values():
                if not math.isfinite(read(unit)):
                    raise ValueError("a figure is none")
    grouped(report["measurements"])


def compared(before: Json, after: Json, names: tuple[str, str], level: float = 0.95) -> dict[str, Any]:
    """Return the comparison of schema fastpost.compare/1. Raises UsageError when there is nothing to compare.

    Args:
        before: a report.
        after: the other one.
        names: what to call them: their files.
        level: of confidence.
    """
    old, new = _grouped(before), _grouped(after)
    common = [setting for setting in old if setting in new]
    if not common:
        raise UsageError(
            f"nothing to compare: {names[0]} has {_listed(old)}, {names[1]} has {_listed(new)}: "
            "measure both with the same --concurrency, --connections and --processes"
        )
    scheduled = before["load"]["loop"] == after["load"]["loop"] == "open"
    return {
        "schema": SCHEMA,
        "level": level,
        "before": _side(before, names[0]),
        "after": _side(after, names[1]),
        "differences": [
            *_cut_short(before, after),
            *differences(before, after),
            *_unmatched(old, new),
            *_left_out(before, "before", common),
            *_left_out(after, "after", common),
            *_lost(before, after),
        ],
        "comparisons": [_comparison(setting, old[setting], new[setting], scheduled, level) for setting in common],
    }


def _cut_short(before: Json, after: Json) -> list[str]:
    """Return in words what was interrupted."""
    sides = [side for side, report in (("before", before), ("after", after)) if report["interrupted"]]
    if not sides:
        return []
    return [
        f"completeness: the benchmark {' and the one '.join(sides)} {'were' if sides[1:] else 'was'} interrupted, so "
        "the last measurement is short, and what was to follow is missing"
    ]


def differences(before: Json, after: Json) -> list[str]:
    """Return in words how the two loads, machines and targets differ: then more than the server may have changed."""
    found = [
        f"{name.removesuffix('_s').replace('_', '-')}: {before['load'][name]} and {after['load'][name]}"
        for name in ("loop", "rate", "size", "from", "with_content", "warm_up_s", "duration_s", "count")
        if before["load"][name] != after["load"][name]
    ]
    if len({report["target"].partition(":")[0] for report in (before, after)}) > 1:
        found.append("target: one was reached by TLS, the other in cleartext")
    if before["method"] != after["method"]:
        found.append(f"method: {before['method']} and {after['method']}")
    if before["fastpost"] != after["fastpost"]:
        found.append(f"fastpost: {before['fastpost']} and {after['fastpost']}")
    if before["machine"] != after["machine"]:
        found.append("machine: the two were not measured from the same one")
    if any(one["client"]["lower_bound"] for report in (before, after) for one in report["measurements"]):
        found.append("client: fastpost itself was the limit in some of them; a faster server would not show")
    return found


def _unmatched(old: Mapping[Setting, object], new: Mapping[Setting, object]) -> list[str]:
    """Return in words what is not compared: settings with which uploads went well on one side only."""
    return [
        f"settings: with {setting.in_words()} uploads went well {side} only, so that is not compared"
        for mine, other, side in ((old, new, "before"), (new, old, "after"))
        for setting in mine
        if setting not in other
    ]


def _left_out(report: Json, side: str, common: Sequence[Setting]) -> list[str]:
    """Return in words which runs of a compared setting have no figures to compare."""
    groups = grouped(report["measurements"])
    without = {setting: sum(not one["uploads"]["ok"] for one in groups[setting]) for setting in common}
    return [
        f"runs: with {setting.in_words()} no upload went well in {count} of {len(groups[setting])} runs {side}, "
        "which are left out"
        for setting, count in without.items()
        if count
    ]


def _lost(before: Json, after: Json) -> list[str]:
    """Return in words where a larger part was lost on one side: a server that fails fast is no fast one."""
    old, new = grouped(before["measurements"]), grouped(after["measurements"])
    return [
        f"{lost}: with {setting.in_words()} {mine[0]:,} of {mine[1]:,} uploads before, {theirs[0]:,} of {theirs[1]:,} "
        "after; the figures are of those that went well"
        for setting in old
        if setting in new
        for lost in ("failed", "dropped")
        for mine, theirs in [(_share(old[setting], lost), _share(new[setting], lost))]
        if mine[0] * theirs[1] != theirs[0] * mine[1]
    ]


def _share(runs: Sequence[Json], lost: str) -> tuple[int, int]:
    """Return how many uploads of all runs failed, or were dropped, and of how many."""
    uploads = [one["uploads"] for one in runs]
    return sum(one[lost] for one in uploads), sum(one["ok"] + one["failed"] + one["dropped"] for one in uploads)


def _side(report: Json, name: str) -> dict[str, object]:
    return {"file": name, "began": report["began"], "target": report["target"], "fastpost": report["fastpost"]}


def _grouped(report: Json) -> dict[Setting, list[Json]]:
    return grouped(one for one in report["measurements"] if one["uploads"]["ok"])


def _listed(groups: Mapping[Setting, object]) -> str:
    return ", ".join(setting.in_words() for setting in groups) or "no upload that went well"


def _comparison(
    setting: Setting, old: Sequence[Json], new: Sequence[Json], scheduled: bool, level: float
) -> dict[str, Any]:
    """Compare one setting. With three runs on both sides they are what varies; else the parts of the runs."""
    several = min(len(old), len(new)) >= bootstrap.LEAST
    units = (lambda one: [one]) if several else parts
    before, after = ([unit for one in side for unit in units(one)] for side in (old, new))
    figures = [
        _figure(name, read, before, after, old, new, level)
        for name, read in _READERS.items()
        if not (scheduled and name in RATES)  # then they are what was asked for
    ]
    return {
        **setting._asdict(),
        "runs": [len(old), len(new)],
        "by": "runs" if several else "parts",
        "figures": [figure._asdict() for figure in figures],
    }


def _figure(
    name: str,
    read: Callable[[Json], float],
    before: Sequence[Json],
    after: Sequence[Json],
    old: Sequence[Json],
    new: Sequence[Json],
    level: float,
) -> Figure:
    """Compare one figure by the units in `before` and `after`; the runs themselves give what is told of each side."""
    change = bootstrap.change([read(unit) for unit in before], [read(unit) for unit in after], level)
    mine, theirs = (sum(map(read, side)) / len(side) for side in (old, new))
    if change is None:
        return Figure(name, mine, theirs, None, None, None, _SAME)
    verdict: Verdict = _SAME
    if change.shown:
        verdict = "faster" if (change.change > 0) == (name in RATES) else "slower"
    # An interval without an upper end: JSON has no infinity.
    high = round(change.high, 6) if math.isfinite(change.high) else None
    return Figure(name, mine, theirs, round(change.change, 6), round(change.low, 6), high, verdict)


def _percentile(name: str) -> Callable[[Json], float]:
    return lambda one: float(one["latency_ms"][name] or 0.0)


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], float]]] = {
    "rate": lambda one: float(one["uploads"]["rate"]),
    "throughput": lambda one: float(one["bytes"]["rate"]),
    **{name: _percentile(name) for name in _PERCENTILES},
}


def parts(one: Json) -> list[Json]:
    """Return equal parts of a run by its timeline, as if each were a run; none with fewer than five rows of uploads."""
    # The last row may be a sliver.
    steps = _steps([row for row in one["timeline"] if row["seconds"] >= 0.5 * one["timeline"][0]["seconds"]])
    if len(steps) < _PARTS:
        return []
    bounds = [len(steps) * part // _PARTS for part in range(_PARTS + 1)]
    return [_part([*itertools.chain(*steps[begin:end])]) for begin, end in itertools.pairwise(bounds)]


def _steps(rows: Sequence[Json]) -> list[list[Json]]:
    """Return rows in steps that each end with uploads: time without any is slow, not absent."""
    steps: list[list[Json]] = []
    silent: list[Json] = []
    for row in rows:
        silent.append(row)
        if row["ok"]:
            steps.append(silent)
            silent = []
    if steps:
        steps[-1] += silent
    return steps


def _part(rows: Sequence[Json]) -> Json:
    took = sum(row["seconds"] for row in rows)
    ended = [row for row in rows if row["ok"]]
    return {
        "uploads": {"rate": sum(row["ok"] for row in rows) / took},
        "bytes": {"rate": sum(row["payload"] for row in rows) / took},
        "latency_ms": {name: sum(row[name] for row in ended) / len(ended) for name in _PERCENTILES},
    }


def slower(comparison: Mapping[str, Any], limit: float) -> list[str]:
    """Return in words what is shown to be slower by more than `limit` (0.05: 5 %)."""
    return [
        f"{figure.figure} {figure.change or 0.0:+.1%} with {Setting.of(one).in_words()}"
        for one in comparison["comparisons"]
        for figure in (Figure(**values) for values in one["figures"])
        if figure.slower_by() > limit
    ]
