# cython: language_level=3
"""C interface of the send window of one connection."""

cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class ConnectionWindow:
    # Octets that may be sent now.
    cdef readonly int64_t available
    # The most that ever were available.
    cdef readonly int64_t largest
    # Seconds in which streams could have sent but for this window.
    cdef readonly double closed_for
    # It is shut for long before each credit: the peer is far away.
    cdef readonly bint far
    # Octets after which a gather list is sent, so that the server reads while the next is gathered.
    cdef int64_t part
    # Octets sent that no credit has come for; WINDOW_UPDATEs so far.
    cdef int64_t _uncredited
    cdef int64_t _credits
    # Octets to the end of this half of the largest window, and whether the next half is the larger one.
    cdef int64_t _to_half
    cdef bint _odd
    # Since when crumbs wait for more (monotonic seconds); 0.0: none do.
    cdef double _held_since
    # Waits of crumbs that brought nothing, in a row; and how many more don't wait.
    cdef int _in_vain
    cdef int _not_held

    cdef bint scarce(self) noexcept
    cdef int credit(self, int64_t octets, int64_t quantum) except -1
    cdef void _measure(self) noexcept
    cdef bint _hold(self, double now) noexcept
    cdef double held_until(self) noexcept

    cdef inline int64_t grant(self, int64_t octets, int64_t quantum, double now) noexcept:
        """Return how many of these octets may be sent at once; 0: none, as what is left is to wait for more.

        Crumbs, less than a quarter of the quantum, wait; nothing does that is enough for all that is asked for.
        """
        if octets > self.available:
            if self.available < quantum // 4 and self._hold(now):
                return 0
            octets = self.available
        if self.far:
            # Most servers credit a half once they have read it, by whole frames: one that goes beyond leaves the
            # rest below their next half, uncredited, and the window is half as large from then on.
            octets = min(octets, self._to_half)
        return octets

    cdef inline void charge(self, int64_t octets) noexcept:
        """So many octets of DATA entered the gather list. Of a window of odd size the halves differ by one."""
        self.available -= octets
        self._uncredited += octets
        self._held_since = 0.0
        self._to_half -= octets
        while self._to_half <= 0:
            self._to_half += (self.largest + self._odd) // 2
            self._odd = not self._odd

    cdef inline void release(self) noexcept:
        """Nobody wants what is left of it: nothing is held."""
        self._held_since = 0.0

    cdef inline bint closed(self) noexcept:
        """Nothing may be sent now: it is used up, or what is left waits for more."""
        return self.available <= 0 or self._held_since != 0.0

    cdef inline void note_closed(self, double elapsed) noexcept:
        """For so many seconds streams could have sent but for it."""
        self.closed_for += elapsed
