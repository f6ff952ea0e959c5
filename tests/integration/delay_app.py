"""An application with known delays: of a thousand requests 980 are answered after 1 s, 17 after 3 s, 3 after 6 s.

So long, as on some machines who slept for a while wakes milliseconds late, and that is no delay of its making.

A request for /pause stops the whole server for a second, as a collection of garbage would.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

#: Seconds by the share of the requests that wait no longer, in percent.
DELAYS = {50.0: 1.0, 99.0: 3.0, 99.9: 6.0}

_numbers = itertools.count()


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """ASGI 3 entry point."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    while (await receive()).get("more_body", False):
        pass
    if scope["path"] == "/pause":
        time.sleep(1.0)
    elif scope["path"] == "/delayed":
        place = next(_numbers) % 1000
        await asyncio.sleep(6.0 if place < 3 else 3.0 if place < 20 else 1.0)
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b""})
