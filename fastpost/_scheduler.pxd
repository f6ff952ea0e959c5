# cython: language_level=3
"""C interface of the scheduler: whose turn it is, and how many octets the turn may take."""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint64_t


cdef enum:
    # No slot.
    NOBODY = -1


cdef struct Stays:
    # What a slot had of its stays in the ring, in octets: the sum of even parts and what it was served when it last
    # joined; and of the stays that were long enough to tell, its even part and what it was served in them.
    double joined
    int64_t began
    double due
    int64_t told


@cython.final
cdef class Scheduler:
    # One entry per slot; a slot is a small integer that the caller gives to a stream.
    cdef int32_t* _next
    cdef int32_t* _previous
    cdef int64_t* _deficit
    cdef int64_t* _served
    cdef uint64_t* _arrival
    # Even parts of all that was served since the start (octets).
    cdef double _even
    cdef Stays* _stays
    cdef uint8_t* _ready
    cdef int32_t _capacity
    cdef int32_t _head
    cdef uint64_t _arrivals
    cdef readonly int32_t ready
    cdef readonly bint fair
    cdef readonly int64_t quantum
    cdef public bint scarce
    # Of the slots that were retired: how many, and of their shares sum, sum of squares, extremes.
    cdef readonly int64_t retired
    cdef readonly double shares
    cdef readonly double squares
    cdef readonly double smallest
    cdef readonly double largest

    cdef int grow(self, int32_t capacity) except -1
    cdef int enter(self, int32_t slot) except -1
    cdef void unblock(self, int32_t slot) noexcept
    cdef void block(self, int32_t slot) noexcept
    cdef void retire(self, int32_t slot) noexcept
    cdef void serve(self, int64_t octets) noexcept
    cdef void set_quantum(self, int64_t octets) noexcept
    cdef void _begin_turn(self) noexcept
    cdef int64_t next_turn(self, int32_t slot) noexcept
    cdef int64_t _turn(self, int32_t slot) noexcept
    cdef void _end_stay(self, int32_t slot) noexcept
    cdef void _insert_before(self, int32_t slot, int32_t successor) noexcept

    cdef inline int32_t head(self) noexcept:
        """Whose turn it is; −1: nobody's."""
        return self._head

    cdef inline int32_t after(self, int32_t slot) noexcept:
        """Who stands behind that slot in the ring."""
        return self._next[slot]

    cdef inline int64_t budget(self) noexcept:
        """Octets that the head may still send in its turn; always more than 0."""
        return self._deficit[self._head] if self.fair else INT64_MAX
