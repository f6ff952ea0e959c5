"""What a benchmark came to, for people: a table of the measurements, and of one of them what there is to know.

Reads the JSON of `bench_report`. rich is loaded here and only to draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastpost import hdr, timeline
from fastpost.bench_report import Setting, connections, grouped
from fastpost.report import octets_text, safe, three_digits, uncut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

_SPARKS: Final = "▁▂▃▄▅▆▇█"
#: Columns of the sparkline and of the longest bar, rows of the histogram.
_SPARKLINE: Final = 60
_BAR: Final = 40
_BARS: Final = 12
#: Parts of the blocked time that are worth a word.
_SHOWN: Final = 0.01
#: What is said of a report of less than was asked for.
INTERRUPTED: Final = "this is what was measured until then"
_NAMES: Final = {"p999": "p99.9", "p9999": "p99.99"}


def drawn(report: dict[str, Any], console: Console) -> str:
    """Return the text as rich draws it on that console."""
    measurements = report["measurements"]
    with console.capture() as captured:
        console.print(_heading(report), soft_wrap=True)
        if report["interrupted"]:
            console.print(f"{'interrupted':<12}{INTERRUPTED}", soft_wrap=True)
        if len(measurements) > 1:
            uncut(_table(measurements), console)
            if report["knee"] is not None:
                where = Setting.of(report["knee"]).in_words()
                console.print(f"{'knee':<12}{where}: {knee_means(report)}", soft_wrap=True)
        one = chosen(report)
        if len(measurements) > 1:
            which = "of the knee" if report["knee"] is not None else "with the best rate"
            console.print(f"{'in detail':<12}{Setting.of(one).in_words()}, run {one['run']}: {which}", soft_wrap=True)
        for label, text in (*rows(one), ("by second", _sparkline(timeline.read(one["timeline"])))):
            if text:
                console.print(f"{label:<12}{safe(text)}", soft_wrap=True)
        if one["uploads"]["ok"]:
            uncut(_histogram(one), console)
    return captured.get()


def _heading(report: dict[str, Any]) -> str:
    target = f"{report['method']} {safe(report['target'])}"
    return f"{'target':<12}{target}\n{'load':<12}{safe(load(report))}"


def load(report: Mapping[str, Any]) -> str:
    """Return in words what was uploaded, in which kind of loop."""
    asked = report["load"]
    what = f"files of {asked['from']}" if asked["from"] else f"{asked['size']} each"
    kind = (
        f"open loop, {asked['rate']:,.9g} uploads/s, latency from the scheduled moment"
        if asked["loop"] == "open"
        else "closed loop, latency from each upload's own start"
    )
    return f"{what} · {kind}"


def _table(measurements: Sequence[dict[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    by_processes = any(one["processes"] > 1 for one in measurements)
    names = ("conns", "in flight", "run", "uploads/s", "MB/s", "p50 ms", "p99 ms", "max ms", "failed", "")
    for name in ("procs", *names) if by_processes else names:
        table.add_column(name, justify="right")
    for one in measurements:
        latency = one["latency_ms"]
        table.add_row(
            *([str(one["processes"])] if by_processes else []),
            str(one["connections"]),
            f"{one['concurrency']:,}",
            str(one["run"]),
            three_digits(one["uploads"]["rate"]),
            three_digits(one["bytes"]["rate"] / 1e6),
            *(ms(latency[name]) for name in ("p50", "p99", "max")),
            f"{one['uploads']['failed']:,}",
            "lower bound" if one["client"]["lower_bound"] else "",
        )
    return table


def knee_means(report: Mapping[str, Any]) -> str:
    """Return in words what its knee says: at the end of what was measured, nothing of more uploads in flight."""
    knee = Setting.of(report["knee"])
    row = [
        setting
        for setting in grouped(report["measurements"])
        if setting._replace(concurrency=0) == knee._replace(concurrency=0)
    ]
    if knee.concurrency == max(setting.concurrency for setting in row):
        return (
            "the fewest that reach 95 % of the best rate, and the most that were measured; more of them may be faster"
        )
    return "the fewest that reach 95 % of the best rate; more of them only wait longer"


def chosen(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measurement to tell all of: the knee's, else the one with the best rate."""
    measurements: list[dict[str, Any]] = report["measurements"]
    knee = report["knee"]
    if knee is not None:
        return next(one for one in measurements if Setting.of(one) == Setting.of(knee))
    return max(measurements, key=lambda one: float(one["uploads"]["rate"]))


