# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: `_start` ≤ `_end` ≤ _CAPACITY is kept by the three methods that move them.
"""Octets from the socket, cut into whole frames (RFC 9113 §4.1).

The buffer holds many frames of the largest size that we allow (16 384 octets), so a frame is never copied to be
looked at; what is left of an unfinished one is moved to the front before the next receive.
"""

cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove

from fastpost.errors import ErrorCode, NotHttp2, ProtocolViolation

cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t recv(int fd, void* out, size_t length, int flags)
    int MSG_DONTWAIT

cdef enum:
    _CAPACITY = 131072


@cython.final
cdef class InboundBuffer:
    """Received octets that are not yet handled.

    Args:
        max_frame_size: our SETTINGS_MAX_FRAME_SIZE, octets.
    """

    def __cinit__(self, uint32_t max_frame_size=16384):
        self._octets = NULL
        self._start = 0
        self._end = 0
        self._max_frame_size = max_frame_size
        self._began = False
        self._octets = <uint8_t*>malloc(_CAPACITY)
        if self._octets == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._octets)

    cdef Py_ssize_t receive(self, int fd) noexcept:
        """One recv(2) without the GIL. Returns octets, 0 at the end of the connection, or −errno."""
        cdef Py_ssize_t got
        self._make_room()
        while True:
            with nogil:
                got = recv(fd, self._octets + self._end, _CAPACITY - self._end, MSG_DONTWAIT)
            if got >= 0:
                self._end += got
                return got
            if errno != EINTR:
                return -errno

    cdef Py_ssize_t append(self, const uint8_t* octets, Py_ssize_t length) noexcept:
        """Take as many of the octets as fit; returns how many. At least one fits when all frames were taken out."""
        self._make_room()
        length = min(length, _CAPACITY - self._end)
        memcpy(self._octets + self._end, octets, length)
        self._end += length
        return length

    cdef void _make_room(self) noexcept:
        if self._start:
            memmove(self._octets, self._octets + self._start, self._end - self._start)
            self._end -= self._start
            self._start = 0

    cdef bint next_frame(self, Frame* frame) except -1:
        """Take the next whole frame out; False when there is none.

        Raises ProtocolViolation for an oversized frame, NotHttp2 for a connection that does not begin
        with SETTINGS (RFC 9113 §3.4).
        """
        cdef const uint8_t* at = self._octets + self._start
        cdef Py_ssize_t available = self._end - self._start
        if not self._began and available >= 5 and memcmp(at, b"HTTP/", 5) == 0:
            raise NotHttp2("the server answers in HTTP/1.1: it does not speak HTTP/2 on this port")
        if available < FRAME_HEADER:
            return False
        frame.length = (<uint32_t>at[0] << 16) | (<uint32_t>at[1] << 8) | at[2]
        frame.kind = at[3]
        frame.flags = at[4]
        frame.stream_id = get_u32(at + 5) & 0x7FFFFFFF
        if not self._began:
            if frame.kind != SETTINGS or frame.flags & ACK or frame.stream_id != 0:
                raise NotHttp2("the server's first octets are no SETTINGS frame: it does not speak HTTP/2 on this port")
            self._began = True
        if frame.length > self._max_frame_size:
            raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, f"it sent a frame of {frame.length} octets")
        if available < FRAME_HEADER + <Py_ssize_t>frame.length:
            return False
        frame.payload = at + FRAME_HEADER
        self._start += FRAME_HEADER + frame.length
        return True
