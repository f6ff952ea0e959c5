# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: nothing is indexed; an excerpt begins below the period, and a read is at most OVERLAP long.
"""A payload in memory: incompressible octets in a memfd, mapped once, that any number of uploads are cut from.

No disk and no open(2) for each upload: what is measured then is the server, the network and the sending. The pages lie
in the page cache like those of a file, so `sendmsg` costs what it costs for a mapped file. The memfd is mapped a second
time for OVERLAP octets right behind its end: an excerpt of any size goes round and round and is never cut there.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t

from fastpost._chunker cimport OVERLAP, Source, hold_mapping, release_mapping

import os

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t length, int protection, int flags, int fd, int64_t offset)
    int munmap(void* address, size_t length)
    int PROT_READ
    int PROT_NONE
    int MAP_SHARED
    int MAP_PRIVATE
    int MAP_ANONYMOUS
    int MAP_FIXED
    void* MAP_FAILED

cdef enum:
    _PAGE = 4096

# Larger than the caches next to a core, as the files of a real upload are.
PERIOD = 16 * 1024 * 1024


cdef void* _map_circle(int fd, size_t period) noexcept nogil:
    """Map the file, and its beginning once more behind its end. MAP_FAILED with errno set."""
    cdef uint8_t* address = <uint8_t*>mmap(
        NULL, period + OVERLAP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
    )
    if address == <uint8_t*>MAP_FAILED:
        return MAP_FAILED
    if (
        mmap(address, period, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED
        or mmap(address + period, OVERLAP, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED
    ):
        munmap(address, period + OVERLAP)
        return MAP_FAILED
    return address


@cython.final
cdef class Payload:
    """Random octets in memory.

    Args:
        period: how many, a multiple of the page size and at least 64 KiB.
    Raises ValueError for another period, OSError when the memory can't be had.
    """

    def __cinit__(self, int64_t period=PERIOD):
        cdef void* address
        self._mapping = NULL
        self.period = period
        if period < OVERLAP or period % _PAGE:
            raise ValueError("the period is a multiple of the page size and at least 64 KiB")
        fd = os.memfd_create("fastpost-payload", os.MFD_CLOEXEC)
        try:
            left = period
            while left:
                left -= os.write(fd, os.urandom(min(left, 1 << 20)))
            address = _map_circle(fd, period)
            if address == MAP_FAILED:
                raise OSError(errno, "the payload can't be mapped")
        finally:
            os.close(fd)
        self._mapping = hold_mapping(address, period + OVERLAP, 0)
        if self._mapping == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._mapping != NULL:
            release_mapping(self._mapping)

    def excerpt(self, int64_t start, int64_t size) -> Excerpt:
        """Return `size` octets of it, from `start` (taken modulo the period) on. Raises ValueError below 0."""
        cdef Excerpt excerpt
        if start < 0 or size < 0:
            raise ValueError("an excerpt has no negative start or size")
        excerpt = Excerpt.__new__(Excerpt)
        excerpt._payload = self
        excerpt.start = start % self.period
        excerpt.size = size
        return excerpt


@cython.final
@cython.freelist(256)
cdef class Excerpt:
    """A part of a payload, as the content of an upload; made by `Payload.excerpt`."""

    cdef void lend(self, Source source) noexcept:
        """Make the source one that reads this excerpt; it holds the pages, whatever becomes of the payload."""
        source.borrow(self._payload._mapping, self._payload.period, self.start, self.size)

    def octets(self, int64_t offset, int64_t length) -> bytes:
        """Return a copy of up to 64 KiB, for who wants to know what was sent. Raises ValueError beyond its end."""
        if offset < 0 or not 0 <= length <= min(<int64_t>OVERLAP, self.size - offset):
            raise ValueError("at most 64 KiB at a time, and not beyond the end")
        return (self._payload._mapping.address + (self.start + offset) % self._payload.period)[:length]

    def __repr__(self) -> str:
        return f"<Excerpt start={self.start} size={self.size}>"
