# cython: language_level=3
"""A timer as a descriptor, timerfd_create(2): good to some 50 µs, where the loop's own timers have milliseconds.

An open loop needs it: what it begins a millisecond late would be told as a millisecond of latency. Python has
os.timerfd_create from 3.13 on.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint64_t

import os

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC

cdef extern from "<sys/timerfd.h>" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* value, itimerspec* before)
    int TFD_CLOEXEC
    int TFD_NONBLOCK
    int TFD_TIMER_ABSTIME

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t c_read "read"(int fd, void* out, size_t length)
    int c_close "close"(int fd)


@cython.final
cdef class Alarm:
    """Makes its descriptor readable at a moment. Raises OSError when there is no descriptor for it."""

    def __cinit__(self):
        self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def set(self, double at) -> None:
        """Go off at a moment (monotonic seconds), once; at once when it is past. Raises OSError when closed."""
        cdef itimerspec value
        at = max(at, 1e-9)  # 0 would switch it off
        value.it_interval.tv_sec = 0
        value.it_interval.tv_nsec = 0
        value.it_value.tv_sec = <long>at
        value.it_value.tv_nsec = <long>((at - <long>at) * 1e9)
        if timerfd_settime(self.fd, TFD_TIMER_ABSTIME, &value, NULL) != 0:
            raise OSError(errno, os.strerror(errno))

    def take(self) -> None:
        """Make the descriptor unreadable until it goes off again."""
        cdef uint64_t times = 0
        if c_read(self.fd, &times, sizeof(times)) < 0:
            return  # it has not gone off: there is nothing to take

    def close(self) -> None:
        """Close the descriptor; twice is fine."""
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1
