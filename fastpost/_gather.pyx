# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: `_vector` is only indexed between `_first` and `_count`, which `has_room` keeps below _SLOTS.
"""The gather list: frame headers and small payloads in an arena, large payloads where they are mapped.

It is filled while empty and then sent until it is empty again, so the arena never moves under a
pointer into it, and a slice's mapping is released exactly when its last octet was given to the kernel.
Neighbouring arena octets share one entry, so 50 small uploads make one entry, not 100. In staged mode (TLS)
no slice is ever pushed: then the pending octets are one run, which the buffer protocol exports.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EFAULT, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastpost._chunker cimport Mapping, release_mapping

cdef extern from "<sys/socket.h>" nogil:
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    Py_ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT

cdef enum:
    # IOV_MAX on Linux: sendmsg(2) takes no more.
    _SLOTS = 1024
    _ZEROS = 65536

cdef uint8_t[_ZEROS] _zeros
memset(_zeros, 0, _ZEROS)


@cython.final
cdef class GatherList:
    """Octets to send, in order.

    Args:
        arena: octets of room for what isn't mapped.
    """

    def __cinit__(self, Py_ssize_t arena=262144):
        self._arena = NULL
        self._vector = NULL
        self._holders = NULL
        self._stream_ids = NULL
        self._arena_size = 0
        self._arena_used = 0
        self._first = 0
        self._count = 0
        self._exports = 0
        self.pending = 0
        self.serial = 0
        self._vector = <iovec*>calloc(_SLOTS, sizeof(iovec))
        self._holders = <Mapping**>calloc(_SLOTS, sizeof(Mapping*))
        self._stream_ids = <uint32_t*>calloc(_SLOTS, sizeof(uint32_t))
        self._arena = <uint8_t*>malloc(arena)
        if self._vector == NULL or self._holders == NULL or self._stream_ids == NULL or self._arena == NULL:
            raise MemoryError
        self._arena_size = arena

    def __dealloc__(self):
        if self._vector != NULL and self._holders != NULL:
            self.clear()
        free(self._vector)
        free(self._holders)
        free(self._stream_ids)
        free(self._arena)

    cdef bint has_room(self, Py_ssize_t octets) noexcept:
        """True when `reserve(octets)` and one slice fit. An empty list has room for anything: its arena grows."""
        if self.pending == 0:
            # Whatever the indices of the list before still say.
            return True
        return self._count + 2 < _SLOTS and self._arena_used + octets <= self._arena_size

    cdef uint8_t* reserve(self, Py_ssize_t octets) except NULL:
        """Return where the next arena octets go. Call `has_room` first. Raises MemoryError, BufferError."""
        cdef uint8_t* grown
        if self._exports:
            raise BufferError("the gather list is exported")
        if self.pending == 0 and self._arena_used:
            self._arena_used = 0
        if self._arena_used + octets > self._arena_size:
            # Only an empty list gets here (has_room), so no entry points into the old arena.
            grown = <uint8_t*>malloc(octets)
            if grown == NULL:
                raise MemoryError
            free(self._arena)
            self._arena = grown
            self._arena_size = octets
        return self._arena + self._arena_used

    cdef void commit(self, Py_ssize_t octets) noexcept:
        """The reserved octets were written: they go out next."""
        cdef uint8_t* start = self._arena + self._arena_used
        cdef iovec* last
        self._open()
        self._arena_used += octets
        self.pending += octets
        if self._count > self._first:
            last = &self._vector[self._count - 1]
            if self._holders[self._count - 1] == NULL and <uint8_t*>last.iov_base + last.iov_len == start:
                last.iov_len += octets
                return
        self._append(start, octets, NULL, 0)

    cdef void push_slice(self, const uint8_t* start, Py_ssize_t octets, Mapping* holder, uint32_t stream_id) noexcept:
        """Add mapped octets; the list owns the holder's reference from here on."""
        self._open()
        self.pending += octets
        self._append(start, octets, holder, stream_id)

    cdef void _open(self) noexcept:
        if self.pending == 0:
            self._first = 0
            self._count = 0
            self.serial += 1

    cdef void _append(self, const uint8_t* start, Py_ssize_t octets, Mapping* holder, uint32_t stream_id) noexcept:
        self._vector[self._count].iov_base = <void*>start
        self._vector[self._count].iov_len = octets
        self._holders[self._count] = holder
        self._stream_ids[self._count] = stream_id
        self._count += 1

    cdef Py_ssize_t send(self, int fd) noexcept:
        """Send as much as the socket takes in one sendmsg(2). Returns octets sent, or −errno (−EAGAIN: full).

        The GIL is released for the call. −EFAULT: the first slice lies on a truncated map (`fill_torn_slice`).
        """
        cdef msghdr message
        cdef Py_ssize_t sent
        cdef int first = self._first
        memset(&message, 0, sizeof(message))
        message.msg_iov = self._vector + first
        message.msg_iovlen = self._count - first
        while True:
            with nogil:
                sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent >= 0:
                self.consume(sent)
                return sent
            if errno == EFAULT and message.msg_iovlen > 1:
                # A fault further on fails the whole call when it shares a chunk with what precedes it:
                # alone, the entry before it goes out, and then the torn slice stands first.
                message.msg_iovlen = 1
                continue
            if errno != EINTR:
                return -errno

    cdef uint32_t fill_torn_slice(self) noexcept:
        """Put zeros in place of the slice that faulted, and return its stream id; 0 when the first entry is no slice.

        Its frame header with the declared length is on the wire already, so that many octets must follow it.
        """
        cdef uint32_t stream_id = self._stream_ids[self._first]
        cdef Mapping* holder = self._holders[self._first]
        if holder == NULL:
            return 0
        # A slice is at most a quantum, 64 KiB, so the block of zeros always covers it.
        self._vector[self._first].iov_base = <void*>_zeros
        self._holders[self._first] = NULL
        release_mapping(holder)
        return stream_id

    cdef void consume(self, int64_t octets) noexcept:
        """The first octets were sent: release what they came from."""
        cdef iovec* entry
        self.pending -= octets
        while octets > 0:
            entry = &self._vector[self._first]
            if <int64_t>entry.iov_len > octets:
                entry.iov_base = <uint8_t*>entry.iov_base + octets
                entry.iov_len -= octets
                return
            octets -= entry.iov_len
            if self._holders[self._first] != NULL:
                release_mapping(self._holders[self._first])
                self._holders[self._first] = NULL
            self._first += 1

    cdef void clear(self) noexcept:
        """Drop all that is pending."""
        self.consume(self.pending)

    def __getbuffer__(self, Py_buffer* view, int flags):
        """Export what is pending, when it is one run of arena octets. Raises BufferError when it is not."""
        if self._count - self._first > 1 or (self.pending and self._holders[self._first] != NULL):
            raise BufferError("what is pending is no single run of octets")
        if self.pending:
            PyBuffer_FillInfo(view, self, self._vector[self._first].iov_base, self.pending, 1, flags)
        else:
            PyBuffer_FillInfo(view, self, self._arena, 0, 1, flags)
        self._exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self._exports -= 1

    def take(self) -> bytes:
        """Return all pending octets as one copy and count them as sent; for sans-IO use."""
        cdef int index
        result = bytearray()
        for index in range(self._first, self._count):
            result += (<uint8_t*>self._vector[index].iov_base)[:self._vector[index].iov_len]
        self.consume(self.pending)
        return bytes(result)
