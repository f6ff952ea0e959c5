"""The ASGI application of the embedded server: takes uploads, tells the SHA-256 of each.

It runs in any ASGI 3 server. Memory is one chunk an upload, whatever the size of the body.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from fastpost.ingest_store import Incoming, Nowhere, Refused

if TYPE_CHECKING:
    from fastpost.ingest_store import Store

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

#: A refused body of up to this many octets is read before the answer. curl 7 takes the RST_STREAM(NO_ERROR) that
#: follows an early answer (RFC 9113 §8.1) for an error and hides the reason; a longer body is not worth the wait.
DRAINED = 64 * 1024


class Disconnected(Exception):
    """The client went away or reset the stream before the end of its body: nobody is there to be answered."""


class IngestApp:
    """Takes PUT and POST, hashes the body, stores it when there is a store.

    A body that is complete gets 200, or 201 when it was stored, without content and with
    `repr-digest: sha-256=:…:` (RFC 9530 §3) of the octets that arrived. A refusal is a line of text.

    Args:
        store: where bodies go, or None to drop them. The path is looked at only with a store.
        max_body: octets of the largest body taken (larger ones get 413), or None for any.
        max_requests: uploads taken at once (more get 503), or None for any number.
        digests: False: a sink, which hashes nothing and tells no digest.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        max_body: int | None = None,
        max_requests: int | None = None,
        digests: bool = True,
    ) -> None:
        self._store = store
        self._status = 201 if store else 200
        self._max_body = math.inf if max_body is None else max_body
        self._max_requests = math.inf if max_requests is None else max_requests
        self._digests = digests
        self._running = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request. Other kinds of scope (lifespan, websocket) are left alone."""
        if scope["type"] != "http":
            return
        self._running += 1
        try:
            status, fields, body = await self._answer(scope, receive)
        except Disconnected:
            return
        finally:
            self._running -= 1
        fields.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, Fields, bytes]:
        """Return status, fields and body of the response."""
        length = content_length(scope["headers"])
        try:
            incoming = self._open(scope, length)
        except Refused as refused:
            if length is not None and length <= DRAINED:
                await drain(receive)
            return refusal(refused)
        try:
            with incoming:
                digest = await self._take(receive, length, incoming)
        except Refused as refused:
            return refusal(refused)
        if digest is None:
            return self._status, [], b""
        return self._status, [(b"repr-digest", b"sha-256=:%b:" % binascii.b2a_base64(digest, newline=False))], b""

    def _open(self, scope: Message, length: int | None) -> Incoming | Nowhere:
        """Return where the body goes. Raises Refused."""
        if scope["method"] not in ("PUT", "POST"):
            raise Refused(405, "uploads come by PUT or POST")
        if self._running > self._max_requests:
            raise Refused(503, f"more than {self._max_requests} uploads at once")
        if length is not None and length > self._max_body:
            raise self._too_long()
        return self._store.open(scope["raw_path"]) if self._store else Nowhere()

    async def _take(self, receive: Receive, length: int | None, incoming: Incoming | Nowhere) -> bytes | None:
        """Read the whole body, pass it on and return its SHA-256, if wanted. Raises Refused or Disconnected."""
        sha = hashlib.sha256() if self._digests else None
        received = 0
        more = True
        while more:
            chunk, more = await next_chunk(receive)
            received += len(chunk)
            if received > self._max_body:
                raise self._too_long()
            if sha is not None:
                sha.update(chunk)
            incoming.write(chunk)
        if length is not None and received != length:  # RFC 9113 §8.1.1; most servers notice it first
            raise Refused(400, f"content-length promised {length} octets, {received} arrived")
        incoming.commit()
        return None if sha is None else sha.digest()

    def _too_long(self) -> Refused:
        return Refused(413, f"the server takes bodies of up to {self._max_body} octets")


async def next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """Return the next octets of a body and whether more may follow. Raises Disconnected."""
    message = await receive()
    if message["type"] != "http.request":
        raise Disconnected
    return message.get("body", b""), message.get("more_body", False)


async def drain(receive: Receive) -> None:
    """Read a body to its end. Raises Disconnected."""
    more = True
    while more:
        _, more = await next_chunk(receive)


def refusal(refused: Refused) -> tuple[int, Fields, bytes]:
    """Return the response that tells why an upload was not taken."""
    fields = [(b"content-type", b"text/plain; charset=utf-8")]
    if refused.status == 405:
        fields.append((b"allow", b"PUT, POST"))
    if refused.status == 503:
        fields.append((b"retry-after", b"1"))
    return refused.status, fields, f"{refused.reason}\n".encode()


def content_length(fields: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the octets that content-length promises, or None without a usable one."""
    for name, value in fields:
        if name == b"content-length":
            with contextlib.suppress(ValueError):
                return int(value)
    return None


#: Hashes and drops: for any ASGI server.
app = IngestApp()
