# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: nothing is indexed.
"""How far the octets of one connection have come: into the gather list, out by the socket, to the peer's kernel.

That tells of each stream whose last octet is gathered whether it waits for the socket, the line or the server.
"""

cimport cython
from libc.stdint cimport int64_t

from fastpost._table cimport Attempt, StreamTable


@cython.final
cdef class Delivery:
    """The way of what one connection sends; octets are counted from its beginning."""

    def __cinit__(self):
        self.sent = 0
        self.carried = 0
        self.arrived = 0
        self.arrived_at = 0.0
        self.progressed = 0.0
        self.leaving = 0
        self.answering = 0
        self._under_way = 0
        self._asked = 0
        self._list = 0
        self._carries = False
        self._late = False

    cdef void begin_list(self, StreamTable table, double now) noexcept:
        """The gather list has left, and is filled anew."""
        if self._late:
            self._late = False
            if self.leaving:
                self._note_late(table, now)
        self.answering += self.leaving
        self.leaving = 0
        self._list += 1
        self._carries = False

    cdef void _note_late(self, StreamTable table, double now) noexcept:
        """The list has left only now, and with it last octets of uploads. O(open streams), and only then."""
        cdef Attempt attempt
        for item in table.attempts:
            if item is not None:
                attempt = <Attempt>item
                if attempt.remaining == 0 and attempt.ended_in == self._list:
                    attempt.body_sent = now

    cdef void note_arrived(self, int64_t octets, double now, StreamTable table) noexcept:
        """So many of the octets that the socket took have arrived at the peer's kernel."""
        cdef Attempt attempt
        octets = min(octets, self.carried)
        if octets > self.arrived:
            self.arrived = octets
            self.arrived_at = now
            self.progressed = now
        self._under_way = 0
        self._asked = self.carried
        if octets == self.carried:
            return
        for item in table.attempts:
            if item is not None:
                attempt = <Attempt>item
                self._under_way += attempt.remaining == 0 and attempt.ends_at > octets
