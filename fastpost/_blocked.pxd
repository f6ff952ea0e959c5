# cython: language_level=3
"""C interface of the split of time by cause."""

from libc.stdint cimport int64_t

cdef enum:
    STREAM_LIMIT
    STREAM_WINDOW
    CONNECTION_WINDOW
    SOCKET
    DISK
    SERVER
    RATE_LIMIT
    CLIENT
    CAUSES


cdef class BlockedTime:
    cdef double[CAUSES] _seconds
    # What the thread's stalls came to when it began.
    cdef double _stalled_before
    # When the present interval began (monotonic seconds); 0.0 before the first one.
    cdef readonly double since

    cdef double begin(self, double now) noexcept
    cdef void add(self, int cause, int64_t streams, double elapsed) noexcept
