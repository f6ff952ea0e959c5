# cython: language_level=3
"""C interface of what is known of the way of octets."""

cimport cython
from libc.stdint cimport int64_t

from fastpost._table cimport Attempt, StreamTable


@cython.final
cdef class Delivery:
    # Octets that the socket took, since the connection began.
    cdef readonly int64_t sent
    # `sent` up to the last octet of an upload; what follows are PING and other control frames.
    cdef readonly int64_t carried
    # How much of it has arrived at the peer's kernel as far as is known, and when that last grew.
    cdef readonly int64_t arrived
    cdef readonly double arrived_at
    # When anything of an upload last moved on the wire; PING and SETTINGS don't count.
    cdef double progressed
    # Streams whose last octet is in the gather list; those whose last octet has left.
    cdef int64_t leaving
    cdef int64_t answering
    # Of these: those whose last octet had not arrived when it was last asked. And `carried` then.
    cdef int64_t _under_way
    cdef int64_t _asked
    # Which gather list it is, by number: grows when a list has left.
    cdef int64_t _list
    # The list holds HEADERS or DATA; it was not taken whole in the tick that filled it.
    cdef bint _carries
    cdef bint _late

    cdef void begin_list(self, StreamTable table, double now) noexcept
    cdef void _note_late(self, StreamTable table, double now) noexcept
    cdef void note_arrived(self, int64_t octets, double now, StreamTable table) noexcept

    cdef inline void keep_list(self) noexcept:
        """The socket has not taken the list yet, and a tick is over."""
        self._late = True

    cdef inline void begin(self, Attempt attempt, int64_t pending) noexcept:
        """The stream's HEADERS come next, behind the `pending` octets of the gather list."""
        attempt.begins_at = self.sent + pending

    cdef inline void gathered(self, Attempt attempt, int64_t pending) noexcept:
        """HEADERS or DATA of the stream are the last of the `pending` octets of the gather list."""
        self._carries = True
        attempt.ends_at = self.sent + pending

    cdef inline void complete(self, Attempt attempt, double now) noexcept:
        """The stream's last octet is in the gather list, or about to be."""
        attempt.body_sent = now
        attempt.ended_in = self._list
        self.leaving += 1

    cdef inline void note_sent(self, int64_t octets, double now) noexcept:
        """The socket took so many octets of the gather list."""
        self.sent += octets
        if self._carries:
            self.carried = self.sent
            self.progressed = now

    cdef inline void note_progress(self, double now) noexcept:
        """Something of an upload was received."""
        self.progressed = now

    cdef inline void close(self, Attempt attempt) noexcept:
        """The stream is over."""
        if attempt.remaining:
            return
        if attempt.ended_in == self._list:
            self.leaving -= 1
        else:
            self.answering -= 1
        if self.arrived < attempt.ends_at <= self._asked:
            # What is answered has arrived, before it was asked again.
            self._under_way -= 1

    cdef inline int64_t on_the_line(self) noexcept:
        """Streams that wait for the line and not for the server: octets of theirs are still under way."""
        return min(self._under_way, self.answering)
