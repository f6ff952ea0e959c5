"""What a run came to: numbers and JSON for programs, rows of text for people. Nothing here prints.

Names of files and words of servers are data from outside: every text for a terminal goes through `safe`.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from fastpost import causes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from fastpost._meter import Histogram
    from fastpost._table import Attempt
    from fastpost.errors import FastpostError
    from fastpost.tally import Tally

SCHEMA: Final = "fastpost.upload/1"

_PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
#: How much of the failures a person is shown: causes, names of each, characters of each message.
_CAUSES_SHOWN: Final = 10
_NAMES_SHOWN: Final = 3
_MESSAGE_SHOWN: Final = 300
#: Columns that no table has.
_WIDEST: Final = 1_000
#: Columns of a bar that is all of the time.
_BAR: Final = 20


class Row(NamedTuple):
    """One line of the summary; `style` is a colour for terminals that have some, or empty."""

    label: str
    text: str
    style: str = ""


def _limit(tally: Tally) -> causes.Verdict | None:
    """Return what kept the uploads waiting most; None where not one was answered: that is no matter of speed."""
    return causes.verdict(tally) if tally.statuses else None


# --- for programs -----------------------------------------------------------------------------------------------------


def as_json(tally: Tally, target: str) -> dict[str, object]:
    """Return the report of schema fastpost.upload/1. Sizes in octets, times in seconds but for latency_ms.

    `blocked_s` are stream-seconds; `slowest` and `fastest` are shares, 1.0 being an even part of the turns.
    """
    limit = _limit(tally)
    jain = tally.shares.jain()
    return {
        "schema": SCHEMA,
        "target": target,
        "files": {
            "total": tally.found,
            "ok": tally.ok,
            "failed": tally.failed,
            "skipped": tally.skipped + tally.recorded,
        },
        "bytes": {"payload": tally.payload, "sent": tally.sent, "wasted": tally.wasted},
        "seconds": round(seconds(tally), 6),
        "status": {str(status): count for status, count in sorted(tally.statuses.items())},
        "errors": dict(sorted(tally.errors.items())),
        "attempts": {"retried": tally.retried, "replayed": tally.replayed},
        "connections": tally.connections,
        "latency_ms": {
            name: None if value is None else round(value * 1e3, 3) for name, value in percentiles(tally.latencies)
        },
        "blocked_s": {cause: round(waited, 6) for cause, waited in causes.split(tally).items()},
        "limited_by": None if limit is None else limit._asdict(),
        "fairness": {
            "jain": None if jain is None else round(jain, 6),
            "slowest": round(tally.shares.smallest, 6) if tally.shares.uploads else None,
            "fastest": round(tally.shares.largest, 6) if tally.shares.uploads else None,
        },
        "verified": tally.verified,
        "unverifiable": None if tally.verified is None else tally.unverifiable,
        "mismatched": None if tally.verified is None else tally.mismatched,
    }


def percentiles(latencies: Histogram) -> list[tuple[str, float | None]]:
    """Return p50, p90, p99, p999 (nearest rank, within 0.1 %) and max, in seconds; None when there are none."""
    found: dict[str, float | None] = {name: latencies.quantile(share) for name, share in _PERCENTILES.items()}
    found["max"] = latencies.largest / 1e6
    return list((found if latencies.total else dict.fromkeys(found)).items())


def seconds(tally: Tally) -> float:
    """Return how long the run took, 0.0 when it never began."""
    return max(0.0, tally.finished - tally.started)


def failure_record(
    name: bytes, file: bytes, url: str | None, failure: FastpostError, status: int, attempts: int
) -> dict[str, object]:
    r"""Return one line of the --failures file.

    Octets of a name that are not UTF-8 appear as \xNN; `name_b64` and `file_b64` then hold the exact octets.
    `status` is None without a response, `url` when the name can't be put into one.
    """
    return {
        **named("name", name),
        **named("file", file),
        "url": url,
        **_error(failure),
        "status": status or None,
        "attempts": attempts,
    }


def log_record(
    result: Attempt, url: str | None, failure: FastpostError | None, attempts: int, began: float
) -> dict[str, object]:
    """Return one line of the --log file: what became of an upload.

    `seconds` are those of the last attempt. `began` is the wall clock at monotonic 0 (seconds).
    """
    started = result.started > 0
    return {
        "time": _stamp(began + result.finished) if started else None,
        **named("name", result.upload.name),
        **named("file", result.upload.file),
        "url": url,
        "status": result.status or None,
        "octets": result.payload,
        "seconds": round(result.finished - result.started, 6) if started else None,
        "attempts": attempts,
        **_error(failure),
    }


def rejection_record(name: bytes, file: bytes, url: str | None, failure: FastpostError) -> dict[str, object]:
    """Return the line of what could not be uploaded at all."""
    return {
        "time": None,
        **named("name", name),
        **named("file", file),
        "url": url,
        "status": None,
        "octets": 0,
        "seconds": None,
        "attempts": 0,
        **_error(failure),
    }


def _error(failure: FastpostError | None) -> dict[str, object]:
    if failure is None:
        return {"error": None, "message": None}
    return {
        "error": type(failure).__name__,
        "message": str(failure).encode("utf-8", "backslashreplace").decode(),
    }


def _stamp(seconds: float) -> str:
    """Return a time (seconds since 1970) as RFC 3339 has it, in UTC."""
    import datetime

    return (
        datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def named(key: str, octets: bytes) -> dict[str, object]:
    r"""Return a name of a file for JSON: by `key`, odd octets as \xNN, and then the exact ones by `key`_b64."""
    name: dict[str, object] = {key: readable(octets)}
    return name if _is_utf8(octets) else name | {f"{key}_b64": base64.b64encode(octets).decode()}


def readable(octets: bytes) -> str:
    r"""Return a name as text; octets that are not UTF-8 appear as \xNN."""
    return octets.decode("utf-8", "backslashreplace")


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# --- for people -------------------------------------------------------------------------------------------------------


def rows(tally: Tally, target: str, all_failures_kept: bool = False) -> list[Row]:
    """Return the summary, most important first, failures last. `all_failures_kept`: there is a --failures file."""
    took = seconds(tally)
    summary = [Row("target", safe(target)), _files(tally), Row("octets", _octets(tally))]
    if took:
        rates = f"{three_digits(tally.ok / took)} files/s · {three_digits(tally.payload / took / 1e6)} MB/s"
        summary.append(Row("time", f"{took:,.2f} s · {rates}"))
    if tally.latencies.total:
        found = percentiles(tally.latencies)
        values = [f"{name.replace('p999', 'p99.9')} {(value or 0.0) * 1e3:,.1f}" for name, value in found]
        summary.append(Row("latency", " · ".join(values) + " ms"))
    if tally.statuses:
        summary.append(Row("status", " · ".join(f"{s} × {n:,}" for s, n in sorted(tally.statuses.items()))))
    if tally.retried or tally.replayed:
        summary.append(Row("repeated", f"{tally.retried:,} retried · {tally.replayed:,} replayed"))
    summary.append(Row("connections", f"{tally.connections:,}"))
    summary += _waiting(tally)
    jain = tally.shares.jain()
    if jain is not None and tally.shares.uploads > 1:
        ends = f"slowest {tally.shares.smallest:.2f}, fastest {tally.shares.largest:.2f} of an even share"
        summary.append(Row("fairness", f"{jain:.4f} (Jain's index) · {ends}"))
    if tally.verified is not None:
        summary.append(_verified(tally, tally.verified))
    return summary + _failures(tally, all_failures_kept)


def _verified(tally: Tally, intact: int) -> Row:
    taken = tally.latencies.total  # uploads that the server took: each left its latency
    parts = [f"{intact:,} of {taken:,} arrived intact"]
    if tally.mismatched:
        parts.append(f"{tally.mismatched:,} mismatched")
    if tally.unverifiable:
        parts.append(f"{tally.unverifiable:,} unverifiable: the server told no digest of them")
    left = tally.ok - intact - tally.unverifiable
    if left > 0:
        parts.append(f"{left:,} not compared")
    return Row("verified", " · ".join(parts), "red" if tally.mismatched else "green")


def _waiting(tally: Tally) -> list[Row]:
    """Return where the time went, as a bar, and the sentence that names the principal cause with its cure."""
    limit = _limit(tally)
    if limit is None:
        return []
    parts = causes.split(tally)
    total = sum(parts.values())
    shown = sorted(((waited / total, cause) for cause, waited in parts.items() if waited / total >= 0.01), reverse=True)
    bars = [f"{cause.replace('_', ' ')} {'█' * max(1, round(share * _BAR))} {share:.0%}" for share, cause in shown]
    return [Row("waited for", " · ".join(bars)), Row("limit", limit.sentence)]


def plain(summary: Sequence[Row]) -> str:
    """Return the summary as lines for a file or a pipe."""
    return "".join(f"{row.label:<12}{row.text}".rstrip() + "\n" for row in summary)


def drawn(summary: Sequence[Row], console: Console) -> str:
    """Return the summary as rich draws it on that console. Text objects only: a name is never read as markup."""
    from rich.text import Text

    with console.capture() as captured:
        for row in summary:
            text = Text.assemble((f"{row.label:<12}", "dim"), (row.text, row.style))
            console.print(text, soft_wrap=True)
    return captured.get()


def uncut(table: Table, console: Console) -> None:
    """Print a table in all its width: where that is more than the console's its lines are broken, and no figure is cut.

    The console stays so wide.
    """
    from rich.measure import Measurement

    room = console.options.update(max_width=_WIDEST)
    console.width = max(console.width, Measurement.get(console, room, table).maximum)
    console.print(table)


def safe(text: str) -> str:
    r"""Return text that can't move a cursor, hide or forge a line: what is not printable becomes \xNN or \uNNNN.

    Octets of names that are no UTF-8 (surrogate escapes, PEP 383) become \xNN too.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def octets_text(count: int) -> str:
    """Return a number of octets in decimal units, such as 999 B, 1.5 kB or 2.0 MB."""
    if count < 1000:
        return f"{count} B"
    size, units = count / 1000, ["TB", "GB", "MB", "kB"]
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.1f} {units[-1]}"


