"""How many connections are worth having (`--connections auto`): one, and more only where waiting was measured.

RFC 9113 §9.1 wants one connection to a server. But throughput is at most window ÷ round trip, and only the server can
enlarge a window: where it keeps the uploads waiting, more connections are the only cure that a client has. So the
number doubles while each step brings more, up to LIMIT, or goes there at once where the window is hardly ever open, or
nothing but slow answers is waited for; and falls back when a step brings nothing, or when connections have nothing to
do. Pure: samples in, a number out; docs/decisions/0006 says what was measured.
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
#: CPU that uploads over several connections take, by that over one (nghttpd on loopback: 1.1 to 1.35).
_DEARER: Final = 1.3
#: Samples over which waiting is looked at: 0.5 s. For its window, a connection has waited for more than half of it as
#: soon as that is certain.
_SPAN: Final = 10
#: Part of the time that the connection window was closed above which all that may be had are opened at once; and the
#: last samples of which that must hold: 0.25 s.
_SHUT: Final = 0.9
_SURE: Final = 5
#: Samples without a verdict after a step: new connections begin slowly.
_SETTLING: Final = 5
#: Most samples that a step for streams is on trial while answers are still to come: 30 s.
_PATIENCE: Final = 600
#: Samples before another step is tried after one that brought nothing (5 s); doubled each time.
_REST: Final = 100
#: Connection windows that the open streams of one of several shall be able to fill.
_AHEAD: Final = 4
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
        open: streams that are open on them.
        spare: part of the time in which the thread that drives them needed no core, or only to wait awake, 0.0 … 1.0.
        far: their windows are closed for long before each credit.
    """

    octets: float
    answers: float
    starved: float
    closed: float
    live: int
    busy: int
    open: int
    spare: float
    far: bool


class _Trial(NamedTuple):
    """What was before a step, and how long it may take to tell.

    Attributes:
        number: of connections.
        octets, answers: a second; infinite where they can prove nothing.
        patience: samples that it may wait for as many answers as streams are open.
    """

    number: int
    octets: float
    answers: float
    patience: float


