# cython: language_level=3
"""C interface of the lister of folders."""

from libc.stdint cimport int64_t, uint8_t


cdef enum:
    # Longest path that one system call takes, with its closing NUL.
    PATH_MAX = 4096
    # Longest name that Linux allows is 255 octets; file systems in user space have been seen to break that.
    NAME_MAX = 1024
    # What one getdents64(2) fills: some hundred entries.
    LISTED = 32768


# What was found; the path lies in the names, from `start` on.
cdef struct Found:
    int kind
    int reason
    size_t start
    size_t length


cdef class Upload:
    cdef public bytes file
    cdef public bytes name
    cdef public int64_t size
    cdef public object content_type
    cdef public bint follow
    cdef public object content
    cdef public double due


cdef class Listing:
    cdef bint _descend
    # Where in a path the name begins.
    cdef size_t _cut
    # Folders to be listed: path, its length, and whether it may be a symbolic link; the last one is next.
    cdef char* _stack
    cdef size_t _stacked
    cdef size_t _stack_size
    # The folder that is being read: its descriptor, and its path with a slash, behind which entries' names are put.
    cdef int _fd
    cdef size_t _length
    # That path as it was given, without the slash.
    cdef size_t _given
    cdef char[PATH_MAX + NAME_MAX] _path
    # What getdents64 gave, and how far it was looked at.
    cdef Py_ssize_t _filled
    cdef Py_ssize_t _at
    cdef uint8_t[LISTED] _entries
    # What was found and not yet told.
    cdef Found* _found
    cdef int64_t _count
    cdef int64_t _found_size
    cdef char* _names
    cdef size_t _named
    cdef size_t _names_size
    cdef bint _out_of_memory

    cdef int64_t _read(self, int64_t most, int64_t folders) noexcept nogil
    cdef bint _open(self) noexcept nogil
    cdef bint _list(self) noexcept nogil
    cdef void _take(self) noexcept nogil
    cdef int _kind(self, const char* name) noexcept nogil
    cdef void _close(self) noexcept nogil
    cdef void _add(self, int kind, int reason, size_t length) noexcept nogil
    cdef void _push(self, const char* path, size_t length, bint follow) noexcept nogil
    cdef tuple _told(self)
