# cython: language_level=3
"""C interface of the frames that go before all others."""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from fastpost._gather cimport GatherList


@cython.final
cdef class ControlFrames:
    cdef bytearray _queued

    cdef int add(self, bytes octets) except -1
    cdef int reset(self, uint32_t stream_id, uint32_t error_code) except -1
    cdef int spare_reset(self, uint32_t stream_id) except -1
    cdef int credit(self, uint32_t stream_id, int64_t octets) except -1
    cdef int gather(self, GatherList gather) except -1
    cdef int _add_number(self, int kind, uint32_t stream_id, uint32_t number) except -1
