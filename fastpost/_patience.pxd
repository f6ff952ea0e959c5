# cython: language_level=3
"""C interface of waiting for answers."""

from libc.stdint cimport int64_t


cdef bint is_readable(int fd) noexcept


cdef class Patience:
    cdef readonly double awake
    # Answers that were waited for awake and did not come, beyond those that did; how many more are slept for.
    cdef int _late
    cdef int _asleep
    # What turns do at present, and for how many more of them.
    cdef int _phase
    cdef int64_t _turns
    # When the phase began (monotonic seconds), and how many answers there were by then.
    cdef double _since
    cdef int64_t _answers
    # How long a nap is (nanoseconds); answers a second that came without naps; turns to rest when naps have cost some.
    cdef long _nap
    cdef double _rate
    cdef int64_t _rest

    cpdef bint watch(self, int fd) noexcept
    cdef void _next_phase(self, int64_t in_flight, int64_t answers, double now) noexcept
