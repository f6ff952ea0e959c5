"""The application behind the servers that don't store: it says what it received, and keeps a table of it.

Each complete body is answered 201 with `repr-digest: sha-256=:BASE64:` (RFC 9530) and appended to
the file named by DIGEST_TABLE, one JSON object a line:

    {"method": "PUT", "path": "/names/100%25.txt", "size": 123, "sha256": "hex"}

`path` is the request's path, decoded and encoded again, so that tables of servers that hand out
differently encoded paths can be compared. A body that was cut short leaves no line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_table = os.open(os.environ["DIGEST_TABLE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """ASGI 3 entry point."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _take(scope, receive, send)


async def _take(scope: Message, receive: Receive, send: Send) -> None:
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body = message.get("body", b"")
        digest.update(body)
        size += len(body)
        if not message.get("more_body", False):
            break
    line = {"method": scope["method"], "path": _path(scope), "size": size, "sha256": digest.hexdigest()}
    os.write(_table, json.dumps(line).encode() + b"\n")
    field = b"sha-256=:" + base64.b64encode(digest.digest()) + b":"
    await send({"type": "http.response.start", "status": 201, "headers": [(b"repr-digest", field)]})
    await send({"type": "http.response.body", "body": b""})


def _path(scope: Message) -> str:
    """Return the request's path in one canonical percent-encoding."""
    raw = scope.get("raw_path") or os.fsencode(scope["path"])
    return quote(unquote_to_bytes(raw.partition(b"?")[0]))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
