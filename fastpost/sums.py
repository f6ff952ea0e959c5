"""What the connections of a run have measured, added up: those that are open, and those that are gone."""

from __future__ import annotations

import typing

from fastpost.growth import Sample
from fastpost.tally import Peer, Shares

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpost.connection import Connection
    from fastpost.session import Session
    from fastpost.tally import Tally


class _Measures(typing.NamedTuple):
    """Sums over all connections at one moment (monotonic seconds): octets, responses, stream-seconds, seconds.

    `worked` are the seconds of CPU that the thread has used or would have, without those in which it only waited.
    """

    at: float
    octets: int
    answers: int
    starved: float
    closed: float
    worked: float


class Sums:
    """Owns what connections that are gone have brought, earlier runs of the same tally included.

    Args:
        tally: of the run, and perhaps of runs before it.
    """

    def __init__(self, tally: Tally) -> None:
        self.sent = tally.sent
        self.blocked = dict(tally.blocked)
        self.shares = tally.shares
        self.peer = tally.peer
        self._responses = 0
        self._closed = 0.0
        self._awake = 0.0
        self._sampled = _Measures(0.0, 0, 0, 0.0, 0.0, 0.0)

    def take(self, connection: Connection) -> None:
        """A connection is gone: keep what it has brought."""
        plane = connection.session.plane
        _add(self, connection.session)
        self._closed += plane.window.closed_for
        self._awake += connection.awake
        self._responses += plane.responses

    def report(self, tally: Tally, connections: Sequence[Connection]) -> None:
        """Bring what only connections know up to date in the tally: octets, waiting by cause, shares, grants."""
        tally.sent = self.sent
        tally.blocked = dict(self.blocked)
        tally.shares = self.shares
        tally.peer = self.peer
        for connection in connections:
            _add(tally, connection.session)

    def responses(self, connections: Sequence[Connection]) -> int:
        """Return how many responses there were, those on open connections included."""
        return self._responses + sum(one.session.plane.responses for one in connections)

    def begin(self, connections: Sequence[Connection], now: float, cpu: float) -> None:
        """Have the first sample begin now; arguments as those of `sample`."""
        self._sampled = self._measures(connections, now, cpu)

    def sample(self, connections: Sequence[Connection], now: float, cpu: float) -> Sample:
        """Return what happened since the last sample, for the policy of growth.

        Args:
            connections: those that are open.
            now: monotonic seconds.
            cpu: seconds of CPU that the thread which drives them has used, or has waited for.
        """
        planes = [connection.session.plane for connection in connections]
        live = [plane for plane in planes if not plane.draining]
        for plane in planes:
            plane.split_time(now)
        before, self._sampled = self._sampled, self._measures(connections, now, cpu)
        elapsed = max(now - before.at, 1e-6)
        octets, answers, starved, closed, worked = (
            (after - earlier) / elapsed for after, earlier in zip(self._sampled[1:], before[1:], strict=True)
        )
        return Sample(
            octets=octets,
            answers=answers,
            starved=starved,
            closed=min(closed / max(len(live), 1), 1.0),  # those that drain have their part in the sum
            live=len(live),
            busy=sum(plane.open_streams > 0 for plane in live),
            open=sum(plane.open_streams for plane in live),
            spare=min(max(1.0 - worked, 0.0), 1.0),
            far=any(plane.window.far for plane in live),
        )

    def _measures(self, connections: Sequence[Connection], now: float, cpu: float) -> _Measures:
        planes = [connection.session.plane for connection in connections]
        return _Measures(
            at=now,
            octets=self.sent + sum(plane.delivery.sent for plane in planes),
            answers=self._responses + sum(plane.responses for plane in planes),
            starved=self.blocked.get("stream_limit", 0.0)
            + sum(plane.blocked.seconds()["stream_limit"] for plane in planes),
            closed=self._closed + sum(plane.window.closed_for for plane in planes),
            worked=cpu - self._awake - sum(connection.awake for connection in connections),
        )


def _add(sums: Tally | Sums, session: Session) -> None:
    """Add what one connection has measured, and what its server told."""
    plane = session.plane
    sums.sent += plane.delivery.sent
    for cause, waited in plane.blocked.seconds().items():
        sums.blocked[cause] = sums.blocked.get(cause, 0.0) + waited
    sums.shares = sums.shares.plus(Shares(*plane.fairness()))
    sums.peer = sums.peer.joined(
        Peer(
            plane.largest_stream_window,
            plane.window.largest,
            plane.max_concurrent_streams,
            (plane.server or b"").decode("latin-1"),
            session.peer_settings,
        )
    )
