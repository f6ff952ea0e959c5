"""Files of a folder that are named one by one: by a list, not by a walk."""

from __future__ import annotations

import os
import stat
import typing

from fastpost._listing import Upload
from fastpost.errors import FileFailed, FileUnreadable, FileVanished, NotRegularFile, UsageError
from fastpost.sources import DANGLING, Found, look_up, printable

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastpost.selection import Selection
    from fastpost.sources import Batch, Source

#: So many folders are known to be no links.
_FOLDERS_KEPT = 4096

_REST = b"(the rest of the list)"
_FOLDER = "a folder, of which a list names the files: find … -type f tells them, or give it as SOURCE without a list"
_BEHIND_LINK = "behind a symbolic link to a folder, which may lead out of SOURCE: follow it with --follow-symlinks"
_LEADS_OUT = "its name holds '..', and may lead out of SOURCE: name it from there on, without"
_NOT_THERE = "there is no such file; names in a list are relative to SOURCE (find … -printf '%P\\n' tells them so)"


def listed(
    folder: Source,
    names: Iterable[list[bytes]],
    *,
    follow_symlinks: bool = False,
    selection: Selection | None = None,
) -> Iterator[Batch]:
    """Take files of a folder by their names, without a walk: a batch for each of the lists, as soon as it comes.

    Sizes are known then. Memory grows with the names, by their length and some 100 octets each.

    Args:
        folder: the SOURCE that holds them.
        names: relative to it. What isn't there, or is a folder, is rejected; one that comes again is passed over. When
            they raise UsageError in their midst, that is rejected too.
        follow_symlinks: as for `walk`.
        selection: as for `walk`.
    Raises UsageError at the call when the SOURCE is no folder.
    """
    root = look_up(folder)
    if isinstance(root.found, FileFailed) or not stat.S_ISDIR(root.found.st_mode):
        raise UsageError(f"{printable(root.path)} is no folder: the names in a list are those of files in one")
    return _Listed(follow_symlinks, selection).run(root.path, names)


class _Listed(Found):
    """Files that are named one by one."""

    def __init__(self, follow_symlinks: bool, selection: Selection | None) -> None:
        super().__init__(follow_symlinks, selection)
        self._plain_folders: set[bytes] = set()

    def run(self, folder: bytes, names: Iterable[list[bytes]]) -> Iterator[Batch]:
        start = folder if folder.endswith(b"/") else folder + b"/"
        self._cut = len(start)
        seen: set[bytes] = set()
        try:
            for some in names:
                for name in some:
                    if name not in seen:
                        seen.add(name)
                        self._look_at(start + name, self._take_named)
                if len(self._batch) or self._batch.skipped:
                    yield self._next_batch()
        except UsageError as error:
            if not seen:
                raise  # no list at all: nothing has begun
            self._reject(_REST, folder, FileUnreadable(f"{error}; what it names from there on is not known"))
            yield self._next_batch()

    def _take_named(self, path: bytes, name: bytes) -> None:
        if not self._is_taken(name):
            return
        if b".." in name.split(b"/"):
            self._reject(name, path, FileUnreadable(_LEADS_OUT))
            return
        try:
            behind_link = not self._follow and self._is_behind_link(path, len(path) - len(name))
            found = os.lstat(path)
        except OSError as error:
            if error.errno not in DANGLING:
                raise
            self._reject(name, path, FileVanished(_NOT_THERE))
            return
        if behind_link:
            self._reject(name, path, NotRegularFile(_BEHIND_LINK))
            return
        if stat.S_ISLNK(found.st_mode):
            self._take_link(path, name)
        elif stat.S_ISREG(found.st_mode):
            self._add(Upload(path, name, found.st_size, None, self._follow))
        else:
            self._take(path, name, found)

    def _take_folder(self, path: bytes, name: bytes, found: os.stat_result) -> None:
        self._reject(name, path, NotRegularFile(_FOLDER))

    def _is_behind_link(self, path: bytes, start: int) -> bool:
        """Is a folder on the way to it, behind `start`, a symbolic link? Raises OSError.

        Costs a stat for each new folder: lists come folder by folder, and those that were found to be plain are kept.
        """
        if path[: path.rfind(b"/")] in self._plain_folders:
            return False
        while (end := path.find(b"/", start)) >= 0:
            folder, start = path[:end], end + 1
            if folder in self._plain_folders:
                continue
            if stat.S_ISLNK(os.lstat(folder).st_mode):
                return True
            if len(self._plain_folders) >= _FOLDERS_KEPT:
                self._plain_folders.clear()
            self._plain_folders.add(folder)
        return False
