# cython: language_level=3
"""C interface of the attempts that wait for a stream of one connection."""

cimport cython
from libc.stdint cimport int64_t

from fastpost._request_content cimport RequestContent
from fastpost._table cimport Attempt


@cython.final
cdef class Line:
    # In the order in which they begin.
    cdef readonly object attempts
    # The first so many were looked at: their files were opened, or their turn will tell why they can't be.
    cdef int64_t _looked_at
    # What those keep until their turn: open files, and octets in memory.
    cdef int64_t _files
    cdef int64_t _octets
    # A descriptor could not be had once: none is kept ahead any more.
    cdef bint _barred

    cdef Attempt pop(self)
    cdef int put_back(self, Attempt attempt) except -1
    cdef bint may_look(self) noexcept
    cdef int look_ahead(self, RequestContent content, int files) except -1
    cdef int _bar(self) except -1
    cdef int _count_kept(self, Attempt attempt, int sign) except -1
    cdef int _close_ahead(self, Attempt attempt) except -1

    cdef inline int64_t count(self):
        """How many wait."""
        return len(self.attempts)

    cdef inline Attempt first(self):
        """The next one to begin; there is one."""
        return <Attempt>self.attempts[0]
