# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: nothing is indexed.
"""The send window of one connection (RFC 9113 §5.2, §6.9), and how it is spent: by quarters, by halves, without crumbs.

It knows neither streams nor turns: the quantum and the time are arguments.
"""

cimport cython
from libc.stdint cimport int64_t

from fastpost._frames cimport MAX_WINDOW

from fastpost.errors import ErrorCode, ProtocolViolation

cdef enum:
    # What every connection begins with (RFC 9113 §6.9.2).
    _INITIAL = 65535
    # A window is scarce as long as it never had so many.
    _SCARCE = 1048576
    # It is sent by quarters: the server reads one while the next is gathered. Sent whole, each side would wait for the
    # other, a tenth of the time with 64 KiB. What a quarter may be larger by: frame headers.
    _PARTS = 4
    _HEADERS = 64
    # So many waits in a row for more than crumbs were in vain: then so many crumbs don't wait, before one does again.
    _VAIN = 3
    _NOT_HELD = 64

# How long crumbs wait for more (seconds).
cdef double _HOLD = 0.005
# How long it is shut for each credit (seconds) where the peer is far away.
cdef double _FAR = 0.001


@cython.final
cdef class ConnectionWindow:
    """What one connection may send, octets. It is charged when DATA enters the gather list, not when that leaves."""

    def __cinit__(self):
        self.available = _INITIAL
        self.largest = _INITIAL
        self.closed_for = 0.0
        self._uncredited = 0
        self._credits = 0
        self._to_half = (_INITIAL + 1) // 2
        self._odd = False
        self._held_since = 0.0
        self._in_vain = 0
        self._not_held = 0
        self._measure()

    cdef bint scarce(self) noexcept:
        """True while it never was large: many streams wait for it."""
        return self.largest < _SCARCE

    cdef int credit(self, int64_t octets, int64_t quantum) except -1:
        """A WINDOW_UPDATE of so many octets. Raises ProtocolViolation beyond 2³¹−1 (RFC 9113 §6.9.1).

        What is below a quarter of the quantum stays crumbs.
        """
        self.available += octets
        self._credits += 1
        if self.available > MAX_WINDOW:
            raise ProtocolViolation(ErrorCode.FLOW_CONTROL_ERROR, "a connection window over 2^31-1")
        self._uncredited = max(self._uncredited - octets, 0)
        if self.available >= quantum // 4:
            # No crumbs any more; a trickle of credit doesn't make them wait longer.
            if self._held_since:
                self._in_vain = 0
            self._held_since = 0.0
        if self.available > self.largest:
            self.largest = self.available
            self._to_half = (self.largest + 1) // 2
        self._measure()
        return 0

    cdef void _measure(self) noexcept:
        """A credit arrived, and the window may have grown beyond what it ever was."""
        cdef bint scarce = self.scarce()
        self.part = self.largest // _PARTS + _HEADERS if scarce else MAX_WINDOW
        # True before the first credit, as nothing is known yet.
        self.far = scarce and self.closed_for >= self._credits * _FAR

    cdef bint _hold(self, double now) noexcept:
        """True while crumbs should wait for more: 5 ms at most, and only if credit is due.

        Some servers credit nothing before they have the crumbs too: there each window would cost 5 ms. So after three
        waits in vain it is tried only now and then.
        """
        if self._uncredited <= 0:
            return False
        if self._held_since == 0.0:
            if self._not_held > 0:
                self._not_held -= 1
                return False
            self._held_since = now
            return True
        if now - self._held_since < _HOLD:
            return True
        self._held_since = 0.0
        self._in_vain += 1
        if self._in_vain >= _VAIN:
            self._not_held = _NOT_HELD
        return False

    cdef double held_until(self) noexcept:
        """When held crumbs are to be sent (monotonic seconds); 0.0: nothing is held."""
        return self._held_since + _HOLD if self._held_since else 0.0
