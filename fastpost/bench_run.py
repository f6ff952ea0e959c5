"""One benchmark as the command line shows it: its measurements one after the other, live view, files, report."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import uvloop

from fastpost import bench_report, thresholds
from fastpost.bench_files import Files, Paths
from fastpost.bench_view import LiveView
from fastpost.errors import Exit, TargetUnreachable
from fastpost.measurement import Measurement, Plan
from fastpost.signals import EXIT_CODES, signals_taken

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

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
        self._done: list[tuple[Measurement, int]] = []
        self._present: tuple[Measurement, str] | None = None
        self._signal: signal.Signals | None = None
        self._unreachable: TargetUnreachable | None = None

    def execute(self) -> int:
        """Measure, report, and return the exit code. Raises OSError when a file can't be made."""
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._files:
            uvloop.run(self._measure())
            report = self._figures(began) if self._done else None
            if report is not None:
                self._files.page(report)
        return self._report(report)

    # --- the measurements ---------------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        with signals_taken(loop, self._interrupted):
            drawing = loop.create_task(self._draw()) if self._shown.progress else None
            try:
                for place, (plan, run) in enumerate(self._plans, start=1):
                    await self._measure_one(plan, run, place)
                    if self._signal is not None:
                        break
            except TargetUnreachable as error:
                self._unreachable = error
            finally:
                if drawing is not None:
                    drawing.cancel()
                self._view.clear()

    async def _measure_one(self, plan: Plan, run: int, place: int) -> None:
        def counted(one: Measurement, uploads: list[Attempt]) -> None:
            self._files.counted(one, run, uploads)

        def second(one: Measurement, row: Row) -> None:
            self._files.second(one, run, row)

        measurement = Measurement(plan, on_counted=counted if self._files.wants_uploads else None, on_second=second)
        several = len(self._plans) > 1
        which = (
            f"{place} of {len(self._plans)}: {plan.settings.concurrency} in flight on {plan.settings.connections}"
            if several
            else ""
        )
        self._present = (measurement, which)
        self._files.begin(measurement, run)
        try:
            await measurement.complete()
        finally:
            if measurement.first is not None and measurement.meter.ok + measurement.meter.failed:
                self._done.append((measurement, run))

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
        report = bench_report.report(self._done, self._load, began)
        report["thresholds"] = thresholds.judged(self._fail_if, report["measurements"])
        return report

    def _report(self, report: dict[str, Any] | None) -> int:
        code = Exit.OK
        if report is not None:
            self._print(report)
            if any(one["uploads"]["failed"] for one in report["measurements"]):
                code = Exit.SOME_FAILED
            if any(one["missed"] for one in report["thresholds"]):
                code = Exit.THRESHOLD_MISSED
        elif self._unreachable is None:
            self._say("nothing was measured: no upload ended in the time that counts: measure longer (--duration)")
            code = Exit.SOME_FAILED
        if (lost := self._files.lost) is not None:
            self._say(f"{lost.filename or 'a file'}: {lost.strerror}; what was measured after that is not in it")
            code = code or Exit.SOME_FAILED
        if self._unreachable is not None:
            self._say(str(self._unreachable))
            code = self._unreachable.exit_code
        return EXIT_CODES[self._signal] if self._signal is not None else code

    def _print(self, report: dict[str, Any]) -> None:
        if self._shown.json:
            self._out.write(json.dumps(report) + "\n")
        elif not self._shown.quiet:
            from fastpost import bench_text

            self._out.write(bench_text.drawn(report, self._out.console()))
        for one in report["thresholds"]:
            if one["missed"]:
                self._say(f"--fail-if '{one['condition']}': {one['told']}")

    def _say(self, message: str) -> None:
        self._err.write(f"fastpost: {message}\n")
