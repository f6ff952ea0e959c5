# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: nothing is indexed here; slices are bounded by `size` and `_WINDOW`.
"""An open file, cut into slices: mapped for the socket, or read for whoever needs the octets.

`slice` hands out pointers into a mapped window that slides along the file, so that the kernel copies
from the page cache to the socket and user space touches no octet. `read` copies by pread(2); it is for
small files, for TLS and for digests, because touching a mapping that another process truncated raises
SIGBUS in user space. The kernel, reading the same page for sendmsg(2), merely returns EFAULT.

A source may also borrow a mapping that others made and that never changes (`_payload`): then there is no file.

A source knows offsets and limits, never stream ids. It has one position: `offset`.
"""

cimport cython
from libc.errno cimport EINTR, EINVAL, EISDIR, EMFILE, ENODEV, ENOSYS, EOPNOTSUPP, errno
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastpost._folder cimport Folder, first_spared, live_folders

cdef extern from "<fcntl.h>" nogil:
    int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)
    int O_RDONLY
    int O_CLOEXEC
    int O_NOCTTY
    int O_NONBLOCK
    int O_NOFOLLOW
    int POSIX_FADV_WILLNEED

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)
    Py_ssize_t pread(int fd, void* out, size_t length, int64_t offset)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    Py_ssize_t preadv2(int fd, const iovec* vector, int count, int64_t offset, int flags)
    int RWF_NOWAIT

cdef extern from "<sys/stat.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    cdef struct stat_result "stat":
        unsigned int st_mode
        uint64_t st_ino
        int64_t st_size
        timespec st_mtim
        timespec st_ctim
    int fstat(int fd, stat_result* out)
    bint S_ISREG(unsigned int mode)
    bint S_ISDIR(unsigned int mode)

cdef extern from "<time.h>" nogil:
    int clock_gettime(int clock, timespec* now)
    int CLOCK_MONOTONIC

cdef extern from "<sys/resource.h>" nogil:
    cdef struct rusage:
        long ru_nvcsw
    int getrusage(int whose, rusage* usage)
    int RUSAGE_THREAD

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t length, int protection, int flags, int fd, int64_t offset)
    int munmap(void* address, size_t length)
    int madvise(void* address, size_t length, int advice)
    int PROT_READ
    int MAP_SHARED
    int MADV_SEQUENTIAL
    void* MAP_FAILED

# A window's pages count as resident, so it bounds memory: 50 large files in flight map 100 MiB at most.
cdef int64_t _WINDOW = 2 * 1024 * 1024
cdef int64_t _PAGE_MASK = 4096 - 1
# Whole seconds whose nanoseconds 64 bits can count.
cdef int64_t _MOST_SECONDS = 9223372036

# A read from a disk takes longer (µs), where the cache had nothing; where it can't be asked, SLOW_UNASKED is the bound.
# That it says no tells little: it does so now and then to reads that it could answer.
cdef int64_t _SLOW = 50

# False once a file system could not tell what is cached.
cdef bint _asks_cache = True

# What is open now; a test asserts that all are 0 after every run.
cdef int _live_sources = 0
cdef int _live_mappings = 0


def live_objects() -> tuple:
    """Return (open sources and folders, live mappings): both 0 when nothing leaked."""
    return _live_sources + live_folders(), _live_mappings


cdef Mapping* hold_mapping(void* address, size_t length, int64_t offset) noexcept nogil:
    """Take mapped pages, with one reference. NULL when there is no memory for it: then they are unmapped."""
    global _live_mappings
    cdef Mapping* mapping = <Mapping*>malloc(sizeof(Mapping))
    if mapping == NULL:
        munmap(address, length)
        return NULL
    mapping.address = <uint8_t*>address
    mapping.length = length
    mapping.offset = offset
    mapping.references = 1
    _live_mappings += 1
    return mapping


cdef void release_mapping(Mapping* mapping) noexcept nogil:
    """Give back one reference; the last one unmaps."""
    global _live_mappings
    mapping.references -= 1
    if mapping.references == 0:
        munmap(mapping.address, mapping.length)
        free(mapping)
        _live_mappings -= 1


