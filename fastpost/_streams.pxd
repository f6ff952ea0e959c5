# cython: language_level=3
"""C interface of the data plane."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastpost._frames cimport Frame, InboundBuffer
from fastpost._hpack_decoder cimport ResponseDecoder
from fastpost._sending cimport SendSide
from fastpost._table cimport Attempt


cdef class DataPlane(SendSide):
    cdef ResponseDecoder _decoder
    cdef InboundBuffer _inbound
    cdef object _control_received
    cdef bint _keep_responses
    cdef Py_ssize_t _body_limit
    cdef int64_t _receive_window
    # A field block that is not yet whole.
    cdef uint32_t _block_stream_id
    cdef int _block_flags
    cdef int _block_frames
    cdef bytearray _block
    # Frames that moved nothing, and until when (monotonic seconds) time has paid for them.
    cdef int64_t _idle
    cdef double _paid
    # When anything at all was last received.
    cdef readonly double heard
    cdef readonly object goaway_code
    # Complete final responses.
    cdef readonly int64_t responses
    # The server field of the first response; None before it.
    cdef readonly bytes server

    cdef int receive_some(self, int fd, double now) except? -1
    cdef int take_received(self, const uint8_t* octets, Py_ssize_t length, double now) except -1
    cdef bint has_news(self) noexcept
    cdef bint is_kept_waiting(self) noexcept
    cdef int _parse(self, double now) except -1
    cdef int _dispatch(self, Frame* frame, double now) except -1
    cdef int _on_connection_frame(self, Frame* frame, double now) except -1
    cdef int _on_data(self, Frame* frame, double now) except -1
    cdef int _on_headers(self, Frame* frame, double now) except -1
    cdef int _on_continuation(self, Frame* frame, double now) except -1
    cdef int _on_block(
        self, uint32_t stream_id, bint end_stream, const uint8_t* block, Py_ssize_t length, double now,
    ) except -1
    cdef int _on_reset(self, Frame* frame, double now) except -1
    cdef int _on_window_update(self, Frame* frame, double now) except -1
    cdef int _on_goaway(self, Frame* frame, double now) except -1
    cdef int _count_idle(self, int64_t frames) except -1
    cdef int _unpad(self, Frame* frame) except -1
    cdef int _respond(self, Attempt attempt, double now) except -1
