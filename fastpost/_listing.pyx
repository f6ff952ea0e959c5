# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: offsets into a listing are the kernel's own, and every copy is preceded by a look at the room.
"""Files to upload, and folders by getdents64(2), without the interpreter's lock: the walk doesn't hold up the loop.

In Python a folder cost 10 µs and four turns of that lock, and a tree may have more folders than files. Here it is four
system calls, and the lock is taken once for many folders.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, ENAMETOOLONG, ENOENT, errno
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen

cdef extern from "<fcntl.h>" nogil:
    int c_open "open"(const char* path, int flags)
    int O_RDONLY
    int O_CLOEXEC
    int O_DIRECTORY
    int O_NOFOLLOW
    int O_NONBLOCK
    int AT_SYMLINK_NOFOLLOW

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)
    long syscall(long number, ...)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_getdents64

cdef extern from "<sys/stat.h>" nogil:
    cdef struct stat_result "stat":
        unsigned int st_mode
    int fstatat(int folder, const char* path, stat_result* out, int flags)

cdef extern from "<dirent.h>" nogil:
    int DT_UNKNOWN
    int DT_REG
    int DT_DIR
    int DT_LNK
    int IFTODT(unsigned int mode)

cdef extern from * nogil:
    """
    /* As the kernel has it (getdents64(2)); glibc's struct dirent is the same only with 64-bit offsets. */
    struct fastpost_entry {
        unsigned long long d_ino;
        long long d_off;
        unsigned short d_reclen;
        unsigned char d_type;
        char d_name[];
    };
    """
    cdef struct fastpost_entry:
        unsigned short d_reclen
        unsigned char d_type
        char* d_name

cdef enum:
    # What was found: a regular file; a symbolic link; something else to be looked at; a folder that can't be listed.
    _FILE = 0
    _LINK = 1
    _OTHER = 2
    _FAILED = 3


@cython.no_gc
cdef class Upload:
    """One file to send.

    Attributes:
        file: the path to open, as octets.
        name: the relative path with "/" between its parts, raw octets; for a plain file its base name.
        size: octets as the walk saw them, -1 when it didn't look.
        content_type: sent in place of the type that the name suggests; None: go by the name.
        follow: send what a symbolic link points to; False, as for files found in a folder: fail if it has become one.
        content: octets in memory to send; `file` is not opened then.
        due: when it is to begin (monotonic seconds), for latencies to be counted from then; 0.0: when there is room.
    """

    def __init__(
        self, bytes file not None, bytes name not None, int64_t size=-1, content_type=None, bint follow=True,
        content=None, double due=0.0,
    ):
        self.file = file
        self.name = name
        self.size = size
        self.content_type = content_type
        self.follow = follow
        self.content = content
        self.due = due

    def __repr__(self) -> str:
        return f"Upload(file={self.file!r}, name={self.name!r}, size={self.size}, content_type={self.content_type!r})"


def known_octets(list uploads not None) -> int:
    """Return the sum of the sizes that are known, octets."""
    cdef int64_t octets = 0
    for item in uploads:
        octets += max((<Upload?>item).size, 0)
    return octets


cdef class Listing:
    """Folders still to be listed, the last one first, and what is in them.

    Args:
        descend: list the folders that are found, too; False: they are told like everything that is no regular file.
    """

    def __cinit__(self, bint descend):
        self._descend = descend
        self._cut = 0
        self._stack = NULL
        self._stacked = 0
        self._stack_size = 0
        self._fd = -1
        self._length = 0
        self._given = 0
        self._filled = 0
        self._at = 0
        self._found = NULL
        self._count = 0
        self._found_size = 0
        self._names = NULL
        self._named = 0
        self._names_size = 0
        self._out_of_memory = False

    def __dealloc__(self):
        self._close()
        free(self._stack)
        free(self._found)
        free(self._names)

    @property
    def pending(self) -> bool:
        """True while a folder is open or waits to be."""
        return self._fd >= 0 or self._stacked > 0

    def push(self, bytes path, size_t cut) -> None:
        """List this folder next; it may be a symbolic link to one.

        Args:
            path: as octets. Raises ValueError when it is longer than the system takes.
            cut: how many octets of the paths in it are not part of the names, the same for all that are pending.
        """
        if PyBytes_GET_SIZE(path) >= PATH_MAX:
            raise ValueError("a path that no system call takes")
        self._cut = cut
        self._push(PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), True)
        if self._out_of_memory:
            raise MemoryError

    def read(self, int64_t most, int64_t folders) -> tuple:
        """Read on, until so much was found, so many folders were opened, or nothing is pending.

        Returns:
            (files, links, others, failed, opened): regular files, as uploads that follow no link; the paths of
            symbolic links, and of what is neither; of folders that could not be listed, at all or to the end, paths and
            errnos; how many were opened.
        """
        cdef int64_t opened
        with nogil:
            opened = self._read(most, folders)
        if self._out_of_memory:
            raise MemoryError
        return *self._told(), opened

    def close(self) -> None:
        """Read nothing more; twice is fine."""
        self._close()
        self._stacked = 0

    cdef tuple _told(self):
        """Return what was found, as objects, and forget it."""
        cdef list files = []
        cdef list links = []
        cdef list others = []
        cdef list failed = []
        cdef int64_t at
        cdef Found* found
        cdef char* start
        cdef Upload upload
        for at in range(self._count):
            found = &self._found[at]
            start = self._names + found.start
            path = PyBytes_FromStringAndSize(start, found.length)
            if found.kind == _FILE:
                upload = Upload.__new__(Upload)
                upload.file = path
                upload.name = PyBytes_FromStringAndSize(start + self._cut, found.length - self._cut)
                upload.size = -1
                files.append(upload)
            elif found.kind == _LINK:
                links.append(path)
            elif found.kind == _OTHER:
                others.append(path)
            else:
                failed.append((path, found.reason))
        self._count = 0
        self._named = 0
        return files, links, others, failed

    # --- without the interpreter ------------------------------------------------------------------

    cdef int64_t _read(self, int64_t most, int64_t folders) noexcept nogil:
        """Returns how many folders were opened."""
        cdef int64_t opened = 0
        while self._count < most and not self._out_of_memory:
            if self._fd < 0:
                if self._stacked == 0 or opened == folders:
                    break
                opened += self._open()
            elif self._at < self._filled or self._list():
                self._take()
        return opened

    cdef bint _open(self) noexcept nogil:
        """Open the next folder. False: it can't be."""
        cdef size_t length
        cdef bint follow
        self._stacked -= 1
        follow = self._stack[self._stacked]
        self._stacked -= sizeof(size_t)
        memcpy(&length, self._stack + self._stacked, sizeof(size_t))
        self._stacked -= length
        memcpy(self._path, self._stack + self._stacked, length)
        self._path[length] = 0
        # O_NOFOLLOW: what was a folder when it was listed may be a link to another one by now.
        self._fd = c_open(
            self._path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK | (0 if follow else O_NOFOLLOW)
        )
        if self._fd < 0:
            self._add(_FAILED, errno, length)
            return False
        self._given = length
        if length == 0 or self._path[length - 1] != c"/":
            self._path[length] = c"/"
            length += 1
        self._length = length
        self._filled = 0
        self._at = 0
        return True

    cdef bint _list(self) noexcept nogil:
        """Have the next entries listed. False: there are none, and the folder is closed."""
        cdef long filled
        self._at = 0
        self._filled = 0
        while True:
            filled = syscall(SYS_getdents64, self._fd, &self._entries[0], <size_t>LISTED)
            if filled >= 0 or errno != EINTR:
                break
        if filled > 0:
            self._filled = filled
            return True
        if filled < 0 and errno != ENOENT:
            # ENOENT: it was removed meanwhile, and is at its end (POSIX, readdir).
            self._add(_FAILED, errno, self._given)
        self._close()
        return False

    cdef void _take(self) noexcept nogil:
        """Take one entry."""
        cdef fastpost_entry* entry = <fastpost_entry*>&self._entries[self._at]
        cdef const char* name = <const char*>&entry.d_name[0]
        cdef size_t length = strlen(name)
        cdef int kind = entry.d_type
        self._at += entry.d_reclen
        if name[0] == c"." and (length == 1 or (length == 2 and name[1] == c".")):
            return
        if length >= NAME_MAX:
            self._add(_FAILED, ENAMETOOLONG, self._given)
            return
        memcpy(self._path + self._length, name, length + 1)
        if kind == DT_UNKNOWN:
            kind = self._kind(name)
        length += self._length
        if length >= PATH_MAX:
            self._add(_OTHER, 0, length)
        elif kind == DT_REG:
            self._add(_FILE, 0, length)
        elif kind == DT_DIR and self._descend:
            self._push(self._path, length, False)
        else:
            self._add(_LINK if kind == DT_LNK else _OTHER, 0, length)

    cdef int _kind(self, const char* name) noexcept nogil:
        """What an entry is, on a file system that lists names only."""
        cdef stat_result status
        if fstatat(self._fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0:
            return DT_UNKNOWN
        return IFTODT(status.st_mode)

    cdef void _close(self) noexcept nogil:
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1

    cdef void _add(self, int kind, int reason, size_t length) noexcept nogil:
        """Note the first octets of `_path`."""
        cdef Found* found
        if self._count == self._found_size:
            found = <Found*>realloc(self._found, (2 * self._found_size + 64) * sizeof(Found))
            if found == NULL:
                self._out_of_memory = True
                return
            self._found = found
            self._found_size = 2 * self._found_size + 64
        if not _has_room(&self._names, &self._names_size, self._named + length):
            self._out_of_memory = True
            return
        found = &self._found[self._count]
        found.kind = kind
        found.reason = reason
        found.start = self._named
        found.length = length
        memcpy(self._names + self._named, self._path, length)
        self._named += length
        self._count += 1

    cdef void _push(self, const char* path, size_t length, bint follow) noexcept nogil:
        if not _has_room(&self._stack, &self._stack_size, self._stacked + length + sizeof(size_t) + 1):
            self._out_of_memory = True
            return
        memcpy(self._stack + self._stacked, path, length)
        self._stacked += length
        memcpy(self._stack + self._stacked, &length, sizeof(size_t))
        self._stacked += sizeof(size_t)
        self._stack[self._stacked] = follow
        self._stacked += 1


cdef bint _has_room(char** octets, size_t* size, size_t needed) noexcept nogil:
    """Let there be room for that many octets. False: there is no memory."""
    cdef size_t grown = 2 * needed + 4096
    cdef char* moved
    if needed <= size[0]:
        return True
    moved = <char*>realloc(octets[0], grown)
    if moved == NULL:
        return False
    octets[0] = moved
    size[0] = grown
    return True
