"""Conditions under which a benchmark fails: `--fail-if 'p99>50ms'`, `--fail-if 'rate<1000'`."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastpost.bench_report import Setting
from fastpost.errors import UsageError
from fastpost.report import three_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FORM: Final = re.compile(r"\s*([a-z0-9.]+)\s*(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%/]*)\s*")
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
_TIMES: Final = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3}
_COUNTS: Final = {"": 1.0}
_OCTETS: Final = {"": 1e6, "mb/s": 1e6, "kb/s": 1e3, "gb/s": 1e9}
_SHARES: Final = {"": 1.0, "%": 0.01}
_LATENCIES: Final = {
    "p50": "p50", "p75": "p75", "p90": "p90", "p99": "p99", "p99.9": "p999", "p999": "p999", "p99.99": "p9999",
    "p9999": "p9999", "max": "max", "mean": "mean",
}  # fmt: skip
#: What there was not, where a figure is one of nothing; of latencies it is uploads that went well.
_NOTHING: Final = {"failed": "nothing ended"}
_KNOWN: Final = (
    "write a figure (rate, throughput, failed, dropped, p50, p75, p90, p99, p99.9, p99.99, max, mean), <, >, <= or >=, "
    "and a number: 'p99>50ms', 'rate<1000', 'throughput<100MB/s', 'failed>1%'"
)


class Threshold(NamedTuple):
    """One condition; `bound` is in the unit in which reports have the figure."""

    text: str
    figure: str
    compare: str
    bound: float

    def holds(self, measured: Mapping[str, Any]) -> bool:
        """True when the condition holds of a measurement: it fails. A figure that nothing was measured of does, too."""
        value = self.value(measured)
        return value is None or _OPERATORS[self.compare](value, self.bound)

    def value(self, measured: Mapping[str, Any]) -> float | None:
        """Return the figure of a measurement of the report."""
        uploads = measured["uploads"]
        ended = uploads["ok"] + uploads["failed"]
        match self.figure:
            case "rate":
                return float(uploads["rate"])
            case "throughput":
                return float(measured["bytes"]["rate"])
            case "failed":
                return float(uploads["failed"] / ended) if ended else None
            case "dropped":
                return float(uploads["dropped"])
        latency: float | None = measured["latency_ms"][_LATENCIES[self.figure]]
        return latency


def parse(text: str) -> Threshold:
    """Read the value of --fail-if. Raises UsageError."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"--fail-if {text!r}: {_KNOWN}")
    figure, compare, number, unit = found.groups()
    units = {"rate": _COUNTS, "dropped": _COUNTS, "throughput": _OCTETS, "failed": _SHARES}.get(figure)
    if units is None and figure in _LATENCIES:
        units = _TIMES
    if units is None or unit.lower() not in units:
        raise UsageError(f"--fail-if {text!r}: {_KNOWN}")
    return Threshold(text.strip(), figure, compare, float(number) * units[unit.lower()])


def judged(thresholds: Sequence[Threshold], measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Return each condition with whether any measurement met it, and the first that did in words."""
    return [_judged(threshold, measurements) for threshold in thresholds]


def _judged(threshold: Threshold, measurements: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    met = [one for one in measurements if threshold.holds(one)]
    told = ""
    if met:
        value = threshold.value(met[0])
        reached = _shown(threshold, value) if value is not None else _NOTHING.get(threshold.figure, "none went well")
        told = f"{reached} with {Setting.of(met[0]).in_words()}, run {met[0]['run']}"
    return {"condition": threshold.text, "missed": bool(met), "told": told}


def _shown(threshold: Threshold, value: float) -> str:
    """Return a figure in words, in digits that tell it from the bound."""
    match threshold.figure:
        case "rate":
            return f"{_told(value, threshold.bound)} uploads/s"
        case "throughput":
            return f"{_told(value / 1e6, threshold.bound / 1e6)} MB/s"
        case "failed":
            return f"{_told(100 * value, 100 * threshold.bound)}% failed"
        case "dropped":
            return f"{value:,.0f} dropped"
    return f"{value:,.3f} ms"


def _told(value: float, bound: float) -> str:
    text = three_digits(value)
    return f"{value:,.9g}" if value != bound and text == three_digits(bound) else text
