"""Where a connection goes: the target's host and port, others in their place (--connect-to), or a Unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastpost.config import Settings
    from fastpost.target import Target


class Endpoint(NamedTuple):
    """What to connect to.

    Attributes:
        host: a name or an address, an IPv6 address without brackets.
        port: of TCP.
        path: of a Unix socket, which is connected to instead; None: there is none.
        address: all that in words, for messages.
        named_by: what says so: the URL, or an option.
    """

    host: str
    port: int
    path: str | None
    address: str
    named_by: str = "the URL"


def of(target: Target, settings: Settings) -> Endpoint:
    """Return what to connect to for a target; the first detour that fits it counts."""
    if settings.unix_socket is not None:
        path = settings.unix_socket
        return Endpoint(target.host, target.port, path, f"the Unix socket {path}")
    for host, port, other_host, other_port in settings.connect_to:
        if host in (None, target.host) and port in (None, target.port):
            there = target.host if other_host is None else other_host
            at = target.port if other_port is None else other_port
            shown = f"[{there}]:{at}" if ":" in there else f"{there}:{at}"
            return Endpoint(there, at, None, f"{shown} (--connect-to)", "--connect-to")
    return Endpoint(target.host, target.port, None, target.address)
