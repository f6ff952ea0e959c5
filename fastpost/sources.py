"""What is uploaded: files and folders in, batches of Upload out, found while the upload already runs."""

from __future__ import annotations

import abc
import errno
import os
import stat
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

from fastpost._listing import Listing
from fastpost._listing import Upload as Upload
from fastpost.errors import (
    FastpostError,
    FileFailed,
    FileUnreadable,
    FileVanished,
    NotRegularFile,
    UsageError,
    file_failure,
)

if typing.TYPE_CHECKING:
    from fastpost.selection import Selection

Source = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: Longest path that one system call takes, octets, with its closing NUL.
_PATH_MAX = 4096
#: A batch goes out after so many folders even when it isn't full: a sparse tree on a slow disk starts soon.
_FOLDERS_PER_BATCH = 64
#: The same after so many steps of a walk that leaves files out.
_STEPS_PER_BATCH = 4

#: Nanoseconds of the whole seconds whose nanoseconds 64 bits can count.
_DATED = 9_223_372_036 * 10**9

#: What a stat says of a name behind which nothing is.
DANGLING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def mtime_ns(status: os.stat_result) -> int:
    """Return the time of change as the data plane has it: ±(2⁶³−1) outside the years 1677 to 2262."""
    found = status.st_mtime_ns
    if -_DATED <= found < _DATED:
        return found
    return 2**63 - 1 if found > 0 else 1 - 2**63


def check_place(option: str, path: str, sources: Iterable[str]) -> None:
    """Raise UsageError when what an option writes to a file would be uploaded with a source, or take its place.

    A second name (hard link) of a file that lies in a source, or a folder that is mounted twice, is not seen.
    """
    place = os.path.realpath(path)
    there = _status(place)
    if there is not None and not stat.S_ISREG(there.st_mode):
        return  # a stream or a device, which no walk uploads
    for source in filter(None, sources):
        folder = os.path.realpath(source)
        inside = os.path.commonpath((place, folder)) == folder
        if inside or (there is not None and (found := _status(folder)) is not None and os.path.samestat(there, found)):
            raise UsageError(f"{option} {path} lies in {source} and would be uploaded with it: put it elsewhere")


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


class Digest(typing.NamedTuple):
    """What a file held, as a request field; and the size (octets), mtime (ns) and inode that it had then."""

    field: tuple[bytes, bytes]
    identity: tuple[int, int, int]


class Rejected:
    """One thing in the tree that can't be uploaded, and why.

    Attributes:
        name: as Upload.name; for a SOURCE that can't be looked at or listed, its path as given.
        file: the path on disk, as octets.
        error: the reason, with its cure.
    """

    __slots__ = ("error", "file", "name")

    def __init__(self, name: bytes, file: bytes, error: FastpostError) -> None:
        self.name = name
        self.file = file
        self.error = error

    def __repr__(self) -> str:
        return f"Rejected(name={self.name!r}, file={self.file!r}, error={self.error!r})"


class Batch:
    """What one step of the walk found.

    Attributes:
        uploads: files to send.
        rejected: what can't be sent.
        skipped: symbolic links to something that exists, left alone because they aren't to be followed.
        recorded: files that a journal knows to be uploaded already.
        digests: of each upload, where they are to be sent along.
    """

    __slots__ = ("digests", "recorded", "rejected", "skipped", "uploads")

    def __init__(self) -> None:
        self.uploads: list[Upload] = []
        self.rejected: list[Rejected] = []
        self.skipped = 0
        self.recorded: list[Upload] = []
        self.digests: dict[Upload, Digest] | None = None

    def claim_recorded(self, paths: set[int], request_path: Callable[[bytes], bytes]) -> None:
        """Add what is recorded to the hashes of paths taken. A path that is taken already makes it one of the uploads.

        There it meets what any other does that goes where an earlier file went.
        """
        recorded, self.recorded = self.recorded, []
        for upload in recorded:
            key = hash(request_path(upload.name))
            (self.uploads if key in paths else self.recorded).append(upload)
            paths.add(key)

    def __len__(self) -> int:
        """Return how many uploads and rejections it holds; what is skipped takes no room."""
        return len(self.uploads) + len(self.rejected)


