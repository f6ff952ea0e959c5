# cython: language_level=3
"""C interface of the send side."""

from libc.stdint cimport int32_t, int64_t

from fastpost._open_streams cimport OpenStreams
from fastpost._table cimport Attempt


cdef class SendSide(OpenStreams):
    cdef bint _fill(self, double now) except -1
    cdef int send_lists(self, int fd, double now, int lists) except? -1
    cdef Py_ssize_t _send(self, int fd, double now) except? -1
    cdef bint _open_timed(self, double now) except -1
    cdef bint _start(self, double now) except -1
    cdef bint may_prepare(self) noexcept
    cdef int prepare(self) except -1
    cdef int32_t _unread(self) noexcept
    cdef int64_t _offered(self) noexcept
    cdef int64_t _offers(self, Attempt attempt) noexcept
    cdef int _open_stream(self, Attempt attempt, double now) except -1
    cdef bint _serve(self, double now) except -1
    cdef int64_t _unlimited(self, double now) noexcept
    cdef int64_t _ready_octets(self, int64_t most) noexcept
    cdef bint _cut(self, Attempt attempt, int64_t allowed, double now) except -1
    cdef int _account(self, Attempt attempt, int64_t octets, double now) except -1
    cdef void _end_stream(self, Attempt attempt, double now) noexcept
