# cython: language_level=3
"""C interface of reading ahead: the files in line are brought into the page cache by other threads."""

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass


cdef enum:
    # Files that wait at most; what comes beyond that is not read ahead.
    LINE = 1024

    # What came of it: not known yet; so far it is worth it; it was, but no more; it never was.
    TRYING = 0
    PAYING = 1
    PAID = 2
    IN_VAIN = 3


# What the threads share with their owner; the last one to leave frees it.
cdef struct Line:
    pthread_mutex_t lock
    pthread_cond_t arrived
    # Paths in malloc'd memory, round and round.
    (char*)[LINE] paths
    int first
    int count
    int threads
    int idle
    int references
    bint stopped
    # Of the present lot of files: how many were looked at, and how many of them were not in the cache.
    int looked_at
    int cold
    # TRYING, PAYING, PAID or IN_VAIN: whether they were enough, in each lot so far.
    int verdict


cdef class ReadAhead:
    cdef Line* _line

    cdef void begin(self) noexcept
    cdef void add(self, bytes path) noexcept
    cdef void end(self) noexcept
    cdef int verdict(self) noexcept
    cdef void stop(self) noexcept
