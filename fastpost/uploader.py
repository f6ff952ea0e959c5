"""Uploads for programs (`Uploader`, async) and for scripts (`upload`)."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import typing

from fastpost import sources
from fastpost import target as targets
from fastpost.config import Settings
from fastpost.errors import NothingMatched, UsageError
from fastpost.run import Run
from fastpost.tally import Tally

if typing.TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from fastpost._table import Attempt
    from fastpost.run import OnRejected, OnResults
    from fastpost.sources import Batch

#: Results that may wait for a slow consumer of `results` before the upload pauses.
_RESULTS_AHEAD = 4096


class Uploader:
    """Uploads files to one target. One run at a time; each `run` opens its own connections.

    Args:
        settings: target, limits and budgets.
    Raises UsageError when the target can't be meant.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.target = targets.of(settings)
        self.tally = Tally(settings.concurrency)
        self._run: Run | None = None

    async def run(
        self,
        batches: Iterable[Batch],
        on_results: OnResults | None = None,
        on_rejected: OnRejected | None = None,
        *,
        distinct: bool = False,
        on_notice: Callable[[str], None] | None = None,
        on_connected: Callable[[int], None] | None = None,
        connects_first: bool = False,
    ) -> None:
        """Upload everything; the numbers are in `tally`.

        Args:
            batches: what to upload, as `walk` brings it; iterated in a thread.
            on_results: called on the loop with final results, many in one call.
            on_rejected: called with what can't be uploaded at all.
            distinct: the names are known to differ from each other, as those of one folder do.
            on_notice: called with what a person may want to know while it happens: that connecting is tried again.
            on_connected: called on the loop once the first connection is open, with its streams' windows (octets).
            connects_first: open it before there is anything to upload.
        Raises TargetUnreachable when no connection could be had at all. Cancelling the task ends the run at once.
        """
        if self._run is not None:
            raise UsageError("an Uploader makes one run at a time")
        self._run = Run(
            self.settings,
            self.target,
            self.tally,
            on_results,
            on_rejected,
            distinct,
            on_notice,
            on_connected=on_connected,
            connects_first=connects_first,
        )
        try:
            await self._run.complete(batches)
        finally:
            self._run = None

    async def results(self, batches: Iterable[Batch], *, distinct: bool = False) -> AsyncIterator[Attempt]:
        """Upload, and yield each final result as it comes. A slow consumer slows the upload, not memory."""
        pending: collections.deque[Attempt] = collections.deque()
        arrived = asyncio.Event()

        def take(results: list[Attempt]) -> None:
            pending.extend(results)
            arrived.set()
            if self._run is not None:
                self._run.pause(len(pending) > _RESULTS_AHEAD)

        running = asyncio.ensure_future(self.run(batches, take, distinct=distinct))
        running.add_done_callback(lambda _: arrived.set())
        try:
            while pending or not running.done():
                if not pending:
                    if self._run is not None:
                        self._run.pause(False)
                    arrived.clear()
                    if not running.done():
                        await arrived.wait()
                    continue
                yield pending.popleft()
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def limit(self, concurrency: int, connections: int) -> bool:
        """Have the present run use no more streams and connections than these from now on, or until the next call.

        Returns whether it uses no more already: uploads that are under way end as they do.
        """
        return self._run is None or self._run.limit(concurrency, connections)

    def allow_busy_poll(self, allowed: bool) -> None:
        """Have the present run wait awake from now on, if the settings want that, or no longer."""
        if self._run is not None:
            self._run.allow_busy_poll(allowed)

    def stop(self, grace: float = 10.0) -> None:
        """Begin nothing new; what is in flight may finish within `grace` seconds. A second call stops at once."""
        if self._run is not None:
            self._run.stop(grace)

    @property
    def stopping(self) -> bool:
        """True once `stop` was called in the present run."""
        return self._run is not None and self._run.stopping


def upload(
    paths: Sequence[str | os.PathLike[str] | bytes] | str | os.PathLike[str],
    to: str,
    *,
    on_results: OnResults | None = None,
    follow_symlinks: bool = False,
    **options: typing.Any,
) -> Tally:
    """Upload files and folders and return the numbers; for scripts.

    Args:
        paths: a file or folder, or several.
        to: the URL or URL template, as `--to`.
        on_results: called with final results, many in one call: each names its upload, status and failure.
        follow_symlinks: follow symbolic links below the folders.
        options: further fields of `Settings`: concurrency, connections, method, …
    Raises UsageError, NothingMatched, TargetUnreachable. A file that fails is no exception: see `Tally.failed`.
    """
    import uvloop

    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("upload() would block the running event loop: await Uploader(...).run(walk(...)) there")
    if isinstance(paths, (str, bytes)) or hasattr(paths, "__fspath__"):
        paths = [typing.cast("str", paths)]
    try:
        uploader = Uploader(Settings(to=to, **options))
    except TypeError as error:
        raise UsageError(str(error).replace("Settings.__init__()", "upload()")) from None
    walk = sources.walk(paths, follow_symlinks=follow_symlinks)

    async def main() -> None:
        await uploader.run(walk, on_results, distinct=len(paths) == 1)

    uvloop.run(main())
    if uploader.tally.found == 0:
        raise NothingMatched("no file to upload was found")
    return uploader.tally
