# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: the causes are the constants of the enum, all below CAUSES.
"""Where the time of uploads goes: stream-seconds by what each upload waited for.

Time is split once a tick, not per frame: what has happened since the last tick belongs to the states in which that tick
left the streams. So it costs one clock reading a tick, which the tick makes anyway, and a few additions. Who looks
between two ticks has it split by then.

Causes: `stream_limit` (the server's MAX_CONCURRENT_STREAMS), `stream_window`, `connection_window`, `socket` (full: the
network or the server's reading), `disk`, `server` (last octet sent → final response), `rate_limit` (the user's own),
`client` (fastpost itself: the upload could have sent, and another one was being served).
"""

cimport cython
from libc.stdint cimport int64_t

cdef extern from *:
    """
    /* Seconds for which reads that had to wait for a disk have kept this thread, and all that its loop serves. */
    static __thread double stalled_seconds = 0.0;
    """
    double stalled_seconds

_NAMES = ("stream_limit", "stream_window", "connection_window", "socket", "disk", "server", "rate_limit", "client")


@cython.final
cdef class BlockedTime:
    """Stream-seconds by cause, of one connection."""

    def __cinit__(self):
        cdef int cause
        for cause in range(CAUSES):
            self._seconds[cause] = 0.0
        self._stalled_before = stalled_seconds
        self.since = 0.0

    cdef double begin(self, double now) noexcept:
        """Begin the next interval; returns the seconds of the one that ends, less what the disk took of it.

        The loop stood still for all connections, whichever had to wait.
        """
        cdef double elapsed = now - self.since if self.since else 0.0
        cdef double stalled = stalled_seconds - self._stalled_before
        if self.since == 0.0 or elapsed > 0.0:
            self._stalled_before = stalled_seconds
        self.since = now
        if elapsed <= 0.0:
            return 0.0
        return max(elapsed - stalled, 0.0)

    cdef void add(self, int cause, int64_t streams, double elapsed) noexcept:
        """So many streams waited for that cause, all through the interval."""
        if streams > 0:
            self._seconds[cause] += streams * elapsed

    def seconds(self) -> dict:
        """Return the stream-seconds so far, by the name of the cause; the user's own limit only where there was one."""
        told = dict(zip(_NAMES, [self._seconds[cause] for cause in range(CAUSES)], strict=True))
        if self._seconds[RATE_LIMIT] == 0.0:
            del told[_NAMES[RATE_LIMIT]]
        return told

    def stalled_on_disk(self, double elapsed) -> None:
        """Of the interval that has just begun, the loop stood still for so long because a read had to wait."""
        global stalled_seconds
        stalled_seconds += elapsed
