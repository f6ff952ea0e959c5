"""One benchmark as the command line shows it: its measurements one after the other, live view, files, report."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import json
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import uvloop

from fastpost import bench_report, thresholds
from fastpost.bench_files import Files, Paths, described
from fastpost.bench_view import LiveView
from fastpost.errors import Exit, FastpostError, WorkerLost
from fastpost.measurement import Measured, Measurement, Plan
from fastpost.signals import EXIT_CODES, signals_held, signals_taken

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Sequence

    from fastpost._meter import Counted
    from fastpost._table import Attempt
    from fastpost.outlet import Outlet
    from fastpost.timeline import Row

_FIRST_FRAME: Final = 0.5


class Shown(NamedTuple):
    """What the user wants to see."""

    json: bool = False
    progress: bool = False
    quiet: bool = False


class BenchRun:
    """Measures each plan in turn.

    Args:
        plans: what; each with the number of its run.
        load: what was asked for, for the report.
        shown: what to show.
        out, err: where the report goes; where messages and the live view go.
        paths: files to write while it runs.
        fail_if: conditions under which it fails.
    """

    def __init__(
        self,
        plans: Sequence[tuple[Plan, int]],
        load: dict[str, object],
        shown: Shown,
        out: Outlet,
        err: Outlet,
        *,
        paths: Paths,
        fail_if: Sequence[thresholds.Threshold] = (),
    ) -> None:
        self._plans = plans
        self._load = load
        self._shown = shown
        self._out = out
        self._err = err
        self._files = Files(paths)
        self._fail_if = fail_if
        self._view = LiveView(err)
        self._done: list[tuple[Measured, int]] = []
        self._present: tuple[Measured, str] | None = None
        self._signal: signal.Signals | None = None
        self._failure: FastpostError | OSError | None = None
        self._noticed = ""

    def execute(self) -> int:
        """Measure, report, and return the exit code. Raises OSError when a file can't be made."""
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # Each measurement has a loop of its own: processes are forked before there is one.
        with self._files, signals_held():
            for place, (plan, run) in enumerate(self._plans, start=1):
                self._measure(plan, run, place)
                if self._signal is not None or self._failure is not None:
                    break
            report = self._figures(began) if self._done else None
            if report is not None:
                self._files.page(report)
        return self._report(report)

    # --- the measurements ---------------------------------------------------------------------------------------------

    def _measure(self, plan: Plan, run: int, place: int) -> None:
        which = (
            f"{place} of {len(self._plans)}: {bench_report.Setting.asked(plan).in_words()}"
            if len(self._plans) > 1
            else ""
        )
        begun = None
        try:
            with self._made(plan, run) as measurement:
                self._present = (measurement, which)
                self._files.begin(measurement, run)
                begun = measurement
                uvloop.run(self._watched(measurement))
        except WorkerLost as error:
            self._failure = error
            return  # a part of it is missing
        except (FastpostError, OSError) as error:
            self._failure = error  # what was measured till then is told all the same
        # One that was cut short before anything ended tells nothing of the server; one that ran its whole time does.
        whole = self._failure is None and self._signal is None
        if begun is not None and begun.first is not None and (begun.meter.ended or whole):
            self._done.append((begun, run))

    @contextlib.contextmanager
    def _made(self, plan: Plan, run: int) -> Iterator[Measured]:
        """Give what measures a plan, with the processes that it needs."""
        text = functools.partial(described, plan, run) if self._files.wants_uploads else None

        def counted(one: Measurement, uploads: list[Attempt]) -> None:
            assert text is not None
            self._files.uploads(text(one.meter.begins, uploads))

        def second(one: Measured, row: Row, counted: Counted) -> None:
            self._files.second(one, run, row, counted)

        if plan.processes == 1:
            each = None if text is None else counted
            alone = Measurement(plan, on_counted=each, on_second=second, on_notice=self._notice)
            yield alone
            if self._signal is None:
                alone.join()  # the next one may fork
            return
        from fastpost.bench_processes import SharedMeasurement

        shared = SharedMeasurement(
            plan, described=text, on_uploads=self._files.uploads, on_second=second, on_notice=self._notice
        )
        with shared.forked():
            yield shared

    def _notice(self, notice: str) -> None:
        """Say what several processes, or tries, tell alike, once."""
        if notice != self._noticed and not self._shown.quiet:
            self._view.clear()
            self._say(notice)
        self._noticed = notice

    async def _watched(self, measurement: Measured) -> None:
        """Measure, with the live view, and signals taken."""
        loop = asyncio.get_running_loop()
        with signals_taken(loop, self._interrupted):
            drawing = loop.create_task(self._draw()) if self._shown.progress else None
            try:
                await measurement.complete()
            finally:
                if drawing is not None:
                    drawing.cancel()
                self._view.clear()

    async def _draw(self) -> None:
        await asyncio.sleep(_FIRST_FRAME)
        while True:
            if self._present is not None:
                self._view.draw(*self._present, time.monotonic())
            await asyncio.sleep(self._view.interval)

    def _interrupted(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        """End the present measurement and report; a second signal meets Python's own handler."""
        self._signal = number
        for each in EXIT_CODES:
            loop.remove_signal_handler(each)
        if self._present is not None:
            self._present[0].stop()

    # --- the report ---------------------------------------------------------------------------------------------------

    def _figures(self, began: str) -> dict[str, Any]:
        short = self._signal is not None or self._failure is not None
        report = bench_report.report(self._done, self._load, began, interrupted=short)
        report["thresholds"] = thresholds.judged(self._fail_if, report["measurements"])
        return report

    def _report(self, report: dict[str, Any] | None) -> int:
        code = Exit.OK
        if report is not None:
            self._print(report)
            if any(one["uploads"]["failed"] or not one["uploads"]["ok"] for one in report["measurements"]):
                code = Exit.SOME_FAILED
            if any(one["missed"] for one in report["thresholds"]):
                code = Exit.THRESHOLD_MISSED
        elif self._failure is None:
            self._say("interrupted before anything was measured")
            code = Exit.SOME_FAILED
        for lost in self._files.lost:
            self._say(f"{lost.filename}: {lost.strerror}; what was measured after that is not in it")
            code = code or Exit.SOME_FAILED
        if self._failure is not None:
            self._say(str(self._failure))
            code = getattr(self._failure, "exit_code", Exit.SOME_FAILED)
        return EXIT_CODES[self._signal] if self._signal is not None else code

    def _print(self, report: dict[str, Any]) -> None:
        if self._shown.json:
            self._out.write(json.dumps(report) + "\n")
        elif not self._shown.quiet:
            from fastpost import bench_text

            self._out.write(bench_text.drawn(report, self._out.console()))
        for sentence in bench_report.empty(report["measurements"]):
            self._say(sentence)
        for one in report["thresholds"]:
            if one["missed"]:
                self._say(f"--fail-if '{one['condition']}': {one['told']}")

    def _say(self, message: str) -> None:
        self._err.write(f"fastpost: {message}\n")
