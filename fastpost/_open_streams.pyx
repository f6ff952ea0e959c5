# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: the table's list is gone through, or indexed at slots that the scheduler got from the table.
"""The streams of one connection: the peer's settings and their windows, what they wait for, and how they end.

A window (RFC 9113 §5.2) is an int64 and is charged when a slice enters the gather list. A stream's window may be
negative after SETTINGS; such a stream leaves the scheduler's ring and sends nothing. What they send is `_sending`'s.
"""

from libc.errno cimport EMFILE
from libc.stdint cimport int64_t, uint32_t

from fastpost._blocked cimport (
    CLIENT, CONNECTION_WINDOW, DISK, RATE_LIMIT, SERVER, SOCKET, STREAM_LIMIT, STREAM_WINDOW, BlockedTime,
)
from fastpost._connection_window cimport ConnectionWindow
from fastpost._control_frames cimport ControlFrames
from fastpost._delivery cimport Delivery
from fastpost._frames cimport CANCEL, MAX_WINDOW
from fastpost._gather cimport GatherList
from fastpost._hpack_encoder cimport RequestEncoder
from fastpost._line cimport Line
from fastpost._rate_limit cimport RateLimit
from fastpost._request_content cimport RequestContent
from fastpost._request_headers cimport RequestHeaders
from fastpost._scheduler cimport Scheduler
from fastpost._table cimport Attempt, StreamTable

from fastpost.errors import ErrorCode, HttpStatus, NotProcessed, ProtocolViolation, file_failure

cdef enum:
    # Uploads in flight and in line, by those in flight: who fills the line is asked in Python, and so seldom enough.
    _ROUNDS = 4

# Seconds within which what is held back is looked at once its time has come.
cdef double _WAKES_WITHIN = 0.5


