# cython: language_level=3
"""C interface of the content of requests."""

cimport cython
from libc.stdint cimport int64_t, uint8_t

from fastpost._folder cimport Folder
from fastpost._gather cimport GatherList
from fastpost._readahead cimport ReadAhead
from fastpost._table cimport Attempt


cdef enum:
    # How opening a file ended; NO_DESCRIPTOR: none is free now.
    FAILED = 0
    OPENED = 1
    NO_DESCRIPTOR = 2

    # The last slice of a mapped file is read, not mapped: the file can be checked after its last octet was taken.
    MAX_TAIL = 16384


@cython.final
cdef class RequestContent:
    cdef GatherList _gather
    cdef Folder _folder
    cdef bint _staged
    # Files opened so far; those whose first read took long, lately.
    cdef int64_t _opened
    # The same when opening last began, and the clock (µs) and the thread's sleeps by then.
    cdef int64_t _opened_before
    cdef int64_t _began_opening
    cdef long _slept_before
    cdef int _slow_files
    # Brings what waits into the page cache, once a read had to wait; None before.
    cdef ReadAhead _ahead
    # How many files must be opened before it may again; for how many it rests next.
    cdef int64_t _ahead_from
    cdef int64_t _rest

    cdef int open(self, Attempt attempt) except -1
    cdef int _open_file(self, Attempt attempt) except -1
    cdef int open_ahead(self, Attempt attempt) except -1
    cdef bint reads_ahead(self) noexcept
    cdef int _refuse(self, Attempt attempt, object failure) except -1
    cdef bint cut_mapped(self, Attempt attempt, int64_t allowed) except -1
    cdef bint cut_staged(self, Attempt attempt, int64_t allowed) except -1
    cdef Py_ssize_t _read_wrapped(self, Attempt attempt, uint8_t* out, int64_t allowed) noexcept
    cdef bint _is_another(self, Attempt attempt) except -1
    cdef object torn(self, Attempt attempt)
    cdef void begin_opening(self) noexcept
    cdef bint end_opening(self, waiting) except -1
    cdef int note_slow(self, waiting, long files) except -1
    cdef int read_ahead(self, attempts) except -1
    cdef int close(self) except -1

    cdef inline bint leaves_in_place(self, Attempt attempt) noexcept:
        """The next slice is sent from where it is mapped, by `cut_mapped`; else it is read, by `cut_staged`."""
        return attempt.mapped and attempt.remaining > MAX_TAIL + attempt.tail
