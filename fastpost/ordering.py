"""In which order files are uploaded, where it isn't that of the walk: then all of them are known before the first."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

from fastpost.sources import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastpost._listing import Upload

_BATCH: Final = 1024


def ordered(batches: Iterable[Batch], key: str, descending: bool = False) -> Iterator[Batch]:
    """Yield the same by "name" (its octets), by "size" (which the walk must have looked up), or by "walk" (as found).

    What is equal stays in the order of the walk. Memory grows with the files: some 230 octets and the path for each.
    """
    uploads: list[Upload] = []
    rest = Batch()
    for batch in batches:
        uploads += batch.uploads
        rest.rejected += batch.rejected
        rest.skipped += batch.skipped
    if key != "walk":
        uploads.sort(key=operator.attrgetter(key), reverse=descending)
    elif descending:
        uploads.reverse()
    if len(rest) or rest.skipped:
        yield rest
    for first in range(0, len(uploads), _BATCH):
        batch = Batch()
        batch.uploads = uploads[first : first + _BATCH]
        yield batch
