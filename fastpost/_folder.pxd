# cython: language_level=3
"""C interface of the folder that files are opened from."""


cdef enum:
    # Longest path that one system call takes, with its closing NUL.
    PATH_MAX = 4096

cdef int live_folders() noexcept nogil
cdef int first_spared() noexcept nogil


# Where files were last opened: the next ones of the same folder are opened relative to it.
cdef class Folder:
    cdef int _fd
    # Files in a row that were opened from it by their whole path.
    cdef int _opened
    cdef size_t _length
    cdef char[PATH_MAX] _path

    cdef int open_file(self, const char* path, int flags) noexcept
    cdef bint _holds(self, const char* path, size_t length) noexcept
    cdef void close(self) noexcept
