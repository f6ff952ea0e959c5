# cython: language_level=3
"""C interface of the HPACK coder (RFC 7541): one request template out, response blocks in."""

from libc.stdint cimport int64_t, uint8_t, uint32_t


# The constant part of a block: `head` octets go before :path, the rest after it.
cdef struct Template:
    const uint8_t* octets
    Py_ssize_t head
    Py_ssize_t length


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
