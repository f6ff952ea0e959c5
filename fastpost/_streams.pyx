# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: frame payloads are indexed only below `frame.length`, which each handler checks first.
"""The data plane of one connection: every frame but those of stream 0, and the connection's send window.

It has no socket of its own and no clock: octets come in by `receive`, leave through the gather list, and
time is an argument (monotonic seconds). Frames of stream 0 other than WINDOW_UPDATE and GOAWAY are handed to
`control_received`, in their place in the order of arrival. Uploads go in by `submit`, many in one call; ended
attempts come out by `take_finished`, many in one call. No Python code runs per frame.

This module is the receive side; `_sending` is what leaves, `_open_streams` what both have: one object.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastpost._frames cimport (
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_HEADER, GOAWAY, HEADERS, MAX_WINDOW, PADDED,
    PRIORITY, PRIORITY_FIELDS, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Frame, InboundBuffer, get_u32,
)
from fastpost._hpack_decoder cimport ResponseDecoder
from fastpost._hpack_encoder cimport RequestEncoder
from fastpost._rate_limit cimport RateLimit
from fastpost._sending cimport SendSide
from fastpost._table cimport RECEIVE_WINDOW as _RECEIVE_WINDOW
from fastpost._table cimport Attempt

from fastpost._table import status_failure
from fastpost.errors import ErrorCode, NotProcessed, ProtocolViolation, ServerOverloaded, StreamRefused, StreamReset

cdef enum:
    _MAX_BLOCK = 65536
    _MAX_BLOCK_FRAMES = 1024
    # Frames that move nothing (RFC 9113 §10.5): so many at once, more for each response, 64 octets sent and by time.
    # Real servers stay far below: two WINDOW_UPDATEs for each DATA frame, a PING a round trip.
    _MAX_IDLE = 10000
    # A second pays for so many, as when a server pings a connection that waits for hours.
    _IDLE_PER_SECOND = 100
    _IDLE_PER_RESPONSE = 16
    _OCTETS_PER_IDLE = 64
    # SETTINGS cost by their entries: h2 takes about a microsecond for an octet.
    _SETTINGS_PER_IDLE = 8
    # Content of one response beyond twice the file, which a server may echo.
    _MAX_CONTENT = 16777216

# For the SETTINGS that the session sends.
RECEIVE_WINDOW = _RECEIVE_WINDOW


@cython.final
cdef class DataPlane(SendSide):
    """Streams, windows and frames of one connection.

    Args:
        encoder: writes the request header blocks.
        control_received: called with each whole frame of stream 0 that is the control plane's; may raise
            ProtocolViolation.
        concurrency: most streams to have open, whatever the peer would allow.
        fair: deficit round robin; False: first in, first out.
        staged: True where octets must pass through user space (TLS): then nothing is ever mapped.
        keep_responses: keep fields and body of every response, not only of failures.
        body_limit: octets of a body that are kept.
        first_stream_id: odd; a client may begin anywhere (RFC 9113 §5.1.1).
        rate_limit: shared with the other connections of a run; None: as fast as it goes.
    """

    def __init__(
        self, RequestEncoder encoder, control_received, *, int64_t concurrency, bint fair=True, bint staged=False,
        bint keep_responses=False, Py_ssize_t body_limit=1024, uint32_t first_stream_id=1, RateLimit rate_limit=None,
    ):
        super().__init__(
            encoder, concurrency=concurrency, fair=fair, staged=staged, first_stream_id=first_stream_id,
            rate_limit=rate_limit,
        )
        self._control_received = control_received
        self._keep_responses = keep_responses
        self._body_limit = body_limit
        self._decoder = ResponseDecoder(4096, _MAX_BLOCK)
        self._inbound = InboundBuffer(16384)
        self._receive_window = _RECEIVE_WINDOW
        self._block_stream_id = 0
        self._block = bytearray()
        self._idle = 0
        self._paid = 0.0
        self.heard = 0.0
        self.goaway_code = None
        self.responses = 0
        self.server = None

    def receive(self, const uint8_t[::1] octets, double now) -> None:
        """Handle received octets. Raises ProtocolViolation, NotHttp2: the connection is over."""
        if octets.shape[0]:
            self.take_received(&octets[0], octets.shape[0], now)

    cdef int take_received(self, const uint8_t* octets, Py_ssize_t length, double now) except -1:
        cdef Py_ssize_t done = 0
        while done < length:
            done += self._inbound.append(octets + done, length - done)
            self._parse(now)
        return 0

    cdef int receive_some(self, int fd, double now) except? -1:
        """Handle what one receive brings. Returns octets, 0 at the end of the connection, or −errno."""
        cdef int got = <int>self._inbound.receive(fd)
        if got > 0:
            self._parse(now)
        return got

    @property
    def awaits_credit(self) -> bool:
        """True while uploads wait for a scarce connection window that the peer opens again without delay."""
        return self.is_kept_waiting()

    @property
    def news(self) -> bool:
        """True while who hands out work is to be told at once of what ended."""
        return self.has_news()

    cdef bint is_kept_waiting(self) noexcept:
        if not self._scheduler.scarce or self.window.far or self._held_back_until:
            return False
        return self._table.count > 0 and self.gather.pending == 0

    cdef bint has_news(self) noexcept:
        """Who hands out work is to be told now: something went wrong, or in line is but half of what may be in flight.

        What went wrong may mean that less is to be begun. The line may be as empty as it is when no more is to be had.
        """
        cdef int64_t limit = min(self.concurrency, self.max_concurrent_streams)
        if self._failed or self.draining or self.out_of_files:
            return True
        if self._line.count() == 0 and (self._finished or self._table.count == 0):
            return True
        return self.behind > 0 and 2 * self._line.count() < limit

    @property
    def awaits_answers(self) -> int:
        """Uploads in flight, where all they have was sent and no window is waited for; else 0.

        What comes next are answers then, and an answer brings no more than room for another upload.
        """
        if self._scheduler.scarce or self.gather.pending:
            return 0
        answering = self.delivery.answering + self.delivery.leaving
        return answering if answering == self._table.count else 0

    cdef int _parse(self, double now) except -1:
        cdef Frame frame
        self.split_time(now)
        if self.heard == 0.0:
            self._paid = now
        self.heard = now
        while self._inbound.next_frame(&frame):
            self._dispatch(&frame, now)
        return 0

    cdef int _dispatch(self, Frame* frame, double now) except -1:
        if self._block_stream_id and (frame.kind != CONTINUATION or frame.stream_id != self._block_stream_id):
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "another frame inside a field block")
        if frame.stream_id == 0:
            return self._on_connection_frame(frame, now)
        if frame.kind > CONTINUATION:
            # RFC 9113 §5.5: unknown types are ignored.
            return self._count_idle(1)
        if frame.kind != PRIORITY and (frame.stream_id & 1 == 0 or frame.stream_id >= self._next_stream_id):
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, f"a frame on idle stream {frame.stream_id}")
        if frame.kind == WINDOW_UPDATE:
            return self._on_window_update(frame, now)
        if frame.kind == HEADERS:
            return self._on_headers(frame, now)
        if frame.kind == DATA:
            return self._on_data(frame, now)
        if frame.kind == RST_STREAM:
            return self._on_reset(frame, now)
        if frame.kind == CONTINUATION:
            return self._on_continuation(frame, now)
        if frame.kind == PRIORITY:
            # RFC 9113 §5.3.2: deprecated; nothing to do.
            return self._count_idle(1)
        if frame.kind == PUSH_PROMISE:
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "a push, though push was disabled")
        raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, f"a frame of type {frame.kind} on a stream")

    cdef int _on_connection_frame(self, Frame* frame, double now) except -1:
        if frame.kind == WINDOW_UPDATE:
            return self._on_window_update(frame, now)
        if frame.kind == GOAWAY:
            return self._on_goaway(frame, now)
        if frame.kind in (DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION):
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "a stream's frame on stream 0")
        if frame.kind > CONTINUATION:
            # RFC 9113 §5.5, RFC 7838 §4, RFC 8336 §2: unknown, ALTSVC, ORIGIN; even a broken one ends nothing.
            return self._count_idle(1)
        if frame.kind == SETTINGS and frame.flags & ACK and frame.length:
            # RFC 9113 §6.5; h2 would say PROTOCOL_ERROR.
            raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
        self._count_idle(1 + frame.length // _SETTINGS_PER_IDLE)
        self._control_received((frame.payload - FRAME_HEADER)[:FRAME_HEADER + frame.length])
        return 0

    cdef int _count_idle(self, int64_t frames) except -1:
        """Count frames that move no upload on. What is moved pays for them, and time; a flood is a connection error.

        So neither the frames of one read, nor the answers that wait while the server doesn't read, are without bound.
        """
        cdef int64_t most = _MAX_IDLE + _IDLE_PER_RESPONSE * self.responses + self.delivery.sent // _OCTETS_PER_IDLE
        self._idle += frames
        if self._idle > most:
            # Only now, as to look at the time costs: so a flood after a long silence may be twice as long.
            self._idle -= min(self._idle, <int64_t>(_IDLE_PER_SECOND * (self.heard - self._paid)))
            self._paid = self.heard
        if self._idle > most:
            raise ProtocolViolation(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that move nothing")
        return 0

    cdef int _unpad(self, Frame* frame) except -1:
        """Take the padding off DATA or HEADERS (RFC 9113 §6.1)."""
        cdef uint32_t padding
        if not frame.flags & PADDED:
            return 0
        if frame.length < 1 or frame.payload[0] >= frame.length:
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "padding as long as its frame")
        padding = frame.payload[0]
        frame.payload += 1
        frame.length -= 1 + padding
        return 0

    cdef int _on_data(self, Frame* frame, double now) except -1:
        cdef int64_t octets = frame.length
        cdef bint end_stream = frame.flags & END_STREAM
        cdef Attempt attempt
        self._receive_window -= octets
        if self._receive_window < 0:
            raise ProtocolViolation(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection window allows")
        if self._receive_window <= _RECEIVE_WINDOW // 2:
            self._control.credit(0, _RECEIVE_WINDOW - self._receive_window)
            self._receive_window = _RECEIVE_WINDOW
        self._unpad(frame)
        attempt = self._table.find(frame.stream_id)
        if attempt is None:
            return self._count_idle(1)
        if frame.length == 0 and not end_stream:
            self._count_idle(1)
        else:
            self.delivery.note_progress(now)
            attempt.progressed = now
        attempt.response_octets += frame.length
        attempt.receive_window -= octets
        if attempt.receive_window < 0:
            return self._violate(attempt, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream window allows", now)
        if attempt.response_octets > _MAX_CONTENT + 2 * attempt.size:
            return self._violate(attempt, ErrorCode.ENHANCE_YOUR_CALM, "an endless response", now)
        if not attempt.responded:
            return self._violate(attempt, ErrorCode.PROTOCOL_ERROR, "DATA before the response's HEADERS", now)
        if attempt._body is not None and len(attempt._body) < self._body_limit:
            octets = min(<int64_t>frame.length, <int64_t>(self._body_limit - len(attempt._body)))
            attempt._body += frame.payload[:octets]
        if end_stream:
            return self._respond(attempt, now)
        if attempt.receive_window <= _RECEIVE_WINDOW // 2:
            self._control.credit(frame.stream_id, _RECEIVE_WINDOW - attempt.receive_window)
            attempt.receive_window = _RECEIVE_WINDOW
        return 0

    cdef int _on_headers(self, Frame* frame, double now) except -1:
        self._unpad(frame)
        if frame.flags & PRIORITY_FIELDS:
            if frame.length < 5:
                raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            frame.payload += 5
            frame.length -= 5
        if frame.flags & END_HEADERS:
            return self._on_block(frame.stream_id, frame.flags & END_STREAM, frame.payload, frame.length, now)
        self._block_stream_id = frame.stream_id
        self._block_flags = frame.flags
        self._block_frames = 1
        self._block[:] = frame.payload[:frame.length]
        return 0

    cdef int _on_continuation(self, Frame* frame, double now) except -1:
        cdef uint32_t stream_id = self._block_stream_id
        if stream_id == 0:
            raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block_frames += 1
        self._block += frame.payload[:frame.length]
        if len(self._block) > _MAX_BLOCK or self._block_frames > _MAX_BLOCK_FRAMES:
            raise ProtocolViolation(ErrorCode.ENHANCE_YOUR_CALM, "an endless field block")
        if not frame.flags & END_HEADERS:
            return 0
        self._block_stream_id = 0
        return self._on_block(
            stream_id, self._block_flags & END_STREAM, <uint8_t*>self._block, len(self._block), now,
        )

    cdef int _on_block(
        self, uint32_t stream_id, bint end_stream, const uint8_t* block, Py_ssize_t length, double now,
    ) except -1:
        """A whole field block: interim response, final response, trailers. Always decoded: the table stays in step."""
        cdef Attempt attempt = self._table.find(stream_id)
        cdef bint trailers = attempt is not None and attempt.responded
        cdef bint keep = self._keep_responses or self.server is None
        cdef bint malformed = self._decoder.decode(block, length, keep and not trailers, trailers)
        cdef int status = self._decoder.status
        if attempt is None:
            return self._count_idle(1)
        self.delivery.note_progress(now)
        attempt.progressed = now
        if malformed:
            return self._violate(attempt, ErrorCode.PROTOCOL_ERROR, f"a malformed response: {self._decoder.fault}", now)
        if trailers:
            if not end_stream:
                return self._violate(attempt, ErrorCode.PROTOCOL_ERROR, "trailers that don't end the stream", now)
            return self._respond(attempt, now)
        if status < 200:
            if end_stream:
                return self._violate(attempt, ErrorCode.PROTOCOL_ERROR, f"a final response of {status}", now)
            return self._count_idle(1)
        attempt.responded = True
        attempt.status = status
        if status != 204 and status != 304:
            attempt.response_length = self._decoder.content_length
        attempt.fields = self._decoder.fields
        if self.server is None:
            # Which server it is, the first response tells; its fields are kept only for that.
            self.server = dict(attempt.fields).get(b"server", b"")
            if not self._keep_responses and status < 300:
                attempt.fields = None
        if self._keep_responses or status >= 300:
            attempt._body = bytearray()
        if end_stream:
            return self._respond(attempt, now)
        return 0

    cdef int _on_reset(self, Frame* frame, double now) except -1:
        cdef Attempt attempt
        cdef uint32_t error_code
        if frame.length != 4:
            raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM that isn't 4 octets long")
        attempt = self._table.find(frame.stream_id)
        if attempt is None:
            self._control.spare_reset(frame.stream_id)
            return self._count_idle(1)
        error_code = get_u32(frame.payload)
        if error_code == ErrorCode.REFUSED_STREAM:
            failure = StreamRefused(
                "the server refused the stream again and again: try with a lower --concurrency, or later"
            )
        elif error_code == ErrorCode.ENHANCE_YOUR_CALM:
            failure = ServerOverloaded("the server asks for fewer requests (ENHANCE_YOUR_CALM)")
        else:
            failure = StreamReset(error_code)
        return self._close(attempt, failure, now)

    cdef int _on_window_update(self, Frame* frame, double now) except -1:
        """More window (RFC 9113 §6.9). Beyond 2³¹−1: a stream error on a stream, else a connection error."""
        cdef Attempt attempt
        cdef int64_t octets
        if frame.length != 4:
            raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE that isn't 4 octets long")
        octets = get_u32(frame.payload) & 0x7FFFFFFF
        self.delivery.note_progress(now)
        if frame.stream_id == 0:
            if octets == 0:
                raise ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 octets")
            if self.window.available > 0:
                self._count_idle(1)
            return self._credit_connection(octets)
        attempt = self._table.find(frame.stream_id)
        if attempt is None:
            return self._count_idle(1)
        if octets == 0:
            return self._violate(attempt, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 octets", now)
        if attempt.remaining > 0:
            # Credit that nobody can use is no progress.
            attempt.progressed = now
        if attempt.remaining == 0 or attempt.send_window > 0:
            self._count_idle(1)
        attempt.send_window += octets
        if attempt.send_window > MAX_WINDOW:
            return self._violate(attempt, ErrorCode.FLOW_CONTROL_ERROR, "a stream window over 2^31-1", now)
        if attempt.send_window > 0 and attempt.remaining > 0:
            self._scheduler.unblock(attempt.slot)
        return 0

    cdef int _on_goaway(self, Frame* frame, double now) except -1:
        """Begin to drain (RFC 9113 §6.8): streams above last_stream_id were not processed, the others go on."""
        cdef uint32_t last_stream_id
        cdef Attempt attempt
        if frame.length < 8:
            raise ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY shorter than 8 octets")
        last_stream_id = get_u32(frame.payload) & 0x7FFFFFFF
        self.goaway_code = get_u32(frame.payload + 4)
        self._count_idle(1)
        for item in list(self._table.attempts):
            if item is None:
                continue
            attempt = <Attempt>item
            if attempt.stream_id > last_stream_id:
                self._close(attempt, self._unprocessed(last_stream_id > 0), now)
        self.drain()
        return 0

    # --- ends of a stream -------------------------------------------------------------------------

    def _violate(self, Attempt attempt, error_code, detail, double now):
        self._abort(attempt, error_code, ProtocolViolation(error_code, detail), now)
        return 0

    def _unprocessed(self, bint progress):
        if self.goaway_code == ErrorCode.ENHANCE_YOUR_CALM:
            return ServerOverloaded("the server asks for fewer requests (GOAWAY, ENHANCE_YOUR_CALM)", unprocessed=True)
        return NotProcessed("the server closed the connection before it took this request", progress=progress)

    cdef int _respond(self, Attempt attempt, double now) except -1:
        """The response is complete, so it is the result; a body that isn't done is not sent on (RFC 9113 §8.1)."""
        failure = None
        if attempt.response_length >= 0 and attempt.response_octets != attempt.response_length:
            detail = f"a malformed response: content-length {attempt.response_length}, octets {attempt.response_octets}"
            return self._violate(attempt, ErrorCode.PROTOCOL_ERROR, detail, now)
        self.responses += 1
        if attempt.remaining > 0:
            self._control.reset(attempt.stream_id, CANCEL)
        if attempt.status >= 300:
            failure = status_failure(attempt)
        return self._close(attempt, failure, now)
