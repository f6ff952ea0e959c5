"""Why an upload is not faster: the split of its time, the principal cause in one sentence, and the cure.

The data plane measures (`_blocked`); here its figures get words. What a server can be told to grant is known for the
servers that `servers` recognises by the name that they give in their `server` field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpost.tally import Tally

#: In the order of reports; the last one is what is left: fastpost itself.
CAUSES: Final = ("stream_limit", "stream_window", "connection_window", "socket", "disk", "server", "retry", "client")

#: That of --limit-rate, where one was set.
RATE_LIMIT: Final = "rate_limit"

#: What no number of connections helps against.
NO_STREAM: Final = "the server allows no stream at present (MAX_CONCURRENT_STREAMS 0)"

#: The part of all time from which a second cause matters for the cure of the first.
_FELT: Final = 0.05
#: More connections than these are never proposed.
_MOST_CONNECTIONS: Final = 16
#: Stream-seconds below which nothing is worth a word.
_LEAST: Final = 0.05


class Verdict(NamedTuple):
    """The principal cause, its part of all time (0.0 … 1.0), and a sentence with the cure."""

    cause: str
    share: float
    sentence: str


def split(tally: Tally) -> dict[str, float]:
    """Return the stream-seconds of each cause, all of them named; that of the user's own limit where there is one."""
    parts = {cause: tally.blocked.get(cause, 0.0) for cause in CAUSES}
    if held_back := tally.blocked.get(RATE_LIMIT, 0.0):
        parts[RATE_LIMIT] = held_back
    return parts


def verdict(tally: Tally, processes: int = 1, *, scheduled: bool = False) -> Verdict | None:
    """Return what kept the uploads of so many processes waiting most; None when hardly anything did.

    Of `scheduled` ones (an open loop) it says what their latency is made of: their rate is the one asked for.
    """
    parts = split(tally)
    total = sum(parts.values())
    if total < _LEAST:
        return None
    cause = max(parts, key=lambda name: parts[name])
    share = parts[cause] / total
    sentences = _SENTENCES | _SCHEDULED if scheduled else _SENTENCES
    sentence = _client(processes) if cause == "client" else sentences[cause](tally)
    return Verdict(cause, share, f"{share:.0%} of the time {sentence}")


def _stream_limit(tally: Tally) -> str:
    allowed = tally.peer.max_concurrent_streams
    if not allowed:
        cures = _either(_knob(tally, "stream_limit"), "try again later")
        return f"uploads waited for a free stream: {NO_STREAM}{cures}"
    return (
        f"uploads waited for a free stream: the server allows {allowed:,} at once on a connection"
        f"{_cures(tally, 'stream_limit')}"
    )


def _stream_window(tally: Tally) -> str:
    more = "more uploads at a time (--concurrency) use the connection better" if _has_more(tally) else ""
    return f"{_shut_stream(tally)}{_either(_knob(tally, 'stream_window'), more)}"


def _scheduled_stream_window(tally: Tally) -> str:
    knob = _knob(tally, "stream_window")
    return f"{_shut_stream(tally)}, and it alone can grant more{f' ({knob})' if knob else ''}"


def _shut_stream(tally: Tally) -> str:
    return f"the stream's own window was closed: the server grants {_octets(tally.peer.stream_window)} for each upload"


def _connection_window(tally: Tally) -> str:
    return (
        f"the connection window was closed: the server grants {_octets(tally.peer.connection_window)}"
        f"{_cures(tally, 'connection_window')}"
    )


def _server(tally: Tally) -> str:
    """More at a time is the cure; where uploads wait for streams as well, not more of them but more connections."""
    told = "the server had every octet and had not answered yet: it is the limit"
    if tally.retried > _FELT * (tally.ok + tally.failed):
        return f"{told}; more uploads at a time are no cure, as it puts some off already"
    if tally.blocked.get("stream_limit", 0.0) > _FELT * sum(tally.blocked.values()):
        allowed = tally.peer.max_concurrent_streams
        return f"{told}; it allows {allowed:,} uploads at once on a connection{_cures(tally, 'stream_limit')}"
    return f"{told}{'; more uploads at a time (--concurrency) help if it can work on several' * _has_more(tally)}"


def _client(processes: int) -> str:
    if processes == 1:
        cure = "one core of this machine is the limit; --processes 2 uses another one, where one is idle"
    else:
        cure = f"the cores of its {processes} processes are the limit; more of them help where cores are free"
    return f"fastpost itself was busy with other uploads: {cure}"


def _knob(tally: Tally, cause: str) -> str:
    """Return what to turn at this server; "" where that is not known."""
    from fastpost import servers  # only for who had to wait

    name, settings = tally.peer.server, tally.peer.settings
    # Without settings it is known by its name alone: that a server tells none is a signature of many.
    known = servers.recognised(name, settings) if settings or name else None
    knob = getattr(known[2], cause) if known is not None else ""
    return f"{known[0]}: {knob}" if known is not None and knob else ""


def _has_more(tally: Tally) -> bool:
    """Were there more uploads than may be in flight at a time?"""
    return tally.found > tally.concurrency


def _cures(tally: Tally, cause: str) -> str:
    """Return what to turn at this server, and how many connections may help, each with an upload of its own.

    What was tried in vain is no cure.
    """
    more = min(max(4, 2 * tally.at_once), _MOST_CONNECTIONS, tally.found)
    connections = ""
    if more > tally.at_once and not tally.refused:
        connections = f"--connections {more}"
        if more > tally.concurrency:
            connections = f"--concurrency {more} {connections}"
    return _either(_knob(tally, cause), connections)


def _either(*cures: str) -> str:
    """Return those that there are."""
    told = "; or ".join(filter(None, cures))
    return f"; {told}" if told else ", and it alone can grant more"


def _octets(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} octets"


_PUT_OFF: Final = (
    "nothing could be sent, as what was left waited to be tried again: the server had put it off, or had ended the "
    "connections; its log says why"
)
_SENTENCES: Final[dict[str, Callable[[Tally], str]]] = {
    "stream_limit": _stream_limit,
    "stream_window": _stream_window,
    "connection_window": _connection_window,
    "socket": lambda _: (
        "the socket was full: the network, or the server's reading, takes no more; a faster line or server would"
    ),
    "disk": lambda _: (
        "opening or reading a file had to wait for the disk: warm files, or a faster disk, would go up faster"
    ),
    "server": _server,
    RATE_LIMIT: lambda _: "--limit-rate was reached: no more was asked for",
    "retry": lambda _: f"{_PUT_OFF}, and fewer uploads at a time (--concurrency) may spare it",
}
#: What is another sentence of uploads that begin by the clock: more of them at a time are no cure.
_SCHEDULED: Final[dict[str, Callable[[Tally], str]]] = {
    "stream_window": _scheduled_stream_window,
    "server": lambda _: (
        "the server had every octet and had not answered yet: latency is made of that; how many it takes at most, a "
        "closed loop shows"
    ),
    "retry": lambda _: _PUT_OFF,
}
