# cython: language_level=3
"""C interface of HPACK's decoder: response blocks in."""

from libc.stdint cimport int64_t, uint8_t, uint32_t


# One entry of a dynamic table; name and value lie side by side at `offset` of the table's octets.
cdef struct Entry:
    Py_ssize_t offset
    uint32_t name_length
    uint32_t value_length
    int verdict


# A dynamic table (RFC 7541 §2.3.2): a ring of entries, and their octets in an arena of twice the largest capacity.
cdef struct Table:
    uint8_t* octets
    Entry* entries
    Py_ssize_t arena
    Py_ssize_t tail
    Py_ssize_t mask
    Py_ssize_t oldest
    Py_ssize_t count
    Py_ssize_t size
    Py_ssize_t capacity


cdef class ResponseDecoder:
    cdef readonly int status
    cdef readonly int64_t content_length
    cdef readonly list fields
    cdef readonly str fault
    cdef Table _table
    cdef uint8_t* _scratch
    cdef Py_ssize_t _max_table_size
    cdef Py_ssize_t _max_list_size

    # 0: well-formed. 1: malformed (RFC 9113 §8.1.1: a stream error), the table is in step all the same.
    # Raises ProtocolViolation (COMPRESSION_ERROR, or ENHANCE_YOUR_CALM beyond the size limit): a connection error.
    cdef int decode(self, const uint8_t* block, Py_ssize_t length, bint keep, bint trailers) except -1