def walk(
    sources: Sequence[Source],
    *,
    follow_symlinks: bool = False,
    batch: int = 1024,
    sizes: bool = False,
    selection: Selection | None = None,
) -> Iterator[Batch]:
    """Find the files of `sources`, lazily: memory doesn't grow with their number.

    A file is named by its base name, a file in a folder by its path relative to that folder. A SOURCE that is itself
    a symbolic link is followed, as a shell user expects. One folder is open at a time.

    Args:
        sources: files and folders.
        follow_symlinks: also upload what symbolic links inside the folders point to; a link back to a folder that
            holds it is rejected. Costs one stat a folder.
        batch: most uploads and rejections in one Batch.
        sizes: fill in Upload.size; costs one stat a file, about as much as all the rest of the walk.
        selection: which of the files are taken; what it leaves out is not rejected either. Folders in which it takes
            nothing aren't read.

    Returns:
        Batches that are not empty. No batch at all: nothing was found.

    Raises:
        UsageError: at the call, before anything is walked: a SOURCE doesn't exist, or the arguments can't be meant.
    """
    if isinstance(sources, (str, bytes, os.PathLike)):
        raise UsageError("sources is a list of files and folders: write [source] for a single one")
    if batch < 1:
        raise UsageError("batch must be at least 1")
    roots = [look_up(source) for source in sources]
    return _Walk(follow_symlinks, batch, sizes, selection).run(roots)


def printable(name: bytes) -> str:
    """Return a file name for a message: control characters and octets that aren't UTF-8 appear as escapes."""
    text = name.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Root(typing.NamedTuple):
    """A SOURCE, and what a stat has shown of it: or why it could not be looked at."""

    path: bytes
    found: os.stat_result | FileFailed


class _Ancestor(typing.NamedTuple):
    """A folder on the way down, known by device and inode; kept when links are followed."""

    identity: tuple[int, int]
    above: _Ancestor | None


class _Folder(typing.NamedTuple):
    path: bytes
    ancestor: _Ancestor


def look_up(source: Source) -> Root:
    """Stat a SOURCE. What isn't there is a mistake; what may not be looked at fails alone, later."""
    try:
        path = os.fsencode(source)
        return Root(path, os.stat(path))
    except ValueError:
        raise UsageError(f"{source!r} can't be the name of a file: it holds a NUL or text that has no octets") from None
    except OSError as error:
        if error.errno not in DANGLING:
            return Root(path, file_failure(error.errno or 0))
        raise UsageError(_absence(path)) from None


def _absence(path: bytes) -> str:
    if not path:
        return "a SOURCE is empty: give the name of a file or folder (is a shell variable unset?)"
    if os.path.islink(path):
        return f"{printable(path)} is a symbolic link to {_destination(path)}: correct the link"
    if path.lower().startswith((b"http://", b"https://")):
        return f"{printable(path)} is a URL, not a file: give it by --to"
    parent = os.path.dirname(path.rstrip(b"/"))
    if parent and not os.path.isdir(parent):
        return f"{printable(path)} doesn't exist, nor does the folder {printable(parent)}: check the spelling"
    if os.path.isfile(path.rstrip(b"/")):
        return f"{printable(path)} is no folder: leave out the slash at its end"
    return f"{printable(path)} doesn't exist: check the spelling"


def _destination(link: bytes) -> str:
    """Say what a dangling link points to."""
    try:
        return f"{printable(os.readlink(link))}, which doesn't exist or leads back to the link"
    except OSError:
        return "something that doesn't exist"


