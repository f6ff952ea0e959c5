"""What a run has counted so far: written by the uploader alone, read by progress, report and cli.

`add` runs once a batch on the thread that moves the octets and costs about 0.3 µs an upload that went well.
Memory is 4 octets an upload (its latency) and a few names for each cause of failure, whatever the number of files.
"""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, NamedTuple

from fastpost.errors import DigestMismatch, FastpostError, HttpStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastpost._table import Attempt
    from fastpost.sources import Rejected

#: How many (name, message) pairs are kept for each cause of failure.
NAMES_KEPT = 5


class Peer(NamedTuple):
    """What the server granted, largest seen on any connection: octets, streams, and its `server` field."""

    stream_window: int = 65_535
    connection_window: int = 65_535
    max_concurrent_streams: int = 0x7FFFFFFF
    server: str = ""


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


class Tally:
    """The counts of one run.

    Sizes are in octets, times in seconds of the monotonic clock. Each file is in exactly one of `ok` and `failed`
    once it is done; until then it is in `found` only.
    """

    __slots__ = (
        "blocked",
        "causes",
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

    def __init__(self) -> None:
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
        #: Connections opened.
        self.connections = 0
        #: Final statuses of uploads that had one.
        self.statuses: dict[int, int] = {}
        #: Final failures by class name.
        self.errors: dict[str, int] = {}
        #: The same by cause: the class name, and for HttpStatus the status too ("HttpStatus 403").
        self.causes: dict[str, int] = {}
        #: The first few (name, message) of each cause.
        self.first_failures: dict[str, list[tuple[str, str]]] = {}
        #: Seconds from start to final response, of uploads that went well.
        self.latencies: array[float] = array("f")
        self.started = 0.0
        self.finished = 0.0
        #: Uploads whose digest by the server is that of the file; None when nothing is compared.
        self.verified: int | None = None
        #: Uploads of which the server told no digest.
        self.unverifiable = 0
        #: Uploads of which the server told another digest.
        self.mismatched = 0

    def add(self, results: Sequence[Attempt]) -> None:
        """Count final results: each upload once, its last attempt."""
        latency = self.latencies.append
        ok = payload = retried = replayed = 0
        status = alike = 0  # a run of equal statuses is counted by one dict access
        for result in results:
            if result.status != status:
                self._count_status(status, alike)
                status, alike = result.status, 0
            alike += 1
            retried += result.retried
            replayed += result.replayed
            if result.failure is None:
                ok += 1
                payload += result.payload
                latency(result.finished - result.started)
            else:
                self.wasted += result.payload
                self._fail(result.upload.name, result.failure)
        self._count_status(status, alike)
        self.ok += ok
        self.payload += payload
        self.retried += retried
        self.replayed += replayed

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

    def _count_status(self, status: int, times: int) -> None:
        if status:
            self.statuses[status] = self.statuses.get(status, 0) + times

    def _fail(self, name: bytes, failure: FastpostError) -> None:
        self.failed += 1
        error = type(failure).__name__
        cause = f"{error} {failure.status}" if isinstance(failure, HttpStatus) else error
        self.errors[error] = self.errors.get(error, 0) + 1
        self.causes[cause] = self.causes.get(cause, 0) + 1
        first = self.first_failures.setdefault(cause, [])
        if len(first) < NAMES_KEPT:
            first.append((os.fsdecode(name), str(failure)))
