"""What a benchmark writes: uploads (NDJSON), seconds (CSV), intervals (an HdrHistogram log), in the end a page."""

from __future__ import annotations

import contextlib
import csv
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastpost import causes, hdr
from fastpost.bench_report import Setting
from fastpost.report import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastpost._meter import Counted
    from fastpost._table import Attempt
    from fastpost.measurement import Measured, Plan
    from fastpost.timeline import Row

_KEY: Final = (*Setting._fields, "run")
_COLUMNS: Final = (
    "at", "seconds", "ok", "failed", "dropped", "payload", "sent", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms",
)  # fmt: skip


class Paths(NamedTuple):
    """Where to; None: nowhere."""

    log: str | None = None
    csv: str | None = None
    hdr_log: str | None = None
    html: str | None = None


class _Output:
    """One of the files, open. A disk that is full must not end a measurement: what can't be written is dropped.

    Attributes:
        lost: why nothing is written any more; None: all was.
    """

    def __init__(self, path: str, encoding: str = "ascii", newline: str | None = None) -> None:
        self.lost: OSError | None = None
        self._path = path
        self._file = open(path, "w", encoding=encoding, newline=newline)  # noqa: SIM115

    def write(self, text: str) -> None:
        """Write text, or drop it."""
        if self.lost is None:
            with self._kept():
                self._file.write(text)

    def close(self) -> None:
        """Close it; what was still in memory may be lost."""
        with self._kept():
            self._file.close()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or OSError(error.errno, error.strerror, self._path)


class Files:
    """The open files, as a context manager. Raises OSError when one can't be made."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._open = contextlib.ExitStack()
        self._outputs: list[_Output] = []
        self._log: _Output | None = None
        self._csv: Any = None
        self._hdr: hdr.Log | None = None
        self._html: _Output | None = None

    def __enter__(self) -> Files:
        paths = self._paths
        with self._open as stack:
            if paths.log is not None:
                self._log = self._opened(paths.log)
            if paths.csv is not None:
                self._csv = csv.writer(self._opened(paths.csv, newline=""))
                self._csv.writerow((*_KEY, *_COLUMNS, *(f"blocked_{cause}_s" for cause in causes.CAUSES)))
            if paths.hdr_log is not None:
                self._hdr = hdr.Log(self._opened(paths.hdr_log))
            if paths.html is not None:
                self._html = self._opened(paths.html, encoding="utf-8")
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _opened(self, path: str, **options: str) -> _Output:
        output = _Output(path, **options)
        self._open.callback(output.close)
        self._outputs.append(output)
        return output

    @property
    def lost(self) -> list[OSError]:
        """Why files are not whole, each named."""
        return [output.lost for output in self._outputs if output.lost is not None]

    @property
    def wants_uploads(self) -> bool:
        """True when each upload is to be told."""
        return self._log is not None

    def uploads(self, text: str) -> None:
        """Write uploads that count, as `described`."""
        if self._log is not None:
            self._log.write(text)

    def second(self, one: Measured, run: int, row: Row, counted: Counted) -> None:
        """Write one second, and what was counted in it."""
        if self._csv is not None:
            blocked = (f"{row.blocked.get(cause, 0.0):.4f}" for cause in causes.CAUSES)
            figures = (f"{value:.4f}" if isinstance(value, float) else value for value in row[:12])
            self._csv.writerow((*_key(one.plan, run).values(), *figures, *blocked))
        if self._hdr is not None:
            self._hdr.add(row.at, row.seconds, counted.latency)

    def begin(self, one: Measured, run: int) -> None:
        """Say in the HdrHistogram log, which has no columns for it, which measurement begins."""
        if self._hdr is not None:
            self._hdr.comment(", ".join(f"{name} {value}" for name, value in _key(one.plan, run).items()))

    def page(self, report: dict[str, Any]) -> None:
        """Write the page of the whole benchmark."""
        if self._html is not None:
            from fastpost import bench_page

            self._html.write(bench_page.drawn(report))


def described(plan: Plan, run: int, begins: float, uploads: list[Attempt]) -> str:
    """Return uploads that count as lines for the log, about 6 µs each; the window began at `begins`."""
    key = _key(plan, run)
    lines = [json.dumps({"name": readable(each.upload.name), **_told(each, begins), **key}) for each in uploads]
    return "\n".join(lines) + "\n"


def _key(plan: Plan, run: int) -> dict[str, object]:
    """Return what tells a measurement from the others."""
    return Setting.asked(plan)._asdict() | {"run": run}


def _told(one: Attempt, begins: float) -> dict[str, object]:
    """Return times in milliseconds, `at` counted from the beginning of the window to the beginning of the upload."""
    went_well = one.failure is None
    return {
        "at_ms": round((one.began - begins) * 1e3, 3) if one.began else None,
        "latency_ms": round((one.finished - one.began) * 1e3, 3) if went_well else None,
        "response_ms": round((one.finished - one.body_sent) * 1e3, 3) if went_well and one.body_sent else None,
        "size": one.size if one.size >= 0 else None,
        "status": one.status or None,
        "error": None if went_well else type(one.failure).__name__,
        "attempts": 1 + one.retried + one.replayed,
    }
