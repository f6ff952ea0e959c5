"""The server of the soak: at frame level, light, and of every hundred requests it treats two badly.

    python -m bench.faulty_server [--share 0.02] [--seed 1]

It keeps a CRC-32 of each body that it answered with 200, by path. On stdout it writes its port, then the number of
paths that it holds at each thousandth; when its stdin ends, a line of JSON with the faults that it committed, and
`CRC PATH` for each path. Whatever the client gets wrong goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from typing import Final, cast
from zlib import crc32

import hpack
import uvloop

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INTERNAL_ERROR, REFUSED_STREAM = 0x2, 0x7

#: Announced windows: no body of the soak fills that of a stream, so only the connection's is ever credited.
_WINDOW: Final = 1 << 20
_PREFACE: Final = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
#: Field blocks (RFC 7541): `:status: 200` of the static table, and 503 as a literal after the name there.
_OK: Final = b"\x88"
_BUSY: Final = b"\x08\x03503"
#: Seconds that a delayed answer takes at least and at most.
_DELAY: Final = (0.05, 1.0)
#: Paths between two lines on stdout.
STEP: Final = 1_000


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return the octets of a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


class Taken:
    """What the server holds, and what it did to get it, over all connections."""

    def __init__(self, share: float, seed: int) -> None:
        self.sums: dict[bytes, int] = {}
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.connections = 0
        self._rng = random.Random(seed)
        self._share = share

    def fate(self) -> str:
        """Return what the next request meets, "" for nothing bad; a reset and a close are early or late."""
        self.requests += 1
        if self._rng.random() >= self._share:
            return ""
        fault = self._rng.choice(("refused", "reset", "delayed", "closed", "busy"))
        self.faults[fault] += 1
        return fault + self._rng.choice(("", " late")) if fault in ("reset", "closed") else fault

    def delay(self) -> float:
        """Return seconds."""
        return self._rng.uniform(*_DELAY)

    def keep(self, path: bytes, checksum: int) -> None:
        """Keep the CRC of a body that is answered with 200."""
        known = self.sums.setdefault(path, checksum)
        if known != checksum:
            blame(f"{path!r} came again with other octets")
            self.sums[path] = checksum
        elif len(self.sums) % STEP == 0:
            print(len(self.sums), flush=True)


class Request:
    """One request, as far as it got."""

    __slots__ = ("checksum", "fate", "left", "path")

    def __init__(self, path: bytes, length: int, fate: str) -> None:
        self.path = path
        self.left = length
        self.fate = fate
        self.checksum = 0


class Line(asyncio.Protocol):
    """The server's end of one connection."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._octets = bytearray()
        self._at_preface = True
        self._requests: dict[int, Request] = {}
        self._decoder = hpack.Decoder()
        self._transport: asyncio.Transport
        self._consumed = 0
        self._out: list[bytes] = []
        taken.connections += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        grant = _WINDOW.to_bytes(4, "big")
        self._transport.write(frame(SETTINGS, 0, 0, b"\x00\x04" + grant) + frame(WINDOW_UPDATE, 0, 0, grant))

    def data_received(self, data: bytes) -> None:
        octets = self._octets
        octets += data
        at = 0
        if self._at_preface:
            if len(octets) < _PREFACE:
                return
            self._at_preface, at = False, _PREFACE
        while len(octets) >= at + 9:
            end = at + 9 + int.from_bytes(octets[at : at + 3], "big")
            if len(octets) < end:
                break
            self._take(
                octets[at + 3],
                octets[at + 4],
                int.from_bytes(octets[at + 5 : at + 9], "big"),
                bytes(octets[at + 9 : end]),
            )
            if self._transport.is_closing():
                return
            at = end
        del octets[:at]
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == DATA:
            self._on_data(flags, stream_id, payload)
        elif kind == HEADERS:
            self._on_headers(flags, stream_id, payload)
        elif kind == RST_STREAM:
            self._requests.pop(stream_id, None)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._out.append(frame(kind, ACK, 0, payload if kind == PING else b""))

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & (PADDED | PRIORITY) or not flags & END_HEADERS:
            blame(f"HEADERS with flags {flags:#x}, which this server doesn't read")
        fields = dict(self._decoder.decode(payload, raw=True))
        request = Request(bytes(fields[b":path"]), int(fields[b"content-length"]), self._taken.fate())
        self._requests[stream_id] = request
        if request.fate == "refused":
            self._reset(stream_id, REFUSED_STREAM)
        elif request.fate == "reset":
            self._reset(stream_id, INTERNAL_ERROR)
        elif request.fate == "closed":
            self._transport.abort()
        elif flags & END_STREAM:
            self._on_end(stream_id, request)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed > _WINDOW // 2:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, self._consumed.to_bytes(4, "big")))
            self._consumed = 0
        request = self._requests.get(stream_id)
        if request is None:
            return  # it was reset, by either side
        request.checksum = crc32(payload, request.checksum)
        request.left -= len(payload)
        if flags & END_STREAM:
            self._on_end(stream_id, request)

    def _on_end(self, stream_id: int, request: Request) -> None:
        if request.left:
            blame(f"{request.path!r}: {request.left} octets are missing of its content-length")
        if request.fate == "closed late":
            self._out.clear()
            self._transport.close()
        elif request.fate == "reset late":
            self._reset(stream_id, INTERNAL_ERROR)
        elif request.fate == "busy":
            del self._requests[stream_id]
            self._out.append(frame(HEADERS, END_STREAM | END_HEADERS, stream_id, _BUSY))
        elif request.fate == "delayed":
            asyncio.get_running_loop().call_later(self._taken.delay(), self._on_due, stream_id)
        else:
            self._out.append(self._answer(stream_id))

    def _on_due(self, stream_id: int) -> None:
        if stream_id in self._requests and not self._transport.is_closing():
            self._transport.write(self._answer(stream_id))

    def _answer(self, stream_id: int) -> bytes:
        request = self._requests.pop(stream_id)
        self._taken.keep(request.path, request.checksum)
        return frame(HEADERS, END_STREAM | END_HEADERS, stream_id, _OK)

    def _reset(self, stream_id: int, code: int) -> None:
        del self._requests[stream_id]
        self._out.append(frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big")))


def blame(what: str) -> None:
    """Tell what the client got wrong."""
    print(what, file=sys.stderr, flush=True)


async def serve(taken: Taken) -> None:
    """Serve on a free port of the loopback until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Line(taken), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Serve, then tell what was taken."""
    parser = argparse.ArgumentParser(description="The server of the soak.")
    parser.add_argument("--share", type=float, default=0.02, help="of the requests that meet a fault (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (%(default)s)")
    options = parser.parse_args()
    taken = Taken(options.share, options.seed)
    uvloop.run(serve(taken))
    facts = {"requests": taken.requests, "connections": taken.connections, "faults": dict(taken.faults)}
    print(json.dumps(facts))
    for path, checksum in taken.sums.items():
        print(f"{checksum:08x} {path.decode('ascii')}")


if __name__ == "__main__":
    main()
