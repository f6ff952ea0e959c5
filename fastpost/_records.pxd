# cython: language_level=3
"""C interface of the journal's records."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef uint32_t _crc32(const uint8_t* octets, Py_ssize_t length) noexcept nogil
cdef Py_ssize_t _put_record(
    uint8_t* out, const uint8_t* name, Py_ssize_t length, int64_t size, int64_t mtime_ns, uint64_t inode,
) noexcept nogil
