# cython: language_level=3
"""C interface of the HEADERS of requests."""

from libc.stdint cimport int64_t

from fastpost._gather cimport GatherList
from fastpost._hpack_encoder cimport RequestEncoder
from fastpost._table cimport Attempt


cdef class RequestHeaders:
    cdef RequestEncoder encoder
    # The fields of the attempt that was prepared last, as its literals.
    cdef tuple _fields
    cdef bytes _literals
    # Fields → literals.
    cdef dict _known

    cdef Py_ssize_t prepare(self, Attempt attempt, int64_t max_frame_size) except -1
    # The stream is open, and the gather list has room for `bound` octets.
    cdef int write(self, Attempt attempt, Py_ssize_t bound, GatherList gather, int64_t max_frame_size) except -1
    cdef int _write_split(
        self, Attempt attempt, bytes block, int flags, GatherList gather, int64_t max_frame_size,
    ) except -1
    cdef int _encode(self, tuple fields) except -1
