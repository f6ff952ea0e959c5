"""The least that the octets can cost on this machine: the same files over loopback, without HTTP/2.

`tcp://`: each file mapped and handed to sendmsg. `tls://`: read by pread into a stage of 256 KiB and sent by a
non-blocking SSLSocket. Reads every file in turn; the sink confirms the number of octets. No rival, a yardstick.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.rivals import tree
from bench.rivals.raw_sink import HEAD

#: Octets a sendmsg; the cheapest of 256 KiB … 4 MiB, and cheaper than with MAP_POPULATE.
_PIECE = 1 << 20
_STAGE = 256 << 10


def send_mapped(connection: socket.socket, path: str, size: int) -> None:
    """Send a file straight from its mapping."""
    with open(path, "rb", buffering=0) as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        with memoryview(mapped) as octets:
            offset = 0
            while offset < size:
                with octets[offset : offset + _PIECE] as piece:
                    offset += connection.sendmsg([piece])


def tls_sender(connection: ssl.SSLSocket) -> Callable[[str, int], None]:
    """Return a function that sends a file through the stage."""
    stage = memoryview(bytearray(_STAGE))
    poll = select.poll()
    poll.register(connection, select.POLLOUT)

    def send(path: str, size: int) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            offset = 0
            while offset < size:
                count = os.preadv(file, [stage], offset)
                offset += count
                _drain(connection, stage[:count], poll)
        finally:
            os.close(file)

    return send


def _drain(connection: ssl.SSLSocket, octets: memoryview, poll: select.poll) -> None:
    while octets:
        try:
            octets = octets[connection.send(octets) :]
        except ssl.SSLWantWriteError:
            poll.poll()


def _confirm(connection: socket.socket, expected: int) -> str:
    connection.setblocking(True)
    answer = b""
    while len(answer) < HEAD.size + 32:
        part = connection.recv(HEAD.size + 32 - len(answer))
        if not part:
            raise ConnectionError("the sink left without an answer")
        answer += part
    if HEAD.unpack_from(answer) != (expected,):
        raise ConnectionError("the sink received another number of octets")
    return answer[HEAD.size :].hex()


def _connect(url: str, cafile: Path | None) -> socket.socket:
    parts = urllib.parse.urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port))
    if parts.scheme == "tcp":
        return connection
    secured = ssl.create_default_context(cafile=cafile).wrap_socket(connection, server_hostname=parts.hostname)
    secured.setblocking(False)
    return secured


def _send(connection: socket.socket, found: Iterable[tuple[str, int]], total: int) -> None:
    if isinstance(connection, ssl.SSLSocket):
        send = tls_sender(connection)
        connection.send(HEAD.pack(total))
    else:
        connection.sendall(HEAD.pack(total))

        def send(path: str, size: int) -> None:
            send_mapped(connection, path, size)

    for path, size in found:
        if size:
            send(path, size)


def main() -> None:
    """Send a folder's octets and print the count."""
    options = tree.arguments("Send a folder's octets over loopback without HTTP/2.")
    found = [(path, os.stat(path).st_size) for path, _ in tree.files(options.dir)]
    total = sum(size for _, size in found)
    with contextlib.closing(_connect(options.url, options.cacert)) as connection:
        _send(connection, found, total)
        digest = _confirm(connection, total)
    count = tree.Count(len(found), len(found), total)
    count.print(openssl=ssl.OPENSSL_VERSION.split()[1], digest=digest)


if __name__ == "__main__":
    main()
