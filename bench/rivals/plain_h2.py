"""The straightforward client: h2 for the protocol, uvloop for the IO, one connection, files by open and read.

It does what a careful programmer would do with these two libraries: one write a batch of frames, back-pressure,
windows and frame limits obeyed, no header validation for fields that are its own. It has no retries.
"""

from __future__ import annotations

import asyncio
import collections
import io
import os
import ssl
import urllib.parse
from collections.abc import Iterator
from importlib.metadata import version
from typing import cast

import h2.config
import h2.connection
import h2.events
import uvloop

from bench.rivals import tree

#: Octets handed to the transport before the loop gets a turn to read.
_BATCH = 1 << 20


class _Stream:
    __slots__ = ("file", "number", "remaining", "size", "status")

    def __init__(self, number: int, file: io.FileIO, size: int) -> None:
        self.number = number
        self.file = file
        self.size = self.remaining = size
        self.status = 0


class Client(asyncio.Protocol):
    """One connection that uploads `files` and then resolves `done`."""

    def __init__(self, url: urllib.parse.SplitResult, files: Iterator[tuple[str, str]], concurrency: int) -> None:
        self.count = tree.Count()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._files: Iterator[tuple[str, str]] | None = files
        self._target = url.path + (f"?{url.query}" if url.query else "")
        self._fields = [(b":method", b"PUT"), (b":scheme", url.scheme.encode()), (b":authority", url.netloc.encode())]
        self._concurrency = self._limit = concurrency
        self._streams: dict[int, _Stream] = {}
        self._ready: collections.deque[_Stream] = collections.deque()
        self._blocked: dict[int, _Stream] = {}
        self._paused = False
        self._again = False
        self._transport: asyncio.Transport
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )

    # --- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface and the first requests. Raises RuntimeError when ALPN didn't settle on h2."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            raise RuntimeError("the server didn't choose h2")
        self._transport.set_write_buffer_limits(high=2 * _BATCH)
        self._h2.initiate_connection()
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Handle frames, then use whatever room they made."""
        for event in self._h2.receive_data(data):
            self._handle(event)
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was in flight."""
        for stream in list(self._streams.values()):
            self._finish(stream)
        if not self.done.done():
            self.done.set_result(None)

    def pause_writing(self) -> None:
        """The socket is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._paused = False
        self._pump()

    # --- frames in ---------------------------------------------------------------------------------

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self._streams[event.stream_id].status = int(dict(event.headers)[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.WindowUpdated):
            self._wake(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                self._finish(stream)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._limit = min(self._concurrency, self._h2.remote_settings.max_concurrent_streams)
            self._wake(0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._transport.close()

    def _wake(self, stream_id: int) -> None:
        if stream_id:
            stream = self._blocked.pop(stream_id, None)
            if stream is not None:
                self._ready.append(stream)
        else:
            self._ready.extend(self._blocked.values())
            self._blocked.clear()

    def _finish(self, stream: _Stream) -> None:
        del self._streams[stream.number]
        self._blocked.pop(stream.number, None)
        stream.file.close()
        complete = stream.remaining == 0
        stream.remaining = -1
        self.count.add(stream.status if complete else 0, stream.size)

    # --- frames out --------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._transport.is_closing():
            return
        while self._files is not None and len(self._streams) < self._limit:
            self._open()
        batch = 0
        while self._ready and not self._paused and batch < _BATCH:
            batch += self._turn(self._ready.popleft())
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)
        if self._ready and not self._paused and not self._again:
            self._again = True
            asyncio.get_running_loop().call_soon(self._go_on)
        if self._files is None and not self._streams:
            self._h2.close_connection()
            self._transport.write(self._h2.data_to_send())
            self._transport.close()

    def _go_on(self) -> None:
        self._again = False
        self._pump()

    def _open(self) -> None:
        entry = next(self._files, None) if self._files is not None else None
        if entry is None:
            self._files = None
            return
        path, name = entry
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by _finish
        size = os.fstat(file.fileno()).st_size
        number = self._h2.get_next_available_stream_id()
        fields = [
            *self._fields,
            (b":path", self._target.replace("{path}", name).encode()),
            (b"content-length", b"%d" % size),
            (b"content-type", b"application/octet-stream"),
        ]
        self._h2.send_headers(number, fields, end_stream=size == 0)
        stream = self._streams[number] = _Stream(number, file, size)
        if size:
            self._ready.append(stream)

    def _turn(self, stream: _Stream) -> int:
        """Send one DATA frame of `stream`; return its octets."""
        if stream.remaining <= 0:  # answered before its body was complete
            return 0
        room = min(self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
        if room <= 0:
            self._blocked[stream.number] = stream
            return 0
        data = stream.file.read(min(room, stream.remaining))
        if not data:
            raise RuntimeError(f"a file became shorter while it was sent: {stream.file.name!r}")
        stream.remaining -= len(data)
        self._h2.send_data(stream.number, data, end_stream=stream.remaining == 0)
        if stream.remaining:
            self._ready.append(stream)
        return len(data)


def _tls(cafile: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile)
    context.set_alpn_protocols(["h2"])
    return context


async def _upload(folder: str, url: str, concurrency: int, cafile: str | None) -> tree.Count:
    parts = urllib.parse.urlsplit(tree.template(url))
    host = parts.hostname or "localhost"
    tls = _tls(cafile) if parts.scheme == "https" else None
    loop = asyncio.get_running_loop()
    port = parts.port or (443 if tls else 80)
    _, client = await loop.create_connection(
        lambda: Client(parts, tree.files(folder), concurrency), host, port, ssl=tls
    )
    await client.done
    return client.count


def main() -> None:
    """Upload a folder and print the count."""
    options = tree.arguments("Upload a folder with h2 on uvloop.")
    count = uvloop.run(_upload(options.dir, options.url, options.concurrency, options.cacert))
    count.print(h2=version("h2"), uvloop=version("uvloop"), openssl=ssl.OPENSSL_VERSION.split()[1])


if __name__ == "__main__":
    main()
