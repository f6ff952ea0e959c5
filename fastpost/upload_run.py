"""One upload run as the command line shows it: signals, progress, journal, verification, report, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import uvloop

from fastpost import report
from fastpost.errors import Exit, FastpostError, Interrupted, TargetUnreachable, UsageError, WorkerLost
from fastpost.signals import EXIT_CODES, signals_taken
from fastpost.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastpost._table import Attempt
    from fastpost.config import Settings
    from fastpost.journal import Journal
    from fastpost.outlet import Outlet
    from fastpost.processes import Processes
    from fastpost.progress import Progress
    from fastpost.record_file import RecordFile
    from fastpost.sources import Batch, Rejected
    from fastpost.tally import Tally
    from fastpost.verify import Verifier

#: Seconds that uploads in flight have to finish after the first signal.
GRACE: Final = 10.0
#: Runs shorter than this draw no progress, and are spared the loading of rich: 30 ms, once.
_FIRST_FRAME: Final = 1.0
#: Files whose sizes are looked up for the progress, in the walk's thread: about 2 µs each, and many small files can
#: be told by their number as well.
_SIZES_WANTED: Final = 4096


class Display(NamedTuple):
    """What the user wants to see."""

    json: bool = False
    progress: bool = False
    responses: bool = False
    verbose: int = 0
    quiet: bool = False


class UploadRun:
    """Uploads batches and tells about it.

    Args:
        settings: raises UsageError when its target can't be meant.
        display: what to show.
        out: where results go.
        err: where messages and progress go.
        failures: file to write a JSON line for every failure to.
        log: file to write a JSON line for every file to.
        journal: file that records what is uploaded; what it holds already is skipped.
        fail_early: stop at the first failure.
        verify: compare the digests that responses state with those of the files; needs settings.keep_responses.
        distinct: no two files have the same name.
        processes: how many share the work.
    """

    def __init__(
        self,
        settings: Settings,
        display: Display,
        out: Outlet,
        err: Outlet,
        *,
        failures: str | None = None,
        log: str | None = None,
        journal: str | None = None,
        fail_early: bool = False,
        verify: bool = False,
        distinct: bool = False,
        processes: int = 1,
    ) -> None:
        self._uploader = Uploader(settings) if processes == 1 else _processes(settings, processes)
        self._tally = self._uploader.tally
        self._target = self._uploader.target
        self._shown_target = report.safe(self._target.template)
        self._display = display
        self._out = out
        self._err = err
        self._failures_path = failures
        self._failures: RecordFile | None = None
        self._log_path = log
        self._log: RecordFile | None = None
        #: Uploads that went well, and are to be in the log once they are compared.
        self._awaited: set[Attempt] = set()
        self._fail_early = fail_early
        self._failed_early = False
        self._journal_path = journal
        self._journal: Journal | None = None
        self._verify = verify
        self._distinct = distinct
        self._verifier: Verifier | None = None
        self._progress = _progress(self._tally, err) if display.progress else None
        self._signal: signal.Signals | None = None
        self._unreachable: TargetUnreachable | None = None
        #: Nothing more is written to standard output; some results were not written, there or to a file.
        self._lost_output = False
        self._lost = False
        self._lost_journal = False

    def execute(self, batches: Iterable[Batch]) -> int:
        """Upload everything, report, and return the exit code.

        Raises OSError when the failures file or the journal can't be made, UsageError when it is no journal for this.
        """
        with self._workers(), self._journal_kept(), self._records():
            if self._journal is not None:
                batches = self._journal.gate(self._journal.remaining(batches))
            if self._progress is not None:
                batches = self._sized(batches, self._progress)
            try:
                uvloop.run(self._run(batches))
            finally:
                self._write_log((one, None) for one in self._awaited)
                self._awaited.clear()
        self._report()
        return self._exit_code()

    # --- the run ------------------------------------------------------------------------------------------------------

    async def _run(self, batches: Iterable[Batch]) -> None:
        loop = asyncio.get_running_loop()
        with signals_taken(loop, self._interrupted):
            drawing = None if self._progress is None else loop.create_task(self._draw(self._progress))
            try:
                await self._upload(loop, batches)
            except TargetUnreachable as error:
                self._unreachable = error
            finally:
                if drawing is not None:
                    drawing.cancel()
                self._clear()

    async def _upload(self, loop: asyncio.AbstractEventLoop, batches: Iterable[Batch]) -> None:
        if not self._verify:
            on_results = self._on_results if self._looks_at_results or self._journal is not None else None
            await self._uploader.run(
                batches, on_results, self._on_rejected, distinct=self._distinct, on_notice=self._on_notice
            )
            return

        from fastpost.verify import Verifier

        def deliver(passed: list[Attempt], failed: Sequence[tuple[Attempt, FastpostError]]) -> None:
            loop.call_soon_threadsafe(self._on_compared, passed, failed)

        verifier = self._verifier = Verifier(deliver)
        self._tally.verified = 0
        try:
            gated = verifier.gate(batches)
            await self._uploader.run(
                gated, self._on_results, self._on_rejected, distinct=self._distinct, on_notice=self._on_notice
            )
            await loop.run_in_executor(None, verifier.finish)
        finally:
            verifier.abandon()
            self._tally.verified = verifier.intact
            self._tally.unverifiable = verifier.unverifiable

    @property
    def _looks_at_results(self) -> bool:
        shown = self._display.responses or self._display.verbose
        return bool(self._failures_path or self._log_path or self._fail_early or shown)

    def _on_results(self, results: list[Attempt]) -> None:
        if self._verifier is not None:
            self._verifier.submit(results)
        elif self._journal is not None:
            self._record(self._journal, results)
        if not self._looks_at_results:
            return
        if self._display.responses or self._display.verbose >= 2:
            for result in results:
                self._tell_result(result)
        if self._verifier is not None and self._log is not None:
            self._awaited.update(one for one in results if one.failure is None)
        self._write_log((one, one.failure) for one in results if one not in self._awaited)
        for result in results:
            if result.failure is not None:
                self._failed(result, result.failure)

    def _on_notice(self, notice: str) -> None:
        if not self._display.quiet:
            self._say(notice)

    def _on_compared(self, passed: list[Attempt], failed: Sequence[tuple[Attempt, FastpostError]]) -> None:
        self._tally.revoke(failed)
        self._write_log([*((one, None) for one in passed), *failed])
        self._awaited.difference_update(passed, (one for one, _ in failed))
        for result, failure in failed:
            self._failed(result, failure)
        if self._journal is not None:
            self._record(self._journal, passed)

    def _on_rejected(self, rejected: list[Rejected]) -> None:
        if self._log is not None:
            self._log.write(
                report.rejection_record(one.name, one.file, self._url(one.name), one.error) for one in rejected
            )
        for one in rejected:
            self._tell_failure(one.name, one.file, one.error, 0, 0)

    def _failed(self, result: Attempt, failure: FastpostError) -> None:
        upload = result.upload
        self._tell_failure(upload.name, upload.file, failure, result.status, _attempts(result, failure))

    def _sized(self, batches: Iterable[Batch], progress: Progress) -> Iterator[Batch]:
        """Look up the sizes of the first files, so that a few large ones get an honest bar."""
        found = 0
        for batch in batches:
            found += len(batch.uploads)
            if found <= _SIZES_WANTED:
                for upload in batch.uploads:
                    with contextlib.suppress(OSError):
                        upload.size = os.stat(upload.file).st_size
            elif batch.uploads:
                progress.octets_known = False
            yield batch

    def _workers(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._uploader, Uploader):
            return contextlib.nullcontext()
        tells = self._looks_at_results or self._verify or self._journal_path is not None
        return self._uploader.workers(tells_results=tells, grace=GRACE)

    # --- the journal --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _journal_kept(self) -> Iterator[None]:
        if self._journal_path is None:
            yield
            return
        from fastpost.journal import Journal

        journal = Journal(self._journal_path, self._target)
        if journal.dropped:
            self._on_notice(
                f"{self._journal_path}: its last {journal.dropped:,} octets are not whole, as after a kill, and were "
                "dropped: what they stood for is uploaded again"
            )
        if journal.damaged:
            self._on_notice(
                f"{self._journal_path}: {journal.damaged:,} octets in its midst are damaged, and were passed over: "
                "what they stood for is uploaded again; look after that disk"
            )
        self._journal = journal
        try:
            yield
        finally:
            journal.close()
            self._look_after(journal)

    def _record(self, journal: Journal, results: list[Attempt]) -> None:
        journal.record(results)
        self._look_after(journal)

    def _look_after(self, journal: Journal) -> None:
        """Say once that the journal can't be written; the run goes on, and fails at its end."""
        if journal.lost is not None and not self._lost_journal:
            self._lost_journal = True
            self._say(
                f"{self._journal_path}: {journal.lost}; the uploads go on, but what isn't recorded there, the next run "
                "will send again"
            )

    # --- signals ------------------------------------------------------------------------------------------------------

    def _interrupted(self, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
        """Stop gently at the first signal, at once at the second; a third meets Python's own handler."""
        first = self._signal is None
        self._signal = self._signal or number
        self._uploader.stop(GRACE)
        if first and self._verifier is not None:
            # What is uploaded by then is compared as far as the time goes.
            loop.call_later(GRACE, self._verifier.abandon)
        if first:
            self._say(f"stopping: uploads in flight have {GRACE:.0f} s to finish; once more stops them at once")
            return
        if self._verifier is not None:
            self._verifier.abandon()
        for each in EXIT_CODES:
            loop.remove_signal_handler(each)

    # --- what is shown ------------------------------------------------------------------------------------------------

    async def _draw(self, progress: Progress) -> None:
        await asyncio.sleep(_FIRST_FRAME)
        while True:
            if self._verifier is not None:
                self._tally.verified = self._verifier.intact
            progress.draw(time.monotonic())
            await asyncio.sleep(progress.interval)

    def _clear(self) -> None:
        """Take the progress off the terminal."""
        if self._progress is not None:
            self._progress.clear()

    def _say(self, message: str) -> None:
        self._clear()
        self._err.write(f"fastpost: {report.safe(message)}\n")

    def _tell_result(self, result: Attempt) -> None:
        """Print one response; it shares the terminal with the progress line."""
        self._clear()
        line = f"{result.status or 'no response'} {self._target.method.decode()} {self._target.url(result.upload.name)}"
        if not self._display.responses:
            self._say(line)
            return
        outlet = self._err if self._display.json else self._out
        self._keep(outlet.write, f"{report.safe(line)}\n{_response_text(result)}\n")

    def _tell_failure(self, name: bytes, file: bytes, failure: FastpostError, status: int, attempts: int) -> None:
        if self._display.verbose:
            self._say(f"{os.fsdecode(name)}: {failure}")
        if self._failures is not None:
            record = report.failure_record(name, file, self._url(name), failure, status, attempts)
            self._failures.write((record,))
        if self._fail_early and not self._failed_early and not isinstance(failure, Interrupted):
            self._failed_early = True
            self._say(f"{os.fsdecode(name)}: {failure}; stopping, as --fail-early asks for")
            self._uploader.stop(0.0)

    def _write_log(self, results: Iterable[tuple[Attempt, FastpostError | None]]) -> None:
        if self._log is not None:
            began = time.time() - time.monotonic()
            self._log.write(
                report.log_record(one, self._url(one.upload.name), failure, _attempts(one, failure), began)
                for one, failure in results
            )

    def _url(self, name: bytes) -> str | None:
        """Return the URL of a name; a SOURCE that was rejected may have one that no URL can hold."""
        try:
            return self._target.url(name)
        except UsageError:
            return None

    def _keep(self, write: Callable[[str], object], text: str) -> None:
        """Write results; a full disk must not end the uploads."""
        if not self._lost_output:
            try:
                write(text)
            except OSError as error:
                self._lost_output = True
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Say that results can't be written; the run goes on and fails at its end."""
        self._lost = True
        self._say(f"{error.filename or 'standard output'}: {error.strerror}; the uploads go on without it")

    def _report(self) -> None:
        tally = self._tally
        if self._display.json:
            import json

            self._out.write(json.dumps(report.as_json(tally, self._shown_target)) + "\n")
        elif (tally.found or tally.recorded) and not self._display.quiet and self._unreachable is None:
            rows = report.rows(tally, self._shown_target, all_failures_kept=self._failures_path is not None)
            self._out.write(report.drawn(rows, self._out.console()) if self._out.terminal else report.plain(rows))
        elif tally.failed and self._unreachable is None:
            self._say(f"{tally.failed:,} of {tally.found:,} files failed")
        if self._unreachable is not None:
            self._say(str(self._unreachable))
        elif not tally.found and not tally.recorded and self._signal is None:
            links = f"; {tally.skipped:,} symbolic links were skipped (--follow-symlinks)" if tally.skipped else ""
            self._say(f"nothing to upload: no file was found{links}")

    def _exit_code(self) -> Exit:
        tally = self._tally
        if self._signal is not None:
            return EXIT_CODES[self._signal]
        if self._unreachable is not None:
            return self._unreachable.exit_code
        if tally.ok < tally.found or tally.failed or self._lost or self._lost_journal:
            return Exit.SOME_FAILED
        return Exit.OK if tally.found or tally.recorded else Exit.NOTHING_MATCHED

    # --- records ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _records(self) -> Iterator[None]:
        """Keep the files of --failures and --log open."""
        with contextlib.ExitStack() as stack:
            self._failures = self._record_file(stack, self._failures_path)
            self._log = self._record_file(stack, self._log_path)
            yield

    def _record_file(self, stack: contextlib.ExitStack, path: str | None) -> RecordFile | None:
        if path is None:
            return None
        from fastpost.record_file import RecordFile

        return stack.enter_context(contextlib.closing(RecordFile(path, self._lose)))


def _attempts(result: Attempt, failure: FastpostError | None) -> int:
    """Return how often an upload was tried."""
    tried = result.started > 0 or isinstance(failure, WorkerLost)  # of those nothing is known
    return tried + result.retried + result.replayed


def _processes(settings: Settings, count: int) -> Processes:
    from fastpost.processes import Processes

    return Processes(settings, count)


def _progress(tally: Tally, err: Outlet) -> Progress:
    from fastpost.progress import Progress

    return Progress(tally, err)


def _response_text(result: Attempt) -> str:
    """Return fields and body of a response as lines that are safe on a terminal."""
    lines = [f"{_text(name)}: {_text(value)}" for name, value in result.fields or ()]
    if result.failure is not None:
        lines.append(f"failed: {result.failure}")
    if result.body:
        lines += ["", *_text(result.body).expandtabs().splitlines()]
    return "".join(report.safe(line) + "\n" for line in lines)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")
