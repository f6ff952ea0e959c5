# cython: language_level=3
"""C interface of the chunker: an open file, cut into slices without knowing who sends them."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from fastpost._folder cimport Folder


# A mapped window of a file. It lives as long as its source or any slice in a gather list needs it.
cdef struct Mapping:
    uint8_t* address
    size_t length
    int64_t offset
    int references


cdef enum:
    # A borrowed mapping goes on for so many octets behind its period; no read and no slice is longer.
    OVERLAP = 65536


cdef Mapping* hold_mapping(void* address, size_t length, int64_t offset) noexcept nogil
cdef void release_mapping(Mapping* mapping) noexcept nogil


cdef enum:
    # What an open file is, compared with what it was when it was opened.
    SAME
    CHANGED
    STIRRED
    # What takes longer (µs), asleep, had to wait for a disk or for who serves the files, where nothing else tells.
    SLOW_UNASKED = 200

cdef int64_t now_us() noexcept nogil
# How often this thread has given its processor away by itself, to wait for something.
cdef long slept() noexcept nogil


cdef class Source:
    cdef int _fd
    cdef Mapping* _mapping
    # Octets that were read ahead, or NULL; where in the file they begin and end; True: they were all, and it is closed.
    cdef uint8_t* _held
    cdef int64_t _held_from
    cdef int64_t _held_to
    cdef bint _whole
    # The position at which the cache was last asked.
    cdef int64_t _fetched_at
    # Which file it is, as of opening: with `size`, what a record or a digest of it is compared by.
    cdef readonly int64_t mtime_ns
    cdef readonly uint64_t inode
    # When its permissions or names last changed, as of then.
    cdef int64_t _ctime_ns
    # Of a borrowed mapping: octets after which it begins anew, and where in it the source begins; 0 for a file.
    cdef int64_t _period
    cdef int64_t _start
    cdef readonly int64_t size
    cdef readonly int64_t offset
    # The last read or slice had to wait for the disk.
    cdef bint cold
    # So had the last read, and for as long as a disk takes.
    cdef bint slow

    cdef int open(self, const char* path, bint follow, Folder folder) noexcept
    cdef bint hold(self, Py_ssize_t limit) noexcept
    cdef Py_ssize_t fetch(self, Py_ssize_t octets) noexcept
    cdef bint may_fetch(self) noexcept
    cdef Py_ssize_t _take_held(self, uint8_t* out, Py_ssize_t limit) noexcept
    cdef Py_ssize_t _read_file(self, uint8_t* out, Py_ssize_t limit) noexcept
    cdef void borrow(self, Mapping* mapping, int64_t period, int64_t start, int64_t size) noexcept
    cdef Py_ssize_t read(self, uint8_t* out, Py_ssize_t limit) noexcept
    cdef const uint8_t* slice(self, Py_ssize_t length, Mapping** holder) noexcept
    cdef const uint8_t* _borrowed(self) noexcept
    cdef Mapping* _slide(self) noexcept
    cdef Py_ssize_t _read_cached(self, uint8_t* out, Py_ssize_t limit) noexcept
    cdef int compare(self) noexcept
    cdef bint shrank(self) noexcept
    cdef bint holds_more(self) noexcept
    cdef bint is_open(self) noexcept
    cdef void _close_file(self) noexcept
    cdef void close(self) noexcept
