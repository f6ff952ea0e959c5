# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: a frame is looked for only where the queue is as long as that.
"""Frames that go before HEADERS and DATA: the control plane's, resets of streams and credit for what they receive."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from fastpost._frames cimport FRAME_HEADER, RST_STREAM, WINDOW_UPDATE, put_frame_header, put_u32
from fastpost._gather cimport GatherList

cdef enum:
    # RST_STREAM and WINDOW_UPDATE hold one number (RFC 9113 §6.4, §6.9).
    _NUMBER = 4


@cython.final
cdef class ControlFrames:
    """Those that are queued, in order."""

    def __cinit__(self):
        self._queued = bytearray()

    cdef int add(self, bytes octets) except -1:
        """Queue whole frames."""
        self._queued += octets
        return 0

    cdef int reset(self, uint32_t stream_id, uint32_t error_code) except -1:
        """Queue RST_STREAM (RFC 9113 §6.4)."""
        return self._add_number(RST_STREAM, stream_id, error_code)

    cdef int spare_reset(self, uint32_t stream_id) except -1:
        """The peer has reset the stream itself: ours, if it was queued last, is not to be sent (RFC 9113 §5.1)."""
        cdef uint8_t[FRAME_HEADER] header
        cdef Py_ssize_t start = len(self._queued) - FRAME_HEADER - _NUMBER
        put_frame_header(header, _NUMBER, RST_STREAM, 0, stream_id)
        if start >= 0 and memcmp(<uint8_t*>self._queued + start, header, FRAME_HEADER) == 0:
            del self._queued[start:]
        return 0

    cdef int credit(self, uint32_t stream_id, int64_t octets) except -1:
        """Queue WINDOW_UPDATE (RFC 9113 §6.9); stream 0 is the connection."""
        return self._add_number(WINDOW_UPDATE, stream_id, <uint32_t>octets)

    cdef int gather(self, GatherList gather) except -1:
        """Put all that is queued into the gather list."""
        cdef Py_ssize_t length = len(self._queued)
        if length:
            memcpy(gather.reserve(length), <uint8_t*>self._queued, length)
            gather.commit(length)
            self._queued.clear()
        return 0

    cdef int _add_number(self, int kind, uint32_t stream_id, uint32_t number) except -1:
        cdef uint8_t[FRAME_HEADER + _NUMBER] frame
        put_frame_header(frame, _NUMBER, kind, 0, stream_id)
        put_u32(frame + FRAME_HEADER, number)
        self._queued += frame[:FRAME_HEADER + _NUMBER]
        return 0
