# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: `_index` of a value up to _HIGHEST is below _SLOTS, and statuses are compared with STATUSES.
"""Latencies in classes, and what a measured run came to, in C: about 30 ns an upload, once a tick for all that ended.

The hdrhistogram package would take 0.7 µs for each value, on the thread that moves the octets. So latencies are counted
here in the same classes (microseconds, three significant digits), and go into its histograms when they are looked at.
Memory is fixed: 190 kB a histogram, whatever is recorded.
"""

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastpost._table cimport Attempt

cdef extern from *:
    int __builtin_clzll(unsigned long long value) nogil

cdef enum:
    # 2048 classes to the first power of two, then 1024 for each following one: 0.1 % at least.
    _HALF_BITS = 10
    _HALF = 1024
    _WHOLE = 2048
    _SLOTS = 23552

# An hour; what takes longer is counted as that.
cdef int64_t _HIGHEST = 3_600_000_000


cdef inline int _index(int64_t value) noexcept nogil:
    """The class of a value in microseconds, as HdrHistogram lays them out."""
    cdef int bucket = 64 - __builtin_clzll(<unsigned long long>(value | (_WHOLE - 1))) - (_HALF_BITS + 1)
    return ((bucket + 1) << _HALF_BITS) + <int>(value >> bucket) - _HALF


cdef inline int64_t _value(int index) noexcept nogil:
    """The middle of a class, microseconds."""
    cdef int bucket = (index >> _HALF_BITS) - 1
    if bucket <= 0:
        return index
    return (<int64_t>((index & (_HALF - 1)) + _HALF) << bucket) + (<int64_t>1 << (bucket - 1))


@cython.final
cdef class Histogram:
    """How many values fell into each class."""

    def __cinit__(self):
        self._counts = <int64_t*>calloc(_SLOTS, sizeof(int64_t))
        if self._counts == NULL:
            raise MemoryError
        self.total = 0
        self.largest = 0
        self._sum = 0.0

    def __dealloc__(self):
        free(self._counts)

    cdef void add(self, double seconds) noexcept:
        cdef int64_t value = <int64_t>(min(max(seconds, 0.0), 3600.0) * 1e6 + 0.5)
        self._counts[_index(min(value, _HIGHEST))] += 1
        self.total += 1
        self._sum += value
        if value > self.largest:
            self.largest = value

    def record(self, double seconds) -> None:
        """Count one value; less than 0 counts as 0, more than an hour as an hour."""
        self.add(seconds)

    def mean(self) -> float:
        """Return the mean in seconds, 0.0 of nothing."""
        return self._sum / self.total / 1e6 if self.total else 0.0

    def quantile(self, double share) -> float:
        """Return the seconds that so large a share (0.0 … 1.0) of the values does not exceed; 0.0 of nothing."""
        cdef int64_t wanted = max(<int64_t>(share * self.total + 0.999999), 1)
        cdef int64_t seen = 0
        cdef int index
        if self.total == 0:
            return 0.0
        for index in range(_SLOTS):
            seen += self._counts[index]
            if seen >= wanted:
                return min(_value(index), self.largest) / 1e6
        return self.largest / 1e6

    def counts(self) -> list:
        """Return (microseconds, how many) of the classes that hold any, in order."""
        cdef int index
        return [(_value(index), self._counts[index]) for index in range(_SLOTS) if self._counts[index]]

    def merge(self, Histogram other not None) -> None:
        """Count all that another one holds too."""
        cdef int index
        for index in range(_SLOTS):
            self._counts[index] += other._counts[index]
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self._sum += other._sum

    def __reduce__(self):
        cdef int index
        return _restored, (
            [(index, self._counts[index]) for index in range(_SLOTS) if self._counts[index]], self.largest, self._sum,
        )

    def clear(self) -> None:
        """Forget everything."""
        memset(self._counts, 0, _SLOTS * sizeof(int64_t))
        self.total = 0
        self.largest = 0
        self._sum = 0.0


def _restored(list classes, int64_t largest, double microseconds) -> Histogram:
    """Return what was pickled. Raises ValueError for a class that there is not."""
    cdef Histogram made = Histogram()
    cdef int64_t index, count
    for index, count in classes:
        if not 0 <= index < _SLOTS:
            raise ValueError(f"no class {index}")
        made._counts[index] += count
        made.total += count
    made.largest = largest
    made._sum = microseconds
    return made


