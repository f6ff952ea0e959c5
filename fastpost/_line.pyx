# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: nothing is indexed but a deque, below its length.
"""The attempts that wait for a stream of one connection, and the files of the first ones, opened ahead.

While the peer is at work nothing can be sent, and the files that come next are opened and read meanwhile: so the peer
does not wait for that once it is done. Small files are in memory then and closed again; of larger ones a few are open.
Whoever leaves the line other than to begin gives that back, and is what it was.
"""

import collections

cimport cython
from libc.stdint cimport int64_t

from fastpost._request_content cimport NO_DESCRIPTOR, RequestContent
from fastpost._table cimport Attempt

cdef enum:
    # Most that the line keeps ahead: open files, of which a run may have few, and octets, as memory is to be flat.
    _MAX_FILES = 8
    _MAX_OCTETS = 1048576


@cython.final
cdef class Line:
    """First in, first out; `attempts` are those that wait, in order."""

    def __cinit__(self):
        self.attempts = collections.deque()
        self._looked_at = 0
        self._files = 0
        self._octets = 0
        self._barred = False

    cdef Attempt pop(self):
        """Take out the next one, with what was opened ahead of it; there is one."""
        cdef Attempt attempt = <Attempt>self.attempts.popleft()
        if self._looked_at:
            self._looked_at -= 1
            self._count_kept(attempt, -1)
        return attempt

    cdef int put_back(self, Attempt attempt) except -1:
        """No descriptor could be had for it: it is the next one again, and nothing is opened ahead any more."""
        self.attempts.appendleft(attempt)
        self._looked_at += 1
        return self._bar()

    def extend(self, list attempts not None) -> None:
        """Queue more."""
        self.attempts.extend(attempts)

    def withdraw(self, int64_t kept) -> list:
        """Take out, untouched and in order, all but the first `kept`."""
        cdef Attempt attempt
        withdrawn = []
        while len(self.attempts) > max(kept, 0):
            attempt = <Attempt>self.attempts.pop()
            if self._looked_at > len(self.attempts):
                self._looked_at -= 1
                self._count_kept(attempt, -1)
                self._close_ahead(attempt)
            withdrawn.append(attempt)
        withdrawn.reverse()
        return withdrawn

    cdef bint may_look(self) noexcept:
        """Are there any that were not looked at, and room for what they keep?"""
        return (
            self._looked_at < <int64_t>len(self.attempts) and self._files < _MAX_FILES and self._octets < _MAX_OCTETS
            and not self._barred
        )

    cdef int look_ahead(self, RequestContent content, int files) except -1:
        """Open up to so many more files ahead of their turn."""
        cdef Attempt attempt
        while files > 0 and self.may_look():
            attempt = <Attempt>self.attempts[self._looked_at]
            if content.open_ahead(attempt) == NO_DESCRIPTOR:
                self._bar()
                break
            self._looked_at += 1
            self._count_kept(attempt, 1)
            files -= 1
        return 0

    cdef int _bar(self) except -1:
        """A descriptor could not be had: nothing is opened ahead any more, as whose turn it is needs the next one."""
        cdef Attempt attempt
        cdef int64_t index
        self._barred = True
        for index in range(self._looked_at):
            attempt = <Attempt>self.attempts[index]
            if attempt.source is not None and attempt.source.is_open():
                self._close_ahead(attempt)
        self._files = 0
        return 0

    cdef int _count_kept(self, Attempt attempt, int sign) except -1:
        if attempt.source is None:
            return 0
        if attempt.source.is_open():
            self._files += sign
        else:
            self._octets += sign * attempt.source.size
        return 0

    cdef int _close_ahead(self, Attempt attempt) except -1:
        if attempt.source is not None:
            attempt.source.close()
            attempt.source = None
        return 0
