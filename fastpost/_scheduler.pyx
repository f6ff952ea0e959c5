# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: only raw C arrays are indexed, and every slot passed `grow` or `_check` first.
"""Fair turns in octets: deficit round robin over slots. Knows no bytes, no files and no windows.

A slot that may send stands in a ring. The head of the ring has the turn, and the turn is worth
`quantum` octets. What the head leaves of its turn, because the connection window ended in the middle
of it, stays its deficit, so it goes on there. A slot that is blocked leaves the ring and comes
back at the tail: level with the others, with no turn saved up. A newcomer joins the tail too,
so it waits for one round at most.

While the connection window is scarce and several slots want it, the first turn is a whole quantum and a later
one at most a sixth of what the slot has had, until that is a quantum: then no slot is ever more than a sixth
ahead of another, which keeps Jain's index of equal streams above 0.99 in the middle of a round too, and costs
about six frames more per stream, not per octet.

The other policy, `fifo`, gives the turn to the earliest arrival until it is done or blocked.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc

cdef enum:
    # A later turn under a scarce window is worth at most 1/GROWTH of what the slot has had.
    GROWTH = 6
    # What is left of a turn below quantum/CRUMBS isn't worth a frame: it is carried into the next turn.
    CRUMBS = 64
    # Turns that a slot must have had in a stay in the ring for that to count in its share.
    TOLD = 4


@cython.final
cdef class Scheduler:
    """Turns among slots, counted in octets.

    Args:
        quantum: octets of one turn.
        fair: True for deficit round robin, False for first in, first out.
    """

    def __cinit__(self, int64_t quantum=16384, bint fair=True):
        self._next = NULL
        self._previous = NULL
        self._deficit = NULL
        self._served = NULL
        self._arrival = NULL
        self._stays = NULL
        self._even = 0.0
        self.retired = 0
        self.shares = 0.0
        self.squares = 0.0
        self.smallest = 0.0
        self.largest = 0.0
        self._ready = NULL
        self._capacity = 0
        self._head = NOBODY
        self._arrivals = 0
        self.ready = 0
        self.fair = fair
        self.scarce = False
        self.set_quantum(quantum)

    def __dealloc__(self):
        free(self._next)
        free(self._previous)
        free(self._deficit)
        free(self._served)
        free(self._arrival)
        free(self._stays)
        free(self._ready)

    # --- for the data plane (C); slots are trusted there ------------------------------------------

    cdef int grow(self, int32_t capacity) except -1:
        """Make room for slots 0 … capacity-1. Raises MemoryError."""
        cdef void* grown
        if capacity <= self._capacity:
            return 0
        # Each pointer is stored as soon as it is known, so that a later failure neither leaks nor frees twice.
        grown = realloc(self._next, capacity * sizeof(int32_t))
        if grown == NULL:
            raise MemoryError
        self._next = <int32_t*>grown
        grown = realloc(self._previous, capacity * sizeof(int32_t))
        if grown == NULL:
            raise MemoryError
        self._previous = <int32_t*>grown
        grown = realloc(self._deficit, capacity * sizeof(int64_t))
        if grown == NULL:
            raise MemoryError
        self._deficit = <int64_t*>grown
        grown = realloc(self._served, capacity * sizeof(int64_t))
        if grown == NULL:
            raise MemoryError
        self._served = <int64_t*>grown
        grown = realloc(self._arrival, capacity * sizeof(uint64_t))
        if grown == NULL:
            raise MemoryError
        self._arrival = <uint64_t*>grown
        grown = realloc(self._stays, capacity * sizeof(Stays))
        if grown == NULL:
            raise MemoryError
        self._stays = <Stays*>grown
        grown = realloc(self._ready, capacity)
        if grown == NULL:
            raise MemoryError
        self._ready = <uint8_t*>grown
        for slot in range(self._capacity, capacity):
            self._ready[slot] = 0
        self._capacity = capacity
        return 0

    cdef int enter(self, int32_t slot) except -1:
        """A new stream takes the slot. It is not in the ring until `unblock`."""
        self.grow(slot + 1)
        self.block(slot)
        self._served[slot] = 0
        self._stays[slot].due = 0.0
        self._stays[slot].told = 0
        self._arrival[slot] = self._arrivals
        self._arrivals += 1
        return 0

    cdef void unblock(self, int32_t slot) noexcept:
        """The slot may send: at the tail of the ring, or by arrival under fifo."""
        cdef int32_t successor = self._head
        if self._ready[slot]:
            return
        self._ready[slot] = 1
        self.ready += 1
        self._deficit[slot] = 0
        self._stays[slot].joined = self._even
        self._stays[slot].began = self._served[slot]
        if self._head == NOBODY:
            self._next[slot] = slot
            self._previous[slot] = slot
            self._head = slot
            self._begin_turn()
            return
        if not self.fair:
            # From the tail backwards: a newcomer, the common case, stops at once.
            while self._arrival[self._previous[successor]] > self._arrival[slot]:
                successor = self._previous[successor]
                if successor == self._head:
                    break
        self._insert_before(slot, successor)
        if not self.fair and self._arrival[slot] < self._arrival[self._head]:
            self._head = slot

    cdef void block(self, int32_t slot) noexcept:
        """The slot can't send now, or is gone: out of the ring."""
        if not self._ready[slot]:
            return
        self._ready[slot] = 0
        self._end_stay(slot)
        self.ready -= 1
        if self.ready == 0:
            self._head = NOBODY
            return
        self._next[self._previous[slot]] = self._next[slot]
        self._previous[self._next[slot]] = self._previous[slot]
        if self._head == slot:
            self._head = self._next[slot]
            self._begin_turn()

    cdef void _end_stay(self, int32_t slot) noexcept:
        """A stay of fewer than TOLD turns says nothing about turns: a stream that its own window ends had its fill."""
        cdef Stays* stays = &self._stays[slot]
        cdef int64_t served = self._served[slot] - stays.began
        if served >= TOLD * self.quantum:
            stays.due += self._even - stays.joined
            stays.told += served

    cdef void retire(self, int32_t slot) noexcept:
        """The slot's stream is over: out of the ring, and its share of what was served is kept for the report.

        The share is 1.0 when it had its even part of all octets served while it stood in the ring.
        """
        cdef double share
        self.block(slot)
        if self._stays[slot].due <= 0.0:
            return
        share = self._stays[slot].told / self._stays[slot].due
        self.smallest = share if self.retired == 0 else min(self.smallest, share)
        self.largest = max(self.largest, share)
        self.retired += 1
        self.shares += share
        self.squares += share * share

    cdef void serve(self, int64_t octets) noexcept:
        """The head sent that many octets. The turn moves on when it is used up."""
        cdef int32_t slot = self._head
        self._served[slot] += octets
        self._even += <double>octets / self.ready
        if not self.fair:
            return
        self._deficit[slot] -= octets
        if self._deficit[slot] <= self.quantum // CRUMBS:
            self._head = self._next[slot]
            self._begin_turn()

    cdef void set_quantum(self, int64_t octets) noexcept:
        """Octets of a turn from now on, at least 1."""
        self.quantum = octets if octets > 0 else 1

    cdef void _begin_turn(self) noexcept:
        self._deficit[self._head] += self._turn(self._head)

    cdef int64_t next_turn(self, int32_t slot) noexcept:
        """Octets that a slot in the ring may send when it has its next turn, or the rest of this one."""
        return self._deficit[slot] + (0 if slot == self._head else self._turn(slot))

    cdef int64_t _turn(self, int32_t slot) noexcept:
        """What a turn that begins now is worth."""
        cdef int64_t turn = self.quantum
        cdef int64_t share = self._served[slot] // GROWTH
        if self.scarce and self.ready > 1 and self._served[slot] > 0:
            # The floor spares a stream that its own window cut short a trail of tiny frames.
            turn = min(turn, max(share, turn // 8, 1))
        return turn

    cdef void _insert_before(self, int32_t slot, int32_t successor) noexcept:
        cdef int32_t before = self._previous[successor]
        self._next[before] = slot
        self._previous[slot] = before
        self._next[slot] = successor
        self._previous[successor] = slot

    # --- the same for Python: tests and benchmarks -------------------------------------------------

    def join(self, int32_t slot) -> None:
        """Let a new stream enter the slot, ready to send. Raises ValueError for a negative slot."""
        if slot < 0:
            raise ValueError("a slot can't be negative")
        self.enter(slot)
        self.unblock(slot)

    def leave(self, int32_t slot) -> None:
        """Take the slot out of the ring. Raises ValueError for a slot that never joined."""
        self._check(slot)
        self.block(slot)

    def end(self, int32_t slot) -> None:
        """Retire the slot. Raises ValueError for a slot that never joined."""
        self._check(slot)
        self.retire(slot)

    def resume(self, int32_t slot) -> None:
        """Put a blocked slot back. Raises ValueError for a slot that never joined."""
        self._check(slot)
        self.unblock(slot)

    def turn(self):
        """Return (slot, octets left of its turn), None when nobody may send. Under fifo the octets are 2⁶³−1."""
        if self._head == NOBODY:
            return None
        return self._head, self.budget()

    def charge(self, int64_t octets) -> None:
        """The slot whose turn it is sent that many octets. Raises ValueError beyond its turn or without one."""
        if self._head == NOBODY or not 0 < octets <= self.budget():
            raise ValueError("only the octets of a turn can be charged")
        self.serve(octets)

    def _check(self, int32_t slot):
        if not 0 <= slot < self._capacity:
            raise ValueError(f"slot {slot} never joined")
