"""retry: the reliability table, row by row, and the arithmetic of waiting."""

from __future__ import annotations

import email.utils
import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost import errors
from fastpost.errors import ErrorCode, FastpostError, HttpStatus
from fastpost.retry import Budget, Endings, Verdict, judge, parse_retry_after

WALL = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example

REPEATABLE = Budget(retries=3, delay=0.5, repeatable=True)
POST = Budget(retries=3, delay=0.5, repeatable=False)
NONE = Budget(retries=0, delay=0.5, repeatable=True)


def verdict(failure: FastpostError, budget: Budget = REPEATABLE, jitter: float = 0.5, **state: Any) -> Verdict:
    known = {"retried": 0, "replayed": 0, "elapsed": 0.0, **state}
    return judge(failure, budget=budget, rng=lambda: jitter, wall=WALL, **known)


def attempts(failure: FastpostError, budget: Budget) -> tuple[int, int]:
    """Return how often an upload that always fails is retried and replayed."""
    retried = replayed = 0
    for _ in range(100):
        wait, replay, _ = verdict(failure, budget, retried=retried, replayed=replayed)
        if wait is None:
            return retried, replayed
        replayed, retried = replayed + replay, retried + (not replay)
    raise AssertionError("it never stops")


# --- a server that got on with other requests meanwhile -------------------------------------------


def test_what_was_merely_not_reached_is_replayed_without_a_cap() -> None:
    for replayed in (0, 5, 1000):
        assert verdict(
            errors.NotProcessed("GOAWAY", progress=True),
            Budget(retries=0, delay=0.5, repeatable=False),
            replayed=replayed,
        ) == (0.0, True, False)


def test_calm_by_goaway_is_for_any_method_and_ends_after_three() -> None:
    budget = Budget(retries=0, delay=0.5, repeatable=False)
    assert attempts(errors.ServerOverloaded("calm", unprocessed=True), budget) == (3, 0)
    assert attempts(errors.ServerOverloaded("calm"), budget) == (0, 0)


