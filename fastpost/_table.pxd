# cython: language_level=3
"""C interface of attempts and the table of those whose stream is open."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from fastpost._chunker cimport Source
from fastpost._envelope cimport Envelope
from fastpost._payload cimport Excerpt


cdef enum:
    # Our SETTINGS_INITIAL_WINDOW_SIZE and connection window: responses to uploads are short (RFC 9113 §6.9.2).
    RECEIVE_WINDOW = 65535


cdef class Attempt:
    # What to send.
    cdef readonly object upload
    cdef readonly bytes file
    cdef readonly Excerpt content
    # What stands around the file; None: nothing.
    cdef Envelope envelope
    cdef readonly bint follow
    cdef public bytes path
    # How often a redirect led it to another path.
    cdef public int redirected
    cdef public tuple request_fields
    cdef public tuple expected
    cdef readonly int retried
    cdef readonly int replayed
    cdef readonly int replayed_in_a_row
    # What became of it.
    cdef readonly int status
    cdef public object failure
    cdef readonly int64_t size
    cdef readonly int64_t mtime_ns
    cdef readonly uint64_t inode
    cdef readonly int64_t payload
    cdef readonly double began
    cdef readonly double started
    cdef readonly double body_sent
    cdef readonly double finished
    cdef readonly list fields
    cdef bytearray _body
    # Its stream, while that is open.
    cdef Source source
    cdef uint32_t stream_id
    cdef int32_t slot
    cdef int64_t send_window
    cdef int64_t receive_window
    # Octets of the response's content.
    cdef int64_t response_octets
    # What the response's content-length says; −1: nothing, or no content belongs to it.
    cdef int64_t response_length
    cdef int64_t remaining
    # Octets of them that stand behind the file.
    cdef int64_t tail
    cdef int64_t gathered
    # The number of the gather list that holds its last octet.
    cdef int64_t ended_in
    # Octets of the connection that precede its HEADERS, and those up to the last octet gathered for it.
    cdef int64_t begins_at
    cdef int64_t ends_at
    cdef double progressed
    cdef bint mapped
    cdef bint responded


cdef class StreamTable:
    # Slot → attempt; a free slot holds None.
    cdef list attempts
    cdef int32_t* _free
    cdef int32_t _capacity
    cdef readonly int32_t count
    # Open addressing with linear probing: stream id → slot.
    cdef uint32_t* _ids
    cdef int32_t* _slots
    cdef uint32_t _mask

    cdef int insert(self, Attempt attempt) except -1
    cdef Attempt find(self, uint32_t stream_id)
    cdef void remove(self, Attempt attempt) noexcept
    cdef int32_t capacity(self) noexcept
    cdef int _grow(self, int32_t capacity) except -1
    cdef void _index(self, uint32_t stream_id, int32_t slot) noexcept
