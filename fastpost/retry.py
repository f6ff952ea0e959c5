"""What follows a failure: wait and send again, or stop. The reliability table, without a clock or a socket."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable

from fastpost.errors import FastpostError, HttpStatus, NotProcessed, Reaction, ServerOverloaded

#: A server that asks to be eased is asked this often, whatever the budget.
_EASE_LIMIT = 3
#: Seconds. A server that asks for more is not waited for: to hang is worse than to fail with its message.
_LONGEST_RETRY_AFTER = 3600.0
#: 0.001 s doubled so often is more than 30 years; beyond it only the float would overflow.
_MOST_DOUBLINGS = 40


class Budget(typing.NamedTuple):
    """What one upload may spend on being sent again.

    Attributes:
        retries: most retries; 0: none. Replays are not counted here.
        delay: seconds; upper bound of the first wait, doubled with every further one.
        repeatable: the request may reach the server twice: PUT, DELETE, an Idempotency-Key or --retry-post.
        max_delay: seconds; upper bound of every wait that the server did not ask for.
        max_time: seconds from the first attempt after which no retry starts; None: no bound.
        replay_cap: most replays in a row.
    """

    retries: int
    delay: float
    repeatable: bool
    max_delay: float = 30.0
    max_time: float | None = None
    replay_cap: int = 5


class Verdict(typing.NamedTuple):
    """What to do with a failed upload.

    Attributes:
        wait: seconds to wait before the next attempt; None: the failure is the result.
        replay: the next attempt is a replay, outside the retry budget.
        counted: the replay counts towards the cap; it doesn't when the server did get on with other requests.
    """

    wait: float | None
    replay: bool
    counted: bool = True


#: The failure is the result.
STOP = Verdict(None, False)


#: Uploads that may fail by lost connections, while nothing is answered, before the server is held to blame.
_LOST_MOST = 16


class Endings:
    """Connections that end one after another, with nothing answered on any: the server needs air, or is given up.

    Args:
        most: so many that no upload explains are borne with.
    """

    def __init__(self, most: int) -> None:
        #: Why the last connection ended.
        self.last: FastpostError | None = None
        self._most = most
        #: Responses in all, so far.
        self._responses = 0
        self._in_a_row = 0
        self._last_at = 0.0
        #: Those of them for which no upload can be to blame; and uploads that failed for good by the others.
        self._unexplained = 0
        self._lost = 0

    @property
    def in_a_row(self) -> int:
        """How many there were, at most as many as are borne with; 0: the last one had answered."""
        return min(self._in_a_row, self._most)

    @property
    def hopeless(self) -> bool:
        """True after too many of them, or when too many uploads have failed by them."""
        return self._unexplained > self._most or self._lost > _LOST_MOST

    def answered(self, responses: int) -> bool:
        """There were so many responses in all when a connection ended; returns whether there are more than before.

        Then all that was before doesn't count, and this end is none of them.
        """
        more = responses > self._responses
        if more:
            self._in_a_row = self._unexplained = self._lost = 0
        self._responses = responses
        return more

    def ended(self, opened_at: float, lost: bool, now: float) -> None:
        """A connection that had work has ended, and nothing was `answered`. Monotonic seconds.

        Where a server that did answer lost it with uploads under way (`lost`), one of those may be to blame: a file
        that it can't take. Connections that end together end for one reason: what counts is one opened since.
        """
        if opened_at > self._last_at:
            self._in_a_row += 1
            self._unexplained += not lost or not self._responses
            self._last_at = now

    def lost(self, uploads: int) -> None:
        """So many uploads failed for good, as each connection they were on was lost."""
        self._lost += uploads
        self._in_a_row = 0


def judge(
    failure: FastpostError,
    *,
    retried: int,
    replayed: int,
    elapsed: float,
    budget: Budget,
    rng: Callable[[], float],
    wall: float,
) -> Verdict:
    """Decide what follows a failed attempt.

    A replay goes out at once the first time and backs off after that: a server that refuses again needs air.

    Args:
        failure: why the attempt failed.
        retried: retries of this upload so far.
        replayed: replays of this upload that counted, in a row.
        elapsed: seconds since its first attempt started.
        budget: what it may spend.
        rng: returns a number in [0, 1), such as random.random: the jitter.
        wall: seconds since the epoch, to read a Retry-After date by.
    """
    if isinstance(failure, NotProcessed) and failure.progress:
        return Verdict(0.0, True, counted=False)
    if failure.reaction is Reaction.REPLAY:
        if replayed >= budget.replay_cap:
            return STOP
        return Verdict(_back_off(replayed - 1, budget, rng) if replayed else 0.0, True)
    if retried >= _allowed(failure, budget):
        return STOP
    wait = _asked_for(failure, wall)
    if wait is None:
        wait = _back_off(retried, budget, rng)
    elif wait > _LONGEST_RETRY_AFTER:
        return STOP
    else:
        # All uploads of a run are told the same second: without jitter they would all come back in it.
        wait += rng() * min(budget.delay, budget.max_delay)
    if budget.max_time is not None and elapsed + wait > budget.max_time:
        return STOP
    return Verdict(wait, False)


def parse_retry_after(value: str, wall: float) -> float | None:
    """Return the seconds that a Retry-After field asks for (RFC 9110 §10.2.3), or None when it can't be read.

    Args:
        value: whole seconds or an HTTP date in any of its three forms (RFC 9110 §5.6.7).
        wall: seconds since the epoch; a date in the past gives 0.
    """
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        return float(value)
    date = _parse_date(value, wall)
    return None if date is None else max(0.0, date - wall)


def _allowed(failure: FastpostError, budget: Budget) -> int:
    """Return how many retries this kind of failure may have in all.

    An eased stream may have been processed in part, so a POST isn't sent again (RFC 9110 §9.2.2), unless GOAWAY says
    that it was not. A changed file's request was never completed: any method may have its one fresh attempt.
    """
    match failure.reaction:
        case Reaction.RETRY:
            return budget.retries
        case Reaction.RETRY_IF_REPEATABLE if budget.repeatable:
            return budget.retries
        case Reaction.EASE if isinstance(failure, ServerOverloaded) and failure.unprocessed:
            return _EASE_LIMIT
        case Reaction.EASE if budget.repeatable:
            return min(_EASE_LIMIT, budget.retries)
        case Reaction.RETRY_ONCE:
            return min(1, budget.retries)
        case _:
            return 0


def _asked_for(failure: FastpostError, wall: float) -> float | None:
    if isinstance(failure, HttpStatus) and failure.retry_after is not None:
        return parse_retry_after(failure.retry_after, wall)
    return None


def _back_off(earlier: int, budget: Budget, rng: Callable[[], float]) -> float:
    """Exponential back-off with full jitter: anything from 0 to the bound, so that clients don't march in step."""
    return rng() * doubled(budget.delay, earlier, budget.max_delay)


def doubled(delay: float, times: int, most: float) -> float:
    """Return a delay (seconds) doubled so often, `most` at most."""
    bound: float = delay * 2 ** min(times, _MOST_DOUBLINGS)
    return min(most, bound)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
#: IMF-fixdate, RFC 850 and asctime; the weekday says nothing new and isn't checked.
_DATES = (
    f"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
    f"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
    f"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
)


def _parse_date(value: str, wall: float) -> float | None:
    """Return an HTTP date in seconds since the epoch, or None."""
    match = next(filter(None, (re.fullmatch(pattern, value) for pattern in _DATES)), None)
    if match is None:
        return None
    import datetime  # only a dated Retry-After needs it

    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 2000
        # RFC 9110 §5.6.7: more than 50 years ahead means the century before.
        if year > datetime.datetime.fromtimestamp(wall, datetime.UTC).year + 50:
            year -= 100
    month = _MONTHS.index(match["month"]) + 1
    second = min(int(match["second"]), 59)  # a leap second
    try:
        date = datetime.datetime(
            year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), second, tzinfo=datetime.UTC
        )
    except ValueError:
        return None
    return date.timestamp()
