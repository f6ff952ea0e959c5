"""What would go where: the walk and the target without a connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastpost import target
from fastpost.errors import Exit
from fastpost.report import octets_text, safe
from fastpost.sources import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastpost.config import Settings
    from fastpost.outlet import Outlet
    from fastpost.sources import Batch, Rejected, Upload


def list_uploads(
    batches: Iterable[Batch],
    settings: Settings,
    out: Outlet,
    err: Outlet,
    *,
    journal: str | None = None,
    as_json: bool,
) -> int:
    """List each upload on `out`, a line each, and return the exit code that the same run would have at best.

    Text lines hold method, URL, file, content-type and, if any, what is wrong, with tabs between; JSON lines the same
    by name. Costs about 60 octets of memory a file, to find two that go to one URL.
    """
    listing = _Listing(settings, as_json)
    if journal is not None:
        batches = listing.unrecorded(batches, journal)
    for batch in batches:
        listing.pass_over(batch)
        lines = [listing.line(upload) for upload in batch.uploads]
        out.write("".join(lines))
        for rejected in batch.rejected:
            err.write(listing.refusal(rejected))
        if not out.open:
            break
    err.write(listing.summary())
    return listing.exit_code()


class _Listing:
    def __init__(self, settings: Settings, as_json: bool) -> None:
        self._target = target.of(settings)
        self._as_json = as_json
        self._seen: set[int] = set()
        self._files = self._octets = self._duplicates = self._rejected = self._recorded = 0

    def unrecorded(self, batches: Iterable[Batch], journal: str) -> Iterator[Batch]:
        """Leave out what a journal holds already. Raises UsageError when it is no journal for this target."""
        from fastpost.recorded import read, without_journal

        return read(journal, self._target).sift(without_journal(batches, journal))

    def pass_over(self, batch: Batch) -> None:
        """Count uploads that were made before; their URLs are taken."""
        if not self._target.shared:
            batch.claim_recorded(self._seen, self._target.request_path)
        self._recorded += len(batch.recorded)

    def line(self, upload: Upload) -> str:
        self._files += 1
        self._octets += max(0, upload.size)
        duplicate = self._is_duplicate(upload.name)
        self._duplicates += duplicate
        fields = {name.decode(): value.decode("latin-1") for name, value in self._fields(upload)}
        if self._as_json:
            record = {"method": self._target.method.decode(), "url": self._target.url(upload.name)}
            record |= {"file": upload.file.decode("utf-8", "backslashreplace")} | fields
            return json.dumps(record | {"size": upload.size, "duplicate": duplicate}) + "\n"
        columns = [self._target.method.decode(), self._target.url(upload.name), printable(upload.file)]
        columns += [safe(value) for value in fields.values()]
        if duplicate:
            columns.append("DUPLICATE: an earlier file goes to the same URL")
        return "\t".join(columns) + "\n"

    def refusal(self, rejected: Rejected) -> str:
        self._rejected += 1
        return f"fastpost: {printable(rejected.name)}: {safe(str(rejected.error))}\n"

    def summary(self) -> str:
        wrong = f", {self._duplicates:,} of them to a URL already taken" if self._duplicates else ""
        wrong += f"; {self._rejected:,} can't be uploaded" if self._rejected else ""
        wrong += f"; {self._recorded:,} more are uploaded already (--journal)" if self._recorded else ""
        return f"fastpost: dry run: {self._files:,} files, {octets_text(self._octets)}{wrong}; nothing was sent\n"

    def exit_code(self) -> Exit:
        if self._duplicates or self._rejected:
            return Exit.SOME_FAILED
        return Exit.OK if self._files or self._recorded else Exit.NOTHING_MATCHED

    def _fields(self, upload: Upload) -> tuple[tuple[bytes, bytes], ...]:
        return self._target.fields(upload.name, upload.content_type)

    def _is_duplicate(self, name: bytes) -> bool:
        """Compare hashes: 64 bits are enough to warn by."""
        if self._target.shared:
            return False
        key = hash(self._target.request_path(name))
        if key in self._seen:
            return True
        self._seen.add(key)
        return False
