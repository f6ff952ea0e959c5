# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: the table's list is indexed only at slots that the scheduler got from the table.
"""The send side of one connection: settings and the windows of streams, HEADERS, DATA by turns, ends of streams.

A window (RFC 9113 §5.2) is an int64 and is charged when a slice enters the gather list. A stream's window may be
negative after SETTINGS; such a stream leaves the scheduler's ring and sends nothing.
"""

from libc.errno cimport EFAULT, EMFILE
from libc.stdint cimport int32_t, int64_t, uint32_t

from fastpost._blocked cimport (
    CLIENT, CONNECTION_WINDOW, DISK, SERVER, SOCKET, STREAM_LIMIT, STREAM_WINDOW, BlockedTime,
)
from fastpost._connection_window cimport ConnectionWindow
from fastpost._control_frames cimport ControlFrames
from fastpost._delivery cimport Delivery
from fastpost._frames cimport CANCEL, MAX_WINDOW
from fastpost._gather cimport GatherList
from fastpost._hpack_encoder cimport RequestEncoder
from fastpost._line cimport Line
from fastpost._request_content cimport FAILED, NO_DESCRIPTOR, OPENED, RequestContent
from fastpost._request_headers cimport RequestHeaders
from fastpost._scheduler cimport NOBODY, Scheduler
from fastpost._table cimport Attempt, StreamTable

from fastpost.errors import ErrorCode, NotProcessed, ProtocolViolation, file_failure

cdef enum:
    _MAX_STREAM_ID = 0x7FFFFFFF
    # Frames larger than this save nothing more, and a turn of the ring would get long.
    _MAX_QUANTUM = 65536
    # Windows for which a stream must last to count as one that fills them.
    _LASTING = 8
    # Uploads in flight and in line, by those in flight: who fills the line is asked in Python, and so seldom enough.
    _ROUNDS = 4
    # Turns that are read ahead, and files that are opened between two looks at the socket.
    _TURNS_AHEAD = 4
    _FILES_AHEAD = 4


