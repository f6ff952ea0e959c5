# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: the causes are the constants of the enum, all below CAUSES.
"""Where the time of uploads goes: stream-seconds by what each upload waited for.

Time is split once a tick, not per frame: what has happened since the last tick belongs to the states in which that tick
left the streams. So it costs one clock reading a tick, which the tick makes anyway, and a few additions. Who looks
between two ticks has it split by then.

Causes: `stream_limit` (the server's MAX_CONCURRENT_STREAMS), `stream_window`, `connection_window`, `socket` (full: the
network or the server's reading), `disk`, `server` (last octet sent → final response), `client` (fastpost itself: the
upload could have sent, and another one was being served).
"""

cimport cython
from libc.stdint cimport int64_t

_NAMES = ("stream_limit", "stream_window", "connection_window", "socket", "disk", "server", "client")


@cython.final
cdef class BlockedTime:
    """Stream-seconds by cause, of one connection."""

    def __cinit__(self):
        cdef int cause
        for cause in range(CAUSES):
            self._seconds[cause] = 0.0
        self._disk = 0.0
        self.since = 0.0

    cdef double begin(self, double now) noexcept:
        """Begin the next interval; returns the seconds of the one that ends, less what the disk took of it."""
        cdef double elapsed = now - self.since if self.since else 0.0
        self.since = now
        if elapsed <= 0.0:
            return 0.0
        elapsed = max(elapsed - self._disk, 0.0)
        self._disk = 0.0
        return elapsed

    cdef void add(self, int cause, int64_t streams, double elapsed) noexcept:
        """So many streams waited for that cause, all through the interval."""
        if streams > 0:
            self._seconds[cause] += streams * elapsed

    def seconds(self) -> dict:
        """Return the stream-seconds so far, by the name of the cause."""
        return dict(zip(_NAMES, [self._seconds[cause] for cause in range(CAUSES)], strict=True))

    def stalled_on_disk(self, double elapsed) -> None:
        """Of the interval that has just begun, the loop stood still for so long because a read had to wait."""
        self._disk += elapsed
