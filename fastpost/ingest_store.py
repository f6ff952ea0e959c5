"""Where the embedded server keeps files: below one folder, each of them whole or not at all.

The names come from the network. So nothing is looked up as a path: the store walks from folder to folder by descriptor
(openat, O_NOFOLLOW), which leaves no name to resolve outside the root and no moment in which a symbolic link could be
slipped in. That costs two system calls a folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from types import TracebackType

#: A folder on the way: to pass through it is enough, so a folder that may not be listed serves too.
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_REASONS = {
    errno.ENOSPC: (507, "the server's disk is full"),
    errno.EDQUOT: (507, "the disk quota of the server is used up"),
    errno.EFBIG: (413, "the server's file system takes no file of this size"),
    errno.ENAMETOOLONG: (414, "a name in the path is longer than the server's file system takes"),
    errno.EACCES: (403, "the server may not write there"),
    errno.EPERM: (403, "the server may not write there"),
    errno.EROFS: (403, "the server's file system is read-only"),
    errno.EISDIR: (409, "a folder stands at this path"),
    errno.ENOTDIR: (409, "a file stands where this path needs a folder"),
    errno.EILSEQ: (403, "the server's file system doesn't take this name"),
    errno.EINVAL: (403, "the server's file system doesn't take this name"),
    errno.EMFILE: (503, "too many uploads at once: the server is out of file descriptors"),
    errno.ENFILE: (503, "too many uploads at once: the server's system is out of file descriptors"),
    errno.ENOMEM: (503, "the server is out of memory"),
}


class Refused(Exception):
    """An upload that is not taken.

    Args:
        status: the response's status, 400 … 599.
        reason: one line for the client.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

    @classmethod
    def by(cls, error: OSError) -> Refused:
        """Return what to answer when the file system said no."""
        return cls(*_REASONS.get(error.errno or 0, (500, f"the server could not store it: {error.strerror}")))


class Store:
    """A folder that takes uploads.

    Folders on the way are created. Nothing is flushed to the disk: a file survives the end of the server, not
    a power cut. Only a server that is itself killed can leave temporary files, `.fastpost-` and 24 hex digits.

    Args:
        root: an existing folder. It may be a symbolic link; below it none is followed.

    Raises:
        OSError: root can't be opened.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the root. Files on their way in can still be committed."""
        os.close(self._root)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, path: bytes) -> Incoming:
        """Return a new file that will stand at `path`, an absolute URL path without query (RFC 9110 §4.2).

        Raises:
            Refused: the path leaves the root, or the file system says no.
        """
        *folders, name = segments(path)
        try:
            folder = self._enter(folders)
            try:
                return Incoming(folder, name)
            except BaseException:
                os.close(folder)
                raise
        except OSError as error:
            raise Refused.by(error) from error

    def _enter(self, folders: list[bytes]) -> int:
        """Return a descriptor of the folder, made where it is missing. The caller closes it."""
        at = os.dup(self._root)
        for name in folders:
            try:
                below = _descend(at, name)
            finally:
                os.close(at)
            at = below
        return at


class Incoming:
    """A file on its way in: `write`, then `commit`. A context manager that discards what was not committed.

    Args:
        folder: descriptor of the folder; closed with the file.
        name: the name that the file gets when it is whole, raw octets.

    Raises:
        OSError: EISDIR, or what the file system says. Then the descriptor stays the caller's.
    """

    def __init__(self, folder: int, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._folder = folder
        self._name = name
        # Short, whatever the length of the name, and nothing that an upload could be called by chance or guess.
        self._temporary = b".fastpost-" + os.urandom(12).hex().encode()
        self._fd = os.open(self._temporary, _NEW_FILE, 0o666, dir_fd=folder)
        self._open = True

    def write(self, octets: bytes) -> None:
        """Append octets. Raises Refused when the disk is full or fails."""
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise Refused.by(error) from error

    def commit(self) -> None:
        """Put the file in its place, over any file of that name. Raises Refused; the old file is then untouched."""
        try:
            fd, self._fd = self._fd, -1
            os.close(fd)  # NFS and quotas may report a failed write here
            os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError as error:
            raise Refused.by(error) from error
        os.close(self._folder)
        self._open = False

    def discard(self) -> None:
        """Leave nothing behind. Does nothing after `commit` or a second time."""
        if not self._open:
            return
        self._open = False
        if self._fd >= 0:
            os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self._folder)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Nowhere:
    """An Incoming that drops everything."""

    def write(self, octets: bytes) -> None:
        """Drop the octets."""

    def commit(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Nowhere:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def segments(path: bytes) -> list[bytes]:
    """Return the names of an absolute URL path, percent-decoded to raw octets; the last one is the file's.

    Decoding comes first, so an encoded slash or dot is treated like a plain one.

    Raises:
        Refused: there is no such file below any root.
    """
    decoded = unquote_to_bytes(path)
    if b"\0" in decoded:
        raise Refused(403, "the path holds a NUL octet, which no file name may")
    if not decoded.startswith(b"/"):
        raise Refused(403, "the path doesn't begin with a slash")
    names = decoded[1:].split(b"/")
    if not names[-1]:
        raise Refused(409, "the path names a folder: it ends in a slash")
    if b"" in names:
        raise Refused(403, "the path holds an empty name (two slashes in a row)")
    if b"." in names or b".." in names:
        raise Refused(403, "the path holds . or .. and could leave the root")
    return names


def _descend(at: int, name: bytes) -> int:
    """Return a descriptor of the folder `name` in the folder `at`, made if missing."""
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another upload may have made it
            os.mkdir(name, dir_fd=at)
    except NotADirectoryError:
        if stat.S_ISLNK(os.lstat(name, dir_fd=at).st_mode):
            raise Refused(403, "the path goes through a symbolic link, and could leave the root") from None
        raise
    return os.open(name, _FOLDER, dir_fd=at)
