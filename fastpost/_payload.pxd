# cython: language_level=3
"""C interface of a payload: octets in memory that uploads are cut from."""

from libc.stdint cimport int64_t

from fastpost._chunker cimport Mapping, Source


cdef class Payload:
    cdef Mapping* _mapping
    # Octets after which it begins anew.
    cdef readonly int64_t period


cdef class Excerpt:
    cdef Payload _payload
    cdef readonly int64_t start
    cdef readonly int64_t size

    cdef void lend(self, Source source) noexcept