REFUSED = [errors.StreamRefused("refused"), errors.NotProcessed("GOAWAY", progress=False)]
LOST = [
    errors.StreamReset(ErrorCode.INTERNAL_ERROR),
    errors.ConnectionLost("EOF"),
    errors.Stalled("60 s"),
    errors.ProtocolViolation(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0"),
    *(HttpStatus(status) for status in (408, 425, 500, 502, 504)),
]
CERTAINLY_NOT_TAKEN = [
    errors.ConnectFailed("refused"),
    errors.NameNotResolved("no address"),
    HttpStatus(429),
    HttpStatus(503),
]
FINAL = [
    errors.CertificateNotTrusted("self-signed"),
    errors.TlsFailed("handshake"),
    errors.NotHttp2("HTTP/1.1"),
    errors.FileVanished("gone"),
    errors.FileUnreadable("EIO"),
    errors.NotRegularFile("FIFO"),
    errors.DuplicateTarget("twice"),
    errors.DigestMismatch("other octets"),
    errors.Interrupted("SIGINT"),
    *(
        HttpStatus(status)
        for status in (300, 301, 307, 308, 400, 401, 403, 404, 405, 409, 411, 412, 413, 422, 501, 505, 507)
    ),
]
ANY = [*REFUSED, *LOST, *CERTAINLY_NOT_TAKEN, *FINAL, errors.FileChanged("grew"), errors.ServerOverloaded("calm")]

budgets = st.builds(
    Budget,
    retries=st.integers(0, 5000),
    delay=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    max_time=st.none() | st.floats(0, 1e9),
    replay_cap=st.integers(0, 10),
    repeatable=st.booleans(),
)


def name_of(failure: object) -> str:
    return f"{type(failure).__name__}-{getattr(failure, 'status', '')}" if isinstance(failure, Exception) else ""


class TestTable:
    @pytest.mark.parametrize("failure", REFUSED, ids=name_of)
    @pytest.mark.parametrize("budget", [REPEATABLE, POST, NONE])
    def test_not_processed_is_replayed_five_times_in_a_row(self, failure: FastpostError, budget: Budget) -> None:
        assert attempts(failure, budget) == (0, 5)

    @pytest.mark.parametrize("failure", LOST, ids=name_of)
    def test_perhaps_processed_is_retried_if_repeatable(self, failure: FastpostError) -> None:
        assert attempts(failure, REPEATABLE) == (3, 0)
        assert attempts(failure, POST) == (0, 0)
        assert attempts(failure, NONE) == (0, 0)

    @pytest.mark.parametrize("failure", CERTAINLY_NOT_TAKEN, ids=name_of)
    def test_not_taken_is_retried_with_any_method(self, failure: FastpostError) -> None:
        assert attempts(failure, REPEATABLE) == (3, 0)
        assert attempts(failure, POST) == (3, 0)
        assert attempts(failure, NONE) == (0, 0)

    @pytest.mark.parametrize("failure", FINAL, ids=name_of)
    @pytest.mark.parametrize("budget", [REPEATABLE, POST])
    def test_final(self, failure: FastpostError, budget: Budget) -> None:
        assert attempts(failure, budget) == (0, 0)

    @pytest.mark.parametrize(("retries", "expected"), [(0, 0), (1, 1), (3, 3), (10, 3)])
    def test_a_server_that_wants_calm_is_asked_three_times(self, retries: int, expected: int) -> None:
        calm = errors.ServerOverloaded("ENHANCE_YOUR_CALM")
        assert attempts(calm, Budget(retries=retries, delay=0.5, repeatable=True)) == (expected, 0)
        assert attempts(calm, Budget(retries=retries, delay=0.5, repeatable=False)) == (0, 0)

    @pytest.mark.parametrize(("retries", "expected"), [(0, 0), (1, 1), (10, 1)])
    @pytest.mark.parametrize("repeatable", [True, False])
    def test_a_changed_file_has_one_fresh_attempt(self, retries: int, expected: int, repeatable: bool) -> None:
        changed = errors.FileChanged("grew")
        assert attempts(changed, Budget(retries=retries, delay=0.5, repeatable=repeatable)) == (expected, 0)

    def test_replays_do_not_use_up_retries_nor_the_other_way(self) -> None:
        assert verdict(REFUSED[0], retried=100).replay
        assert verdict(LOST[0], replayed=100).wait is not None

    def test_replays_are_not_bounded_by_time(self) -> None:
        assert verdict(REFUSED[0], Budget(retries=3, delay=1, max_time=10, repeatable=True), elapsed=100).wait == 0


class TestWaiting:
    @pytest.mark.parametrize(("retried", "bound"), [(0, 0.5), (1, 1), (2, 2), (5, 16), (6, 30), (7, 30), (5000, 30)])
    def test_back_off_is_exponential_up_to_its_bound(self, retried: int, bound: float) -> None:
        budget = Budget(retries=10_000, delay=0.5, repeatable=True)
        assert verdict(LOST[0], budget, jitter=1, retried=retried).wait == bound
        assert verdict(LOST[0], budget, jitter=0.25, retried=retried).wait == bound / 4
        assert verdict(LOST[0], budget, jitter=0, retried=retried).wait == 0

    def test_no_delay_is_no_wait(self) -> None:
        assert verdict(LOST[0], Budget(retries=3, delay=0, repeatable=True), retried=2).wait == 0

    def test_the_first_replay_is_at_once_and_later_ones_give_air(self) -> None:
        assert [verdict(REFUSED[0], jitter=1, replayed=n).wait for n in range(6)] == [0, 0.5, 1, 2, 4, None]

    @pytest.mark.parametrize(("elapsed", "goes_on"), [(0, True), (9.75, True), (9.8, False), (1000, False)])
    def test_max_time_holds_for_the_wait_too(self, elapsed: float, goes_on: bool) -> None:
        budget = Budget(retries=3, delay=0.5, max_time=10, repeatable=True)
        assert (verdict(LOST[0], budget, elapsed=elapsed).wait is not None) == goes_on

    @given(
        st.sampled_from(ANY),
        st.integers(0, 2000),
        st.integers(0, 2000),
        st.floats(0, 1e9),
        st.floats(0, 1, exclude_max=True),
        budgets,
    )
    def test_waits_are_sane_whatever_happens(
        self, failure: FastpostError, retried: int, replayed: int, elapsed: float, jitter: float, budget: Budget
    ) -> None:
        wait, replay, _ = judge(
            failure, retried=retried, replayed=replayed, elapsed=elapsed, budget=budget, rng=lambda: jitter, wall=WALL
        )
        if wait is None:
            assert not replay
            return
        assert 0 <= wait <= budget.max_delay
        assert replayed < budget.replay_cap if replay else retried < budget.retries
        assert replay or budget.max_time is None or elapsed + wait <= budget.max_time


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 503, 500, 502, 408])
    @pytest.mark.parametrize("value", ["7", "Sun, 06 Nov 1994 08:49:44 GMT"])
    def test_obeyed_and_never_undercut(self, status: int, value: str) -> None:
        failure = HttpStatus(status, retry_after=value)
        assert verdict(failure, jitter=0).wait == 7
        assert verdict(failure, jitter=0.5, retried=2).wait == 7.25, "spread over one delay: not all come at once"

    @pytest.mark.parametrize("delay", [600, math.inf])
    def test_is_spread_over_no_more_than_the_longest_wait(self, delay: float) -> None:
        budget = Budget(retries=3, delay=delay, repeatable=True, max_delay=30)
        assert verdict(HttpStatus(503, retry_after="1"), budget, jitter=0.5).wait == 16

    def test_does_not_make_a_final_status_retryable(self) -> None:
        assert verdict(HttpStatus(404, retry_after="1")).wait is None
        assert verdict(HttpStatus(500, retry_after="1"), POST).wait is None
        assert verdict(HttpStatus(503, retry_after="1"), retried=3).wait is None

    def test_unreadable_means_back_off(self) -> None:
        assert verdict(HttpStatus(503, retry_after="soon"), jitter=0.5).wait == 0.25

    @pytest.mark.parametrize(("value", "goes_on"), [("9", True), ("10", True), ("11", False)])
    def test_beyond_max_time_it_stops(self, value: str, goes_on: bool) -> None:
        budget = Budget(retries=3, delay=0.5, max_time=10, repeatable=True)
        assert (verdict(HttpStatus(503, retry_after=value), budget, jitter=0).wait is not None) == goes_on

    @pytest.mark.parametrize("value", ["3601", "9" * 500, "Sun, 06 Nov 2094 08:49:37 GMT"])
    def test_nobody_waits_for_hours(self, value: str) -> None:
        assert verdict(HttpStatus(503, retry_after=value)).wait is None

    def test_longer_than_any_back_off_is_fine(self) -> None:
        assert verdict(HttpStatus(503, retry_after="120"), jitter=0).wait == 120


class TestParseRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            ("120", 120),
            (" 120\t", 120),
            ("007", 7),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
            ("Sun Nov  6 08:49:37 1994", 0),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
            ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
            ("Sun Nov  6 08:50:37 1994", 60),
            ("Tue Nov 16 08:49:37 1994", 864_000),
            ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:60 GMT", 22),
            ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
        ],
    )
    def test_read(self, value: str, seconds: float) -> None:
        assert parse_retry_after(value, WALL) == seconds

    @pytest.mark.parametrize(
        "value",
        [
            *("", "soon", "-1", "+1", "1.5", "1 s", "٣", "1e3", "inf", "nan"),
            "Sun, 06 Nov 1994",
            "1994-11-06T08:49:37Z",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun Nov   08:49:37 1994",
        ],
    )
    def test_unreadable(self, value: str) -> None:
        assert parse_retry_after(value, WALL) is None

    def test_two_digits_of_a_year_mean_the_nearer_century(self) -> None:
        # RFC 9110 §5.6.7: more than 50 years ahead is the past.
        fifty_years = 50 * 365.25 * 86400
        assert parse_retry_after("Sunday, 06-Nov-44 08:49:37 GMT", WALL) == pytest.approx(fifty_years, abs=86400)
        assert parse_retry_after("Sunday, 06-Nov-45 08:49:37 GMT", WALL) == 0

    @given(st.integers(0, 4_000_000_000), st.integers(0, 4_000_000_000))
    def test_agrees_with_the_standard_library(self, date: int, wall: int) -> None:
        assert parse_retry_after(email.utils.formatdate(date, usegmt=True), wall) == max(0, date - wall)

    @given(st.text() | st.text("0123456789 :,-GMTSunNovFeb"), st.floats(0, 4e9))
    def test_any_text_gives_a_wait_or_none(self, value: str, wall: float) -> None:
        seconds = parse_retry_after(value, wall)
        assert seconds is None or seconds >= 0


@pytest.mark.parametrize("failure", ANY, ids=name_of)
def test_the_same_random_numbers_give_the_same_verdict(failure: FastpostError) -> None:
    def seeded() -> Verdict:
        rng = random.Random(1).random
        return judge(failure, retried=1, replayed=1, elapsed=0, budget=REPEATABLE, rng=rng, wall=WALL)

    assert seeded() == seeded()


# --- connections that end without an answer -------------------------------------------------------


CLOCK = itertools.count(10.0, 10.0)


def ends(endings: Endings, count: int, *, lost: bool = False, responses: int = 0) -> None:
    """So many connections, each opened when the one before was gone."""
    for opened in itertools.islice(CLOCK, count):
        if not endings.answered(responses):
            endings.ended(opened, lost, opened + 1.0)


def test_a_server_that_answered_nobody_is_given_up_after_more_than_are_borne_with() -> None:
    endings = Endings(5)
    ends(endings, 5, lost=True)
    assert (endings.in_a_row, endings.hopeless) == (5, False)
    ends(endings, 1, lost=True)
    assert (endings.in_a_row, endings.hopeless) == (5, True)


def test_an_answer_makes_good_for_all_before_it() -> None:
    endings = Endings(5)
    ends(endings, 9)
    ends(endings, 1, responses=1)
    assert (endings.in_a_row, endings.hopeless) == (0, False)


def test_uploads_explain_lost_connections_of_a_server_that_did_answer_but_not_many() -> None:
    endings = Endings(5)
    ends(endings, 1, responses=1)
    for _ in range(16):
        ends(endings, 4, lost=True, responses=1)
        endings.lost(1)
        assert endings.in_a_row == 0, "the next one needs no more air than the first did"
    assert not endings.hopeless
    endings.lost(1)
    assert endings.hopeless


def test_connections_that_end_together_count_once() -> None:
    endings = Endings(5)
    for _ in range(20):
        if not endings.answered(0):
            endings.ended(1.0, False, 2.0)
    assert endings.in_a_row == 1
