# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: nothing is indexed, and every copy ends with what it is taken from.
"""What stands before and behind a file in the content of its request: the part of a form (RFC 7578) that holds it."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from fastpost._chunker cimport Source


@cython.final
cdef class Envelope:
    """Octets around a file. It is the same for every attempt at one upload, and holds no position.

    Args:
        before, after: octets that go before and behind those of the file.
    """

    def __init__(self, bytes before not None, bytes after not None):
        self._before = before
        self._after = after
        self.tail = PyBytes_GET_SIZE(after)
        self.length = PyBytes_GET_SIZE(before) + self.tail

    cdef int64_t octets_of_file(self, int64_t octets, int64_t size) noexcept:
        """Return how many of the first so many octets of the whole are those of the file, which has `size`."""
        return min(max(octets - (self.length - self.tail), 0), size)

    cdef Py_ssize_t read(self, Source source, int64_t remaining, uint8_t* out, Py_ssize_t limit) noexcept:
        """Copy up to limit octets of the whole to out, where `remaining` are still to come, and move on in the source.

        Returns how many (fewer when the file has ended too soon), or −errno.
        """
        cdef int64_t before = max(remaining - source.size - self.tail, 0)
        cdef int64_t part = min(before, <int64_t>limit)
        cdef Py_ssize_t done = part
        cdef Py_ssize_t got
        memcpy(out, PyBytes_AS_STRING(self._before) + (PyBytes_GET_SIZE(self._before) - before), part)
        part = min(max(remaining - done - self.tail, 0), <int64_t>(limit - done))
        if part:
            got = source.read(out + done, part)
            if got < part:
                return got if got < 0 else done + got
            done += got
        part = min(remaining - done, <int64_t>(limit - done))
        if part:
            memcpy(out + done, PyBytes_AS_STRING(self._after) + (self.tail - (remaining - done)), part)
            done += part
        return done
