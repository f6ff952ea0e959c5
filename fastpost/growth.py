"""How many connections are worth having (`--connections auto`): one, and more only where waiting was measured.

RFC 9113 §9.1 wants one connection to a server. But throughput is at most window ÷ round trip, and only the server can
enlarge a window: where it keeps the uploads waiting, more connections are the only cure that a client has. So the
number doubles while each step brings more, up to LIMIT, or goes there at once where the window is hardly ever open; and
falls back when a step brings nothing, or when connections have nothing to do. Pure: samples in, a number out;
docs/decisions/0006 says what was measured.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

#: Most connections that are opened without being asked for.
LIMIT: Final = 8
#: Seconds between samples.
INTERVAL: Final = 0.05
#: What a doubling must bring: this much more of octets or answers a second.
GAIN: Final = 1.15
#: Samples over which waiting is looked at: 0.5 s. For its window, a connection has waited for more than half of it as
#: soon as that is certain.
_SPAN: Final = 10
#: Part of the time that the connection window was closed above which all that may be had are opened at once; and the
#: last samples of which that must hold: 0.25 s.
_SHUT: Final = 0.9
_SURE: Final = 5
#: Samples without a verdict after a step: new connections begin slowly.
_SETTLING: Final = 5
#: Samples before another step is tried after one that brought nothing (5 s); doubled each time.
_REST: Final = 100
#: Samples after which connections without work are given up: 2 s.
_IDLE: Final = 40


class Sample(NamedTuple):
    """What happened in one interval, over all connections.

    Attributes:
        octets, answers: a second.
        starved: uploads that waited for a free stream, on average.
        closed: part of the time in which the connection window was closed for streams that could send, on average
            over the connections, 0.0 … 1.0.
        live: connections that take uploads.
        busy: connections with open streams.
    """

    octets: float
    answers: float
    starved: float
    closed: float
    live: int
    busy: int


class Growth:
    """The number of connections to have, from what the present ones measure.

    Args:
        most: never more than this.
    """

    def __init__(self, most: int) -> None:
        self.wanted = 1
        self._most = min(most, LIMIT)
        #: No step was taken back yet.
        self._may_leap = True
        self._samples: list[Sample] = []
        #: The number and the rates before the step that is on trial.
        self._before: tuple[int, float, float] | None = None
        self._settling = 0
        self._resting = 0
        self._rest = _REST
        self._idle = 0

    @property
    def sparing(self) -> bool:
        """True while uploads should stay free to move: no stream is to be begun whose octets could not go soon.

        That is while another connection may still be wanted, or is on trial; and while the windows of several are
        hardly ever open: else the last ones end at different times, each connection with what it had begun.
        """
        if self._before is not None or (self.wanted > 1 and self._samples and self._mean("closed") > _SHUT):
            return True
        return self.wanted < self._most and not self._resting and (len(self._samples) < _SPAN or self._waits())

    def limit(self, most: int) -> None:
        """Never have more than that from now on."""
        self._most = min(self._most, most)
        self.wanted = min(self.wanted, self._most)

    def step(self, sample: Sample) -> int:
        """Take the next sample; returns the number of connections to have now."""
        if sample.live < self.wanted:
            self._samples.clear()
            return self.wanted  # still opening
        if self._settling:
            self._settling -= 1
            self._samples.clear()
            return self.wanted
        self._samples = [*self._samples, sample][-_SPAN:]
        self._resting = max(self._resting - 1, 0)
        if self._before is not None:
            self._judge(*self._before)
        elif self._waits() and not self._resting:
            self._grow()
        else:
            self._shrink_if_idle(sample)
        return self.wanted

    def _waits(self) -> bool:
        """Did uploads wait for more than half of the span? For the window, what is not seen yet counts as open."""
        if self.wanted >= self._most:
            return False
        closed = sum(min(sample.closed, 1.0) for sample in self._samples)
        starved = sum(min(sample.starved, 1.0) for sample in self._samples)
        return closed > 0.5 * _SPAN or (len(self._samples) == _SPAN and starved > 0.5 * _SPAN)

    def _grow(self) -> None:
        # A connection that just began has sent as much as ever, but had few answers: those prove nothing then.
        answers = self._mean("answers") if len(self._samples) == _SPAN else math.inf
        self._before = (self.wanted, self._mean("octets"), answers)
        leap = self._may_leap and self._mean("closed", _SURE) > _SHUT
        self.wanted = self._most if leap else min(2 * self.wanted, self._most)
        self._settling = _SETTLING
        self._samples.clear()

    def _judge(self, number: int, octets: float, answers: float) -> None:
        """Keep what the last step brought, or go back."""
        if len(self._samples) < _SPAN:
            return
        self._before = None
        gain = GAIN ** math.log2(self.wanted / number)
        if self._mean("octets") > gain * octets or self._mean("answers") > gain * answers:
            self._rest = _REST
            if self._waits():
                self._grow()
            return
        self.wanted = min(number, self._most)
        self._may_leap = False
        self._resting = self._rest
        self._rest *= 2

    def _shrink_if_idle(self, sample: Sample) -> None:
        self._idle = self._idle + 1 if sample.busy < self.wanted else 0
        if self._idle >= _IDLE:
            self._idle = 0
            self.wanted = max(sample.busy, 1)

    def _mean(self, what: str, most: int = _SPAN) -> float:
        """Return the mean of a measure over the last samples, `most` at most."""
        last = self._samples[-most:]
        total: float = sum(getattr(sample, what) for sample in last)
        return total / len(last)
