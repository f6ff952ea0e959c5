"""Files with a JSON object a line that a run writes while it goes on: --failures, --log."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Octets of the longest line, and more: a path has 4,095 at most, each of them up to six when escaped.
_LONGEST_LINE: Final = 1 << 17


class RecordFile:
    """One such file. A disk that is full must not end the uploads: it is told once, and nothing more is written.

    Args:
        path: made anew. Raises OSError when it can't be.
        on_lost: called with what went wrong, once.
    """

    def __init__(self, path: str, on_lost: Callable[[OSError], None]) -> None:
        self._path = path
        self._on_lost = on_lost
        # Unbuffered: what is known survives a kill.
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        #: It could not be written to its end.
        self.lost = False

    def write(self, records: Iterable[dict[str, object]]) -> None:
        """Append records, a line each, all of them at once."""
        if self.lost:
            return
        lines = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
        try:
            while lines:
                lines = lines[self._file.write(lines) :]
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """Close it, without a line that is but half there. Twice is fine."""
        try:
            self._file.close()
        except OSError as error:
            self._lose(error)
        if self.lost and os.path.isfile(self._path):
            self._cut_torn_line()

    def _lose(self, error: OSError) -> None:
        if not self.lost:
            self.lost = True
            self._on_lost(OSError(error.errno, error.strerror, self._path))

    def _cut_torn_line(self) -> None:
        """A disk that was full has taken the beginning of a line: who reads JSON lines would stop there."""
        with contextlib.suppress(OSError), open(self._path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            start = file.seek(max(end - _LONGEST_LINE, 0))
            torn = file.read(_LONGEST_LINE)
            file.truncate(start + torn.rfind(b"\n") + 1)
