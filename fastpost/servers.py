"""What is known of servers: how they are recognised, which of their options grant what, and when they say GOAWAY.

By the `server` field where they send one, else by their SETTINGS, which are as good as a signature for some. The live
values are always those of the server itself; nothing here says what it grants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Knobs(NamedTuple):
    """What to turn at a server, by cause; empty: it can't be turned there. `goaway` is a habit, in words."""

    stream_limit: str
    stream_window: str
    connection_window: str
    goaway: str = ""


#: By the beginning of the `server` field, in small letters.
_SERVERS: Final[Mapping[str, Knobs]] = {
    "nginx": Knobs(
        "http2_max_concurrent_streams",
        "http2_body_preread_size, client_body_buffer_size",
        "",
        "after keepalive_requests (1000) requests",
    ),
    "apache": Knobs("H2MaxSessionStreams", "H2WindowSize", ""),
    "h2o": Knobs("http2-max-concurrent-requests-per-connection", "", ""),
    "caddy": Knobs("", "", ""),
    "nghttpd": Knobs("--max-concurrent-streams", "--window-bits", "--connection-window-bits"),
    "haproxy": Knobs("tune.h2.fe.max-concurrent-streams", "tune.h2.fe.initial-window-size", "tune.h2.fe.rxbuf"),
    "envoy": Knobs("max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size"),
    "hypercorn": Knobs("h2_max_concurrent_streams", "", "", "after keep_alive_max_requests (1000) requests"),
    "granian": Knobs(
        "--http2-max-concurrent-streams",
        "--http2-initial-stream-window-size",
        "--http2-initial-connection-window-size",
    ),
    "h2corn": Knobs(
        "--max-concurrent-streams", "--h2-initial-stream-window-size", "--h2-initial-connection-window-size"
    ),
}

#: Settings that tell nothing of who sent them: what they are changes with the configuration of header sizes.
_NEUTRAL: Final = frozenset({"HEADER_TABLE_SIZE", "MAX_HEADER_LIST_SIZE"})
#: Servers that may send no `server` field, or pass on that of another server behind them: all of their SETTINGS but the
#: neutral ones, as they come by default; and who is built upon them.
_SIGNATURES: Final[Mapping[str, tuple[dict[str, int], str, Knobs]]] = {
    "Go net/http": (
        {"MAX_FRAME_SIZE": 1 << 20, "MAX_CONCURRENT_STREAMS": 250, "INITIAL_WINDOW_SIZE": 1 << 20},
        "caddy",
        Knobs(
            "http2.Server.MaxConcurrentStreams",
            "http2.Server.MaxUploadBufferPerStream",
            "http2.Server.MaxUploadBufferPerConnection",
            "twice when it ends a connection: the first one promises every request",
        ),
    ),
    "hyper": (
        {"INITIAL_WINDOW_SIZE": 1 << 20, "MAX_CONCURRENT_STREAMS": 200, "MAX_FRAME_SIZE": 16384},
        "granian",
        Knobs(
            "max_concurrent_streams of http2::Builder (granian: --http2-max-concurrent-streams)",
            "initial_stream_window_size of http2::Builder (granian: --http2-initial-stream-window-size)",
            "initial_connection_window_size of http2::Builder (granian: --http2-initial-connection-window-size)",
        ),
    ),
    "HAProxy": ({"ENABLE_CONNECT_PROTOCOL": 1, "MAX_CONCURRENT_STREAMS": 100}, "haproxy", _SERVERS["haproxy"]),
    "Node": (
        {},
        "node",
        Knobs(
            "settings.maxConcurrentStreams of http2.createServer",
            "settings.initialWindowSize of http2.createServer",
            "setLocalWindowSize of its sessions",
        ),
    ),
}


def named(server: str) -> tuple[str, Knobs] | None:
    """Return name and knobs of the server that calls itself so in its `server` field."""
    told = server.lower()
    return next(((name, knobs) for name, knobs in _SERVERS.items() if told.startswith(name)), None)


def recognised(server: str, settings: Mapping[str, int]) -> tuple[str, str, Knobs] | None:
    """Return a server's name, what tells it ("server field" or "settings") and its knobs.

    A proxy passes on the `server` field of what is behind it; the SETTINGS are its own. Empty SETTINGS are no
    signature of whoever gives another name.

    Args:
        server: the field.
        settings: by their names in RFC 9113.
    """
    told = {name: value for name, value in settings.items() if name not in _NEUTRAL}
    by_field = named(server)
    for name, (signature, upon, knobs) in _SIGNATURES.items():
        if told == signature and (told or not server) and (by_field is None or by_field[0] != upon):
            return name, "settings", knobs
    return None if by_field is None else (by_field[0], "server field", by_field[1])