class Growth:
    """The number of connections to have, from what the present ones measure.

    Args:
        most: how many it may have, until `share` says otherwise.
    """

    def __init__(self, most: int) -> None:
        self.wanted = 1
        self._share = min(most, LIMIT)
        #: More than so many the server does not let us have.
        self._granted = LIMIT
        #: No step was taken back yet.
        self._may_leap = True
        self._samples: list[Sample] = []
        #: What was before the step that is on trial.
        self._before: _Trial | None = None
        #: Samples since the number last changed, and the answers in them.
        self._seen = 0
        self._answered = 0.0
        self._settling = 0
        self._resting = 0
        self._rest = _REST
        self._idle = 0

    @property
    def windows_ahead(self) -> int:
        """Connection windows that open streams shall be able to fill before another is begun; 0: begin them all.

        A stream can't move, so what could not go soon is not begun while another connection may still be wanted, or is
        on trial; nor while the windows of several are closed for more than half of the time: else the last ones end at
        different times, each connection with what it had begun.
        """
        if self._before is not None and self._settling == _SETTLING:
            return 1  # the others are not there yet
        if self._before is not None or (self.wanted > 1 and self._samples and self._mean("closed") > 0.5):
            return _AHEAD
        may_grow = self.wanted < self._most and not self._resting and (len(self._samples) < _SPAN or self._waits())
        return int(may_grow)

    def share(self, most: int) -> None:
        """Have no more than that, until the next call: the rest is for other processes."""
        self._share = min(most, LIMIT)
        self.wanted = min(self.wanted, self._most)

    def limit(self, most: int) -> None:
        """Never have more than that from now on: the server takes no more."""
        self._granted = min(self._granted, most)
        self.wanted = min(self.wanted, self._most)

    @property
    def _most(self) -> int:
        return min(self._share, self._granted)

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
        self._seen += 1
        self._answered += sample.answers * INTERVAL
        self._resting = max(self._resting - 1, 0)
        if self._before is not None:
            self._judge(self._before)
        elif self._waits() and not self._resting and self._can_tell():
            self._grow()
        else:
            self._shrink_if_idle(sample)
        return self.wanted

    def _waits(self) -> bool:
        """Did uploads wait for more than half of the span? For the window, what is not seen yet counts as open."""
        more = min(2 * self.wanted, self._most)
        return more > self.wanted and (self._is_shut() or self._is_starved()) and self._has_time_for(more)

    def _has_time_for(self, number: int) -> bool:
        """Could so many bring what they must? Who works all the time for a server nearby is the limit, not its windows.

        Over a long line, or where only answers are waited for, more of them cost hardly any time.
        """
        if self._samples[-1].far or self._is_silent():
            return True
        dearer = _DEARER if self.wanted == 1 else 1.0
        return self._mean("spare") >= 1 - 1 / (_gain(self.wanted, number) * dearer)

    def _is_shut(self) -> bool:
        return sum(min(sample.closed, 1.0) for sample in self._samples) > 0.5 * _SPAN

    def _is_starved(self) -> bool:
        starved = sum(min(sample.starved, 1.0) for sample in self._samples)
        return len(self._samples) == _SPAN and starved > 0.5 * _SPAN

    def _is_silent(self) -> bool:
        """Was nothing sent most of the time, as all that is open waits for its answer? Then octets tell nothing."""
        return sum(not sample.octets for sample in self._samples) > 0.5 * _SPAN

    def _can_tell(self) -> bool:
        """Is known what one more would have to bring? Where only answers tell, so many must have come as are open."""
        return self._is_shut() or not self._is_silent() or self._has_answers()

    def _has_answers(self, rounds: int = 1) -> bool:
        """Did so many answers come as are open, so often, since the number last changed?"""
        return self._answered >= rounds * max(self._samples[-1].open, 1)

    def _grow(self) -> None:
        self._before, leap = self._trial_of_windows() if self._is_shut() else self._trial_of_streams()
        leap = leap and self._may_leap and self._has_time_for(self._most)
        self.wanted = self._most if leap else min(2 * self.wanted, self._most)
        self._settling = _SETTLING
        self._forget()

    def _trial_of_windows(self) -> tuple[_Trial, bool]:
        """Return what a step for more windows is judged by, and whether all that may be had are worth a try at once."""
        # A connection that just began has sent as much as ever, but had few answers: those prove nothing then.
        answers = self._mean("answers") if len(self._samples) == _SPAN else math.inf
        return _Trial(self.wanted, self._mean("octets"), answers, 0.0), self._mean("closed", _SURE) > _SHUT

    def _trial_of_streams(self) -> tuple[_Trial, bool]:
        """Return the same of a step for more streams."""
        open_streams = self._samples[-1].open
        silent = self._is_silent()
        octets = math.inf if silent else self._mean("octets")
        answers, patience = math.inf, 0.0
        if self._has_answers():
            answers = self._answers()
            patience = min(3 * open_streams / (answers * INTERVAL), _PATIENCE)  # three times what one takes (Little)
        # As many as could be filled: one by one would take as many times as long as an answer does.
        leap = silent and self._mean("starved") >= (self._most / self.wanted - 1) * open_streams
        return _Trial(self.wanted, octets, answers, patience), leap

    def _judge(self, before: _Trial) -> None:
        """Keep what the last step brought, or go back."""
        if len(self._samples) < _SPAN:
            return
        gain = _gain(before.number, self.wanted)
        # One answer less: the first may have been due before the step.
        more = self._mean("octets") > gain * before.octets or self._answers(but=1) > gain * before.answers
        if not more and self._seen < before.patience and not self._has_answers(rounds=2):
            return  # those that the new connections took are not answered yet
        self._before = None
        if more:
            self._rest = _REST
            if self._waits() and self._can_tell():
                self._grow()
            return
        self.wanted = min(before.number, self._most)
        self._may_leap = False
        self._resting = self._rest
        self._rest *= 2
        self._forget()

    def _forget(self) -> None:
        self._samples.clear()
        self._seen = 0
        self._answered = 0.0

    def _answers(self, but: int = 0) -> float:
        """Return answers a second, `but` so many, since the number last changed: they may come seldom."""
        return (self._answered - but) / (self._seen * INTERVAL)

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


def _gain(before: int, number: int) -> float:
    """Return what a step from one number of connections to another must bring."""
    gain: float = GAIN ** math.log2(number / before)
    return gain
