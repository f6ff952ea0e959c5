# cython: language_level=3
"""C interface of HPACK's encoder: one request template out."""

from libc.stdint cimport int64_t, uint8_t


# The constant part of a block: `head` octets go before :path, the rest after it.
cdef struct Template:
    const uint8_t* octets
    Py_ssize_t head
    Py_ssize_t length


cdef class RequestEncoder:
    cdef tuple _pseudo_fields
    cdef tuple _regular_fields
    cdef bytes _priming_octets
    cdef bytes _steady_octets
    cdef Template _priming
    cdef Template _steady
    cdef bint _primed
    cdef readonly Py_ssize_t table_size

    cdef int _prime(self, bint update) except -1

    # Upper bound of the block that write() may make, octets.
    cdef Py_ssize_t bound(self, Py_ssize_t path_length, Py_ssize_t literals_length) noexcept nogil
    # Write one header block; content_length < 0 leaves the field out. Returns its length, octets.
    # A block that was written must be sent, and in order: it may hold what later blocks refer to.
    cdef Py_ssize_t write(
        self, uint8_t* out, const uint8_t* path, Py_ssize_t path_length, int64_t content_length,
        const uint8_t* literals, Py_ssize_t literals_length,
    ) noexcept nogil
