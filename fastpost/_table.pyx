# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: slots come from `_free` and are below `_capacity`; ids are masked to the index's size.
"""Attempts, and the table of those whose stream is open.

An attempt is one try to send one upload. While its stream is open it is that stream's state, owned by the
data plane; afterwards it is the outcome, owned by whoever takes it. So a finished upload costs no second object.
"""

import re

cimport cython
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport calloc, free, realloc

from fastpost._envelope cimport Envelope
from fastpost._labels cimport Labels
from fastpost._listing cimport Upload
from fastpost._payload cimport Excerpt

from fastpost.errors import HttpStatus, UsageError

_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)

# Attempts that exist now; a test asserts that the count falls back to what it was.
cdef int _live_attempts = 0


def live_attempts() -> int:
    """Return how many attempts exist."""
    return _live_attempts


@cython.final
@cython.freelist(256)
cdef class Attempt:
    """One try to send one upload; the last one is the upload's result.

    Args:
        upload: what it is for; handed back untouched.
        file: path to open, raw octets.
        path: the request's :path.
        fields: request fields beside the session's constant ones.
        retried: tries within the retry budget that went before.
        replayed: tries outside it that went before.
        follow: open what `file` points to when it is a symbolic link; False: that is a failure.
        content: octets in memory that are sent in place of the file's.
        due: when it was to begin (monotonic seconds), where that is not left to when there is room: its `began`.

    `status` is 0 without a final response, `failure` None after success, `size` −1 before the file was opened; then
    `size`, `mtime_ns` and `inode` are those of the file that is sent. `expected`: these three must be so, or the upload
    fails before anything of it is sent; None: they may be anything.
    `replayed_in_a_row` counts the replays since the last retry that the cap looks at.
    `payload` counts the octets of the file that were sent. `began` (the first attempt at this upload, or when that was
    due), `started`, `body_sent` (the kernel took the last octet; 0.0: never) and `finished` are monotonic seconds.
    `fields` and `body` are those of the response, as far as they were kept.
    """

    def __cinit__(self):
        global _live_attempts
        _live_attempts += 1
        self.follow = True
        self.retried = 0
        self.replayed = 0
        self.replayed_in_a_row = 0
        self.redirected = 0
        self.status = 0
        self.size = -1
        self.payload = 0
        self.began = 0.0
        self.started = 0.0
        self.body_sent = 0.0
        self.finished = 0.0
        self.stream_id = 0
        self.slot = -1
        self.receive_window = RECEIVE_WINDOW
        self.response_octets = 0
        self.response_length = -1
        self.gathered = -1

    def __init__(
        self, upload, bytes file, bytes path, tuple fields=(), int retried=0, int replayed=0, bint follow=True,
        Excerpt content=None, double due=0.0,
    ):
        self.upload = upload
        self.file = file
        self.follow = follow
        self.content = content
        self.path = path
        self.request_fields = fields
        self.retried = retried
        self.replayed = replayed
        self.replayed_in_a_row = replayed
        self.began = due

    def __dealloc__(self):
        global _live_attempts
        _live_attempts -= 1

    @property
    def ok(self) -> bool:
        """True when a final response of 2xx arrived and nothing failed."""
        return self.failure is None and self.status != 0

    @property
    def latency(self) -> float:
        """Seconds from the request's header block to the end of the response."""
        return self.finished - self.started

    @property
    def body(self) -> bytes:
        """The kept part of the response body."""
        return b"" if self._body is None else bytes(self._body)

    def again(self, *, bint replay, bint counted=True) -> Attempt:
        """Return a fresh attempt at the same upload, one replay or one retry further.

        `replayed_in_a_row` grows by a replay that is `counted`, and a retry begins it anew.
        """
        cdef Attempt attempt = Attempt(
            self.upload, self.file, self.path, self.request_fields, self.retried + (not replay), self.replayed + replay,
            self.follow, self.content, self.began,
        )
        attempt.envelope = self.envelope
        attempt.expected = self.expected
        attempt.replayed_in_a_row = self.replayed_in_a_row + counted if replay else 0
        attempt.redirected = self.redirected
        return attempt

    def __reduce__(self):
        """Pickle what became of it; never while its stream is open."""
        return _restored, (
            self.upload, self.file, self.path, self.request_fields, self.retried, self.replayed, self.follow,
            self.status, self.failure, self.size, self.mtime_ns, self.inode, self.payload, self.began, self.started,
            self.finished, self.fields, self._body,
        )

    def __repr__(self) -> str:
        return f"<Attempt {self.path!r} status={self.status} failure={self.failure!r}>"


def make_attempts(list uploads not None, Labels labels not None) -> tuple:
    """Return (attempts, unfit): one for each upload; those whose name no URL can have are `unfit`, and have failed."""
    cdef list attempts = []
    cdef list unfit = []
    cdef Upload upload
    cdef Attempt attempt
    for item in uploads:
        upload = <Upload?>item
        if upload.file is None or upload.name is None:
            raise TypeError(f"an upload has a file and a name: {upload!r}")
        attempt = Attempt.__new__(Attempt)
        attempt.upload = upload
        attempt.file = upload.file
        attempt.follow = upload.follow
        attempt.content = <Excerpt?>upload.content if upload.content is not None else None
        attempt.began = upload.due
        try:
            attempt.path = labels.path(upload.name)
            attempt.request_fields = labels.fields(upload.name, upload.content_type)
            if labels.form is not None:
                attempt.envelope = <Envelope?>labels.form.envelope(upload.name, attempt.request_fields)
                attempt.request_fields = labels.form.fields
        except UsageError as error:
            # A walk finds no such name or type; a program may have made one.
            attempt.path = b""
            attempt.request_fields = ()
            attempt.failure = error
            unfit.append(attempt)
            continue
        attempts.append(attempt)
    return attempts, unfit


