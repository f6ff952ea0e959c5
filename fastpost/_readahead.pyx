# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: places in the line are taken modulo its length.
"""Files that are next in line, brought into the page cache by threads of their own.

The loop opens and reads files itself: in the page cache that is cheapest. From a disk, and more so from a file server,
each open and each read would hold up everything else, one after the other. So once a read had to wait, the files in
line are opened and read ahead here, several at a time, and the loop finds them in the cache. Nothing is handed over: no
descriptor is kept, and what can't be opened here is told by who opens it next.

The threads are none of Python's: they never take its lock, and nobody waits for them, as a dead file server may keep
one for hours.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastpost._folder cimport first_spared

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_attr_t:
        pass
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_cond_init(pthread_cond_t* condition, void* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_broadcast(pthread_cond_t* condition)
    int pthread_create(pthread_t* thread, pthread_attr_t* attributes, void* (*start)(void*) noexcept nogil, void* what)
    int pthread_attr_init(pthread_attr_t* attributes)
    int pthread_attr_destroy(pthread_attr_t* attributes)
    int pthread_attr_setdetachstate(pthread_attr_t* attributes, int state)
    int pthread_attr_setstacksize(pthread_attr_t* attributes, size_t octets)
    int PTHREAD_CREATE_DETACHED

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t* signals)
    int pthread_sigmask(int how, const sigset_t* signals, sigset_t* before)
    int SIG_SETMASK

cdef extern from "<sys/resource.h>" nogil:
    ctypedef unsigned long rlim_t
    cdef struct rlimit:
        rlim_t rlim_cur
    int getrlimit(int resource, rlimit* out)
    int RLIMIT_NOFILE

cdef extern from "<fcntl.h>" nogil:
    int c_open "open"(const char* path, int flags)
    int posix_fadvise(int fd, long offset, long length, int advice)
    int O_RDONLY
    int O_CLOEXEC
    int O_NOCTTY
    int O_NOFOLLOW
    int O_NONBLOCK
    int POSIX_FADV_WILLNEED

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    Py_ssize_t preadv2(int fd, const iovec* vector, int count, long offset, int flags)
    int RWF_NOWAIT

cdef extern from "<sys/stat.h>" nogil:
    cdef struct stat_result "stat":
        unsigned int st_mode
        long st_size
    int fstat(int fd, stat_result* out)
    bint S_ISREG(unsigned int mode)

cdef enum:
    # A disk has a queue of some tens, a file server answers in a millisecond: eight take most of what there is.
    _THREADS = 8
    # The beginning of a file that is read ahead: the window that is mapped first.
    _BEGINNING = 2097152
    _STACK = 131072
    # Where fewer files may be open, none is spared: the uploads need them.
    _MANY_FILES = 256
    # It is not worth its while when of so many files fewer than a quarter were not in the cache.
    _LOT = 256
    _PART = 4

cdef extern from * nogil:
    int __atomic_add_fetch(int* counter, int change, int order)
    int __ATOMIC_SEQ_CST

# Lines that exist, with threads that have not left yet; for tests. Who leaves last counts it off, without a lock.
cdef int _lines = 0


def live_lines() -> int:
    """Return how many lines of files exist: those in use, and those that a thread has not left yet."""
    return _lines


cdef class ReadAhead:
    """The files in line, and up to eight threads that read them ahead."""

    def __cinit__(self):
        self._line = <Line*>calloc(1, sizeof(Line))
        if self._line == NULL:
            raise MemoryError
        pthread_mutex_init(&self._line.lock, NULL)
        pthread_cond_init(&self._line.arrived, NULL)
        self._line.references = 1
        self._line.verdict = TRYING
        __atomic_add_fetch(&_lines, 1, __ATOMIC_SEQ_CST)

    def __dealloc__(self):
        self.stop()

    cdef void begin(self) noexcept:
        """Files to be read ahead follow, by `add`, and then `end`: the threads are kept out until all are in line."""
        if self._line != NULL:
            pthread_mutex_lock(&self._line.lock)

    cdef void add(self, bytes path) noexcept:
        """Have a file read ahead. When the line is full, or memory or threads can't be had, it just isn't."""
        cdef Line* line = self._line
        cdef size_t length = len(path) + 1
        cdef char* copy
        if line == NULL or line.count == LINE:
            return
        copy = <char*>malloc(length)
        if copy == NULL:
            return
        memcpy(copy, <const char*>path, length)
        line.paths[(line.first + line.count) % LINE] = copy
        line.count += 1

    cdef void end(self) noexcept:
        """Let the threads at the line. To wake one costs microseconds, so each is woken once, not for each file."""
        cdef Line* line = self._line
        cdef int begun = 0
        cdef int woken = 0
        if line == NULL:
            return
        while line.idle + begun < line.count and line.threads < _THREADS and _begin(line):
            begun += 1
        while woken < min(line.idle, line.count):
            pthread_cond_signal(&line.arrived)
            woken += 1
        pthread_mutex_unlock(&line.lock)

    cdef int verdict(self) noexcept:
        """PAID or IN_VAIN once three quarters of a few hundred files lay in the cache already."""
        cdef int verdict
        if self._line == NULL:
            return IN_VAIN
        pthread_mutex_lock(&self._line.lock)
        verdict = self._line.verdict
        pthread_mutex_unlock(&self._line.lock)
        return verdict

    cdef void stop(self) noexcept:
        """Read nothing more. The threads leave when the system lets them; nobody waits."""
        cdef Line* line = self._line
        if line == NULL:
            return
        self._line = NULL
        pthread_mutex_lock(&line.lock)
        line.stopped = True
        while line.count:
            free(_next(line))
        pthread_cond_broadcast(&line.arrived)
        _leave(line)

    # --- the same for Python: tests ---------------------------------------------------------------

    def read_ahead(self, *paths: bytes) -> None:
        """Have files read ahead."""
        self.begin()
        for path in paths:
            self.add(path)
        self.end()

    def worth_it(self) -> bool:
        """Return whether enough of the last files were not in the cache."""
        return self.verdict() in (TRYING, PAYING)

    def shut(self) -> None:
        """Read nothing more; twice is fine."""
        self.stop()


cdef bint _begin(Line* line) noexcept nogil:
    """Start a thread; it takes no signals, they are the loop's. False: it can't be had. Called with the lock held."""
    cdef pthread_attr_t attributes
    cdef pthread_t thread
    cdef sigset_t all_signals, before
    cdef rlimit open_files
    cdef bint begun
    if getrlimit(RLIMIT_NOFILE, &open_files) != 0 or open_files.rlim_cur < _MANY_FILES:
        return False
    if pthread_attr_init(&attributes) != 0:
        return False
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED)
    pthread_attr_setstacksize(&attributes, _STACK)
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    begun = pthread_create(&thread, &attributes, _serve, line) == 0
    if begun:
        line.threads += 1
        line.references += 1
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    pthread_attr_destroy(&attributes)
    return begun


cdef int _judged(int verdict, bint enough) noexcept nogil:
    """The verdict after one more lot, in which enough files were not in the cache, or too few."""
    if verdict == TRYING:
        return PAYING if enough else IN_VAIN
    return PAID if verdict == PAYING and not enough else verdict


cdef char* _next(Line* line) noexcept nogil:
    """Take the first path out of the line. Called with the lock held."""
    cdef char* path = line.paths[line.first]
    line.first = (line.first + 1) % LINE
    line.count -= 1
    return path


cdef void _leave(Line* line) noexcept nogil:
    """Give up a reference, and the lock; the last one to leave frees the line."""
    cdef bint last
    line.references -= 1
    last = line.references == 0
    pthread_mutex_unlock(&line.lock)
    if last:
        pthread_mutex_destroy(&line.lock)
        pthread_cond_destroy(&line.arrived)
        free(line)
        __atomic_add_fetch(&_lines, -1, __ATOMIC_SEQ_CST)


cdef void* _serve(void* what) noexcept nogil:
    """The life of a thread."""
    cdef Line* line = <Line*>what
    cdef char* path
    cdef bint warm
    pthread_mutex_lock(&line.lock)
    while True:
        while line.count == 0 and not line.stopped:
            line.idle += 1
            pthread_cond_wait(&line.arrived, &line.lock)
            line.idle -= 1
        if line.stopped:
            break
        path = _next(line)
        pthread_mutex_unlock(&line.lock)
        warm = _read(path)
        free(path)
        pthread_mutex_lock(&line.lock)
        line.looked_at += 1
        line.cold += not warm
        if line.looked_at == _LOT:
            line.verdict = _judged(line.verdict, line.cold * _PART >= _LOT)
            line.looked_at = 0
            line.cold = 0
    _leave(line)
    return NULL


cdef bint _read(const char* path) noexcept nogil:
    """Have the beginning of a file read into the page cache. True: it lay there."""
    cdef stat_result status
    cdef iovec vector
    cdef uint8_t octet
    cdef bint warm = True
    # O_NONBLOCK: a FIFO must not keep the thread. Links are left to who knows whether they may be followed.
    cdef int fd = c_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW)
    if fd < 0:
        return True
    if fd >= first_spared():
        c_close(fd)
        return True
    if fstat(fd, &status) == 0 and S_ISREG(status.st_mode) and status.st_size > 0:
        vector.iov_base = &octet
        vector.iov_len = 1
        # Where the cache can't be asked this says no, and all is read ahead.
        warm = preadv2(fd, &vector, 1, 0, RWF_NOWAIT) == 1
        if not warm:
            posix_fadvise(fd, 0, min(status.st_size, <long>_BEGINNING), POSIX_FADV_WILLNEED)
    c_close(fd)
    return warm
