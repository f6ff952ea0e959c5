# cython: language_level=3
"""C interface of the streams of one connection."""

from libc.stdint cimport int64_t, uint32_t

from fastpost._blocked cimport BlockedTime
from fastpost._connection_window cimport ConnectionWindow
from fastpost._control_frames cimport ControlFrames
from fastpost._delivery cimport Delivery
from fastpost._gather cimport GatherList
from fastpost._line cimport Line
from fastpost._rate_limit cimport RateLimit
from fastpost._request_content cimport RequestContent
from fastpost._request_headers cimport RequestHeaders
from fastpost._scheduler cimport Scheduler
from fastpost._table cimport Attempt, StreamTable


cdef enum:
    MAX_STREAM_ID = 0x7FFFFFFF
    # Frames larger than this save nothing more, and a turn of the ring would get long.
    MAX_QUANTUM = 65536


cdef class OpenStreams:
    # Parts, each owner of its state.
    cdef RequestHeaders _headers
    cdef RequestContent _content
    cdef ControlFrames _control
    cdef Scheduler _scheduler
    cdef StreamTable _table
    cdef readonly GatherList gather
    cdef readonly BlockedTime blocked
    cdef readonly Delivery delivery
    cdef readonly ConnectionWindow window
    # Shared with other connections; None: as fast as it goes.
    cdef RateLimit _rate_limit
    # Octets of the portion reserved last that are still to be sent, and from when on (monotonic seconds).
    cdef int64_t _reserved
    cdef double _reserved_from
    # The same while something waits for it; 0.0: nothing does.
    cdef double _held_back_until
    # Work: not started, ended and not yet taken, waiting for its slices to leave.
    cdef Line _line
    cdef list _finished
    # One of those that ended has failed.
    cdef bint _failed
    cdef list _parked
    # How it was asked to work.
    cdef readonly int64_t concurrency
    # Attempts that come when there is room for them.
    cdef public int64_t behind
    # Begin no stream whose octets could not go soon: what has a stream can't move to another connection.
    cdef public int64_t windows_ahead
    cdef int64_t _gather_limit
    # A read of this tick had to wait for the disk.
    cdef readonly bint cold
    # The next file could not be opened: no descriptor was free.
    cdef readonly bint out_of_files
    # How often that happened.
    cdef readonly int64_t failed_opens
    # The peer's settings and the send side of the connection.
    cdef bint _settled
    cdef int64_t _initial_window_size
    cdef readonly int64_t max_frame_size
    cdef readonly int64_t max_concurrent_streams
    cdef readonly int64_t largest_stream_window
    cdef uint32_t _first_stream_id
    cdef uint32_t _next_stream_id
    # What the connection reports.
    cdef readonly bint draining
    # A connection error: no DATA any more.
    cdef bint _stopped

    cdef int _credit_connection(self, int64_t octets) except -1
    cdef double held_until(self) noexcept
    cdef void _give_back(self) noexcept
    cpdef void split_time(self, double now) noexcept
    cdef int64_t _starved(self) noexcept
    cdef int _abort(self, Attempt attempt, int error_code, object failure, double now) except -1
    cdef int _close(self, Attempt attempt, object failure, double now) except -1
