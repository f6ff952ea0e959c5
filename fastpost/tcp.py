"""TCP to an endpoint: names to addresses, and the first of them that answers. Or a Unix socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import typing

from fastpost.errors import ConnectFailed, NameNotResolved

if typing.TYPE_CHECKING:
    from collections.abc import Callable

    from fastpost.endpoint import Endpoint


#: Seconds after which a Unix socket that takes no more connections is asked again.
_AGAIN = 0.01


async def connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    """Return a connected, non-blocking socket. Raises NameNotResolved, ConnectFailed.

    Args:
        endpoint: where to.
        timeout: seconds that several addresses share; who calls bounds the whole.
    """
    if endpoint.path is not None:
        try:
            return await _connect_to(socket.socket(socket.AF_UNIX), endpoint.path)
        except OSError as error:
            raise no_connection(endpoint, error) from None
    loop = asyncio.get_running_loop()
    try:
        # Octets: text would be IDNA-encoded once more, for which Python loads 1.2 MB of tables.
        addresses = await loop.getaddrinfo(endpoint.host.encode(), endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise no_address(endpoint, error) from None
    failure = OSError(0, "no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        # An address that swallows packets may use up its part of the time, not that of the others.
        part = timeout / left if left > 1 else None
        try:
            async with asyncio.timeout(part):
                return await _connect_to(socket.socket(family, kind, protocol), address)
        except OSError as error:
            failure = error
    raise no_connection(endpoint, failure)


async def _connect_to(connecting: socket.socket, address: typing.Any) -> socket.socket:
    try:
        connecting.setblocking(False)
        # Not the loop's sock_connect: uvloop's resolves the address once more, with four threads that it starts for it.
        failed = connecting.connect_ex(address)
        while failed == errno.EAGAIN and connecting.family == socket.AF_UNIX:
            # Its server has as many before it as it takes; by TCP that would be waited for as EINPROGRESS.
            await asyncio.sleep(_AGAIN)
            failed = connecting.connect_ex(address)
        if failed == errno.EINPROGRESS:
            loop = asyncio.get_running_loop()
            await ready(connecting.fileno(), loop.add_writer, loop.remove_writer)
            failed = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
        # Frames leave in large gathers of our own making: Nagle would only delay the last one.
        if connecting.family != socket.AF_UNIX:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connecting.close()
        raise
    return connecting


async def ready(fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    """Wait until a descriptor is readable or writable: `add` and `remove` are the loop's, for the one or the other."""
    waiting = asyncio.get_running_loop().create_future()
    add(fd, settle, waiting)
    try:
        await waiting
    finally:
        remove(fd)


def settle(waiting: asyncio.Future[None]) -> None:
    """Let whoever waits go on, also when that has been done already."""
    if not waiting.done():
        waiting.set_result(None)


def no_address(endpoint: Endpoint, error: OSError) -> NameNotResolved:
    """Return the failure of a name that has no address."""
    return NameNotResolved(
        f"the host name {endpoint.host!r} has no address ({error.strerror}): check the spelling of {endpoint.named_by}"
    )


def no_connection(endpoint: Endpoint, error: OSError) -> ConnectFailed:
    """Return the failure of addresses of which none answers; the error is that of the last one."""
    reason = os.strerror(error.errno) if error.errno else error.strerror or str(error) or "timed out"
    cure = f"check {'host and port' if endpoint.path is None else 'its path'}, and that the server is up"
    if error.errno == errno.EMFILE:
        cure = "raise the limit of open files (ulimit -n 1024)"
    return ConnectFailed(f"can't connect to {endpoint.address} ({reason}): {cure}")


def no_answer(where: str, seconds: float, doubt: str) -> ConnectFailed:
    """Return what to say of a server that was not done with an opening in time; `doubt` is what may be otherwise."""
    return ConnectFailed(
        f"{where} did not answer within {seconds:g} s: check that {doubt}, or allow more with --connect-timeout"
    )
