# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: nothing is indexed.
"""The content of one connection's requests: files opened, read ahead where that helps, cut into DATA (RFC 9113 §6.1).

How many octets the next frame may have is for others to say.
"""

import os

cimport cython
from libc.errno cimport EIO, EMFILE, ENFILE
from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastpost._chunker cimport CHANGED, SLOW_UNASKED, STIRRED, Mapping, Source, now_us, slept
from fastpost._folder cimport Folder
from fastpost._frames cimport DATA, END_STREAM, FRAME_HEADER, put_frame_header
from fastpost._gather cimport GatherList
from fastpost._readahead cimport IN_VAIN, PAID, ReadAhead
from fastpost._table cimport Attempt

from fastpost.errors import FileChanged, NotRegularFile, file_failure

cdef enum:
    # Files up to this size are read, larger ones are mapped: below, mmap and munmap cost more than the copy.
    _MAX_READ = 65536
    # Files up to this size are held in memory before their turn: beyond, to copy them once more costs too much.
    _MAX_HELD = 16384
    # What is left of a mapped file for its last slice is at least so long (octets).
    _MIN_TAIL = 4096
    # Files are read ahead once the first read of so many was slow while so many were opened.
    _SLOW_FILES = 3
    _SLOW_AMONG = 64
    # Where a few in a hundred are cold, all over the place, each try costs eight threads and hundreds of opens in vain:
    # after one that found little it rests for so many files, doubled each time, unless so many in a row are slow.
    _REST = 512
    _LONGEST_REST = 65536
    _MANY_SLOW_FILES = 24