def rows(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what there is to know of a measurement, by names; a row without one goes on with the row before it."""
    uploads, octets = one["uploads"], one["bytes"]
    counted = f"{uploads['ok']:,} ok · {uploads['failed']:,} failed"
    if uploads["dropped"]:
        counted += f" · {uploads['dropped']:,} dropped (--max-in-flight)"
    if uploads["unfinished"]:
        counted += f" · {uploads['unfinished']:,} not ended, in no latency"
    told = [
        ("in flight", f"{one['concurrency']:,} at most · {connections(one['connections_opened'])}{_by(one)}"),
        ("uploads", f"{counted} in {one['seconds']:,.2f} s"),
        ("rate", f"{three_digits(uploads['rate'])} uploads/s · {three_digits(octets['rate'] / 1e6)} MB/s"),
        ("octets", f"{octets_text(octets['payload'])} of payload · {octets_text(octets['sent'])} sent"),
        ("latency", percentiles(one["latency_ms"])),
        ("response", _response(one["response_ms"])),
        ("status", " · ".join(f"{status} × {count:,}" for status, count in one["status"].items())),
        ("errors", " · ".join(f"{error} × {count:,}" for error, count in one["errors"].items())),
        *(("", f"  {cause}: {message}") for cause, message in one["examples"].items()),
        ("server", _peer(one["peer"])),
        ("waited for", _waited(one["blocked_s"])),
        ("limit", one["limited_by"]["sentence"] if one["limited_by"] else ""),
        ("fairness", f"{one['fairness']['jain']:.4f} (Jain's index)" if one["fairness"]["jain"] is not None else ""),
        ("client", one["client"]["sentence"] or _busy(one["client"]["processes"])),
    ]
    attempts = one["attempts"]
    if any(attempts.values()):
        told.insert(7, ("repeated", f"{attempts['retried']:,} retried · {attempts['replayed']:,} replayed"))
    return [(label, text) for label, text in told if text]


def _by(one: Mapping[str, Any]) -> str:
    return f" · {one['processes']} processes" if one["processes"] > 1 else ""


def _busy(processes: Sequence[Mapping[str, float]]) -> str:
    busy = " and ".join(f"{each['busy']:.0%}" for each in processes)
    return f"{busy} of a core" + (", by process" if len(processes) > 1 else "")


def percentiles(values: Mapping[str, float | None]) -> str:
    """Return latencies in one line."""
    if values["max"] is None:
        return "none"
    return " · ".join(f"{_NAMES.get(name, name)} {ms(value)}" for name, value in values.items()) + " ms"


def _response(values: Mapping[str, float | None]) -> str:
    """Return the row; none where every answer came before the last octet was sent."""
    return "" if values["max"] is None else f"{percentiles(values)} (from the last octet sent)"


def ms(value: float | None) -> str:
    """Return milliseconds in as many digits as they are worth."""
    if value is None:
        return "–"
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _peer(peer: dict[str, Any]) -> str:
    settings = " · ".join(f"{name} {value:,}" for name, value in peer["settings"].items())
    return f"{peer['server'] or 'gives no name'} · {settings}" if settings else peer["server"]


def _waited(blocked: dict[str, float]) -> str:
    total = sum(blocked.values())
    if not total:
        return ""
    parts = sorted(((waited / total, cause) for cause, waited in blocked.items()), reverse=True)
    return " · ".join(f"{cause.replace('_', ' ')} {share:.0%}" for share, cause in parts if share >= _SHOWN)


def _sparkline(seconds: Sequence[timeline.Row]) -> str:
    """Return one character for each second, or for several: from 0 to the largest."""
    if len(seconds) < 2:
        return ""
    rates = [row.ok / row.seconds for row in seconds]
    step = -(-len(rates) // _SPARKLINE)
    means = [sum(rates[at : at + step]) / len(rates[at : at + step]) for at in range(0, len(rates), step)]
    most = max(means) or 1.0
    sparks = "".join(_SPARKS[min(int(mean / most * len(_SPARKS)), len(_SPARKS) - 1)] for mean in means)
    return f"{sparks} {three_digits(min(rates))} to {three_digits(max(rates))} uploads/s"


def _histogram(one: dict[str, Any]) -> Table:
    """Return latencies in classes that double, each with a bar."""
    from rich.table import Table

    decoded = hdr.decoded(one["histogram"]["latency"])
    total = decoded.get_total_count()
    first = max(decoded.get_value_at_percentile(0.1), 1)
    last = decoded.get_max_value()
    factor = max((last / first) ** (1 / _BARS), 1.05)
    bounds = [first * factor ** (step + 1) for step in range(_BARS)]
    counts = [0] * _BARS
    for item in decoded.get_recorded_iterator():
        place = next((at for at, bound in enumerate(bounds) if item.value_iterated_to <= bound), _BARS - 1)
        counts[place] += item.count_added_in_this_iter_step
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column()
    for bound, count in zip(bounds, counts, strict=True):
        bar = "█" * round(count / max(counts) * _BAR) or ("▏" if count else "")
        table.add_row(f"≤ {ms(bound / 1e3)} ms", f"{count / total:.1%}" if count else "", bar)
    return table
