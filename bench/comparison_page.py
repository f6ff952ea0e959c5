"""The comparison as Markdown: the part of docs/performance.md between its markers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.bars import BEST, H2LOAD, OURS, RAW, Judgement, Verdict, bars, judge, measured, median, overall
from bench.cells import Cell, Record
from bench.measure import ROOT

PAGE = Path("docs/performance.md")
_START, _END = "<!-- table -->", "<!-- /table -->"
#: Sets whose cost is that of their number of files; the cost of the others is that of their octets.
_COUNTED = ("small", "tree")


def write(text: str, page: Path = ROOT / PAGE) -> None:
    """Replace what stands between the page's markers. Raises ValueError when it has none."""
    before, start, rest = page.read_text().partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"{page}: the markers {_START} and {_END} are missing")
    page.write_text(f"{before}{_START}\n\n{text}\n\n{_END}{after}")


def tables(records: Sequence[Record], every: Sequence[Cell]) -> str:
    """Return machine, summary and the tables of all cells; `every` cell that has no record is named as not run."""
    parts = [*_machines(records), _counted(records), _summary(records)]
    missing = [cell.name for cell in every if cell not in [record.cell for record in records]]
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.")
    return "\n\n".join([*parts, *(details(record) for record in records)])


def _machines(records: Sequence[Record]) -> Iterator[str]:
    """Yield a paragraph for each set of machine and versions; one, unless cells were run on different ones."""
    seen: list[dict[str, str]] = []
    for record in records:
        if record.machine not in seen:
            seen.append(record.machine)
    for machine in seen:
        measured_here = [record for record in records if record.machine == machine]
        dates = sorted({record.date for record in measured_here})
        line = " · ".join(f"{name} {version}" for name, version in machine.items())
        only = "" if len(seen) == 1 else f" ({', '.join(record.cell.name for record in measured_here)})"
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        yield f"Measured {when}{only}: {line}."


def _counted(records: Sequence[Record]) -> str:
    """Say in how many cells fastpost is the fastest uploader, and how many ratios are above their bars."""
    every = [one for record in records for one in judgements(record)]
    walls = [(one.wall, one.bar.wall) for one in every if one.bar.wall is not None]
    ratios = [each for each in (*walls, *((one.cpu, one.bar.cpu) for one in every)) if each[0] is not None]
    missed = sum(ratio > bar for ratio, bar in ratios if ratio is not None and bar is not None)
    against = [one.wall for one in every if one.bar.opponent == BEST and one.wall is not None]
    slower = sorted(wall for wall in against if wall > 1.0)
    text = f"In {len(against) - len(slower)} of {len(against)} cells fastpost is the fastest uploader by wall time"
    if slower:
        text += f"; in the others it takes {slower[0]:.2f} to {slower[-1]:.2f} × the best one's"
    return f"{text}. {missed} of {len(ratios)} ratios are above their bars."


def _summary(records: Sequence[Record]) -> str:
    head = ["server", "files", "wall ÷ best uploader", "CPU ÷ best uploader"]
    head += ["wall ÷ h2load", "CPU ÷ h2load", "CPU ÷ raw limit", "verdict"]
    rows = [_summary_row(record) for record in records]
    return _table(head, [":--", ":--", *["--:"] * 5, ":--"], rows)


def _summary_row(record: Record) -> list[str]:
    judged = {one.bar.opponent: one for one in judgements(record)}
    row = [record.cell.way, record.what]
    for opponent in (BEST, H2LOAD, RAW):
        one = judged.get(opponent)
        if opponent != RAW:
            row.append(_ratio(one.wall, one.bar.wall) if one else "")
        row.append(_ratio(one.cpu, one.bar.cpu) if one else "")
    return [*row, _strong(overall(judged.values()))]


def judgements(record: Record) -> list[Judgement]:
    """Return how fastpost stands against each bar of a cell."""
    return [judge(bar, record.runs) for bar in bars(record.kind, record.tls)]


def details(record: Record) -> str:
    """Return the heading, the clients' table and the verdicts of a cell."""
    octets = f"{record.octets / 1e6:,.0f} MB"
    quick = "; quick: too small to judge by" if record.quick else ""
    parts = [
        f"### {record.cell.way}: {record.what}",
        f"{record.files:,} files, {octets}; median (minimum – maximum){quick}.",
        _clients(record),
        _verdicts(record),
    ]
    missing = [f"{name} is absent: {why}." for name, why in record.absent.items()]
    missing += [f"{name} failed: {' '.join(why.split())}." for name, why in record.failed.items()]
    return "\n\n".join([*parts, *(["\n".join(f"- {line}" for line in missing)] if missing else [])])


def _clients(record: Record) -> str:
    unit = "CPU µs a file" if record.kind in _COUNTED else "CPU s/GB"
    head = [
        "client",
        "wall s",
        "CPU s",
        "user + system s",
        unit,
        "peak RSS MB",
        "server CPU s",
        "server cores (thread)",
    ]
    head += ["wall: fastpost ÷ it", "CPU: fastpost ÷ it", "rounds"]
    rows = [_client_row(record, name) for name in record.runs]
    return _table(head, [":--", *["--:"] * (len(head) - 1)], rows)


def _client_row(record: Record, name: str) -> list[str]:
    samples, ours = record.runs[name], record.runs.get(OURS)
    ratios = [
        f"{median(ours, what) / median(samples, what):.2f}" if ours and name != OURS else "" for what in ("wall", "cpu")
    ]
    cost = median(samples, "cpu") / (record.files / 1e6 if record.kind in _COUNTED else record.octets / 1e9)
    cores, thread = (median(samples, what) for what in ("server_cores", "server_thread_cores"))
    return [
        name,
        f"{measured(samples, 'wall'):.2f}",
        f"{measured(samples, 'cpu'):.2f}",
        f"{median(samples, 'user'):.2f} + {median(samples, 'system'):.2f}",
        f"{cost:.3g}",
        f"{median(samples, 'peak_rss') / 1e6:.0f}",
        f"{measured(samples, 'server_cpu'):.2f}",
        f"{cores:.2f} ({thread:.2f})",
        *ratios,
        f"{len(samples)}",
    ]


def _verdicts(record: Record) -> str:
    head = ["fastpost against", "wall", "bar", "CPU", "bar", "verdict"]
    rows = [
        [
            _opponent(one),
            _number(one.wall),
            f"≤ {one.bar.wall:g}" if one.bar.wall else "–",
            _number(one.cpu),
            f"≤ {one.bar.cpu:g}",
            _strong(one.verdict),
        ]
        for one in judgements(record)
    ]
    return _table(head, [":--", *["--:"] * 4, ":--"], rows)


def _opponent(one: Judgement) -> str:
    if one.bar.opponent != BEST or one.wall_of is None:
        return one.bar.opponent
    names = one.wall_of if one.wall_of == one.cpu_of else f"wall: {one.wall_of}, CPU: {one.cpu_of}"
    return f"{BEST} ({names})"


def _ratio(ratio: float | None, bar: float | None) -> str:
    if ratio is None or bar is None:
        return "–"
    return f"{ratio:.2f}" if ratio <= bar else f"**{ratio:.2f}**"


def _number(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _strong(verdict: Verdict) -> str:
    return f"**{verdict.value}**" if verdict in (Verdict.MISSED, Verdict.FAILED) else verdict.value


def _table(head: Sequence[str], alignment: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, alignment, *rows))
