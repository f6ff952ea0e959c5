# cython: language_level=3
"""C interface of what stands around a file in its request."""

cimport cython
from libc.stdint cimport int64_t, uint8_t

from fastpost._chunker cimport Source


@cython.final
cdef class Envelope:
    cdef bytes _before
    cdef bytes _after
    # Octets of both.
    cdef readonly int64_t length
    # Octets of what stands behind.
    cdef int64_t tail

    cdef int64_t octets_of_file(self, int64_t octets, int64_t size) noexcept
    cdef Py_ssize_t read(self, Source source, int64_t remaining, uint8_t* out, Py_ssize_t limit) noexcept