cdef int64_t now_us() noexcept nogil:
    """The monotonic clock, microseconds."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef long slept() noexcept nogil:
    """How often this thread has given its processor away by itself, to wait for something."""
    cdef rusage usage
    return usage.ru_nvcsw if getrusage(RUSAGE_THREAD, &usage) == 0 else 0


cdef inline bint _is_slow(int64_t since, long sleeps) noexcept nogil:
    """Did what began then take as long as a disk does, asleep? Who lost the processor did not wait for a disk."""
    return now_us() - since >= (_SLOW if _asks_cache else SLOW_UNASKED) and slept() > sleeps


cdef inline int64_t _nanoseconds(const timespec* date) noexcept nogil:
    """Nanoseconds; ±(2⁶³−1) for dates outside 1677 to 2262, as `sources.mtime_ns` has it."""
    cdef int64_t seconds = date.tv_sec
    if seconds >= _MOST_SECONDS:
        return INT64_MAX
    if seconds < -_MOST_SECONDS:
        return -INT64_MAX
    return seconds * 1000000000 + date.tv_nsec


@cython.final
@cython.freelist(64)
cdef class Source:
    """One regular file, open for reading from `offset` to `size` (octets, as of opening)."""

    def __cinit__(self):
        self._fd = -1
        self._mapping = NULL
        self._held = NULL
        self._whole = False
        self._held_from = 0
        self._held_to = 0
        self._fetched_at = -1
        self._period = 0
        self._start = 0
        self._ctime_ns = 0
        self.size = -1
        self.offset = 0
        self.cold = False
        self.slow = False

    def __dealloc__(self):
        self.close()

    cdef int open(self, const char* path, bint follow, Folder folder) noexcept:
        """Open and take size and mtime. Returns 0 or an errno; ENODEV for what is no regular file.

        `folder` remembers where files were last opened. ELOOP for a symbolic link that is not to be followed.
        O_NONBLOCK because a FIFO that took the file's place would block the loop for ever.
        """
        global _live_sources
        cdef stat_result status
        cdef int reason
        self._fd = folder.open_file(
            path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (0 if follow else O_NOFOLLOW)
        )
        if self._fd < 0:
            return errno
        _live_sources += 1
        if self._fd >= first_spared() and _live_sources > 1:
            self.close()
            return EMFILE
        if fstat(self._fd, &status) != 0:
            reason = errno
            self.close()
            return reason
        if not S_ISREG(status.st_mode):
            self.close()
            return EISDIR if S_ISDIR(status.st_mode) else ENODEV
        self.size = status.st_size
        self.mtime_ns = _nanoseconds(&status.st_mtim)
        self.inode = status.st_ino
        self._ctime_ns = _nanoseconds(&status.st_ctim)
        return 0

    cdef bint hold(self, Py_ssize_t limit) noexcept:
        """Take all of a file of up to `limit` octets into memory, and close it; `read` has it from there.

        Only where the page cache has all of it, so that nothing waits, and where it did not change meanwhile. False:
        it is open as before; what the cache lacks, the kernel is asked to read by then.
        """
        if not 0 < self.size <= limit or self.offset or not _asks_cache:
            return False
        if self.fetch(self.size) < self.size:
            posix_fadvise(self._fd, 0, self.size, POSIX_FADV_WILLNEED)
            return False
        if self.compare() != SAME:
            return False
        self._close_file()
        self._whole = True
        return True

    cdef Py_ssize_t fetch(self, Py_ssize_t octets) noexcept:
        """Read up to so many of the next octets ahead, where `may_fetch` says so. Returns how many; 0: `read` will."""
        cdef Py_ssize_t got
        octets = min(octets, <Py_ssize_t>(self.size - self.offset))
        if octets <= 0 or not self.may_fetch():
            return 0
        self._fetched_at = self.offset
        free(self._held)
        self._held = <uint8_t*>malloc(octets)
        if self._held == NULL:
            return 0
        got = self._read_cached(self._held, octets)
        self._held_from = self.offset
        self._held_to = self.offset + got
        return got

    cdef bint may_fetch(self) noexcept:
        """Is there more to be read ahead? Not before all others are taken; what the cache had not is asked for once."""
        return (
            self._fd >= 0 and self.offset < self.size and self.offset >= self._held_to
            and self.offset != self._fetched_at and _asks_cache
        )

    cdef void borrow(self, Mapping* mapping, int64_t period, int64_t start, int64_t size) noexcept:
        """Be `size` octets of a mapping that never changes, from `start` on, round and round its `period`.

        It goes on for OVERLAP octets behind the period, so that nothing has to be cut there.
        """
        mapping.references += 1
        self._mapping = mapping
        self._period = period
        self._start = start
        self.size = size

    cdef const uint8_t* _borrowed(self) noexcept:
        return self._mapping.address + (self._start + self.offset) % self._period

    cdef Py_ssize_t read(self, uint8_t* out, Py_ssize_t limit) noexcept:
        """Copy up to limit octets to out and move on. Returns how many (fewer only at the end of file), or −errno."""
        cdef Py_ssize_t taken, got
        if self._period:
            assert limit <= OVERLAP
            limit = min(limit, <Py_ssize_t>(self.size - self.offset))
            memcpy(out, self._borrowed(), limit)
            self.offset += limit
            return limit
        taken = 0
        if self._held != NULL:
            taken = self._take_held(out, limit)
        if taken == limit or self._whole:
            return taken
        got = self._read_file(out + taken, limit - taken)
        return got if got < 0 else taken + got

    cdef Py_ssize_t _take_held(self, uint8_t* out, Py_ssize_t limit) noexcept:
        """Copy what was read ahead, and move on. Returns how many octets."""
        limit = min(limit, <Py_ssize_t>(self._held_to - self.offset))
        if limit <= 0:
            return 0
        memcpy(out, self._held + (self.offset - self._held_from), limit)
        self.offset += limit
        if self.offset == self._held_to:
            # Of many streams only the next ones hold anything.
            free(self._held)
            self._held = NULL
        return limit

    cdef Py_ssize_t _read_file(self, uint8_t* out, Py_ssize_t limit) noexcept:
        """As `read`, from the file."""
        cdef Py_ssize_t got
        cdef Py_ssize_t done
        cdef int64_t since
        cdef long sleeps
        done = self._read_cached(out, limit)
        self.cold = done < limit and _asks_cache
        since = 0
        sleeps = 0
        if done < limit:
            since = now_us()
            sleeps = slept()
        while done < limit:
            got = pread(self._fd, out + done, limit - done, self.offset + done)
            if got < 0:
                if errno == EINTR:
                    continue
                return -errno
            if got == 0:
                break
            done += got
        self.slow = since != 0 and _is_slow(since, sleeps)
        self.cold = self.cold or self.slow
        self.offset += done
        return done

    cdef Py_ssize_t _read_cached(self, uint8_t* out, Py_ssize_t limit) noexcept:
        """Read what lies in the page cache, without waiting. Returns how many octets."""
        global _asks_cache
        cdef iovec vector
        cdef Py_ssize_t got
        if not _asks_cache:
            return 0
        vector.iov_base = out
        vector.iov_len = limit
        got = preadv2(self._fd, &vector, 1, self.offset, RWF_NOWAIT)
        if got >= 0:
            return got
        if errno == EOPNOTSUPP or errno == ENOSYS or errno == EINVAL:
            # A file system that can't tell: asking it would cost a call a file. What takes long then had to wait.
            _asks_cache = False
        return 0

    cdef const uint8_t* slice(self, Py_ssize_t length, Mapping** holder) noexcept:
        """Return the next `length` octets in place and move on; holder gets a mapping to release when they are sent.

        At most a window less a page. NULL (errno set) when the file can't be mapped: read it instead.
        """
        cdef Mapping* mapping = self._mapping
        cdef const uint8_t* start
        if self._period:
            assert length <= OVERLAP
            start = self._borrowed()
        else:
            if mapping == NULL or self.offset + length > mapping.offset + <int64_t>mapping.length:
                mapping = self._slide()
                if mapping == NULL:
                    return NULL
            start = mapping.address + (self.offset - mapping.offset)
        mapping.references += 1
        holder[0] = mapping
        self.offset += length
        return start

    cdef Mapping* _slide(self) noexcept:
        """Map the window that begins at the page of `offset`, and have the kernel read the one after it."""
        cdef int64_t offset = self.offset & ~_PAGE_MASK
        cdef int64_t length = min(_WINDOW, self.size - offset)
        cdef void* address
        cdef uint8_t probe
        cdef int64_t since
        cdef long sleeps
        if self._mapping != NULL:
            release_mapping(self._mapping)
            self._mapping = NULL
        address = mmap(NULL, length, PROT_READ, MAP_SHARED, self._fd, offset)
        if address == MAP_FAILED:
            return NULL
        madvise(address, length, MADV_SEQUENTIAL)
        since = now_us()
        sleeps = slept()
        if self._read_cached(&probe, 1) == 0:
            # sendmsg would wait for it now; so it is known how long that takes.
            pread(self._fd, &probe, 1, offset)
            self.slow = _is_slow(since, sleeps)
            self.cold = _asks_cache or self.slow
        if offset + length < self.size:
            posix_fadvise(self._fd, offset + length, _WINDOW, POSIX_FADV_WILLNEED)
        self._mapping = hold_mapping(address, length, offset)
        return self._mapping

    cdef int compare(self) noexcept:
        """Is the file what it was when it was opened? What is in memory was looked at then.

        CHANGED: another size or mtime. STIRRED: its permissions have changed, or its names, and perhaps the one that it
        was opened by is another file's now (rename(2)).
        """
        cdef stat_result status
        if self._period or self._whole:
            return SAME
        if fstat(self._fd, &status) != 0 or status.st_size != self.size:
            return CHANGED
        if _nanoseconds(&status.st_mtim) != self.mtime_ns:
            return CHANGED
        return SAME if _nanoseconds(&status.st_ctim) == self._ctime_ns else STIRRED

    cdef bint holds_more(self) noexcept:
        """True when there are octets beyond `size`, as in files of /proc, whose size reads 0."""
        cdef uint8_t octet
        return pread(self._fd, &octet, 1, self.size) > 0

    cdef bint shrank(self) noexcept:
        """True when the file is shorter than it was when it was opened."""
        cdef stat_result status
        return fstat(self._fd, &status) == 0 and status.st_size < self.size

    cdef bint is_open(self) noexcept:
        """True while it has a descriptor."""
        return self._fd >= 0

    cdef void close(self) noexcept:
        """Close the file. Slices already handed out stay valid until their mapping is released."""
        if self._held != NULL:
            free(self._held)
            self._held = NULL
        self._whole = False
        if self._mapping != NULL:
            release_mapping(self._mapping)
            self._mapping = NULL
        self._close_file()

    cdef void _close_file(self) noexcept:
        global _live_sources
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1
            _live_sources -= 1

    # --- the same for Python: tests and benchmarks -------------------------------------------------

    @staticmethod
    def from_path(path: bytes, Folder folder=None) -> Source:
        """Open a file, through `folder` where one is given. Raises OSError."""
        cdef Source source = Source()
        cdef int reason = source.open(path, True, folder or Folder())
        if reason:
            raise OSError(reason, "can't open", path)
        return source

    def read_octets(self, Py_ssize_t limit) -> bytes:
        """Return up to limit octets read by pread. Raises OSError, ValueError when closed."""
        self._check(limit)
        buffer = bytearray(min(limit, max(self.size - self.offset, 0)))
        cdef uint8_t* out = buffer
        cdef Py_ssize_t got = self.read(out, len(buffer))
        if got < 0:
            raise OSError(-got, "can't read")
        return bytes(buffer[:got])

    def map_octets(self, Py_ssize_t length) -> bytes:
        """Return a copy of the next mapped slice of `length` octets. Raises OSError; ValueError beyond the end."""
        cdef Mapping* holder = NULL
        self._check(length)
        if self.offset + length > self.size or length > _WINDOW - _PAGE_MASK - 1:
            raise ValueError("a slice can't pass the end of the file nor be larger than a window")
        cdef const uint8_t* start = self.slice(length, &holder)
        if start == NULL:
            raise OSError(errno, "can't map")
        copy = start[:length]
        release_mapping(holder)
        return copy

    def is_unchanged(self) -> bool:
        """True while size and mtime are those of opening."""
        return (self._fd >= 0 or self._whole) and self.compare() != CHANGED

    def hold_octets(self, Py_ssize_t limit) -> bool:
        """Take a file of up to `limit` octets into memory and close it; False: it stays open. Raises ValueError."""
        self._check(limit)
        return self.hold(limit)

    def fetch_octets(self, Py_ssize_t octets) -> int:
        """Read up to so many octets ahead. Returns how many; 0 while some are left, or the cache has none."""
        self._check(octets)
        return self.fetch(octets)

    def shut(self) -> None:
        """Close the file; twice is fine."""
        self.close()

    def _check(self, Py_ssize_t length):
        if self._fd < 0 and not self._whole:
            raise ValueError("the source is closed")
        if length <= 0:
            raise ValueError("a slice has at least 1 octet")