def _restored(
    upload, file, path, request_fields, retried, replayed, follow, status, failure, size, mtime_ns, inode, payload,
    began, started, finished, fields, body,
) -> Attempt:
    """Return the outcome that another process has pickled."""
    cdef Attempt attempt = Attempt(upload, file, path, request_fields, retried, replayed, follow)
    attempt.status = status
    attempt.failure = failure
    attempt.size = size
    attempt.mtime_ns = mtime_ns
    attempt.inode = inode
    attempt.payload = payload
    attempt.began = began
    attempt.started = started
    attempt.finished = finished
    attempt.fields = fields
    attempt._body = body
    return attempt


def status_failure(Attempt attempt) -> HttpStatus:
    """Return the failure that a complete response of 3xx, 4xx or 5xx means."""
    fields = dict(reversed(attempt.fields or ()))
    reason = attempt.body.decode("utf-8", "replace").strip()
    title = _TITLE.search(reason)
    if title is not None:
        # A page for browsers: its title says what there is to say.
        reason = " ".join(title[1].split())
    location = None
    if attempt.status < 400 and b"location" in fields:
        location = fields[b"location"].decode("latin-1")
        reason = "redirected"
    retry_after = fields.get(b"retry-after")
    return HttpStatus(
        attempt.status, reason, None if retry_after is None else retry_after.decode("latin-1"), location,
    )


cdef inline uint32_t _home(uint32_t stream_id) noexcept nogil:
    """Where a stream id belongs, to be masked. Spread (Knuth's multiplicative hash): ids that follow each other would
    form one run, and each removal would walk it to its end.
    """
    return <uint32_t>((stream_id >> 1) * <uint32_t>0x9E3779B1) >> 8


@cython.final
cdef class StreamTable:
    """The open streams of one connection, found by slot (scheduler) or by stream id (frames)."""

    def __cinit__(self):
        self._free = NULL
        self._ids = NULL
        self._slots = NULL
        self._capacity = 0
        self.count = 0
        self._mask = 0
        self.attempts = []
        self._grow(64)

    def __dealloc__(self):
        free(self._free)
        free(self._ids)
        free(self._slots)

    cdef int32_t capacity(self) noexcept:
        return self._capacity

    cdef int insert(self, Attempt attempt) except -1:
        """Give the attempt a slot and index its stream id. Raises MemoryError."""
        if self.count == self._capacity:
            self._grow(self._capacity * 2)
        attempt.slot = self._free[self.count]
        self.count += 1
        self.attempts[attempt.slot] = attempt
        self._index(attempt.stream_id, attempt.slot)
        return 0

    cdef Attempt find(self, uint32_t stream_id):
        """Return the open stream, or None."""
        cdef uint32_t at = _home(stream_id) & self._mask
        while self._ids[at] != 0:
            if self._ids[at] == stream_id:
                return <Attempt>self.attempts[self._slots[at]]
            at = (at + 1) & self._mask
        return None

    cdef void remove(self, Attempt attempt) noexcept:
        """Free the attempt's slot and forget its stream id."""
        cdef uint32_t hole = _home(attempt.stream_id) & self._mask
        cdef uint32_t at
        while self._ids[hole] != attempt.stream_id:
            hole = (hole + 1) & self._mask
        # Backward-shift deletion: what probed past the hole moves into it, so no tombstones pile up.
        at = hole
        while True:
            at = (at + 1) & self._mask
            if self._ids[at] == 0:
                break
            if ((at - (_home(self._ids[at]) & self._mask)) & self._mask) >= ((at - hole) & self._mask):
                self._ids[hole] = self._ids[at]
                self._slots[hole] = self._slots[at]
                hole = at
        self._ids[hole] = 0
        self.count -= 1
        self._free[self.count] = attempt.slot
        self.attempts[attempt.slot] = None

    cdef int _grow(self, int32_t capacity) except -1:
        """Make room for `capacity` (a power of two) streams; the index is kept at most a quarter full."""
        cdef uint32_t* ids
        cdef int32_t* slots
        cdef int32_t slot
        cdef void* grown = realloc(self._free, capacity * sizeof(int32_t))
        if grown == NULL:
            raise MemoryError
        self._free = <int32_t*>grown
        ids = <uint32_t*>calloc(4 * capacity, sizeof(uint32_t))
        slots = <int32_t*>calloc(4 * capacity, sizeof(int32_t))
        if ids == NULL or slots == NULL:
            free(ids)
            free(slots)
            raise MemoryError
        free(self._ids)
        free(self._slots)
        self._ids = ids
        self._slots = slots
        self._mask = 4 * capacity - 1
        for slot in range(self._capacity, capacity):
            self._free[slot] = slot
            self.attempts.append(None)
        self._capacity = capacity
        for attempt in self.attempts:
            if attempt is not None:
                self._index((<Attempt>attempt).stream_id, (<Attempt>attempt).slot)
        return 0

    cdef void _index(self, uint32_t stream_id, int32_t slot) noexcept:
        cdef uint32_t at = _home(stream_id) & self._mask
        while self._ids[at] != 0:
            at = (at + 1) & self._mask
        self._ids[at] = stream_id
        self._slots[at] = slot
