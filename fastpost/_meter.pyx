# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: `_index` of a value up to _HIGHEST is below _SLOTS, and statuses are compared with STATUSES.
"""Latencies in classes, and what a measured run came to, in C: about 30 ns an upload, once a tick for all that ended.

The hdrhistogram package would take 0.7 µs for each value, on the thread that moves the octets. So latencies are counted
here in the same classes (microseconds, three significant digits), and go into its histograms when they are looked at.
Memory is fixed: 190 kB a histogram, whatever is recorded.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
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
        """Return it as the counts of all classes up to its last one, in LEB128: few have more than an octet."""
        cdef int index, used = 0
        cdef Py_ssize_t length = 0
        cdef bytes packed
        cdef unsigned char* at
        for index in range(_SLOTS):
            if self._counts[index]:
                used = index + 1
        for index in range(used):
            length += _octets(self._counts[index])
        packed = PyBytes_FromStringAndSize(NULL, length)
        at = <unsigned char*>PyBytes_AS_STRING(packed)
        for index in range(used):
            at = _put(at, self._counts[index])
        return _restored, (packed, self.largest, self._sum)


cdef inline int _octets(uint64_t value) noexcept nogil:
    """How many octets a number has in LEB128."""
    cdef int octets = 1
    while value >= 128:
        value >>= 7
        octets += 1
    return octets


cdef inline unsigned char* _put(unsigned char* at, uint64_t value) noexcept nogil:
    """Write a number in LEB128; returns where the next one goes."""
    while value >= 128:
        at[0] = <unsigned char>(value & 127 | 128)
        value >>= 7
        at += 1
    at[0] = <unsigned char>value
    return at + 1


def _restored(bytes packed not None, int64_t largest, double microseconds) -> Histogram:
    """Return what was pickled. Raises ValueError for what was not."""
    cdef Histogram made = Histogram()
    cdef uint64_t count = 0
    cdef int index = 0, shift = 0
    cdef unsigned char octet
    for octet in packed:
        if index == _SLOTS or shift > 56:
            raise ValueError("no histogram")
        count |= <uint64_t>(octet & 127) << shift
        shift += 7
        if octet < 128:
            made._counts[index] = <int64_t>count
            made.total += <int64_t>count
            count = shift = 0
            index += 1
    made.largest = largest
    made._sum = microseconds
    return made


def count_results(list results not None, Histogram latencies not None, dict statuses not None) -> tuple:
    """Count final results: `latencies` of those that went well, and final `statuses` of all that had one.

    Returns:
        (ok, payload, retried, replayed, failed): uploads and octets that went well, tries of all, and who failed.
    """
    cdef int64_t ok = 0
    cdef int64_t payload = 0
    cdef int64_t retried = 0
    cdef int64_t replayed = 0
    # A run of equal statuses is counted by one access to the dict.
    cdef int64_t alike = 0
    cdef int status = 0
    cdef list failed = []
    cdef Attempt attempt
    for item in results:
        attempt = <Attempt?>item
        if attempt.status != status:
            _add_status(statuses, status, alike)
            status = attempt.status
            alike = 0
        alike += 1
        retried += attempt.retried
        replayed += attempt.replayed
        if attempt.failure is None:
            ok += 1
            payload += attempt.payload
            latencies.add(attempt.finished - attempt.started)
        else:
            failed.append(attempt)
    _add_status(statuses, status, alike)
    return ok, payload, retried, replayed, failed


cdef int _add_status(dict statuses, int status, int64_t times) except -1:
    if status:
        statuses[status] = statuses.get(status, 0) + times
    return 0


@cython.final
cdef class Counted:
    """What uploads came to that count. Octets are of payload, `wasted` of those that failed.

    `latency` is from the first attempt (or from when it was due) to the response's end, `response` from the last octet
    sent to that; both of uploads that went well, `response` only of those that were sent whole.
    """

    def __cinit__(self):
        self.latency = Histogram()
        self.response = Histogram()
        self.ok = 0
        self.failed = 0
        self.payload = 0
        self.wasted = 0
        self.retried = 0
        self.replayed = 0
        memset(self._statuses, 0, sizeof(self._statuses))

    def statuses(self) -> dict:
        """Return how many had each final status, those without one left out."""
        cdef int status
        return {status: self._statuses[status] for status in range(1, STATUSES) if self._statuses[status]}

    def merge(self, Counted other not None) -> None:
        """Count all that another one holds too; about 25 µs."""
        cdef int status
        self.latency.merge(other.latency)
        self.response.merge(other.response)
        self.ok += other.ok
        self.failed += other.failed
        self.payload += other.payload
        self.wasted += other.wasted
        self.retried += other.retried
        self.replayed += other.replayed
        for status in range(STATUSES):
            self._statuses[status] += other._statuses[status]

    def __reduce__(self):
        return _restored_counted, (
            self.latency, self.response, self.statuses(),
            (self.ok, self.failed, self.payload, self.wasted, self.retried, self.replayed),
        )


def _restored_counted(
    Histogram latency not None, Histogram response not None, dict statuses not None, tuple counts not None,
) -> Counted:
    """Return what was pickled. Raises ValueError for a status that there is not."""
    cdef Counted made = Counted()
    cdef int64_t status, count
    made.latency, made.response = latency, response
    made.ok, made.failed, made.payload, made.wasted, made.retried, made.replayed = counts
    for status, count in statuses.items():
        if not 0 < status < STATUSES:
            raise ValueError(f"no status {status}")
        made._statuses[status] = count
    return made


@cython.final
cdef class Meter:
    """Counts the uploads that end between `begin` and `end` (monotonic seconds): before that is warm-up.

    `whole` is what was counted until the last cut, `since` what was since.

    Args:
        most: count only so many; 0: any number.
    """

    def __cinit__(self, int64_t most=0):
        self.whole = Counted()
        self.since = Counted()
        self.begins = INFINITY
        self.ends = INFINITY
        self._most = most

    def begin(self, double now) -> None:
        """Count what ends from now on."""
        self.begins = now

    def end(self, double now) -> None:
        """Count nothing that ends from now on."""
        self.ends = min(self.ends, now)

    def cut(self) -> Counted:
        """Return what was counted since the last cut; `whole` has it too from now on."""
        cdef Counted part = self.since
        self.whole.merge(part)
        self.since = Counted()
        return part

    @property
    def ended(self) -> int:
        """How many have ended and count."""
        return self.whole.ok + self.whole.failed + self.since.ok + self.since.failed

    @property
    def full(self) -> bool:
        """True when as many are counted as were wanted."""
        return 0 < self._most <= self.ended

    def record(self, list results, bint whole=False) -> list:
        """Count final results; returns those that failed and count, with `whole` all that count."""
        cdef Counted part = self.since
        cdef Attempt attempt
        cdef list told = []
        cdef int64_t before = self.whole.ok + self.whole.failed
        for item in results:
            attempt = <Attempt>item
            if not self.begins <= attempt.finished < self.ends:
                continue
            if 0 <= attempt.status < STATUSES:
                part._statuses[attempt.status] += 1
            part.retried += attempt.retried
            part.replayed += attempt.replayed
            if attempt.failure is None:
                part.ok += 1
                part.payload += attempt.payload
                part.latency.add(attempt.finished - attempt.began)
                if attempt.body_sent:  # an answer that came before the last octet was sent is no answer to that
                    part.response.add(attempt.finished - attempt.body_sent)
            else:
                part.failed += 1
                part.wasted += attempt.payload
            if whole or attempt.failure is not None:
                told.append(attempt)
            if self._most and before + part.ok + part.failed >= self._most:
                self.ends = attempt.finished
                break
        return told
