# cython: language_level=3
"""C interface of the data plane."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastpost._frames cimport Frame, InboundBuffer
from fastpost._gather cimport GatherList
from fastpost._hpack cimport RequestEncoder, ResponseDecoder
from fastpost._scheduler cimport Scheduler
from fastpost._table cimport Attempt, StreamTable


cdef class DataPlane:
    # Parts, each owner of its state.
    cdef RequestEncoder _encoder
    cdef ResponseDecoder _decoder
    cdef Scheduler _scheduler
    cdef StreamTable _table
    cdef InboundBuffer _inbound
    cdef readonly GatherList gather
    cdef object _control_received
    # Work: not started, ended and not yet taken.
    cdef object _waiting
    cdef list _finished
    cdef list _parked
    cdef dict _literals
    # How it was asked to work.
    cdef readonly int64_t concurrency
    cdef bint _staged
    cdef bint _keep_responses
    cdef Py_ssize_t _body_limit
    cdef int64_t _gather_limit
    # The peer's settings and the send side of the connection.
    cdef bytearray _control
    cdef bint _settled
    cdef int64_t _initial_window_size
    cdef readonly int64_t max_frame_size
    cdef readonly int64_t max_concurrent_streams
    cdef readonly int64_t send_window
    cdef int64_t _largest_window
    cdef int64_t _uncredited
    cdef uint32_t _next_stream_id
    cdef double _held_since
    # The receive side.
    cdef int64_t _receive_window
    cdef uint32_t _block_stream_id
    cdef int _block_flags
    cdef int _block_frames
    cdef bytearray _block
    # What the connection reports.
    cdef readonly bint draining
    cdef readonly object goaway_code
    cdef readonly int64_t sent
    cdef readonly double progressed

    # Out.
    cdef bint _start(self, double now) except -1
    cdef int _open_stream(self, Attempt attempt, double now) except -1
    cdef bytes _encoded(self, tuple fields)
    cdef int _write_headers(self, Attempt attempt, bytes literals) except -1
    cdef int _write_split_headers(self, Attempt attempt, bytes block, int flags) except -1
    cdef bint _serve(self, double now) except -1
    cdef bint _cut(self, Attempt attempt, int64_t allowed, double now) except -1
    cdef bint _cut_mapped(self, Attempt attempt, int64_t allowed) except -1
    cdef bint _cut_staged(self, Attempt attempt, int64_t allowed) except -1
    cdef int _account(self, Attempt attempt, int64_t octets, double now) except -1
    cdef bint _hold(self, double now) noexcept
    cdef int _queue_reset(self, uint32_t stream_id, int error_code) except -1
    cdef int _queue_credit(self, uint32_t stream_id, int64_t octets) except -1
    # In.
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
    cdef int _open_window(self, int64_t octets) except -1
    cdef int _on_goaway(self, Frame* frame, double now) except -1
    cdef int _unpad(self, Frame* frame) except -1
    # Ends of a stream.
    cdef int _respond(self, Attempt attempt, double now) except -1
    cdef int _abort(self, Attempt attempt, int error_code, object failure, double now) except -1
    cdef int _close(self, Attempt attempt, object failure, double now) except -1
