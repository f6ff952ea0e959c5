# cython: language_level=3
"""Where files are opened from: a folder that is remembered, and descriptors that are left to all else."""

cimport cython
from libc.limits cimport INT_MAX
from libc.string cimport memcmp, memcpy, strrchr

cdef extern from "<fcntl.h>" nogil:
    int c_open "open"(const char* path, int flags)
    int openat(int folder, const char* path, int flags)
    int O_CLOEXEC
    int O_DIRECTORY
    int O_PATH

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

# Files of one folder in a row that would have paid for its descriptor by now.
cdef int _WORTH = 6

# Files of uploads get no descriptor with a number from here on: what else the process opens finds one.
cdef int _first_spared = INT_MAX

# Folders that are open now.
cdef int _live_folders = 0


def spare_descriptors(int first) -> None:
    """Open no file of an upload with a descriptor of this number or a larger one: as if none were left (EMFILE).

    What is loaded, resolved or connected to in the midst of a run needs one as well, and would end the run. Only where
    no other file is open that rule is broken: that one is what the run is for. Holds for the whole process.
    """
    global _first_spared
    _first_spared = first


cdef int live_folders() noexcept nogil:
    """How many folders are open."""
    return _live_folders


cdef int first_spared() noexcept nogil:
    """The first of the descriptors that files leave to all else."""
    return _first_spared


@cython.final
cdef class Folder:
    """The folder that files were last opened from: its next ones are found without walking down the whole path again.

    Seven folders deep that walk is 0.3 of the 2.3 µs of open(2) and close(2), and a descriptor of the folder costs 2.0:
    so it is opened once _WORTH files in a row came from there. A folder that is renamed meanwhile stays the one that
    was walked.
    """

    def __cinit__(self):
        self._fd = -1
        self._opened = 0
        self._length = 0

    def __dealloc__(self):
        self.close()

    cdef int open_file(self, const char* path, int flags) noexcept:
        """As open(2): returns a descriptor, or -1 with errno set."""
        global _live_folders
        cdef const char* slash = strrchr(path, b"/")
        cdef int fd
        if slash == NULL or slash[1] == 0 or not self._holds(path, slash - path + 1):
            return c_open(path, flags)
        if self._fd < 0:
            self._opened += 1
            if self._opened < _WORTH:
                return c_open(path, flags)
            self._fd = c_open(self._path, O_PATH | O_DIRECTORY | O_CLOEXEC)
            if self._fd >= 0:
                _live_folders += 1
            if not 0 <= self._fd < _first_spared:
                self.close()
                return c_open(path, flags)
        fd = openat(self._fd, slash + 1, flags)
        if 0 <= fd < _first_spared:
            return fd
        # Another folder may have its name by now; or its own descriptor is the one too many.
        if fd >= 0:
            c_close(fd)
        self.close()
        return c_open(path, flags)

    cdef bint _holds(self, const char* path, size_t length) noexcept:
        """True when `path` begins with this folder (`length` octets with the slash); else it is the folder now."""
        if length == self._length and memcmp(path, self._path, length) == 0:
            return True
        self.close()
        if length < PATH_MAX:
            memcpy(self._path, path, length)
            self._path[length] = 0
            self._length = length
            self._opened = 1
        return False

    cdef void close(self) noexcept:
        """Give the descriptor back, and forget the folder."""
        global _live_folders
        self._length = 0
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1
            _live_folders -= 1

    def shut(self) -> None:
        """Close it, for tests; twice is fine."""
        self.close()
