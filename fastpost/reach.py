"""The way to a server, step by step and each step timed: DNS, TCP, TLS. Blocking calls, for `probe` alone."""

from __future__ import annotations

import dataclasses
import functools
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, TypeVar

from fastpost import endpoint, tcp, tls
from fastpost.errors import NotHttp2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastpost.config import Settings
    from fastpost.target import Target

_T = TypeVar("_T")


@dataclasses.dataclass(slots=True)
class Reached:
    """A server that was reached.

    Attributes:
        socket: connected, and for https wrapped; who takes it closes it.
        address: which of the name's addresses answered; of a Unix socket its path.
        times: seconds of each step (dns, tcp, tls); None: there was none.
    """

    socket: socket.socket
    address: str
    times: dict[str, float | None]

    def tls(self) -> dict[str, object] | None:
        """Return what was agreed on; None without TLS."""
        if not isinstance(self.socket, ssl.SSLSocket):
            return None
        cipher = self.socket.cipher()
        return {
            "version": self.socket.version(),
            "cipher": cipher[0] if cipher else None,
            "alpn": self.socket.selected_alpn_protocol(),
        }


def reach(target: Target, settings: Settings) -> Reached:
    """Connect, as far as HTTP/2 can begin. Raises a TargetUnreachable."""
    context = tls.client_context(settings) if target.scheme == "https" else None
    times: dict[str, float | None] = {"dns": None, "tcp": None, "tls": None}
    there = endpoint.of(target, settings)
    try:
        found = _timed(times, "dns", lambda: _addresses(there))
    except OSError as error:
        raise tcp.no_address(there, error) from None
    try:
        plain, address = _first_that_answers(found, settings.connect_timeout, times)
    except OSError as error:
        raise tcp.no_connection(there, error) from None
    plain.settimeout(settings.connect_timeout)
    if there.path is None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    agreed = plain if context is None else _agreed(plain, target, context, times, there.address)
    return Reached(agreed, address, times)


def _addresses(there: endpoint.Endpoint) -> Sequence[tuple[Any, ...]]:
    """Return the addresses as getaddrinfo tells them. Raises OSError."""
    if there.path is not None:
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", there.path)]
    return socket.getaddrinfo(there.host, there.port, type=socket.SOCK_STREAM)


def _first_that_answers(
    found: Sequence[tuple[Any, ...]], timeout: float, times: dict[str, float | None]
) -> tuple[socket.socket, str]:
    """Connect to one of the addresses that getaddrinfo told. Raises OSError, of the last one.

    One that swallows packets may use up its part of the time, not that of the others.
    """
    ends = time.monotonic() + timeout
    failure = OSError(0, "no address")
    for left, one in zip(range(len(found), 0, -1), found, strict=True):
        part = max((ends - time.monotonic()) / left, 0.001)
        try:
            return _timed(times, "tcp", functools.partial(_connect, one, part)), _shown(one[-1])
        except OSError as error:
            failure = error
    raise failure


def _shown(address: Any) -> str:
    return address if isinstance(address, str) else str(address[0])


def _connect(found: tuple[Any, ...], timeout: float) -> socket.socket:
    """Connect to an address as getaddrinfo tells it. Raises OSError."""
    family, kind, protocol, _, address = found
    connecting = socket.socket(family, kind, protocol)
    try:
        connecting.settimeout(timeout)
        connecting.connect(address)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _agreed(
    plain: socket.socket, target: Target, context: ssl.SSLContext, times: dict[str, float | None], where: str
) -> ssl.SSLSocket:
    """Agree on TLS and, by ALPN, on HTTP/2. Raises a TargetUnreachable, with the socket closed."""
    try:
        wrapped = _timed(times, "tls", lambda: context.wrap_socket(plain, server_hostname=target.host))
    except (OSError, ValueError) as error:
        plain.close()
        raise tls.failure(error, where) from None
    if wrapped.selected_alpn_protocol() != "h2":
        wrapped.close()
        raise NotHttp2(tls.no_alpn(where))
    return wrapped


def _timed(times: dict[str, float | None], name: str, work: Callable[[], _T]) -> _T:
    began = time.monotonic()
    result = work()
    times[name] = time.monotonic() - began
    return result