cdef class OpenStreams:
    """Streams that are open, and attempts in line for one. `SendSide` adds what leaves, `DataPlane` what arrives.

    Args:
        encoder: writes the request header blocks.
        concurrency: most streams to have open, whatever the peer would allow.
        fair: deficit round robin; False: first in, first out.
        staged: True where octets must pass through user space (TLS): then nothing is ever mapped.
        first_stream_id: odd; a client may begin anywhere (RFC 9113 §5.1.1).
        rate_limit: shared with the other connections of a run; None: as fast as it goes.
    """

    def __init__(
        self, RequestEncoder encoder, *, int64_t concurrency, bint fair, bint staged, uint32_t first_stream_id,
        RateLimit rate_limit,
    ):
        self._headers = RequestHeaders(encoder)
        self.concurrency = concurrency
        self.behind = 0
        self.windows_ahead = 0
        # Enough for a sendmsg to be large, small enough to keep turns short and memory flat.
        self._gather_limit = 262144 if staged else 1048576
        self._scheduler = Scheduler(16384, fair)
        self._table = StreamTable()
        self.gather = GatherList(262144 + MAX_QUANTUM)
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
        self.max_concurrent_streams = MAX_STREAM_ID
        self.largest_stream_window = 65535
        self.window = ConnectionWindow()
        self._scheduler.scarce = self.window.scarce()
        self._rate_limit = rate_limit
        self._reserved = 0
        self._reserved_from = 0.0
        self._held_back_until = 0.0
        self._first_stream_id = first_stream_id
        self._next_stream_id = first_stream_id
        self.draining = False
        self._stopped = False

    # --- settings and windows of the peer ---------------------------------------------------------

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
        self._scheduler.set_quantum(min(self.max_frame_size, <int64_t>MAX_QUANTUM))
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

    cdef int _credit_connection(self, int64_t octets) except -1:
        """WINDOW_UPDATE of the connection. Raises ProtocolViolation."""
        self.window.credit(octets, self._scheduler.quantum)
        self._scheduler.scarce = self.window.scarce()
        return 0

    @property
    def wake_at(self) -> float:
        """When what is held back is to be sent (monotonic seconds): crumbs of the connection window, or what is beyond
        the rate limit; 0.0: nothing is.

        Not while the socket is full: nothing is looked at before it takes what is gathered.
        """
        return self.held_until() if self.gather.pending == 0 else 0.0

    cdef double held_until(self) noexcept:
        """The same, whatever the socket does."""
        return self._held_back_until if self._held_back_until else self.window.held_until()

    cdef void _give_back(self) noexcept:
        """Nothing may go now, whatever was reserved of the rate limit."""
        self._held_back_until = 0.0
        if self._reserved > 0:
            self._rate_limit.give_back(self._reserved)
            self._reserved = 0

    # --- work in, results out ---------------------------------------------------------------------

    def submit(self, list attempts) -> None:
        """Queue attempts; each comes out once, of `take_finished` or of `take_unsent`."""
        self._line.extend(attempts)
        self._content.read_ahead(attempts)

    def queue_control(self, octets: bytes) -> None:
        """Queue whole frames of the control plane; they go before HEADERS and DATA."""
        self._control.add(octets)

    def limit_concurrency(self, int64_t streams) -> None:
        """Have at most that many streams open from now on."""
        self.concurrency = streams

    def withdraw(self, int64_t most=MAX_STREAM_ID) -> list:
        """Return, untouched and in order, the end of the line: what waits beyond the room, and beyond `most`."""
        cdef int64_t kept = min(_ROUNDS * min(self.concurrency, self.max_concurrent_streams) - self._table.count, most)
        return self._line.withdraw(kept)

    def take_unsent(self) -> list:
        """Return, untouched and in order, the attempts that a draining connection will not begin."""
        if not self.draining:
            return []
        return self._line.withdraw(0)

    def take_finished(self) -> list:
        """Return the attempts that ended since the last call."""
        finished = self._finished
        self._finished = []
        self._failed = False
        return finished

    def give_up_opening(self, double now) -> None:
        """Fail the first attempt in line: no descriptor is free, and no stream anywhere will give one back."""
        cdef Attempt attempt
        if self._line.count():
            attempt = self._line.pop()
            attempt.failure = file_failure(EMFILE)
            attempt.finished = now
            self._finished.append(attempt)
            self._failed = True

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

    # --- where the time goes ----------------------------------------------------------------------

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
            self.blocked.add(RATE_LIMIT if self._held_back_until else CLIENT, ready + parked, elapsed)

    cdef int64_t _starved(self) noexcept:
        """Uploads that we would have in flight, and that the peer's MAX_CONCURRENT_STREAMS keeps waiting."""
        if self._table.count < self.max_concurrent_streams or self.draining or not self._settled:
            return 0
        return min(self._line.count() + self.behind, self.concurrency - self._table.count)

    def stalled_on_disk(self, double elapsed) -> None:
        """A read was `cold`: since the tick began, so many seconds went by, and they belong to the disk."""
        self.cold = False
        self.blocked.stalled_on_disk(elapsed)

    def note_delivered(self, int64_t octets, double now) -> None:
        """So many of the octets that the socket took have arrived at the peer's kernel.

        Streams that wait for an answer while octets of theirs are under way wait for the line, not for the server.
        """
        self.split_time(now)
        self.delivery.note_arrived(octets, now, self._table)

    def stalled(self, double now, double timeout) -> list:
        """Return the open streams on which nothing moved for `timeout` seconds though something was due.

        A stream that merely waits for its turn among others that do move isn't stalled, nor is one whose octets are
        still on their way (`note_delivered`), or that a rate limit holds back.
        """
        cdef Attempt attempt
        cdef bint connection_moves = now - self.delivery.progressed < timeout
        # Not while the socket is full: then nobody looks whether the time has come.
        cdef bint held_back = self.gather.pending == 0 and now < self._held_back_until + _WAKES_WITHIN
        result = []
        for item in self._table.attempts:
            if item is None:
                continue
            attempt = <Attempt>item
            if attempt.ends_at > self.delivery.arrived and connection_moves:
                # What it waits for can't come before that has arrived.
                attempt.progressed = now
            if held_back and attempt.remaining > 0 and attempt.send_window > 0:
                # It waits for nothing but the rate limit.
                attempt.progressed = now
            if now - attempt.progressed < timeout:
                continue
            if connection_moves and attempt.remaining > 0 and attempt.send_window > 0:
                continue
            result.append(attempt)
        return result

    def overdue(self, double now, double seconds) -> list:
        """Return the open streams that were begun so many seconds ago, or longer."""
        cdef Attempt attempt
        result = []
        for item in self._table.attempts:
            if item is not None:
                attempt = <Attempt>item
                if now - attempt.started >= seconds:
                    result.append(attempt)
        return result

    def fairness(self) -> tuple:
        """Return (streams, Σ share, Σ share², smallest, largest share) of the larger uploads that are over.

        A share is what a stream was served divided by its even part of what was served while it could send.
        """
        cdef Scheduler scheduler = self._scheduler
        return scheduler.retired, scheduler.shares, scheduler.squares, scheduler.smallest, scheduler.largest

    # --- the end ----------------------------------------------------------------------------------

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
        self._give_back()
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
        if attempt.envelope is not None:
            attempt.payload = attempt.envelope.octets_of_file(attempt.payload, attempt.size)
        attempt.failure = failure
        attempt.finished = now
        self._finished.append(attempt)
        if failure is not None:
            self._failed = True
            if not isinstance(failure, HttpStatus):
                attempt.status = 0  # what had begun is no response
        return 0
