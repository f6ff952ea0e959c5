# cython: language_level=3
"""C interface of the meter."""

from libc.stdint cimport int64_t

cdef enum:
    STATUSES = 1000


cdef class Histogram:
    cdef int64_t* _counts
    cdef readonly int64_t total
    # Microseconds.
    cdef readonly int64_t largest
    cdef double _sum

    cdef void add(self, double seconds) noexcept


cdef class Counted:
    cdef readonly Histogram latency
    cdef readonly Histogram response
    cdef readonly int64_t ok
    cdef readonly int64_t failed
    cdef readonly int64_t payload
    cdef readonly int64_t wasted
    cdef readonly int64_t retried
    cdef readonly int64_t replayed
    cdef int64_t[STATUSES] _statuses


cdef class Meter:
    cdef readonly Counted whole
    cdef readonly Counted since
    cdef readonly double begins
    cdef readonly double ends
    cdef int64_t _most