@cython.final
cdef class RequestContent:
    """Puts the files of attempts into the gather list, from `open` on.

    Args:
        gather: takes the frames.
        staged: True where octets must pass through user space (TLS): then nothing is ever mapped.
    """

    def __cinit__(self, GatherList gather not None, bint staged):
        self._gather = gather
        self._staged = staged
        self._folder = Folder()
        self._opened = 0
        self._opened_before = 0
        self._began_opening = 0
        self._slept_before = 0
        self._slow_files = 0
        self._ahead = None
        self._ahead_from = 0
        self._rest = _REST

    cdef int open(self, Attempt attempt) except -1:
        """Open the attempt's file, if it is not yet, and take its size, octets. FAILED: its failure says why."""
        cdef int reason = 0
        if attempt.source is None:
            reason = self._open_file(attempt)
        if reason:
            if reason in (EMFILE, ENFILE):
                # No error: a stream that ends gives its descriptor back, here or on another connection.
                attempt.source = None
                return NO_DESCRIPTOR
            return self._refuse(attempt, file_failure(reason))
        attempt.size = attempt.source.size
        attempt.mtime_ns = attempt.source.mtime_ns
        attempt.inode = attempt.source.inode
        if attempt.expected is not None and attempt.expected != (attempt.size, attempt.mtime_ns, attempt.inode):
            return self._refuse(attempt, _changed())
        if attempt.size == 0 and attempt.content is None and attempt.source.holds_more():
            return self._refuse(attempt, NotRegularFile(
                "its size reads 0 though it holds octets, as files of /proc do: copy it and upload the copy"
            ))
        attempt.remaining = attempt.size
        attempt.mapped = not self._staged and attempt.size > _MAX_READ
        if attempt.envelope is not None:
            attempt.remaining += attempt.envelope.length
            attempt.tail = attempt.envelope.tail
            attempt.mapped = False  # not yet: what stands before the file goes first
        return OPENED

    cdef int _open_file(self, Attempt attempt) except -1:
        """Give the attempt its source. Returns 0, or the errno of what could not be opened."""
        cdef int reason
        attempt.source = Source()
        if attempt.content is not None:
            attempt.content.lend(attempt.source)
            return 0
        reason = attempt.source.open(attempt.file, attempt.follow, self._folder)
        if reason == 0:
            self._opened += 1
            if self._opened % _SLOW_AMONG == 0:
                self._slow_files = 0
        return reason

    cdef int open_ahead(self, Attempt attempt) except -1:
        """Open the attempt's file before its turn, and hold what is small. Returns NO_DESCRIPTOR when none is free.

        What else can't be opened is tried again when its turn comes: that fails, then, for the reason that it has then.
        """
        cdef int reason
        if attempt.content is not None or attempt.source is not None:
            return OPENED
        reason = self._open_file(attempt)
        if reason == 0:
            attempt.source.hold(_MAX_HELD)
            return OPENED
        attempt.source = None
        return NO_DESCRIPTOR if reason in (EMFILE, ENFILE) else FAILED

    cdef bint reads_ahead(self) noexcept:
        """Threads bring what is in line into the cache."""
        return self._ahead is not None

    cdef int _refuse(self, Attempt attempt, object failure) except -1:
        """The attempt ends before it has a stream."""
        attempt.source.close()
        attempt.source = None
        attempt.failure = failure
        return FAILED

    cdef bint cut_mapped(self, Attempt attempt, int64_t allowed) except -1:
        """A frame header in the arena, and up to `allowed` octets where they are mapped. False: the list is full.

        Leaves a tail for `cut_staged`.
        """
        cdef uint8_t* out
        cdef const uint8_t* start
        cdef Mapping* holder = NULL
        cdef int64_t tail = _MIN_TAIL + attempt.tail
        if attempt.remaining - allowed < tail:
            allowed = attempt.remaining - tail
        if not self._gather.has_room(FRAME_HEADER):
            return False
        start = attempt.source.slice(allowed, &holder)
        if start == NULL:
            # A file system without mmap: read it like a small file.
            attempt.mapped = False
            return True
        out = self._gather.reserve(FRAME_HEADER)
        put_frame_header(out, <uint32_t>allowed, DATA, 0, attempt.stream_id)
        self._gather.commit(FRAME_HEADER)
        self._gather.push_slice(start, allowed, holder, attempt.stream_id)
        attempt.gathered = self._gather.serial
        attempt.remaining -= allowed
        return True

    cdef bint cut_staged(self, Attempt attempt, int64_t allowed) except -1:
        """Frame header and `allowed` octets in the arena, read by pread. False: the list is full.

        END_STREAM comes once the file is known to be unchanged; else the attempt has a failure, and nothing is added.
        """
        cdef uint8_t* out
        cdef Py_ssize_t got
        cdef int flags = 0
        if not self._gather.has_room(FRAME_HEADER + allowed):
            return False
        out = self._gather.reserve(FRAME_HEADER + allowed)
        if attempt.envelope is None:
            got = attempt.source.read(out + FRAME_HEADER, allowed)
        else:
            got = self._read_wrapped(attempt, out + FRAME_HEADER, allowed)
        if got < 0:
            attempt.failure = file_failure(<int>-got)
            return True
        if got < allowed:
            attempt.failure = _changed()
            return True
        if allowed == attempt.remaining:
            if self._is_another(attempt):
                attempt.failure = _changed()
                return True
            flags = END_STREAM
        put_frame_header(out, <uint32_t>allowed, DATA, flags, attempt.stream_id)
        self._gather.commit(FRAME_HEADER + allowed)
        attempt.remaining -= allowed
        return True

    cdef Py_ssize_t _read_wrapped(self, Attempt attempt, uint8_t* out, int64_t allowed) noexcept:
        """As the source's `read`, with what stands around the file."""
        cdef int64_t begins = attempt.size + attempt.tail
        cdef Py_ssize_t got = attempt.envelope.read(attempt.source, attempt.remaining, out, allowed)
        if attempt.remaining > begins >= attempt.remaining - got:
            attempt.mapped = not self._staged and attempt.size > _MAX_READ
        return got

    cdef bint _is_another(self, Attempt attempt) except -1:
        """Has the file changed since it was opened, or another one its place? One that is gone goes up whole."""
        cdef int found = attempt.source.compare()
        if found != STIRRED:
            return found == CHANGED
        try:
            return os.stat(attempt.file, follow_symlinks=attempt.follow).st_ino != attempt.inode
        except OSError:
            return False

    cdef object torn(self, Attempt attempt):
        """Return the failure of a file whose mapping lost its pages."""
        return _changed() if attempt.source.shrank() else file_failure(EIO)

    cdef void begin_opening(self) noexcept:
        """Files are opened from here on, until `end_opening`: timed together, as two questions a file cost 1 %."""
        self._opened_before = self._opened
        self._began_opening = now_us()
        self._slept_before = slept()

    cdef bint end_opening(self, waiting) except -1:
        """True: opening had to wait, for the disk or for who serves the files."""
        cdef int64_t opened = self._opened - self._opened_before
        cdef long sleeps
        if opened <= 0 or now_us() - self._began_opening < SLOW_UNASKED:
            return False
        sleeps = slept() - self._slept_before
        if sleeps <= 0:
            return False
        self.note_slow(waiting, min(opened, sleeps))
        return True

    cdef int note_slow(self, waiting, long files) except -1:
        """The first read of so many files took as long as a disk takes, or their opening did.

        Then what is `waiting` may be worth reading ahead. One may be chance, as this thread has to share its processor.
        """
        self._slow_files += files
        if self._ahead is None and self._slow_files >= (
            _SLOW_FILES if self._opened >= self._ahead_from else _MANY_SLOW_FILES
        ):
            self._ahead = ReadAhead()
            self.read_ahead(waiting)
        return 0

    cdef int read_ahead(self, attempts) except -1:
        """Have the files of attempts in line read ahead, as long as that finds any that are not in the page cache."""
        cdef Attempt attempt
        cdef int verdict
        if self._ahead is None:
            return 0
        verdict = self._ahead.verdict()
        if verdict == PAID:
            self._rest = _REST
            self._ahead_from = self._opened
        elif verdict == IN_VAIN:
            self._ahead_from = self._opened + self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)
        if verdict == PAID or verdict == IN_VAIN:
            self._ahead = None
            return 0
        self._ahead.begin()
        for item in attempts:
            attempt = <Attempt>item
            if attempt.content is None:
                self._ahead.add(attempt.file)
        self._ahead.end()
        return 0

    cdef int close(self) except -1:
        """Nothing more is opened, nor read ahead."""
        self._ahead = None
        self._folder.close()
        return 0


def _changed():
    return FileChanged("the file changed while uploading: upload it again when nothing writes to it")