def three_digits(value: float) -> str:
    """Return a rate or a time in three digits at least: 29,557, 37.2, 3.14; below 1 in three decimals or two digits."""
    if value >= 99.95:
        return f"{value:,.0f}"
    decimals = 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    if 0 < value < 0.00995:
        decimals = 1 - math.floor(math.log10(value))
    return f"{value:.{decimals}f}" if value else "0"


def _escape(character: str) -> str:
    point = ord(character)
    if 0xDC80 <= point <= 0xDCFF:
        return f"\\x{point - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _files(tally: Tally) -> Row:
    parts = [f"{tally.ok:,} ok", f"{tally.failed:,} failed"]
    left = max(0, tally.found - tally.ok - tally.failed)
    if left:
        parts.append(f"{left:,} not sent")
    if tally.recorded:
        parts.append(f"{tally.recorded:,} skipped, uploaded before (--journal)")
    if tally.skipped:
        parts.append(f"{tally.skipped:,} symbolic links skipped (--follow-symlinks)")
    return Row("files", " · ".join(parts), "red" if tally.failed or left else "green")


def _octets(tally: Tally) -> str:
    text = f"{octets_text(tally.payload)} of files · {octets_text(tally.sent)} sent"
    return text + (f" · {octets_text(tally.wasted)} wasted" if tally.wasted else "")


def _failures(tally: Tally, all_kept: bool) -> list[Row]:
    """Group failures by cause, the most frequent first, each with its first names."""
    found: list[Row] = []
    causes = sorted(tally.causes.items(), key=lambda item: -item[1])
    for cause, count in causes[:_CAUSES_SHOWN]:
        found.append(Row("failed", f"{count:,} × {cause}", "red"))
        first = tally.first_failures[cause][:_NAMES_SHOWN]
        found += [Row("", f"  {safe(name)}: {_shortened(safe(message))}") for name, message in first]
        if count > len(first):
            cure = "" if all_kept else ": --failures FILE names them all"
            found.append(Row("", f"  … and {count - len(first):,} more{cure}"))
    if len(causes) > _CAUSES_SHOWN:
        found.append(Row("failed", f"… and {len(causes) - _CAUSES_SHOWN} more causes", "red"))
    return found


def _shortened(message: str) -> str:
    return message if len(message) <= _MESSAGE_SHOWN else message[:_MESSAGE_SHOWN] + "…"
