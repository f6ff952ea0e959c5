# cython: language_level=3
"""Frame headers out, whole frames in (RFC 9113 §4.1, §6)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t


cdef enum:
    FRAME_HEADER = 9

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9

    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY_FIELDS = 0x20

    # RST_STREAM: this stream is no longer wanted (RFC 9113 §7).
    CANCEL = 0x8
    # The largest flow-control window (§6.9.1).
    MAX_WINDOW = 0x7FFFFFFF


cdef inline uint32_t get_u32(const uint8_t* at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef inline void put_u32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16)
    at[2] = <uint8_t>(value >> 8)
    at[3] = <uint8_t>value


cdef inline void put_frame_header(uint8_t* at, uint32_t length, int kind, int flags, uint32_t stream_id) noexcept nogil:
    at[0] = <uint8_t>(length >> 16)
    at[1] = <uint8_t>(length >> 8)
    at[2] = <uint8_t>length
    at[3] = <uint8_t>kind
    at[4] = <uint8_t>flags
    put_u32(at + 5, stream_id)


# One frame, in place in the inbound buffer: valid until the next octets are received.
cdef struct Frame:
    int kind
    int flags
    uint32_t stream_id
    uint32_t length
    const uint8_t* payload


cdef class InboundBuffer:
    cdef uint8_t* _octets
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef uint32_t _max_frame_size
    cdef bint _began

    cdef void _make_room(self) noexcept
    cdef Py_ssize_t receive(self, int fd) noexcept
    cdef Py_ssize_t append(self, const uint8_t* octets, Py_ssize_t length) noexcept
    cdef bint next_frame(self, Frame* frame) except -1
