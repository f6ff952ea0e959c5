"""A server that leaves a core to the client, as one on another machine does: what comes is discarded undecrypted.

    python -m bench.discard_server PORT CERTIFICATE KEY

TLS and HTTP/2 begin as they should. Once the request of a connection is known, the kernel discards its octets
(MSG_TRUNC, tcp(7)): they are counted, neither copied nor decrypted. When as many have come as content-length says, and
no more come, the answer is 200.

Nothing of the content is looked at: it is for measuring a client, never for whether what it sends is right. No record
of TLS can be read once others were left out, so no further request on a connection could be: it allows one stream, and
ends with its answer. So it is for large files, less than 2 GiB each, as windows are granted once.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

_LARGEST_WINDOW: Final = 2**31 - 1
_INITIAL_WINDOW: Final = 65_535
_SETTINGS: Final = {
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _LARGEST_WINDOW,
    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1,
}
#: Octets of content in a TLS record (RFC 8446 §5.1), at most: with all of one read, OpenSSL holds none.
_RECORD: Final = 2**14
#: Octets that the kernel gathers before it wakes the server: to wake it for each segment takes a fifth of a core.
_GATHERED: Final = 2**20
#: Octets that it discards in one call, at most.
_PIECE: Final = 2**22
#: Seconds without an octet after which all have come, also those of frames and records.
_QUIET: Final = 0.01
#: Seconds without an octet after which a client is given up.
_PATIENCE: Final = 60.0


def _request(secured: ssl.SSLSocket, http: h2.connection.H2Connection) -> tuple[int, int]:
    """Read one. Returns its stream, and how many octets of its content have not come. Raises ConnectionError."""
    while octets := secured.recv(_RECORD):
        events = http.receive_data(octets)
        secured.sendall(http.data_to_send())
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                content = int(dict(event.headers)[b"content-length"])
                # Frames and records around it add two in a thousand; what else came with it is less than that.
                return event.stream_id, content + content // 1000 - len(octets)
    raise ConnectionError("the client left without a request")


def _discard(connection: socket.socket, missing: int) -> None:
    """Have all octets that come discarded, at least `missing`. Raises OSError when the client leaves or stops."""
    nowhere = bytearray(_PIECE)  # never written to: it takes no memory
    while True:
        connection.settimeout(_PATIENCE if missing > 0 else _QUIET)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(min(missing, _GATHERED), 1))
        try:
            # Not the method of a TLS socket, which would decrypt.
            count = socket.socket.recv_into(connection, nowhere, 0, socket.MSG_TRUNC)
        except TimeoutError:
            if missing > 0:
                raise
            return
        if not count:
            raise ConnectionError("the client left in the midst of an upload")
        missing -= count


def _converse(secured: ssl.SSLSocket) -> None:
    """Take a request, answer it, and end the connection. Raises OSError, ProtocolError."""
    secured.settimeout(_PATIENCE)
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    http.local_settings = h2.settings.Settings(client=False, initial_values=_SETTINGS)
    http.initiate_connection()
    http.increment_flow_control_window(_LARGEST_WINDOW - _INITIAL_WINDOW)
    secured.sendall(http.data_to_send())
    stream_id, missing = _request(secured, http)
    _discard(secured, missing)
    secured.settimeout(_PATIENCE)
    http.send_headers(stream_id, [(":status", "200")], end_stream=True)
    http.close_connection(last_stream_id=stream_id)
    # In TLS the two directions are independent: nothing that is written depends on what was read.
    secured.sendall(http.data_to_send())
    secured.shutdown(socket.SHUT_WR)
    while socket.socket.recv(secured, _RECORD):
        pass  # with octets left unread, the kernel would reset the connection, and the answer might be lost


def _serve(connection: socket.socket, context: ssl.SSLContext) -> None:
    # Who leaves early, as who only asks whether somebody listens, or does wrong, ends its own connection only.
    with contextlib.suppress(OSError, h2.exceptions.ProtocolError), connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(connection, server_side=True) as secured:
            _converse(secured)


def main(port: int, certificate: str, key: str) -> None:
    """Serve until stopped."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, context), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
