# cython: language_level=3
"""C interface of the limit on octets per second."""

cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class RateLimit:
    # Octets per second.
    cdef double _rate
    # When all that is reserved will have left (monotonic seconds).
    cdef double _reserved_until

    cdef int64_t portion(self, double now) noexcept
    cdef double reserve(self, int64_t octets, double now) noexcept
    cdef void give_back(self, int64_t octets) noexcept
