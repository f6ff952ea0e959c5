# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: the table's list is indexed only at slots that the scheduler got from the table.
"""The send side of one connection: HEADERS of what may begin, DATA by turns, and what is made ready meanwhile."""

from libc.errno cimport EFAULT
from libc.stdint cimport int32_t, int64_t, uint32_t

from fastpost._frames cimport CANCEL
from fastpost._open_streams cimport MAX_STREAM_ID, OpenStreams
from fastpost._request_content cimport FAILED, NO_DESCRIPTOR, OPENED
from fastpost._scheduler cimport NOBODY
from fastpost._table cimport Attempt

cdef enum:
    # Windows for which a stream must last to count as one that fills them.
    _LASTING = 8
    # Turns that are read ahead, and files that are opened between two looks at the socket.
    _TURNS_AHEAD = 4
    _FILES_AHEAD = 4


cdef class SendSide(OpenStreams):
    """What leaves by one connection."""

    def fill(self, double now) -> bool:
        """Fill the empty gather list: control frames, new streams' HEADERS, then DATA by turns.

        True: there is something to send.
        """
        return self._fill(now)

    cdef bint _fill(self, double now) except -1:
        self.split_time(now)
        if self.gather.pending:
            self.delivery.keep_list()
            return True
        self.delivery.begin_list(self._table, now)
        self._control.gather(self.gather)
        if self._parked:
            self._unpark()
        if self._settled and not self._stopped:
            if self._open_timed(now):
                self._serve(now)
        if self.gather.pending == 0:
            # A file that failed just now left its RST_STREAM there, and perhaps nothing else is to be sent.
            self._control.gather(self.gather)
        return self.gather.pending > 0

    def send(self, int fd, double now) -> int:
        """Send from the gather list by one sendmsg(2). Returns octets, or −errno when the socket took none."""
        return self._send(fd, now)

    cdef int send_lists(self, int fd, double now, int lists) except? -1:
        """Fill and send up to so many gather lists.

        Returns 0 when nothing is left to send, 1 when there may be more, −errno when the socket takes no more.
        """
        cdef Py_ssize_t sent
        cdef int _
        for _ in range(lists):
            if not self._fill(now):
                return 0
            while self.gather.pending:
                sent = self._send(fd, now)
                if sent < 0:
                    return sent
        return 1

    cdef Py_ssize_t _send(self, int fd, double now) except? -1:
        cdef Py_ssize_t sent = self.gather.send(fd)
        if sent == -EFAULT:
            self._tear(self.gather.fill_torn_slice(), now)
            return 0
        if sent > 0:
            self.delivery.note_sent(sent, now)
        return sent

    def consume(self, int64_t octets, double now) -> None:
        """That many octets of the gather list were sent by other means (TLS)."""
        if octets < 0 or octets > self.gather.pending:
            raise ValueError("no more can be sent than is pending")
        self.gather.consume(octets)
        self.delivery.note_sent(octets, now)

    def take_octets(self, double now) -> bytes:
        """Return what the next send would send; for sans-IO use."""
        octets = self.gather.take()
        self.delivery.note_sent(len(octets), now)
        return octets

    def _tear(self, uint32_t stream_id, double now):
        cdef Attempt attempt = self._table.find(stream_id) if stream_id else None
        if attempt is not None:
            self._abort(attempt, CANCEL, self._content.torn(attempt), now)

    def _unpark(self):
        cdef Attempt attempt
        parked = self._parked
        self._parked = []
        for item in parked:
            attempt = <Attempt>item
            if attempt.slot >= 0 and attempt.remaining > 0 and attempt.send_window > 0:
                self._scheduler.unblock(attempt.slot)

    cdef bint _open_timed(self, double now) except -1:
        """As `_start`; when a file's opening had to wait, that is the disk's as a read's would be.

        Every other time there is no room for a stream, and no need to ask the kernel how often this thread has slept.
        """
        cdef bint fits
        if self._line.count() == 0 or self._table.count >= min(self.concurrency, self.max_concurrent_streams):
            return self._start(now)
        self._content.begin_opening()
        fits = self._start(now)
        if self._content.end_opening(self._line.attempts):
            self.cold = True
        return fits

    cdef bint _start(self, double now) except -1:
        """Open streams for what waits, as far as limits and the gather list allow. False: the list is full."""
        cdef Attempt attempt
        cdef int64_t limit = min(self.concurrency, self.max_concurrent_streams)
        # A server nearby opens its window again at once: what is begun goes soon, and fewer streams would cost time.
        cdef int64_t enough = self.windows_ahead * self.window.largest if self.window.far else 0
        cdef int64_t offered = self._offered() if enough and self._line.count() else 0
        cdef Py_ssize_t bound
        cdef int opened
        self.out_of_files = False
        while self._table.count < limit and self._line.count() and not self.draining:
            if enough and offered >= enough:
                return True
            attempt = self._line.first()
            bound = self._headers.prepare(attempt, self.max_frame_size)
            if not self.gather.has_room(bound) or self.gather.pending > self._gather_limit:
                return False
            self._line.pop()
            opened = self._open_stream(attempt, now)
            if opened == OPENED:
                self.delivery.begin(attempt, self.gather.pending)
                self._headers.write(attempt, bound, self.gather, self.max_frame_size)
                self.delivery.gathered(attempt, self.gather.pending)
                offered += self._offers(attempt)
            elif opened == NO_DESCRIPTOR:
                self._line.put_back(attempt)
                self.out_of_files = True
                self.failed_opens += 1
                return True
        return True

    cdef int64_t _offered(self) noexcept:
        """Octets with which open streams could fill the connection window, now and once there is credit again."""
        cdef int64_t octets = 0
        for item in self._table.attempts:
            if item is not None:
                octets += self._offers(<Attempt>item)
        return octets

    cdef int64_t _offers(self, Attempt attempt) noexcept:
        """The same of one stream. What is left of its window says little, as its credit comes with the connection's.

        In full as long as it lasts for some of them: whoever follows it is out of step with the connection's window.
        """
        return min(attempt.remaining // _LASTING, max(attempt.send_window, self._initial_window_size))

    cdef int _open_stream(self, Attempt attempt, double now) except -1:
        """Open the file and take a stream id; says how that went."""
        cdef int opened
        attempt.started = now
        if attempt.began == 0.0:
            attempt.began = now
        attempt.progressed = now
        opened = self._content.open(attempt)
        if opened == FAILED:
            attempt.finished = now
            self._finished.append(attempt)
            self._failed = True
        if opened != OPENED:
            return opened
        attempt.stream_id = self._next_stream_id
        attempt.send_window = self._initial_window_size
        self._next_stream_id += 2
        self._table.insert(attempt)
        self._scheduler.enter(attempt.slot)
        if attempt.remaining == 0:
            self._end_stream(attempt, now)
        elif attempt.send_window > 0:
            self._scheduler.unblock(attempt.slot)
        if self._next_stream_id > MAX_STREAM_ID - 2:
            # RFC 9113 §5.1.1: ids can't be used again; what waits needs a new connection.
            self.drain()
        return OPENED

    cdef bint _serve(self, double now) except -1:
        """DATA by turns, until windows, turns or the gather list end."""
        cdef Attempt attempt
        cdef int32_t slot
        cdef int64_t allowed
        cdef int64_t most = min(self._gather_limit, self.window.part)
        cdef int64_t quantum = self._scheduler.quantum
        cdef bint limited = self._rate_limit is not None
        cdef int64_t before
        while True:
            slot = self._scheduler.head()
            if slot < 0 or self.window.available <= 0:
                self.window.release()
                if limited:
                    self._give_back()
                return True
            if self.gather.pending >= most:
                return True
            attempt = <Attempt>self._table.attempts[slot]
            allowed = min(min(self._scheduler.budget(), quantum), min(attempt.send_window, attempt.remaining))
            if limited:
                allowed = min(allowed, self._unlimited(now))
            allowed = self.window.grant(allowed, quantum, now)
            if allowed == 0:
                return True
            before = attempt.remaining
            if not self._cut(attempt, allowed, now):
                return False
            if limited:
                self._reserved -= before - attempt.remaining

    cdef int64_t _unlimited(self, double now) noexcept:
        """Return how many octets the rate limit lets go now; 0: none, and what is ready is held back."""
        if self._reserved <= 0:
            self._reserved = min(self._ready_octets(self._rate_limit.portion(now)), self.window.available)
            self._reserved_from = self._rate_limit.reserve(self._reserved, now)
        if now < self._reserved_from:
            self._held_back_until = self._reserved_from
            return 0
        self._held_back_until = 0.0
        return self._reserved

    cdef int64_t _ready_octets(self, int64_t most) noexcept:
        """Octets that could be sent but for the connection's window, as far as `most`. O(open streams)."""
        cdef Attempt attempt
        cdef int64_t octets = 0
        for item in self._table.attempts:
            if item is not None:
                attempt = <Attempt>item
                if attempt.remaining > 0 and attempt.send_window > 0:
                    octets += min(attempt.remaining, attempt.send_window)
                    if octets >= most:
                        return most
        return octets

    cdef bint _cut(self, Attempt attempt, int64_t allowed, double now) except -1:
        """Send up to `allowed` octets of the stream in one DATA frame. False: the gather list is full."""
        cdef int64_t before = attempt.remaining
        cdef bint fitted
        if self._content.leaves_in_place(attempt):
            fitted = self._content.cut_mapped(attempt, allowed)
        elif attempt.gathered == self.gather.serial and self.gather.pending:
            if not self._scheduler.fair:
                # What came later may not take its window: the list is sent first.
                return False
            # Its slices are not with the kernel yet: the check before END_STREAM must come after them.
            self._scheduler.block(attempt.slot)
            self._parked.append(attempt)
            return True
        else:
            fitted = self._content.cut_staged(attempt, allowed)
        if attempt.failure is not None:
            self._abort(attempt, CANCEL, attempt.failure, now)
        elif attempt.remaining < before:
            if attempt.source.cold:
                attempt.source.cold = False
                self.cold = True
            if attempt.source.slow:
                attempt.source.slow = False
                if attempt.payload == 0:
                    self._content.note_slow(self._line.attempts, 1)
            self._account(attempt, before - attempt.remaining, now)
        return fitted

    cdef inline int _account(self, Attempt attempt, int64_t octets, double now) except -1:
        """Charge both windows and the turn for octets that entered the gather list."""
        self.delivery.gathered(attempt, self.gather.pending)
        attempt.send_window -= octets
        attempt.payload += octets
        attempt.progressed = now
        self.window.charge(octets)
        self._scheduler.serve(octets)
        if attempt.remaining == 0:
            self._scheduler.block(attempt.slot)
            self._end_stream(attempt, now)
        elif attempt.send_window <= 0:
            self._scheduler.block(attempt.slot)
        return 0

    cdef inline void _end_stream(self, Attempt attempt, double now) noexcept:
        """Its last octet is in the gather list: the file is not needed any more."""
        attempt.source.close()
        self.delivery.complete(attempt, now)

    # --- ahead, while credit is waited for --------------------------------------------------------

    cdef bint may_prepare(self) noexcept:
        """Is anything to be read or opened ahead, while credit is waited for?

        Streams are open then, so there is something to wait for, and descriptors that the line takes come back.
        """
        if self._unread() != NOBODY:
            return True
        return self._line.may_look() and not self.draining and not self._content.reads_ahead()

    cdef int prepare(self) except -1:
        """Read what the next turns will send, or else open what is next in line; a little of it."""
        cdef int32_t slot = self._unread()
        cdef Attempt attempt
        if slot != NOBODY:
            attempt = <Attempt>self._table.attempts[slot]
            attempt.source.fetch(self._scheduler.next_turn(slot))
            return 0
        self._content.begin_opening()
        self._line.look_ahead(self._content, _FILES_AHEAD)
        if self._content.end_opening(self._line.attempts):
            self.cold = True
        return 0

    cdef int32_t _unread(self) noexcept:
        """The first of the next turns of which something is to be read ahead; what is mapped stays where it is."""
        cdef Attempt attempt
        cdef int32_t slot = self._scheduler.head()
        cdef int _
        for _ in range(min(self._scheduler.ready, _TURNS_AHEAD)):
            attempt = <Attempt>self._table.attempts[slot]
            if attempt.source.may_fetch() and not self._content.leaves_in_place(attempt):
                return slot
            slot = self._scheduler.after(slot)
        return NOBODY
