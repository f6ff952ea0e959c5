"""Latencies as the world of HdrHistogram knows them: percentiles, its compressed form, its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

if TYPE_CHECKING:
    from fastpost._meter import Histogram

#: What is told of every distribution, by its name in JSON.
PERCENTILES: Final = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99}
#: Microseconds: from one to an hour, three significant digits.
_RANGE: Final = (1, 3_600_000_000, 3)
_US_PER_MS: Final = 1000


def histogram(recorded: Histogram) -> Any:
    """Return the HdrHistogram of what was recorded; its unit is the microsecond."""
    made = HdrHistogram(*_RANGE)
    for value, count in recorded.counts():
        made.record_value(value, count)
    return made


def decoded(text: str) -> Any:
    """Return the HdrHistogram of its compressed form. Raises ValueError."""
    try:
        return HdrHistogram.decode(text)
    except Exception as error:  # a dozen kinds, from base64, zlib and the package itself
        raise ValueError(f"no HdrHistogram: {error}") from error


def figures(recorded: Histogram) -> tuple[dict[str, float | None], str]:
    """Return percentiles, largest and mean in milliseconds, each None of nothing; and the compressed form, base64.

    Both at once: it takes 4 ms to make the histogram of either.
    """
    made = histogram(recorded)
    form: bytes = made.encode()
    if not recorded.total:
        return dict.fromkeys((*PERCENTILES, "max", "mean")), form.decode("ascii")
    largest = recorded.largest / _US_PER_MS
    found: dict[str, float | None] = {
        name: round(min(made.get_value_at_percentile(share) / _US_PER_MS, largest), 3)
        for name, share in PERCENTILES.items()
    }
    found |= {"max": round(largest, 3), "mean": round(recorded.mean() * 1e3, 3)}
    return found, form.decode("ascii")


def curve(text: str) -> list[tuple[float, float]]:
    """Return a compressed form as a curve over all percentiles: 1 ÷ (1 − q), and milliseconds. Raises ValueError.

    On a logarithmic axis its points are evenly apart, 12 from one nine to the next, with p50 and p75 among them; the
    last one is the largest of all values, where its rank puts it.
    """
    made = decoded(text)
    total = made.get_total_count()
    places = sorted({*(10 ** (step / 12) for step in range(12 * 7)), 2.0, 4.0})
    asked = {100 * (1 - 1 / place): place for place in places if place < total}
    largest = made.get_max_value() / _US_PER_MS
    found = made.get_percentile_to_value_dict(asked)
    points = [(place, min(found[share] / _US_PER_MS, largest)) for share, place in asked.items()]
    return [*points, (float(total), largest)] if total else []


class Writes(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> object:
        """Write it."""


class Log:
    """An HdrHistogram log, format 1.2: a line for each second, values in microseconds."""

    def __init__(self, file: Writes) -> None:
        self._writer = HistogramLogWriter(file)
        self._writer.output_log_format_version()
        self._writer.output_comment("[Unit: microseconds; Interval_Max: milliseconds]")
        self._writer.output_legend()

    def comment(self, text: str) -> None:
        """Write a line that readers of the log skip."""
        self._writer.output_comment(text)

    def add(self, at: float, seconds: float, recorded: Histogram) -> None:
        """Write one interval; `at` is seconds since the run began to count."""
        # It takes 0 for "not given", and then goes by the histogram's own stamps, in milliseconds.
        made = histogram(recorded)
        made.set_start_time_stamp(at * 1e3)
        made.set_end_time_stamp((at + seconds) * 1e3)
        self._writer.output_interval_histogram(made, max_value_unit_ratio=float(_US_PER_MS))
