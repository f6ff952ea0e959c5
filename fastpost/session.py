"""One HTTP/2 connection without IO: h2 for stream 0, the data plane for every other stream.

h2 sees only the frames of stream 0, WINDOW_UPDATE and GOAWAY excepted: it opens the connection, takes and acknowledges
SETTINGS, answers PING and writes our GOAWAY. Octets and the time come in as arguments; nothing here opens a socket.
"""

from __future__ import annotations

import typing
import weakref
from collections.abc import Sequence

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from fastpost._hpack_encoder import RequestEncoder
from fastpost._streams import RECEIVE_WINDOW, DataPlane
from fastpost.errors import ErrorCode, NotHttp2, ProtocolViolation

if typing.TYPE_CHECKING:
    from typing_extensions import Buffer

    from fastpost._gather import GatherList
    from fastpost._rate_limit import RateLimit
    from fastpost._table import Attempt
    from fastpost.errors import FastpostError

_Codes = h2.settings.SettingCodes
#: What we tell the server (RFC 9113 §6.5.2). Responses to uploads are short, so the default window is enough.
_OUR_SETTINGS = {
    _Codes.ENABLE_PUSH: 0,
    _Codes.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
    _Codes.MAX_FRAME_SIZE: 16384,
    _Codes.MAX_HEADER_LIST_SIZE: 65536,
    _Codes.HEADER_TABLE_SIZE: 4096,
}
_PING = b"fastpost"


class Session:
    """One client connection, sans IO.

    Args:
        method, scheme, authority: of every request, as octets.
        fields: constant request fields, lower-case names, in order.
        concurrency: most streams to have open.
        fair: deficit round robin among streams; False: first in, first out.
        staged: True over TLS: octets pass through user space, nothing is mapped.
        keep_responses, body_limit: what is kept of responses (`DataPlane`).
        rate_limit: shared with other connections; None: as fast as it goes.
    """

    def __init__(
        self,
        *,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        fields: Sequence[tuple[bytes, bytes]] = (),
        concurrency: int = 50,
        fair: bool = True,
        staged: bool = False,
        keep_responses: bool = False,
        body_limit: int = 1024,
        rate_limit: RateLimit | None = None,
    ) -> None:
        # Weakly: a cycle would keep the plane's buffers, some 200 kB, after the end until the garbage collector comes.
        session = weakref.proxy(self)
        self.plane = DataPlane(
            RequestEncoder(method, scheme, authority, fields),
            lambda frame: session._control_received(frame),
            concurrency=concurrency,
            fair=fair,
            staged=staged,
            keep_responses=keep_responses,
            body_limit=body_limit,
            rate_limit=rate_limit,
        )
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=_OUR_SETTINGS)
        #: Why the connection is over; None while it is not.
        self.failure: FastpostError | None = None
        #: The server's settings as last told, by their RFC names.
        self.peer_settings: dict[str, int] = {}
        self.ping_answered = False

    # --- the connection's life --------------------------------------------------------------------

    def begin(self) -> None:
        """Queue the preface and our SETTINGS (RFC 9113 §3.4). Requests follow when the server's SETTINGS arrived."""
        self._h2.initiate_connection()
        self._queue_control()

    def ping(self) -> None:
        """Queue a PING (RFC 9113 §6.7); `ping_answered` turns true with its acknowledgement."""
        self.ping_answered = False
        self._h2.ping(_PING)
        self._queue_control()

    def goodbye(self, error_code: int = ErrorCode.NO_ERROR) -> None:
        """Queue our GOAWAY (RFC 9113 §6.8)."""
        self._h2.close_connection(error_code)
        self._queue_control()

    def lose(self, failure: FastpostError, now: float) -> None:
        """The connection is gone: every open stream ends, and comes out of `take_finished`."""
        if self.failure is None:
            self.failure = failure
        self.plane.lose(failure, now)

    # --- uploads ----------------------------------------------------------------------------------

    def submit(self, attempts: list[Attempt]) -> None:
        """Queue attempts; each comes out once, of `take_finished` or of `take_unsent`."""
        self.plane.submit(attempts)

    def take_finished(self) -> list[Attempt]:
        """Return the attempts that ended since the last call."""
        return self.plane.take_finished()

    def take_unsent(self) -> list[Attempt]:
        """Return the attempts that this connection will not begin, because it drains or is over."""
        return self.plane.take_unsent()

    # --- octets -----------------------------------------------------------------------------------

    @property
    def gather(self) -> GatherList:
        """What is to be sent, after `fill`."""
        return self.plane.gather

    def fill(self, now: float) -> bool:
        """Gather what may be sent now. False: nothing."""
        return self.plane.fill(now)

    def data_to_send(self, now: float) -> bytes:
        """Return everything that may be sent now as one copy: for use without a socket."""
        octets = bytearray()
        while self.plane.fill(now):
            octets += self.plane.take_octets(now)
        return bytes(octets)

    def receive(self, octets: Buffer, now: float) -> None:
        """Handle received octets, without a socket. A violation ends the session, as `end` has it."""
        try:
            self.plane.receive(octets, now)
        except (ProtocolViolation, NotHttp2) as failure:
            self.end(failure)

    def end(self, failure: ProtocolViolation | NotHttp2) -> None:
        """What the plane received was a violation: nothing goes on but our GOAWAY, which is queued."""
        self.failure = failure
        # Nothing goes behind our GOAWAY: what waits was never sent, and goes to another connection.
        self.plane.stop()
        if isinstance(failure, ProtocolViolation) and self._h2.state_machine.state is not _CLOSED:
            self._h2.close_connection(failure.error_code)
        self._queue_control()

    # --- stream 0 ---------------------------------------------------------------------------------

    def _control_received(self, frame: bytes) -> None:
        try:
            events = self._h2.receive_data(frame)
        except h2.exceptions.ProtocolError as violation:
            # h2 has queued the GOAWAY already.
            raise ProtocolViolation(violation.error_code, str(violation) or type(violation).__name__) from violation
        for event in events:
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self._take_settings(event)
            elif isinstance(event, h2.events.PingAckReceived) and event.ping_data == _PING:
                self.ping_answered = True
        self._queue_control()

    def _take_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        new = {int(code): change.new_value for code, change in event.changed_settings.items()}
        for code, value in new.items():
            self.peer_settings[_name(code)] = value
        self.plane.apply_settings(
            initial_window_size=new.get(_Codes.INITIAL_WINDOW_SIZE),
            max_frame_size=new.get(_Codes.MAX_FRAME_SIZE),
            max_concurrent_streams=new.get(_Codes.MAX_CONCURRENT_STREAMS),
            header_table_size=new.get(_Codes.HEADER_TABLE_SIZE),
        )

    def _queue_control(self) -> None:
        octets = self._h2.data_to_send()
        if octets:
            self.plane.queue_control(octets)


_CLOSED = h2.connection.ConnectionState.CLOSED


def _name(code: int) -> str:
    try:
        return _Codes(code).name
    except ValueError:
        return f"0x{code:x}"