@cython.final
cdef class Meter:
    """Counts the uploads that end between `begin` and `end` (monotonic seconds): before that is warm-up.

    `latency` is from the first attempt (or from when it was due) to the response's end, `response` from the last octet
    sent to that; both of uploads that went well. `second` is `latency` since it was last cleared.

    Args:
        most: count only so many; 0: any number.
    """

    def __cinit__(self, int64_t most=0):
        self.latency = Histogram()
        self.response = Histogram()
        self.second = Histogram()
        self.ok = 0
        self.failed = 0
        self.payload = 0
        self.wasted = 0
        self.retried = 0
        self.replayed = 0
        memset(self._statuses, 0, sizeof(self._statuses))
        self.begins = INFINITY
        self.ends = INFINITY
        self._most = most

    def begin(self, double now) -> None:
        """Count what ends from now on."""
        self.begins = now

    def end(self, double now) -> None:
        """Count nothing that ends from now on."""
        self.ends = min(self.ends, now)

    @property
    def full(self) -> bool:
        """True when as many are counted as were wanted."""
        return 0 < self._most <= self.ok + self.failed

    def record(self, list results, bint whole=False) -> list:
        """Count final results; returns those that failed and count, with `whole` all that count."""
        cdef Attempt attempt
        cdef list told = []
        for item in results:
            attempt = <Attempt>item
            if not self.begins <= attempt.finished < self.ends:
                continue
            if 0 <= attempt.status < STATUSES:
                self._statuses[attempt.status] += 1
            self.retried += attempt.retried
            self.replayed += attempt.replayed
            if attempt.failure is None:
                self.ok += 1
                self.payload += attempt.payload
                self.latency.add(attempt.finished - attempt.began)
                self.second.add(attempt.finished - attempt.began)
                self.response.add(attempt.finished - attempt.body_sent)
            else:
                self.failed += 1
                self.wasted += attempt.payload
            if whole or attempt.failure is not None:
                told.append(attempt)
            if self._most and self.ok + self.failed >= self._most:
                self.ends = attempt.finished
                break
        return told

    def statuses(self) -> dict:
        """Return how many had each final status, those without one left out."""
        cdef int status
        return {status: self._statuses[status] for status in range(1, STATUSES) if self._statuses[status]}

    @staticmethod
    def together(list meters) -> Meter:
        """Return what several have counted side by side, from the first that began to the last that ended.

        `second` is left empty: which seconds belong together, only who asks for it knows.
        """
        cdef Meter made = Meter()
        cdef Meter one
        cdef int status
        made.ends = -INFINITY if meters else INFINITY
        for item in meters:
            one = <Meter?>item
            made.latency.merge(one.latency)
            made.response.merge(one.response)
            made.ok += one.ok
            made.failed += one.failed
            made.payload += one.payload
            made.wasted += one.wasted
            made.retried += one.retried
            made.replayed += one.replayed
            for status in range(STATUSES):
                made._statuses[status] += one._statuses[status]
            made.begins = min(made.begins, one.begins)
            made.ends = max(made.ends, one.ends)
        return made

    def __reduce__(self):
        return _restored_meter, (
            self.latency, self.response, self.second, self.statuses(),
            (self.ok, self.failed, self.payload, self.wasted, self.retried, self.replayed), self.begins, self.ends,
            self._most,
        )


def _restored_meter(
    Histogram latency not None, Histogram response not None, Histogram second not None, dict statuses, tuple counts,
    double begins, double ends, int64_t most,
) -> Meter:
    """Return what was pickled. Raises ValueError for a status that there is not."""
    cdef Meter made = Meter(most)
    cdef int64_t status, count
    made.latency, made.response, made.second = latency, response, second
    made.ok, made.failed, made.payload, made.wasted, made.retried, made.replayed = counts
    for status, count in statuses.items():
        if not 0 < status < STATUSES:
            raise ValueError(f"no status {status}")
        made._statuses[status] = count
    made.begins = begins
    made.ends = ends
    return made
