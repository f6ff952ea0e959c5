# cython: language_level=3
"""C interface of what lies between a data plane and its socket."""

from libc.stdint cimport uint8_t

from fastpost._streams cimport DataPlane


cdef class Wire:
    cdef DataPlane _plane
    cdef int _fd
    cdef readonly bint gave_up
    cdef readonly bint quiet

    cdef int _receive(self, double now) except? -1
    cdef int _receive_rest(self, double now) except? -1
    cdef int _receive_all(self, double now) except? -1
    cdef int _send_timed(self, double now, int lists) except? -1
    cdef int _prepare(self, double until) except -1
    cdef int _send(self, double now, int lists) except? -1


cdef class TlsWire(Wire):
    cdef object _recv_into
    cdef object _send_octets
    cdef bytearray _record
