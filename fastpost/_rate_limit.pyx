# cython: language_level=3
"""How many octets of files may leave in a second, over all connections that share the limit.

Each connection reserves what it has to send, a twentieth of a second's octets at most, and sends it when its time has
come; then it reserves the next, behind those of the others. So they take turns, and a line that is shared stays shared
evenly. What it can't send after all it gives back: nobody saves up for later.
"""

cimport cython
from libc.stdint cimport int64_t

# Seconds of the whole limit that one portion is for; and that may be caught up with, by who woke up late or was idle.
cdef double _PORTION = 0.05
cdef double _CAUGHT_UP = 0.05


@cython.final
cdef class RateLimit:
    """The limit of one run, of which every connection takes.

    Args:
        octets_per_second: at least 1. Raises ValueError.
    """

    def __init__(self, int64_t octets_per_second):
        if octets_per_second < 1:
            raise ValueError("a limit of less than an octet in a second")
        self._rate = <double>octets_per_second
        self._reserved_until = 0.0

    cdef int64_t portion(self, double now) noexcept:
        """Return the most octets that a reservation should be for; the less, the more are in line.

        So the time until it is a connection's turn again grows with the root of their number only.
        """
        cdef double line = max(self._reserved_until - now, _PORTION)
        return max(<int64_t>(self._rate * _PORTION * (_PORTION / line)), 1)

    cdef double reserve(self, int64_t octets, double now) noexcept:
        """Reserve so many octets. Returns when they may be sent (monotonic seconds); it may be a moment ago."""
        cdef double begins = max(self._reserved_until, now - _CAUGHT_UP)
        self._reserved_until = begins + <double>octets / self._rate
        return begins

    cdef void give_back(self, int64_t octets) noexcept:
        """So many of those that were reserved will not be sent."""
        self._reserved_until -= <double>octets / self._rate
