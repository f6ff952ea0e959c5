"""The ASGI application behind the benchmarks' server: it drains each body and answers 200.

With BENCH_DIGESTS set it also remembers the SHA-256 of each body by path, and GET of any path answers them as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_START: Message = {"type": "http.response.start", "status": 200, "headers": []}
_END: Message = {"type": "http.response.body", "body": b""}

_digests: dict[str, str] = {}


async def drain(scope: Message, receive: Receive, send: Send) -> None:
    """Answer 200 when the whole body has come."""
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_END)


async def digest(scope: Message, receive: Receive, send: Send) -> None:
    """Remember the body's SHA-256, or answer all of them."""
    if scope["method"] == "GET":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(_digests).encode()})
        return
    body = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body.update(message.get("body", b""))
        more = message.get("more_body", False)
    _digests[scope["raw_path"].decode("ascii")] = body.hexdigest()
    await drain(scope, _ended, send)


async def _ended() -> Message:
    return {"type": "http.request", "more_body": False}


app = digest if os.environ.get("BENCH_DIGESTS") else drain
