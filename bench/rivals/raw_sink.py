"""The other end of raw_limit: takes octets from one connection at a time and confirms how many came.

`python -m bench.rivals.raw_sink PORT [CERTIFICATE KEY]`. A connection begins with the number of octets that will
come (8, big-endian), and ends with the sink's answer: that number again, and the SHA-256 of the octets when asked
for by BENCH_DIGESTS, else zeros.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import struct
import sys

HEAD = struct.Struct("!Q")
_BUFFER = 1 << 20


def _exactly(connection: socket.socket, wanted: int) -> bytes:
    data = b""
    while len(data) < wanted:
        part = connection.recv(wanted - len(data))
        if not part:
            raise ConnectionError("the connection ended early")
        data += part
    return data


def _take(connection: socket.socket, buffer: memoryview, digests: bool) -> None:
    (expected,) = HEAD.unpack(_exactly(connection, HEAD.size))
    received = 0
    digest = hashlib.sha256()
    while received < expected:
        count = connection.recv_into(buffer)
        if not count:
            raise ConnectionError("the connection ended early")
        if digests:
            digest.update(buffer[:count])
        received += count
    connection.sendall(HEAD.pack(received) + (digest.digest() if digests else bytes(32)))


def main(port: int, certificate: str | None = None, key: str | None = None) -> None:
    """Serve until stopped."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    buffer = memoryview(bytearray(_BUFFER))
    digests = bool(os.environ.get("BENCH_DIGESTS"))
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            # A probe that connects and leaves, or a sender that fails, ends its own connection only.
            with connection, contextlib.suppress(OSError):
                if context is None:
                    _take(connection, buffer, digests)
                else:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        _take(secured, buffer, digests)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:4])