class Found(abc.ABC):
    """What was found, on its way into a batch.

    Attributes:
        _cut: where in the paths below a SOURCE their names begin.
    """

    def __init__(self, follow_symlinks: bool, selection: Selection | None) -> None:
        self._follow = follow_symlinks
        self._selection = selection
        self._batch = Batch()
        self._cut = 0

    def _next_batch(self) -> Batch:
        full, self._batch = self._batch, Batch()
        return full

    def _add(self, upload: Upload) -> None:
        """Take a file whose size is known."""
        if self._selection is None or self._selection.sized(self._selection.named([upload])):
            self._batch.uploads.append(upload)

    def _is_taken(self, name: bytes) -> bool:
        return self._selection is None or self._selection.takes(name)

    def _look_at(self, path: bytes, take: Callable[[bytes, bytes], None]) -> None:
        name = path[self._cut :]
        if len(path) >= _PATH_MAX:
            # No walk finds one that is twice as long, and to ask a pattern takes the square of the length.
            if len(path) > 2 * _PATH_MAX or self._is_taken(name):
                self._reject(name, path, FileUnreadable(_TOO_DEEP))
            return
        try:
            take(path, name)
        except OSError as error:
            self._reject(name, path, file_failure(error.errno or 0))

    def _take_link(self, path: bytes, name: bytes) -> None:
        if not self._follow and not self._is_taken(name):
            return
        try:
            found = os.stat(path)
        except OSError as error:
            if not self._is_taken(name):
                return
            if error.errno in DANGLING:
                message = f"a symbolic link to {_destination(path)}: remove or correct the link"
                self._reject(name, path, NotRegularFile(message))
                return
            if self._follow:
                raise
        if self._follow:
            self._take(path, name, found)
        else:
            self._batch.skipped += 1

    def _take_other(self, path: bytes, name: bytes) -> None:
        self._take(path, name, os.lstat(path))

    def _take(self, path: bytes, name: bytes, found: os.stat_result) -> None:
        """Take what a stat has shown: a SOURCE, the end of a link, a folder when links are followed, an oddity."""
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFREG:
            self._add(Upload(path, name, found.st_size))
        elif kind == stat.S_IFDIR:
            self._take_folder(path, name, found)
        elif self._is_taken(name):
            self._reject(name, path, NotRegularFile(_ODDITIES.get(kind, _ODD)))

    @abc.abstractmethod
    def _take_folder(self, path: bytes, name: bytes, found: os.stat_result) -> None:
        """Take a folder that was met on the way."""

    def _reject(self, name: bytes, file: bytes, error: FastpostError) -> None:
        self._batch.rejected.append(Rejected(name, file, error))


