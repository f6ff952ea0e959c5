"""Attempts, and the streams that are found by their id whatever the order in which they come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from h2.settings import SettingCodes
from h2_judge import END_HEADERS, END_STREAM, HEADERS, LARGEST_WINDOW, Script, frame, nothing_left, rst_stream, session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpost._table import Attempt, StreamTable, live_attempts, status_failure
from fastpost.errors import ErrorCode, FileChanged, StreamRefused


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"octets")
    return path


def test_a_fresh_attempt() -> None:
    upload = object()
    attempt = Attempt(upload, b"/file", b"/path", ((b"content-type", b"x/y"),), 1, 2)
    assert attempt.upload is upload
    assert (attempt.file, attempt.path, attempt.retried, attempt.replayed) == (b"/file", b"/path", 1, 2)
    assert attempt.request_fields == ((b"content-type", b"x/y"),)
    assert (attempt.status, attempt.size, attempt.payload, attempt.body) == (0, -1, 0, b"")
    assert attempt.failure is None
    assert attempt.fields is None
    assert not attempt.ok, "nothing was answered"
    assert repr(attempt) == "<Attempt b'/path' status=0 failure=None>"


def test_again_counts_what_it_is() -> None:
    first = Attempt(None, b"/file", b"/path", (), 1, 2)
    first.failure = FileChanged("changed")
    retried, replayed = first.again(replay=False), first.again(replay=True)
    # The cap is on replays in a row: a retry begins a new row, and not every replay counts.
    assert (retried.retried, retried.replayed, retried.replayed_in_a_row) == (2, 2, 0)
    assert (replayed.retried, replayed.replayed, replayed.replayed_in_a_row) == (1, 3, 3)
    uncounted = replayed.again(replay=True, counted=False)
    assert (uncounted.replayed, uncounted.replayed_in_a_row) == (4, 3)
    for attempt in (retried, replayed):
        assert attempt is not first
        assert (attempt.failure, attempt.file, attempt.path) == (None, b"/file", b"/path")


def test_again_keeps_what_may_be_opened_and_where_it_was_led() -> None:
    first = Attempt(None, b"/file", b"/path", follow=False)
    first.redirected = 3
    first.expected = (1, 2, 3)
    for replay in (False, True):
        again = first.again(replay=replay)
        assert (again.follow, again.redirected, again.expected) == (False, 3, (1, 2, 3))


def test_again_keeps_when_the_upload_began(file: Path) -> None:
    script = Script(session())
    script.submit([file])
    script.take(at=5.0)
    script.send(rst_stream(1, ErrorCode.REFUSED_STREAM))
    (first,) = script.finished
    assert isinstance(first.failure, StreamRefused)
    assert (first.began, first.started) == (5.0, 5.0)
    script.client.submit([first.again(replay=True)])
    script.take(at=7.0)
    script.now = 9.0
    script.send(script.response(3))
    second = script.finished[1]
    assert (second.began, second.started, second.finished, second.latency) == (5.0, 7.0, 9.0, 2.0)
    del first, second
    script.close()


def test_attempts_are_counted() -> None:
    before = live_attempts()
    held = [Attempt(None, b"", b"") for _ in range(300)]
    assert live_attempts() == before + 300
    del held
    assert live_attempts() == before


def test_what_a_status_means() -> None:
    attempt = Attempt(None, b"", b"")
    failure = status_failure(attempt)
    assert (failure.status, failure.reason, failure.retry_after) == (0, "", None)
    assert StreamTable().count == 0


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 300), st.randoms(use_true_random=False), st.integers(1, 5))
def test_streams_end_in_any_order(file: Path, count: int, order: object, rounds: int) -> None:
    """Slots are used again, ids wander through the index, it grows: each response still finds its attempt."""
    assert hasattr(order, "shuffle")
    script = Script(session(concurrency=count), {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, window=2**30)
    script.client.submit([Attempt(None, bytes(file), b"/%d" % number) for number in range(count * rounds)])
    opened: list[int] = []
    ended = 0
    while ended < count * rounds:
        opened += [one.stream_id for one in script.take() if one.kind == HEADERS]
        order.shuffle(opened)
        leaving, opened = opened[: len(opened) // 2 + 1], opened[len(opened) // 2 + 1 :]
        for stream_id in leaving:
            status = b"%d" % (200 + stream_id % 7)
            block = b"\x08\x03" + status
            script.send(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
            ended += 1
            assert script.client.plane.open_streams == len(leaving) + len(opened) - leaving.index(stream_id) - 1
    assert all(attempt.status == 200 + (2 * int(attempt.path[1:]) + 1) % 7 for attempt in script.finished)
    assert len(script.ends()) == count * rounds
    script.close()


def test_nothing_is_left_of_a_session_in_full_flight(file: Path) -> None:
    big = file.with_name("big")
    big.write_bytes(bytes(3_000_000))
    client = session(staged=False)
    script = Script(client, {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, window=2**30)
    script.submit([file, big, big])
    client.fill(1.0)
    # Dropped without a word: gather list, sources and mappings go with the session.
    del client, script
    assert nothing_left()
