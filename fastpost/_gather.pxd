# cython: language_level=3
"""C interface of the gather list: what leaves by the next sends, in order."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastpost._chunker cimport Mapping


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len


cdef class GatherList:
    cdef uint8_t* _arena
    cdef Py_ssize_t _arena_size
    cdef Py_ssize_t _arena_used
    cdef iovec* _vector
    cdef Mapping** _holders
    cdef uint32_t* _stream_ids
    cdef int _first
    cdef int _count
    cdef int _exports
    # Octets that are gathered and not yet sent.
    cdef readonly int64_t pending
    # Grows by one each time the list was emptied and is filled anew.
    cdef readonly int64_t serial

    cdef void _open(self) noexcept
    cdef void _append(self, const uint8_t* start, Py_ssize_t octets, Mapping* holder, uint32_t stream_id) noexcept
    cdef uint8_t* reserve(self, Py_ssize_t octets) except NULL
    cdef bint has_room(self, Py_ssize_t octets) noexcept
    cdef void commit(self, Py_ssize_t octets) noexcept
    cdef void push_slice(self, const uint8_t* start, Py_ssize_t octets, Mapping* holder, uint32_t stream_id) noexcept
    cdef Py_ssize_t send(self, int fd) noexcept
    cdef uint32_t fill_torn_slice(self) noexcept
    cdef void consume(self, int64_t octets) noexcept
    cdef void clear(self) noexcept