cdef class SendSide:
    """What leaves by one connection. `DataPlane` adds what arrives.

    Args:
        encoder: writes the request header blocks.
        concurrency: most streams to have open, whatever the peer would allow.
        fair: deficit round robin; False: first in, first out.
        staged: True where octets must pass through user space (TLS): then nothing is ever mapped.
        first_stream_id: odd; a client may begin anywhere (RFC 9113 §5.1.1).
    """

    def __init__(
        self, RequestEncoder encoder, *, int64_t concurrency, bint fair, bint staged, uint32_t first_stream_id,
    ):
        self._headers = RequestHeaders(encoder)
        self.concurrency = concurrency
        self.behind = 0
        self.windows_ahead = 0
        # Enough for a sendmsg to be large, small enough to keep turns short and memory flat.
        self._gather_limit = 262144 if staged else 1048576
        self._scheduler = Scheduler(16384, fair)
        self._table = StreamTable()
        self.gather = GatherList(262144 + _MAX_QUANTUM)
        self._content = RequestContent(self.gather, staged)
        self.blocked = BlockedTime()
        self.delivery = Delivery()
        self.cold = False
        self.out_of_files = False
        self.failed_opens = 0
        self._line = Line()
        self._finished = []
        self._failed = False
        self._parked = []
        self._control = ControlFrames()
        self._settled = False
        self._initial_window_size = 65535
        self.max_frame_size = 16384
        self.max_concurrent_streams = _MAX_STREAM_ID
        self.largest_stream_window = 65535
        self.window = ConnectionWindow()
        self._scheduler.scarce = self.window.scarce()
        self._first_stream_id = first_stream_id
        self._next_stream_id = first_stream_id
        self.draining = False
        self._stopped = False

    # --- what the session says --------------------------------------------------------------------

    def submit(self, list attempts) -> None:
        """Queue attempts; each comes out once, of `take_finished` or of `take_unsent`."""
        self._line.extend(attempts)
        self._content.read_ahead(attempts)

    def queue_control(self, octets: bytes) -> None:
        """Queue whole frames of the control plane; they go before HEADERS and DATA."""
        self._control.add(octets)

    def apply_settings(
        self, *, initial_window_size=None, max_frame_size=None,
        max_concurrent_streams=None, header_table_size=None,
    ) -> None:
        """Take the peer's new settings (RFC 9113 §6.5.2); the first call lets requests begin.

        Raises ProtocolViolation when a new initial window lifts a stream's window over 2³¹−1 (§6.9.2).
        """
        if header_table_size is not None:
            self._headers.encoder.set_table_size(header_table_size)
        if max_concurrent_streams is not None:
            self.max_concurrent_streams = max_concurrent_streams
        if max_frame_size is not None:
            self.max_frame_size = max_frame_size
        self._scheduler.set_quantum(min(self.max_frame_size, <int64_t>_MAX_QUANTUM))
        if initial_window_size is not None:
            self._shift_windows(<int64_t>initial_window_size - self._initial_window_size)
            self._initial_window_size = initial_window_size
            if not self._settled or initial_window_size > self.largest_stream_window:
                self.largest_stream_window = initial_window_size
        self._settled = True

    def _shift_windows(self, int64_t delta):
        """SETTINGS_INITIAL_WINDOW_SIZE shifts every open stream's window, never the connection's."""
        cdef Attempt attempt
        for item in self._table.attempts:
            if item is None:
                continue
            attempt = <Attempt>item
            attempt.send_window += delta
            if attempt.send_window > MAX_WINDOW:
                raise ProtocolViolation(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS lifted a window over 2^31-1")
            if attempt.send_window <= 0:
                self._scheduler.block(attempt.slot)
            elif attempt.remaining > 0:
                self._scheduler.unblock(attempt.slot)

    def take_finished(self) -> list:
        """Return the attempts that ended since the last call."""
        finished = self._finished
        self._finished = []
        self._failed = False
        return finished

    def take_unsent(self) -> list:
        """Return, untouched and in order, the attempts that a draining connection will not begin."""
        if not self.draining:
            return []
        return self._line.withdraw(0)

    def give_up_opening(self, double now) -> None:
        """Fail the first attempt in line: no descriptor is free, and no stream anywhere will give one back."""
        cdef Attempt attempt
        if self._line.count():
            attempt = self._line.pop()
            attempt.failure = file_failure(EMFILE)
            attempt.finished = now
            self._finished.append(attempt)
            self._failed = True

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

    def withdraw(self, int64_t most=_MAX_STREAM_ID) -> list:
        """Return, untouched and in order, the end of the line: what waits beyond the room, and beyond `most`."""
        cdef int64_t kept = min(_ROUNDS * min(self.concurrency, self.max_concurrent_streams) - self._table.count, most)
        return self._line.withdraw(kept)

    def drain(self) -> None:
        """Start nothing more on this connection; open streams go on."""
        self.draining = True

    def stop(self) -> None:
        """Send nothing more but what is gathered already and our GOAWAY (RFC 9113 §5.4.1)."""
        self.draining = True
        self._stopped = True

    def lose(self, failure, double now) -> None:
        """The connection is gone: every open stream ends; what waits is `take_unsent`.

        The failure is that of the streams whose HEADERS the socket took, at least in part; of the others the server
        knows nothing.
        """
        cdef Attempt attempt
        self.split_time(now)
        self.draining = True
        self._content.close()
        self.gather.clear()
        for item in list(self._table.attempts):
            if item is None:
                continue
            attempt = <Attempt>item
            if attempt.begins_at >= self.delivery.sent:
                self._close(attempt, NotProcessed("the connection ended before the request left", progress=True), now)
            else:
                self._close(attempt, failure, now)

    def cancel(self, Attempt attempt, failure, double now) -> None:
        """Reset an open stream with CANCEL (RFC 9113 §7) and end its attempt with the failure."""
        if attempt.stream_id and self._table.find(attempt.stream_id) is attempt:
            self.split_time(now)
            self._abort(attempt, CANCEL, failure, now)

    def stalled(self, double now, double timeout) -> list:
        """Return the open streams on which nothing moved for `timeout` seconds though something was due.

        A stream that merely waits for its turn among others that do move isn't stalled, nor is one whose octets are
        still on their way (`note_delivered`).
        """
        cdef Attempt attempt
        cdef bint connection_moves = now - self.delivery.progressed < timeout
        result = []
        for item in self._table.attempts:
            if item is None:
                continue
            attempt = <Attempt>item
            if attempt.ends_at > self.delivery.arrived and connection_moves:
                # What it waits for can't come before that has arrived.
                attempt.progressed = now
            if now - attempt.progressed < timeout:
                continue
            if connection_moves and attempt.remaining > 0 and attempt.send_window > 0:
                continue
            result.append(attempt)
        return result

    def note_delivered(self, int64_t octets, double now) -> None:
        """So many of the octets that the socket took have arrived at the peer's kernel.

        Streams that wait for an answer while octets of theirs are under way wait for the line, not for the server.
        """
        self.split_time(now)
        self.delivery.note_arrived(octets, now, self._table)

    def open_attempts(self) -> list:
        """Return the attempts whose stream is open."""
        return [attempt for attempt in self._table.attempts if attempt is not None]

    @property
    def begun(self) -> bool:
        """True once a stream was opened."""
        return self._next_stream_id > self._first_stream_id

    @property
    def open_streams(self) -> int:
        """Streams that are open now."""
        return self._table.count

    @property
    def waiting(self) -> int:
        """Attempts that have no stream yet."""
        return self._line.count()

    @property
    def room(self) -> int:
        """How many more attempts keep it busy until it is asked again: three in line for each in flight."""
        cdef int64_t room = 0
        if self._settled and not self.draining:
            room = (
                _ROUNDS * min(self.concurrency, self.max_concurrent_streams) - self._table.count - self._line.count()
            )
        return max(room, 0)

    @property
    def settled(self) -> bool:
        """True once the peer's SETTINGS arrived."""
        return self._settled

    @property
    def wake_at(self) -> float:
        """When held crumbs of the connection window are to be sent (monotonic seconds); 0.0: nothing is held.

        Not while the socket is full: nothing is looked at before it takes what is gathered.
        """
        return self.window.held_until() if self.gather.pending == 0 else 0.0

    def fairness(self) -> tuple:
        """Return (streams, Σ share, Σ share², smallest, largest share) of the larger uploads that are over.

        A share is what a stream was served divided by its even part of what was served while it could send.
        """
        cdef Scheduler scheduler = self._scheduler
        return scheduler.retired, scheduler.shares, scheduler.squares, scheduler.smallest, scheduler.largest

    def limit_concurrency(self, int64_t streams) -> None:
        """Have at most that many streams open from now on."""
        self.concurrency = streams

    cdef int _credit_connection(self, int64_t octets) except -1:
        """WINDOW_UPDATE of the connection. Raises ProtocolViolation."""
        self.window.credit(octets, self._scheduler.quantum)
        self._scheduler.scarce = self.window.scarce()
        return 0

    # --- octets out -------------------------------------------------------------------------------

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

    cpdef void split_time(self, double now) noexcept:
        """Charge the time since the last tick to what each stream waited for in it. A few additions, once a tick.

        Also for who looks between ticks, as they are seconds apart while nothing comes.
        """
        cdef double since = self.blocked.since
        cdef double elapsed = self.blocked.begin(now)
        cdef int64_t ready, parked, on_the_line, answering, leaving, shut
        if since == 0.0 or now <= since or self._table.count + self._line.count() + self.behind == 0:
            return
        ready = self._scheduler.ready
        parked = len(self._parked)
        self.blocked.add(DISK, self._table.count, now - since - elapsed)
        self.blocked.add(STREAM_LIMIT, self._starved(), elapsed)
        on_the_line = self.delivery.on_the_line()
        answering = self.delivery.answering
        leaving = self.delivery.leaving
        self.blocked.add(SOCKET, on_the_line, elapsed)
        self.blocked.add(SERVER, answering - on_the_line, elapsed)
        shut = self._table.count - ready - parked - answering - leaving
        self.blocked.add(STREAM_WINDOW, shut, elapsed)
        if self.gather.pending:
            self.blocked.add(SOCKET, ready + parked + leaving, elapsed)
            return
        self.blocked.add(SERVER, leaving, elapsed)
        if self.window.closed():
            self.blocked.add(CONNECTION_WINDOW, ready + parked, elapsed)
            if ready or shut:
                # Those that their own window keeps waiting, too: were that open, this one would be closed.
                self.window.note_closed(elapsed)
        else:
            self.blocked.add(CLIENT, ready + parked, elapsed)

    cdef int64_t _starved(self) noexcept:
        """Uploads that we would have in flight, and that the peer's MAX_CONCURRENT_STREAMS keeps waiting."""
        if self._table.count < self.max_concurrent_streams or self.draining or not self._settled:
            return 0
        return min(self._line.count() + self.behind, self.concurrency - self._table.count)

    def stalled_on_disk(self, double elapsed) -> None:
        """A read was `cold`: since the tick began, so many seconds went by, and they belong to the disk."""
        self.cold = False
        self.blocked.stalled_on_disk(elapsed)

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
        if self._next_stream_id > _MAX_STREAM_ID - 2:
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
        while True:
            slot = self._scheduler.head()
            if slot < 0 or self.window.available <= 0:
                self.window.release()
                return True
            if self.gather.pending >= most:
                return True
            attempt = <Attempt>self._table.attempts[slot]
            allowed = min(min(self._scheduler.budget(), quantum), min(attempt.send_window, attempt.remaining))
            allowed = self.window.grant(allowed, quantum, now)
            if allowed == 0:
                return True
            if not self._cut(attempt, allowed, now):
                return False

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
                if before == attempt.size:
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

    # --- ends of a stream -------------------------------------------------------------------------

    cdef int _abort(self, Attempt attempt, int error_code, object failure, double now) except -1:
        """End the stream from this side: RST_STREAM goes out before any other frame."""
        self._control.reset(attempt.stream_id, error_code)
        return self._close(attempt, failure, now)

    cdef int _close(self, Attempt attempt, object failure, double now) except -1:
        """The stream is over: free all it holds. Slices in the gather list keep their mapping until they are sent."""
        self.delivery.close(attempt)
        self._scheduler.retire(attempt.slot)
        self._table.remove(attempt)
        attempt.slot = -1
        attempt.source.close()
        attempt.source = None
        attempt.failure = failure
        attempt.finished = now
        self._finished.append(attempt)
        self._failed = self._failed or failure is not None
        return 0
