# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: nothing is indexed.
"""What lies between a data plane and its socket: nothing, or OpenSSL.

With a server that grants small windows from nearby, a connection receives, sends and waits some ten thousand times a
second. As long as nothing has to be told to anybody, all that goes on here, without Python in between.
"""

import errno
import ssl

cimport cython
from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t

from fastpost._patience cimport Patience, is_readable
from fastpost._streams cimport DataPlane

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* now)
    int CLOCK_MONOTONIC

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, int* out)
    unsigned long TIOCOUTQ

cdef enum:
    # More than the largest TLS record holds (RFC 8446 §5.1), so that OpenSSL never keeps a part of one.
    _RECORD = 32768
    # Gather lists sent in answer to one credit.
    _LISTS = 8


cdef double _now() noexcept nogil:
    """Monotonic seconds, as `time.monotonic` has them."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <double>now.tv_sec + <double>now.tv_nsec * 1e-9


cdef class Wire:
    """Cleartext: the plane's octets are the socket's.

    Args:
        plane: receives and sends.
        fd: a non-blocking socket, which stays its owner's.

    `gave_up` is True when credit was waited for last, and did not come in time. `quiet` is True when the last
    conversation left nothing to be sent or told, neither now nor at a time of its own.
    """

    def __init__(self, DataPlane plane not None, int fd):
        self._plane = plane
        self._fd = fd
        self.gave_up = self.quiet = False

    def receive(self, double now) -> int:
        """Handle all that the socket holds. Returns 0 at the end of the connection, or −errno (−EAGAIN: not yet).

        Raises ProtocolViolation, NotHttp2: the connection is over; TLS also OSError (ssl.SSLError).
        """
        self.gave_up = self.quiet = False
        return self._receive_all(now)

    def send(self, double now, int lists) -> int:
        """Fill and send up to `lists` gather lists: the whole send side of a tick in one call.

        Returns 0 when nothing is left to send, 1 when there may be more, −errno when the socket takes no more
        (−EAGAIN: it is full).
        """
        return self._send_timed(now, lists)

    def on_the_way(self) -> int:
        """Return how many of the octets that the socket took have not arrived yet; 0 when the kernel can't say."""
        cdef int octets = 0
        # The same number as SIOCOUTQ (tcp(7)).
        ioctl(self._fd, TIOCOUTQ, &octets)
        return octets

    def converse(self, Patience patience not None, double until) -> int:
        """Receive, send, and wait awake for the next credit, as long as nobody has to be told anything.

        Ends at `until` (monotonic seconds) at the latest. Returns and raises as `receive`; whatever there is to be sent
        then, or could not be, is still to be sent.
        """
        cdef double now = _now()
        cdef int got
        cdef bint sent = False
        self.gave_up = self.quiet = False
        got = self._receive(now)
        while got > 0 and not self._plane.has_news():
            sent = self._send_timed(now, _LISTS) == 0
            if not sent or not self._plane.is_kept_waiting() or now >= until:
                break
            self._prepare(until)
            self.gave_up = not patience.watch(self._fd)
            if self.gave_up:
                break
            now = _now()
            got = self._receive(now)
        if got <= 0:
            return got
        # Not at `now`: what was sent since may be answered already. If so that is not answered here: a server that has
        # many uploads before it would be kept to one at a time.
        now = _now()
        got = self._receive_rest(now)
        if got > 0:
            return self._receive_all(now)
        self.quiet = (
            sent and got == -EAGAIN and not self._plane.has_news() and self._plane.gather.pending == 0
            and self._plane.held_until() == 0.0
        )
        return got

    cdef int _send_timed(self, double now, int lists) except? -1:
        """As `send`; when a read had to wait for the disk, the time that it all took is the disk's."""
        cdef int left = self._send(now, lists)
        if self._plane.cold:
            self._plane.stalled_on_disk(_now() - now)
        return left

    cdef int _prepare(self, double until) except -1:
        """Work ahead until the socket has something, a disk was waited for, or it is time (monotonic seconds)."""
        cdef double began = _now()
        cdef double now = began
        while now < until and self._plane.may_prepare() and not is_readable(self._fd):
            self._plane.prepare()
            now = _now()
            if self._plane.cold:
                self._plane.stalled_on_disk(now - began)
                break
        return 0

    cdef int _receive_all(self, double now) except? -1:
        # On to EAGAIN, not only to a short read: libuv polls no more once it has seen an error on the descriptor, so a
        # reset that lies behind the octets must be met now.
        cdef int got = self._receive(now)
        while got > 0:
            got = self._receive_rest(now)
        return got

    cdef int _receive_rest(self, double now) except? -1:
        """As `_receive`, where there may well be nothing."""
        return self._receive(now)

    cdef int _receive(self, double now) except? -1:
        """One receive. Returns octets, 0 at the end of the connection, or −errno."""
        return self._plane.receive_some(self._fd, now)

    cdef int _send(self, double now, int lists) except? -1:
        return self._plane.send_lists(self._fd, now, lists)


@cython.final
cdef class TlsWire(Wire):
    """TLS: the plane's octets go through an ssl.SSLSocket, a record at a time.

    Args:
        plane: receives and sends, staged.
        sock: connected, non-blocking, done with its handshake.
    """

    def __init__(self, DataPlane plane not None, sock not None):
        super().__init__(plane, sock.fileno())
        self._recv_into = sock.recv_into
        self._send_octets = sock.send
        self._record = bytearray(_RECORD)

    cdef int _receive_rest(self, double now) except? -1:
        # To ask whether there is more costs less than to have OpenSSL find out that there is not.
        return self._receive(now) if is_readable(self._fd) else -EAGAIN

    cdef int _receive(self, double now) except? -1:
        """One record."""
        cdef int got
        try:
            got = self._recv_into(self._record, _RECORD)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -EAGAIN
        if got > 0:
            self._plane.take_received(<const uint8_t*><char*>self._record, got, now)
        return got

    cdef int _send(self, double now, int lists) except? -1:
        cdef int _
        for _ in range(lists):
            if not self._plane._fill(now):
                return 0
            while self._plane.gather.pending:
                try:
                    sent = self._send_octets(self._plane.gather)
                except ssl.SSLWantWriteError:
                    # OpenSSL wants the same octets again; they stay first in the gather list until they are sent.
                    return -EAGAIN
                except ssl.SSLWantReadError:
                    return 0  # what arrives next brings the next try
                except OSError as error:
                    # An SSLError has numbers of OpenSSL's own.
                    return -<int>(errno.EPIPE if isinstance(error, ssl.SSLError) else error.errno or errno.EPIPE)
                self._plane.consume(sent, now)
        return 1
