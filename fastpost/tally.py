"""What a run has counted so far: written by the uploader alone, read by progress, report and cli.

`add` runs once a tick on the thread that moves the octets, in C.
Memory is 190 kB for latencies at most and a few names for each cause of failure, whatever the number of files.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from fastpost._listing import known_octets
from fastpost._meter import Histogram, count_results
from fastpost.errors import DigestMismatch, FastpostError, HttpStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastpost._table import Attempt
    from fastpost.sources import Batch, Rejected

#: How many (name, message) pairs are kept for each cause of failure.
NAMES_KEPT = 5


class Peer(NamedTuple):
    """What the server granted, largest seen on any connection: octets, streams; its `server` field and its settings."""

    stream_window: int = 65_535
    connection_window: int = 65_535
    max_concurrent_streams: int = 0x7FFFFFFF
    server: str = ""
    #: As last told, by their names in RFC 9113.
    settings: Mapping[str, int] = {}

    def joined(self, later: Peer) -> Peer:
        """Return the larger windows of both, and the rest as the later one has it; who met no server says nothing."""
        if later == Peer():
            return self
        if self == Peer():
            return later
        return Peer(
            max(self.stream_window, later.stream_window),
            max(self.connection_window, later.connection_window),
            later.max_concurrent_streams,
            later.server or self.server,
            later.settings or self.settings,
        )


class Shares(NamedTuple):
    """Of the uploads of several turns: how many, and of their shares of the turns sum, sum of squares and extremes.

    A share of 1.0 is an even part of all octets sent while the upload could send.
    """

    uploads: int = 0
    total: float = 0.0
    squares: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0

    def plus(self, other: Shares) -> Shares:
        """Return both together."""
        if not self.uploads or not other.uploads:
            return self if self.uploads else other
        return Shares(
            self.uploads + other.uploads,
            self.total + other.total,
            self.squares + other.squares,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
        )

    def jain(self, before: Shares | None = None) -> float | None:
        """Return Jain's index of the shares; None without any. 1.0: all were even.

        With `before`, what they were earlier, it is that of the uploads that have ended since.
        """
        uploads, total, squares = self[:3]
        if before is not None:
            uploads, total, squares = uploads - before.uploads, total - before.total, squares - before.squares
        return total * total / (uploads * squares) if uploads and squares else None


#: What a run counts by its results, and what its connections measure.
_RESULTS = (
    "ok", "failed", "payload", "wasted", "retried", "replayed", "statuses", "errors", "causes", "first_failures",
    "latencies",
)  # fmt: skip
_MEASURED = ("sent", "connections", "at_once", "refused", "blocked", "shares", "peer")


def _add(sums: dict[Any, Any], more: Mapping[Any, Any]) -> None:
    for key, value in more.items():
        sums[key] = sums.get(key, 0) + value


class Tally:
    """The counts of one run.

    Sizes are in octets, times in seconds of the monotonic clock. Each file is in exactly one of `ok` and `failed`
    once it is done; until then it is in `found` only.

    Args:
        concurrency: uploads that it may have in flight at a time.
    """

    __slots__ = (
        "at_once",
        "blocked",
        "causes",
        "concurrency",
        "connections",
        "errors",
        "failed",
        "finished",
        "first_failures",
        "found",
        "found_octets",
        "latencies",
        "mismatched",
        "ok",
        "payload",
        "peer",
        "recorded",
        "refused",
        "replayed",
        "retried",
        "sent",
        "shares",
        "skipped",
        "started",
        "statuses",
        "unverifiable",
        "verified",
        "walking",
        "wasted",
    )

    def __init__(self, concurrency: int = 0) -> None:
        self.concurrency = concurrency
        #: True while files are still being found.
        self.walking = True
        #: Files found, those rejected at once included; octets count known sizes only.
        self.found = 0
        self.found_octets = 0
        #: Symbolic links that were not followed.
        self.skipped = 0
        #: Files that the journal knew to be uploaded already; not in `found`.
        self.recorded = 0
        self.ok = 0
        self.failed = 0
        #: Octets of the files that are `ok`.
        self.payload = 0
        #: Octets written to sockets, frames and repeats included; moves while an upload is under way.
        self.sent = 0
        #: Octets of files sent by attempts that came to nothing.
        self.wasted = 0
        self.retried = 0
        self.replayed = 0
        #: Stream-seconds by what uploads waited for (`causes.CAUSES`).
        self.blocked: dict[str, float] = {}
        self.shares = Shares()
        self.peer = Peer()
        #: Connections opened; the most that were to be had at a time; and those that could not be had beside others.
        self.connections = 0
        self.at_once = 0
        self.refused = 0
        #: Final statuses of uploads that had one.
        self.statuses: dict[int, int] = {}
        #: Final failures by class name.
        self.errors: dict[str, int] = {}
        #: The same by cause: the class name, and for HttpStatus the status too ("HttpStatus 403").
        self.causes: dict[str, int] = {}
        #: The first few (name, message) of each cause.
        self.first_failures: dict[str, list[tuple[str, str]]] = {}
        #: Times from start to final response, of uploads that went well.
        self.latencies = Histogram()
        self.started = 0.0
        self.finished = 0.0
        #: Uploads whose digest by the server is that of the file; None when nothing is compared.
        self.verified: int | None = None
        #: Uploads of which the server told no digest.
        self.unverifiable = 0
        #: Uploads of which the server told another digest.
        self.mismatched = 0

    def find(self, batch: Batch) -> None:
        """Count what a step of the walk has found."""
        self.skipped += batch.skipped
        self.recorded += len(batch.recorded)
        self.found += len(batch.uploads)
        self.found_octets += known_octets(batch.uploads)
        if batch.rejected:
            self.reject(batch.rejected)

    def add(self, results: list[Attempt]) -> None:
        """Count final results: each upload once, its last attempt."""
        ok, payload, retried, replayed, failed = count_results(results, self.latencies, self.statuses)
        self.ok += ok
        self.payload += payload
        self.retried += retried
        self.replayed += replayed
        for result in failed:
            assert result.failure is not None
            self.wasted += result.payload
            self._fail(result.upload.name, result.failure)

    def reject(self, rejected: Sequence[Rejected]) -> None:
        """Count what the walk found but could not offer for upload."""
        self.found += len(rejected)
        for one in rejected:
            self._fail(one.name, one.error)

    def revoke(self, results: Iterable[tuple[Attempt, FastpostError]]) -> None:
        """Turn uploads that were counted as ok into failures, because the server holds other octets."""
        for result, failure in results:
            self.ok -= 1
            self.payload -= result.payload
            self.wasted += result.payload
            self.mismatched += isinstance(failure, DigestMismatch)
            self._fail(result.upload.name, failure)

    def cut(self) -> Tally:
        """Return the results counted since the last cut, and count them anew; what connections measure is copied."""
        part = Tally()
        for name in _RESULTS:
            counted = getattr(self, name)
            setattr(part, name, counted)
            setattr(self, name, type(counted)())
        for name in _MEASURED:
            setattr(part, name, getattr(self, name))
        return part

    def paste(self, part: Tally) -> None:
        """Add the results of a cut. What connections measure is `measured`'s."""
        for name in ("ok", "failed", "payload", "wasted", "retried", "replayed"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        for name in ("statuses", "errors", "causes"):
            _add(getattr(self, name), getattr(part, name))
        for cause, names in part.first_failures.items():
            kept = self.first_failures.setdefault(cause, [])
            kept += names[: NAMES_KEPT - len(kept)]
        self.latencies.merge(part.latencies)

    def measured(self, parts: Iterable[Tally]) -> None:
        """Take what the connections of several processes have measured: the last cut of each."""
        self.sent = self.connections = self.at_once = self.refused = 0
        self.blocked = {}
        self.shares = Shares()
        self.peer = Peer()
        for part in parts:
            self.sent += part.sent
            self.connections += part.connections
            self.at_once += part.at_once
            self.refused += part.refused
            _add(self.blocked, part.blocked)
            self.shares = self.shares.plus(part.shares)
            self.peer = self.peer.joined(part.peer)

    def include(self, other: Tally) -> None:
        """Add what the connections of a run at another origin have measured, and what its repeats have wasted."""
        self.wasted += other.wasted
        self.sent += other.sent
        self.connections += other.connections
        _add(self.blocked, other.blocked)
        self.shares = self.shares.plus(other.shares)

    def _fail(self, name: bytes, failure: FastpostError) -> None:
        self.failed += 1
        error = type(failure).__name__
        cause = f"{error} {failure.status}" if isinstance(failure, HttpStatus) else error
        self.errors[error] = self.errors.get(error, 0) + 1
        self.causes[cause] = self.causes.get(cause, 0) + 1
        first = self.first_failures.setdefault(cause, [])
        if len(first) < NAMES_KEPT:
            first.append((os.fsdecode(name), str(failure)))