class _Walk(Found):
    """The state of one walk: folders still to read and the batch being filled."""

    def __init__(self, follow_symlinks: bool, limit: int, sizes: bool, selection: Selection | None) -> None:
        super().__init__(follow_symlinks, selection)
        self._limit = limit
        self._sizes = sizes or (selection is not None and selection.by_size)
        self._folders_read = 0
        #: Steps since the last batch: where much is left out, a large folder takes many for a full one.
        self._steps = 0
        #: Where folders may be left out or held by themselves, each of them is looked at.
        self._listing = Listing(descend=not follow_symlinks and selection is None)
        #: When links are followed, folders are read one by one: those still to be read, and who holds the present one.
        self._pending: list[_Folder] = []
        self._ancestor: _Ancestor | None = None

    def run(self, roots: list[Root]) -> Iterator[Batch]:
        try:
            for path, found in roots:
                self._cut = len(path) + (not path.endswith(b"/"))
                self._ancestor = None
                if isinstance(found, FileFailed):
                    self._reject(path, path, found)
                elif stat.S_ISDIR(found.st_mode):
                    self._enter(path, os.path.basename(path), found)
                else:
                    self._take(path, os.path.basename(path), found)
                while self._to_read():
                    self._read()
                    if self._is_due():
                        yield self._next_batch()
                if self._is_due():
                    yield self._next_batch()
            if len(self._batch) or self._batch.skipped:
                yield self._next_batch()
        finally:
            self._listing.close()

    def _is_due(self) -> bool:
        held = len(self._batch)
        return held >= self._limit or (
            held > 0 and (self._folders_read >= _FOLDERS_PER_BATCH or self._steps >= _STEPS_PER_BATCH)
        )

    def _next_batch(self) -> Batch:
        self._folders_read = 0
        self._steps = 0
        return super()._next_batch()

    def _to_read(self) -> bool:
        if not self._listing.pending and self._pending:
            path, self._ancestor = self._pending.pop()
            self._listing.push(path, self._cut)
        return self._listing.pending

    def _read(self) -> None:
        """Read on in the folders, never more entries at a time than the batch has room for."""
        uploads, links, others, failed, opened = self._listing.read(self._limit - len(self._batch), _FOLDERS_PER_BATCH)
        self._folders_read += opened
        if self._selection is not None:
            self._steps += 1
            uploads = self._selection.named(uploads)
        if self._sizes:
            for upload in uploads:
                upload.size = _size(upload.file)
        self._batch.uploads += uploads if self._selection is None else self._selection.sized(uploads)
        for path in links:
            self._look_at(path, self._take_link)
        for path in others:
            self._look_at(path, self._take_other)
        for path, number in failed:
            self._reject(path[self._cut :] or path, path, _folder_failure(number))

    def _take_folder(self, path: bytes, name: bytes, found: os.stat_result) -> None:
        if self._selection is None or self._selection.enters(name):
            self._enter(path, name, found)

    def _enter(self, path: bytes, name: bytes, found: os.stat_result) -> None:
        """Have a folder listed."""
        if not self._follow:
            self._listing.push(path, self._cut)
        elif _leads_back(identity := (found.st_dev, found.st_ino), self._ancestor):
            self._reject(name, path, NotRegularFile(_LOOP))
        else:
            self._pending.append(_Folder(path, _Ancestor(identity, self._ancestor)))


_ODD = "not a regular file, and only those can be uploaded: leave it out"
_ODDITIES = {
    stat.S_IFIFO: "a named pipe (FIFO), which has no end to upload: save what it delivers to a file and upload that",
    stat.S_IFSOCK: "a socket, which holds no data to upload: move it out of the folder",
    stat.S_IFCHR: "a character device, not a regular file: save what it delivers to a file and upload that",
    stat.S_IFBLK: "a block device, not a regular file: save an image of it to a file and upload that",
}
_LOOP = "a folder that holds itself, by way of a symbolic link: remove the link or leave out --follow-symlinks"
_TOO_DEEP = (
    f"its path is longer than the {_PATH_MAX - 1} octets that the system can open: "
    "change into a folder further down (cd) and upload from there"
)


def _leads_back(identity: tuple[int, int], ancestor: _Ancestor | None) -> bool:
    """Is it one of the folders that hold it? O(depth), for folders only, and only when links are followed."""
    while ancestor is not None:
        if ancestor.identity == identity:
            return True
        ancestor = ancestor.above
    return False


def _size(file: bytes) -> int:
    """Return a file's size in octets, or -1: whoever opens it will find out why."""
    try:
        return os.lstat(file).st_size
    except OSError:
        return -1


def _folder_failure(number: int) -> FileFailed:
    """Return the failure for an errno met at listing a folder."""
    match number:
        case errno.ENOENT | errno.ENOTDIR:
            return FileVanished("the folder vanished before it could be listed")
        case errno.EACCES | errno.EPERM:
            return FileUnreadable(
                f"the folder can't be listed: {os.strerror(number)}: "
                "give the user that runs fastpost the right to read it"
            )
        case errno.EMFILE | errno.ENFILE:
            return FileUnreadable("the folder can't be listed, too many files are open: raise the limit (ulimit -n)")
        case _:
            return FileUnreadable(f"the folder can't be listed to its end: {os.strerror(number)}")
