# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# Bounds checks are off: nothing is indexed. C division: by constants, and by what was seen to be above 0.
"""How a connection waits for answers where the loop's own way, to sleep until the first is there, costs more.

A server nearby that grants small windows opens them again before a sleep would be over: there it pays to look again,
awake. A server that has many uploads before it answers one by one, and to be woken for each costs more than to handle
it: there it pays to nap until several are there. Both are tried, measured as they go, and left where they don't pay.
"""

cimport cython
from libc.stdint cimport int64_t

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    int poll(pollfd* watched, unsigned long count, int timeout)
    short POLLIN

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec* duration, timespec* left)
    int clock_gettime(int clock, timespec* now)
    int CLOCK_MONOTONIC

cdef enum:
    # Looks for an answer before the thread sleeps: some 30 microseconds, less than falling asleep and being woken cost.
    _LOOKS = 150
    # An answer that came meanwhile makes up for so many that did not. Once so many are not made up for, that many are
    # slept for, and a few more tries decide again.
    _MAKES_UP_FOR = 2
    _LATE = 16
    _ASLEEP = 64
    _TRIES = 4

    # Fewer uploads in flight keep no server busy while this side naps; a nap is for such a part of them.
    _MANY = 32
    _PART = 4
    # Naps pay where fewer answers than this come in a turn by themselves, and twice as many in a nap.
    _FEW = 4
    # What turns do: wake for the first answer, and are measured; nap; wake for the first, as naps were seen to cost.
    _MEASURING = 0
    _NAPPING = 1
    _RESTING = 2
    # For how many turns; a rest doubles when naps cost again.
    _MEASURED = 256
    _NAPS = 1024
    _REST = 16384
    _LONGEST_REST = 1048576

# Seconds: a longer nap would be felt.
cdef double _LONGEST = 0.0005
# Naps must keep so much of the rate at which answers came without them.
cdef double _KEPT = 0.96


@cython.final
cdef class Patience:
    """How one connection waits.

    Attributes:
        awake: seconds in which it waited awake, whether or not what it waited for came.
    """

    def __cinit__(self):
        self.awake = 0.0
        self._late = 0
        self._asleep = 0
        self._phase = _RESTING
        self._turns = 0
        self._since = 0.0
        self._answers = 0
        self._nap = 0
        self._rate = 0.0
        self._rest = _REST

    cpdef bint watch(self, int fd) noexcept:
        """Wait awake, without the GIL, for what the socket brings, the end included; False: it is to be slept for."""
        if self._asleep:
            self._asleep -= 1
            return False
        if _ready(fd, _LOOKS, &self.awake):
            self._late = max(self._late - _MAKES_UP_FOR, 0)
            return True
        self._late += 1
        if self._late >= _LATE:
            self._late = _LATE - _TRIES
            self._asleep = _ASLEEP
        return False

    def nap(self, int64_t in_flight, int64_t answers, double now) -> bool:
        """Sleep, without the GIL, until several answers should be there; False: wake for the first.

        Args:
            in_flight: uploads that wait for nothing but an answer.
            answers: how many have come so far.
            now: monotonic seconds.
        """
        cdef timespec duration
        if in_flight < _MANY:
            # What is measured next shall not hold what passed meanwhile.
            self._phase = _RESTING
            self._turns = 0
            return False
        if self._turns == 0:
            self._next_phase(in_flight, answers, now)
        self._turns -= 1
        if self._phase != _NAPPING:
            return False
        duration.tv_sec = 0
        duration.tv_nsec = self._nap
        with nogil:
            nanosleep(&duration, NULL)
        return True

    cdef void _next_phase(self, int64_t in_flight, int64_t answers, double now) noexcept:
        cdef int64_t came = answers - self._answers
        cdef double elapsed = now - self._since
        cdef double brought
        self._answers = answers
        self._since = now
        if self._phase == _NAPPING and came < _KEPT * self._rate * elapsed:
            self._phase = _RESTING
            self._turns = self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)
            return
        if self._phase == _MEASURING and 0 < came < _FEW * _MEASURED and elapsed > 0.0:
            self._rate = came / elapsed
            brought = min(<double>(in_flight // _PART), self._rate * _LONGEST)
            if brought >= 2 * _FEW:
                self._nap = <long>(brought / self._rate * 1e9)
                self._phase = _NAPPING
                self._turns = _NAPS
                return
        self._phase = _MEASURING
        self._turns = _MEASURED


cdef bint is_readable(int fd) noexcept:
    """Would a receive bring anything now, the end included? With the GIL: to give it up could cost milliseconds."""
    cdef pollfd watched
    watched.fd = fd
    watched.events = POLLIN
    return poll(&watched, 1, 0) > 0


cdef double _now() noexcept nogil:
    """Monotonic seconds."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + 1e-9 * <double>now.tv_nsec


cdef bint _ready(int fd, int looks, double* waited) noexcept:
    """Look so many times, without the GIL, until a receive would bring anything; adds the seconds to `waited`."""
    cdef pollfd watched
    cdef int ready = 0
    cdef double began
    watched.fd = fd
    watched.events = POLLIN
    with nogil:
        # Two reads of the clock, 0.05 microseconds in all. To wait for the GIL is no part of it.
        began = _now()
        while ready <= 0 and looks > 0:
            ready = poll(&watched, 1, 0)
            looks -= 1
        waited[0] += _now() - began
    return ready > 0
