"""The data plane: turns, windows, responses, resets, and files that change under it."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from h2_judge import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    OPEN,
    PADDED,
    PING,
    RST_STREAM,
    WIDE,
    WINDOW_UPDATE,
    Files,
    Frame,
    Judge,
    Script,
    Wire,
    attempts,
    frame,
    goaway,
    jain,
    rst_stream,
    served_octets,
    session,
    settings_frame,
    split,
    window_update,
)
from h2_judge import files as files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpost._chunker import live_objects
from fastpost.errors import (
    ErrorCode,
    FastpostError,
    FileChanged,
    FileUnreadable,
    FileVanished,
    HttpStatus,
    Interrupted,
    NotProcessed,
    NotRegularFile,
    ProtocolViolation,
    ServerOverloaded,
    StreamRefused,
    StreamReset,
)

INITIAL, FRAME, STREAMS = (
    SettingCodes.INITIAL_WINDOW_SIZE,
    SettingCodes.MAX_FRAME_SIZE,
    SettingCodes.MAX_CONCURRENT_STREAMS,
)


def kinds(frames: list[Frame]) -> list[tuple[int, int]]:
    """Return (kind, stream_id) of frames."""
    return [(one.kind, one.stream_id) for one in frames]


def resets(frames: list[Frame]) -> list[tuple[int, int]]:
    """Return (stream_id, error code) of the RST_STREAM frames."""
    return [(one.stream_id, int.from_bytes(one.payload, "big")) for one in frames if one.kind == RST_STREAM]


# --- the exact served order -----------------------------------------------------------------------


def test_fair_order_of_several_sizes(files: Files) -> None:
    script = Script(session(), OPEN, window=WIDE)
    script.submit(files(10_000, 40_000, 20_000))
    frames = script.take()
    assert [one.stream_id for one in frames if one.kind == HEADERS] == [1, 3, 5]
    assert served_octets(frames) == [(1, 10_000), (3, 16384), (5, 16384), (3, 16384), (5, 3616), (3, 7232)]
    # HEADERS of all go before any DATA.
    assert [one.kind for one in frames] == [HEADERS] * 3 + [DATA] * 6
    script.close()


def test_fifo_order_of_several_sizes(files: Files) -> None:
    script = Script(session(fair=False), OPEN, window=WIDE)
    script.submit(files(10_000, 40_000, 20_000))
    assert served_octets(script.take()) == [(1, 10_000), (3, 16384), (3, 16384), (3, 7232), (5, 16384), (5, 3616)]
    script.close()


def test_fifo_goes_back_to_the_earliest_when_its_window_opens(files: Files) -> None:
    script = Script(session(fair=False), {INITIAL: 10_000}, window=WIDE)
    script.submit(files(40_000, 20_000, 5_000))
    assert served_octets(script.take()) == [(1, 10_000), (3, 10_000), (5, 5_000)]
    script.send(window_update(3, 10_000), window_update(1, 30_000))
    assert served_octets(script.take()) == [(1, 16384), (1, 13616), (3, 10_000)]
    script.close()


def test_fifo_order_holds_for_mapped_files(files: Files) -> None:
    script = Script(session(fair=False, staged=False), OPEN, window=200_000)
    script.submit(files(250_000, 80_000))
    order = [stream_id for stream_id, _ in served_octets(script.take())]
    script.send(window_update(0, 100_000))
    order += [stream_id for stream_id, _ in served_octets(script.take())]
    assert order == sorted(order)
    assert set(order) == {1, 3}
    script.close()


@pytest.mark.parametrize("size", [70_000, 80_000, 90_000, 100_000, 110_000])
def test_fifo_has_the_window_wait_for_the_tail_of_a_mapped_file(files: Files, size: int) -> None:
    """Regression: it waits for its slices to be sent, and a later arrival took its window."""
    script = Script(session(fair=False, staged=False), OPEN, window=size - 65_535)
    script.submit(files(size, 80_000))
    assert sum(octets for stream_id, octets in served_octets(script.take()) if stream_id == 1) == size
    script.close()


def test_a_newcomer_is_served_within_one_round(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(500_000) * 3)
    script.take()
    script.submit(files(60_000))
    script.send(window_update(0, 65535))
    frames = script.take()
    assert frames[0].kind == HEADERS
    order = [stream_id for stream_id, _ in served_octets(frames)]
    assert 7 in order
    before = order[: order.index(7)]
    assert all(before.count(stream_id) <= 2 for stream_id in (1, 3, 5)), "no second turn before the newcomer's first"
    assert len(before) <= 4
    script.close()


def test_a_small_file_is_not_held_up_by_a_huge_one(files: Files) -> None:
    script = Script(session(staged=False), OPEN, window=WIDE)
    huge, small = files(8_000_000, 900)
    script.submit([huge])
    script.client.fill(script.now)
    first = list(split(script.client.plane.take_octets(script.now)))
    assert len(served_octets(first)) <= 70, "one gather list, not the file"
    script.submit([small])
    script.client.fill(script.now)
    order = served_octets(list(split(script.client.plane.take_octets(script.now))))
    assert order.index((3, 900)) <= 1
    script.close()


def test_a_blocked_stream_stops_nobody(files: Files) -> None:
    script = Script(session(), {INITIAL: 20_000}, window=WIDE)
    script.submit(files(60_000, 60_001, 60_002))
    script.take()
    script.send(window_update(3, 40_001))
    assert {stream_id for stream_id, _ in served_octets(script.take())} == {3}
    script.send(window_update(5, 16384), window_update(1, 16384))
    assert served_octets(script.take()) == [(5, 16384), (1, 16384)]
    script.close()


# --- fairness under one scarce window -------------------------------------------------------------


def crediting(pieces: list[int], streams_first: bool) -> Callable[[Judge, int], None]:
    """Return a way to pay back: the connection in such pieces, in turn, and the streams in full, before or with it."""

    def credit(judge: Judge, step: int) -> None:
        if streams_first:
            judge.credit(0)
        judge.credit(pieces[step % len(pieces)], LARGEST_WINDOW)

    return credit


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    streams=st.integers(2, 12),
    pieces=st.lists(st.sampled_from([1, 100, 1000, 5000, 16384, 16385, 30_000, 65535]), min_size=1, max_size=5),
    max_frame=st.sampled_from([16384, 20_000, 65536, 2**24 - 1]),
    staged=st.booleans(),
    streams_first=st.booleans(),
    initial=st.sampled_from([65535, 2**20, LARGEST_WINDOW]),
)
def test_equal_streams_share_one_scarce_window(
    files: Files, streams: int, pieces: list[int], max_frame: int, staged: bool, streams_first: bool, initial: int
) -> None:
    if max(pieces) < 1000:
        pieces = [*pieces, 30_000]
    size = 250_000
    judge = Judge({INITIAL: initial, FRAME: max_frame})
    wire = Wire(session(staged=staged), judge)
    credit = crediting(pieces, streams_first)
    (file,) = files(size)
    wire.client.submit(attempts([file] * streams))
    for step in range(200_000):
        wire.step(credit=False)
        credit(judge, step)
        if len(wire.finished) == streams:
            break
    octets = dict.fromkeys(judge.requests, 0)
    assert len(octets) == streams
    quantum = min(max_frame, 65535)
    level = False
    for stream_id, served in judge.served:
        octets[stream_id] += served
        level = level or min(octets.values()) >= quantum * 63 // 64
        if level:
            assert jain(octets.values()) >= 0.99, octets
    assert set(octets.values()) == {size}
    assert all(attempt.ok for attempt in wire.finished)
    assert len(set(judge.bodies().values())) == 1
    wire.finished.clear()
    wire.close()


# --- how much leaves at once ----------------------------------------------------------------------


def gathered(files: Files, window: int, staged: bool) -> list[int]:
    """Return the octets of each list that is sent until a connection window is used up."""
    client = session(staged=staged)
    script = Script(client, {INITIAL: LARGEST_WINDOW}, window=window - 65535)
    client.submit(attempts(files(*[120_000] * 20)))
    lists = []
    while client.fill(script.now):
        lists.append(len(client.plane.take_octets(script.now)))
    return lists


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("window", [65535, 300_000, 1_000_000])
def test_a_small_window_is_sent_by_quarters(files: Files, window: int, staged: bool) -> None:
    lists = gathered(files, window, staged)
    assert len(lists) >= 2, "the server has something to read while the next is gathered"
    # What begins in a quarter may go beyond it by one frame, and HEADERS come on top.
    assert max(lists) <= window // 4 + 2 * 16384 + 2048
    # Less than a quarter of a frame may be held back for more credit.
    assert sum(lists) > window - 4096


def test_a_large_window_is_sent_by_as_much_as_a_call_takes(files: Files) -> None:
    assert max(gathered(files, 8 * 1024 * 1024, staged=False)) > 1_000_000


def rounds_to_a_server_that_credits_halves(files: Files, staged: bool, seconds: float) -> tuple[list[int], list[int]]:
    """Return the octets of DATA of each round trip, and where on the connection DATA frames ended.

    The server credits the connection once it has read half its window, by whole frames, as nghttp2 does.
    """
    script = Script(session(staged=staged, concurrency=7), {INITIAL: LARGEST_WINDOW})
    submitted = script.submit(files(*[250_000] * 7))
    rounds: list[int] = []
    ends, unread = [0], 0
    while sum(rounds) < 7 * 250_000:
        # What is held back for some milliseconds goes too.
        frames = [*script.take(), *script.take(at=script.now + seconds / 10)]
        sizes = [len(one.payload) for one in frames if one.kind == DATA]
        rounds.append(sum(sizes))
        script.now += seconds
        for size in sizes:
            ends.append(ends[-1] + size)
            unread += size
            if unread >= 65535 // 2:
                script.send(window_update(0, unread))
                unread = 0
    assert len(submitted) == 7
    script.close()
    return rounds, ends


@pytest.mark.parametrize("staged", [False, True])
def test_a_distant_server_that_credits_halves_is_sent_whole_windows(files: Files, staged: bool) -> None:
    rounds, _ = rounds_to_a_server_that_credits_halves(files, staged, 0.1)
    assert set(rounds[:-1]) == {65535}


def test_a_near_server_gets_frames_as_large_as_turns_are(files: Files) -> None:
    _, ends = rounds_to_a_server_that_credits_halves(files, True, 0.0001)
    assert len(set(ends) & set(range(32768, 1_000_000, 65535))) < 5


@pytest.mark.parametrize("octets", [65535, 65534, 49152, 32768, 32767])
def test_a_near_server_that_moves_away(files: Files, octets: int) -> None:
    """Frames that went beyond halves, up to a whole window, and then a window that stays shut for long."""
    script = Script(session(concurrency=1), {INITIAL: LARGEST_WINDOW, FRAME: 65536})
    script.submit(files(65535, octets, 250_000))
    sent = 0
    answered: list[int] = []
    for step in range(1000):
        frames = [one for one in script.take() if one.kind == DATA]
        script.now += 0.0001 if step < 2 else 1.0
        for one in frames:
            sent += len(one.payload)
            script.send(window_update(0, len(one.payload)))
            if one.flags & END_STREAM:
                script.send(script.response(one.stream_id))
                answered.append(one.stream_id)
    assert answered == [1, 3, 5]
    assert sent == 65535 + octets + 250_000
    script.close()


# --- windows --------------------------------------------------------------------------------------


def test_nothing_on_a_window_of_zero(files: Files) -> None:
    script = Script(session(), {INITIAL: 0})
    script.submit(files(100, 0))
    frames = script.take()
    # An empty file needs no window: its HEADERS end the stream.
    assert [(one.kind, one.flags & END_STREAM) for one in frames] == [(HEADERS, 0), (HEADERS, END_STREAM)]
    assert not script.take(at=script.now + 60)
    script.send(window_update(1, 1))
    assert served_octets(script.take()) == [(1, 1)]
    assert not script.take()
    script.send(settings_frame({INITIAL: 98}))
    assert served_octets(script.take()) == [(1, 98)]
    script.send(window_update(1, 50))
    last = script.take()[-1]
    assert (last.kind, last.flags, len(last.payload)) == (DATA, END_STREAM, 1)
    script.close()


def test_who_begins_with_a_window_of_zero_stops_nobody(files: Files) -> None:
    script = Script(session(), {INITIAL: 0}, window=WIDE)
    script.submit(files(100, 200))
    script.take()
    script.send(window_update(3, 200))
    assert served_octets(script.take()) == [(3, 200)]
    script.close()


def test_whose_window_settings_end_stops_nobody(files: Files) -> None:
    script = Script(session(), {INITIAL: 1000}, window=WIDE)
    script.submit(files(2000, 3000))
    script.take()
    script.send(window_update(1, 500), settings_frame({INITIAL: 500}))  # windows: 0 and −500
    assert not served_octets(script.take())
    script.send(window_update(3, 600))
    assert served_octets(script.take()) == [(3, 100)]
    script.close()


def test_settings_push_a_window_below_zero_and_restore_it(files: Files) -> None:
    script = Script(session(), {INITIAL: 30_000}, window=WIDE)
    script.submit(files(60_000))
    assert sum(octets for _, octets in served_octets(script.take())) == 30_000
    script.send(settings_frame({INITIAL: 10_000}))  # the stream's window: −20,000
    assert not served_octets(script.take())
    script.send(window_update(1, 20_000))  # 0
    assert not served_octets(script.take())
    script.send(window_update(1, 1))
    assert served_octets(script.take()) == [(1, 1)]
    script.send(settings_frame({INITIAL: 0}))
    script.send(settings_frame({INITIAL: 10_000}))
    assert not served_octets(script.take())
    script.send(settings_frame({INITIAL: 30_000}))
    assert sum(octets for _, octets in served_octets(script.take())) == 20_000
    # SETTINGS never move the connection's window.
    assert script.client.plane.window.available == LARGEST_WINDOW - 50_001
    script.close()


def tail_waits(files: Files) -> Script:
    """Return a connection with two mapped files, of which one is sent but for its tail, and that is not looked at."""
    script = Script(session(staged=False), {INITIAL: 80_000}, window=WIDE)
    script.submit(files(75_000, 200_000))
    assert script.client.fill(script.now)
    first = list(split(script.client.plane.take_octets(script.now)))
    assert sum(octets for stream_id, octets in served_octets(first) if stream_id == 1) == 65_536
    assert not any(one.flags & END_STREAM for one in first)
    return script


def test_a_window_that_falls_below_zero_while_a_tail_waits(files: Files) -> None:
    script = tail_waits(files)
    script.send(settings_frame({INITIAL: 60_000}))
    assert not [octets for stream_id, octets in served_octets(script.take()) if stream_id == 1]
    script.send(settings_frame({INITIAL: 80_000}))
    assert (1, 75_000 - 65_536) in served_octets(script.take())
    script.send(script.response(1))
    assert script.ends()[b"/0"].ok
    script.close()


@pytest.mark.parametrize("ends", ["reset", "response"])
def test_a_stream_that_ends_while_its_tail_waits_leaves_the_others_alone(files: Files, ends: str) -> None:
    script = tail_waits(files)
    script.send(rst_stream(1, ErrorCode.CANCEL) if ends == "reset" else script.response(1, b"413"))
    script.send(window_update(3, 200_000))
    frames = script.take()
    assert {stream_id for stream_id, _ in served_octets(frames)} == {3}
    assert frames[-1].flags & END_STREAM
    script.send(script.response(3))
    assert script.ends()[b"/1"].ok
    script.close()


def test_a_stream_window_over_the_largest_ends_the_stream(files: Files) -> None:
    script = Script(session(), {INITIAL: 1000})
    script.submit(files(2000, 2001))
    script.take()
    script.send(window_update(1, LARGEST_WINDOW))  # 2³¹−1 exactly
    assert sum(octets for _, octets in served_octets(script.take())) == 1000
    script.send(window_update(3, LARGEST_WINDOW), window_update(3, 1))
    assert resets(script.take()) == [(3, ErrorCode.FLOW_CONTROL_ERROR)]
    assert isinstance(script.ends()[b"/1"].failure, ProtocolViolation)
    script.send(script.response(1))
    assert script.ends()[b"/0"].ok
    script.close()


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (window_update(0, LARGEST_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
        (window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (settings_frame({INITIAL: LARGEST_WINDOW}) + window_update(1, 0), None),
        (window_update(1, 100) + settings_frame({INITIAL: LARGEST_WINDOW}), ErrorCode.FLOW_CONTROL_ERROR),
    ],
)
def test_window_violations(files: Files, octets: bytes, code: ErrorCode | None) -> None:
    script = Script(session(), {INITIAL: 50})
    script.submit(files(100))
    script.client.fill(script.now)
    script.send(octets)
    failure = script.client.failure
    if code is None:
        assert failure is None
        assert resets(script.take()) == [(1, ErrorCode.PROTOCOL_ERROR)]
    else:
        assert isinstance(failure, ProtocolViolation)
        assert failure.error_code == code
    script.close()


def test_the_reserved_bit_of_a_number_is_ignored(files: Files) -> None:
    """RFC 9113 §6.9, §6.8."""
    script = Script(session(concurrency=2), {INITIAL: 50}, window=WIDE)
    script.submit(files(100, 101))
    script.take()
    script.send(frame(WINDOW_UPDATE, 0, 1, b"\x80\0\0\x32"))
    assert served_octets(script.take()) == [(1, 50)]
    script.send(frame(GOAWAY, 0, 0, b"\x80\0\0\x01" + bytes(4)))
    assert script.client.failure is None
    assert isinstance(script.ends()[b"/1"].failure, NotProcessed)
    script.send(script.response(1))
    assert script.ends()[b"/0"].ok
    script.close()


def test_max_frame_size_raised_and_lowered_midway(files: Files) -> None:
    script = Script(session(staged=False), {INITIAL: 0}, window=WIDE)
    script.submit(files(1_000_000))
    script.take()
    largest = []
    for size in (16384, 65536, 2**24 - 1, 20_000, 16384):
        script.send(settings_frame({FRAME: size}), window_update(1, 150_000))
        served = served_octets(script.take(at=script.now + 1))
        largest.append(max(octets for _, octets in served))
        assert largest[-1] <= size
    assert largest == [16384, 65536, 65536, 20_000, 16384]
    script.close()


# --- crumbs ---------------------------------------------------------------------------------------


def holding(files: Files, *sizes: int) -> Script:
    """Return a connection whose window has 1,000 octets left and on which octets are in flight."""
    script = Script(session(), OPEN)
    script.submit(files(*sizes))
    script.take(at=10.0)
    script.send(window_update(0, 1000))
    return script


def test_crumbs_wait_for_more(files: Files) -> None:
    script = holding(files, 100_000)
    assert not script.take()
    assert script.client.plane.wake_at == pytest.approx(10.005)
    assert not script.take(at=10.004)
    script.send(window_update(0, 20_000))
    assert script.client.plane.wake_at == 0.0
    assert sum(octets for _, octets in served_octets(script.take())) == 21_000
    script.close()


def test_crumbs_are_sent_after_5_ms(files: Files) -> None:
    script = holding(files, 100_000)
    assert not script.take()
    assert served_octets(script.take(at=10.0051)) == [(1, 1000)]
    assert script.client.plane.wake_at == 0.0
    script.close()


def held(script: Script) -> bool:
    """Credit the window but for 1,000 octets of it; return whether those that are left wait, and let them go."""
    script.send(window_update(0, 1000))
    waited = not script.take()
    script.take(at=script.now + 0.0051)
    return waited


def test_crumbs_that_wait_in_vain_are_held_now_and_then(files: Files) -> None:
    """A server that credits nothing before it has all: else each window would cost 5 ms."""
    script = Script(session(), OPEN)
    script.submit(files(1_000_000))
    script.take(at=10.0)
    waited = [held(script) for _ in range(200)]
    assert waited[:60] == [True] * 3 + [False] * 57
    # Now and then: the server may have changed its mind.
    assert 1 <= waited[60:].count(True) <= 3
    script.close()


def test_crumbs_that_got_more_are_held_again(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(1_000_000))
    script.take(at=10.0)
    for _ in range(20):
        assert held(script)
        script.send(window_update(0, 1000))
        assert not script.take()
        script.send(window_update(0, 20_000))
        assert sum(octets for _, octets in served_octets(script.take())) > 16_384
        script.take(at=script.now + 0.0051)
    script.close()


def test_crumbs_that_end_the_stream_are_not_held(files: Files) -> None:
    script = holding(files, 66_000)
    assert served_octets(script.take()) == [(1, 465)]
    script.close()


def test_crumbs_are_not_held_when_nothing_is_in_flight(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(65_035))
    script.take()
    script.send(window_update(0, 65_035), script.response(1))
    # All is credited: no WINDOW_UPDATE is due, and who waited for one would wait for ever.
    script.submit(files(200_000))
    assert sum(octets for _, octets in served_octets(script.take())) == 65_535
    script.send(window_update(0, 65_535 + 100))
    script.take(at=20.0)
    script.take(at=21.0)
    assert script.client.plane.window.available == 0
    script.close()


def test_crumbs_wake_nobody_while_the_socket_is_full(files: Files) -> None:
    script = holding(files, 100_000)
    script.submit(files(10_000))
    assert script.client.fill(script.now), "HEADERS"
    assert script.client.plane.wake_at == 0.0
    script.client.plane.take_octets(script.now)
    assert script.client.plane.wake_at == pytest.approx(10.005)
    script.close()


def test_a_trickle_of_credit_does_not_make_crumbs_wait_longer(files: Files) -> None:
    """Regression: each WINDOW_UPDATE, were it of one octet, began the hold anew."""
    script = holding(files, 100_000)
    assert not script.take()
    for _ in range(3):
        script.now += 0.0015
        script.send(window_update(0, 1))
        assert not script.take()
    assert served_octets(script.take(at=10.0051)) == [(1, 1003)]
    script.close()


def test_no_hold_outlives_its_stream(files: Files) -> None:
    """Regression: a stale hold made the connection wake up again and again, without a pause."""
    script = holding(files, 100_000)
    assert not script.take()
    script.send(rst_stream(1, ErrorCode.CANCEL))
    script.take()
    assert script.client.plane.wake_at == 0.0
    script.close()


def test_a_second_hold_is_as_long_as_the_first(files: Files) -> None:
    """Regression: the time of a hold that nothing ended counted for the next one."""
    script = holding(files, 100_000)
    assert not script.take()
    script.send(script.response(1))
    assert resets(script.take(at=10.001)) == [(1, ErrorCode.CANCEL)]
    script.submit(files(100_000))
    assert not served_octets(script.take(at=11.0))
    assert script.client.plane.wake_at == pytest.approx(11.005)
    script.close()


# --- streams --------------------------------------------------------------------------------------


def test_max_concurrent_streams_falls_to_zero_and_rises(files: Files) -> None:
    script = Script(session(concurrency=3), OPEN, window=WIDE)
    script.submit(files(10, 11, 12, 13, 14))
    assert [stream_id for kind, stream_id in kinds(script.take()) if kind == HEADERS] == [1, 3, 5]
    script.send(settings_frame({STREAMS: 0}), script.response(1), script.response(3), script.response(5))
    assert not [kind for kind, _ in kinds(script.take()) if kind == HEADERS]
    assert script.client.plane.waiting == 2
    script.send(settings_frame({STREAMS: 1}))
    assert [stream_id for kind, stream_id in kinds(script.take()) if kind == HEADERS] == [7]
    script.send(script.response(7))
    assert [stream_id for kind, stream_id in kinds(script.take()) if kind == HEADERS] == [9]
    script.send(script.response(9))
    assert [attempt.ok for attempt in script.ends().values()] == [True] * 5
    script.close()


def test_concurrency_can_be_lowered(files: Files) -> None:
    script = Script(session(concurrency=4), OPEN, window=WIDE)
    script.submit(files(10, 11, 12, 13, 14))
    script.client.plane.limit_concurrency(2)
    assert script.client.plane.concurrency == 2
    assert len([kind for kind, _ in kinds(script.take()) if kind == HEADERS]) == 2
    script.close()


@pytest.mark.parametrize("size", [0, 5])
def test_a_long_path_goes_on_in_continuation(files: Files, size: int) -> None:
    judge = Judge()
    wire = Wire(session(), judge)
    (attempt,) = attempts(files(size))
    path = b"/" + b"long" * 9_000
    longer = type(attempt)(None, attempt.file, path)
    wire.client.submit([longer, attempt])
    wire.run()
    assert judge.requests[1].fields[b":path"] == path
    sent = [one for one in judge.frames if one.stream_id == 1]
    assert [one.kind for one in sent] == [HEADERS, CONTINUATION, CONTINUATION]
    assert [one.flags & END_HEADERS for one in sent] == [0, 0, END_HEADERS]
    assert all(len(one.payload) <= 16384 for one in sent)
    assert [one.ok for one in wire.finished] == [True, True]
    wire.finished.clear()
    wire.close()


# --- responses ------------------------------------------------------------------------------------


def uploading(files: Files, *, keep_responses: bool = False, body_limit: int = 1024) -> Script:
    """Return a connection on which one upload is sent, and a second that must stay unharmed."""
    script = Script(session(keep_responses=keep_responses, body_limit=body_limit), OPEN, window=WIDE)
    script.submit(files(100, 7))
    script.take()
    return script


def unharmed(script: Script) -> FastpostError | None:
    """End the second upload and the connection; returns how the first one failed."""
    assert script.client.failure is None
    script.send(script.response(3))
    ends = script.ends()
    assert ends[b"/1"].ok
    script.close()
    return ends[b"/0"].failure


def test_interim_responses_before_the_final_one(files: Files) -> None:
    script = uploading(files)
    script.send(
        script.response(1, b"100", end_stream=False),
        script.response(1, b"103", (b"link", b"</a>"), end_stream=False),
        script.response(1, b"204"),
    )
    assert script.ends()[b"/0"].status == 204
    assert unharmed(script) is None


def test_padding_trailers_priority_and_unknown_frames(files: Files) -> None:
    script = uploading(files, keep_responses=True)
    block = script.block((b":status", b"200"), (b"server", b"padded"))
    script.send(
        frame(0x17, 0xFF, 1, b"unknown"),
        frame(0x17, 0xFF, 0, b"unknown"),
        frame(2, 0, 1, bytes(5)),
        frame(2, 0, 99, bytes(5)),
        frame(HEADERS, END_HEADERS | PADDED | 0x20, 1, b"\x03" + bytes(5) + block + bytes(3)),
        frame(DATA, PADDED, 1, b"\x02oc" + bytes(2)),
        frame(DATA, PADDED, 1, b"\x00"),
        frame(DATA, 0, 1, b"tets"),
        frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\x00" + script.block((b"checksum", b"1"))),
    )
    attempt = script.ends()[b"/0"]
    assert (attempt.status, attempt.body, attempt.fields) == (200, b"octets", [(b"server", b"padded")])
    assert unharmed(script) is None


@pytest.mark.parametrize("sizes", [[1], [3, 0, 1], [0, 200]])
def test_field_blocks_in_pieces(files: Files, sizes: list[int]) -> None:
    script = uploading(files, keep_responses=True)
    fields = [(b"server", b"pieces"), (b"x-long", b"v" * 300)]
    block = script.block((b":status", b"200"), *fields)
    pieces: list[bytes] = []
    at = 0
    while at < len(block):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(block[at : at + size])
        at += size
    script.send(frame(HEADERS, END_STREAM, 1, b""))
    for piece in pieces[:-1]:
        script.send(frame(CONTINUATION, 0, 1, piece))
    script.send(frame(CONTINUATION, END_HEADERS, 1, pieces[-1]))
    assert script.ends()[b"/0"].fields == fields
    assert unharmed(script) is None


def test_a_field_block_may_begin_behind_the_frame_that_has_the_priority(files: Files) -> None:
    script = Script(session())
    script.submit(files(10))
    script.take()
    script.send(
        frame(HEADERS, 0x20 | END_STREAM, 1, bytes(5)),
        frame(CONTINUATION, END_HEADERS, 1, script.block((b":status", b"201"))),
    )
    assert script.ends()[b"/0"].status == 201
    script.close()


@pytest.mark.parametrize("chunk", [0, 1, 16393])
def test_a_long_body_is_credited_and_dropped(files: Files, chunk: int) -> None:
    """Ten MB flow through windows of 64 KiB, also padded, also on a stream that is over."""
    script = uploading(files)
    script.send(script.response(1, b"500", end_stream=False))
    total = 10_000_000 if chunk != 1 else 200_000
    connection, stream, sent = 65535, 65535, 0
    while sent < total:
        size = min(16384, connection, stream)
        assert size > 0, "the session forgot to credit"
        script.send(frame(DATA, PADDED, 1, b"\x09" + bytes(size - 10) + bytes(9)), chunk=chunk)
        connection, stream, sent = connection - size, stream - size, sent + size
        for one in script.take():
            assert one.kind == WINDOW_UPDATE
            connection += int.from_bytes(one.payload, "big") if one.stream_id == 0 else 0
            stream += int.from_bytes(one.payload, "big") if one.stream_id == 1 else 0
        assert max(connection, stream) <= 65535
    script.send(frame(DATA, END_STREAM, 1))
    attempt = script.ends()[b"/0"]
    assert (attempt.status, attempt.body) == (500, bytes(1024))
    # The stream is over, the connection's window is still kept up.
    for _ in range(10):
        script.send(frame(DATA, 0, 1, bytes(16384)))
        script.take()
    assert isinstance(unharmed(script), HttpStatus)


def test_padding_is_credited_as_well(files: Files) -> None:
    """What a server spends on padding counts for its windows (RFC 9113 §6.9.1): else it would wait for ever."""
    script = Script(session())
    script.submit(files(10))
    script.take()
    script.send(script.response(1, b"200", end_stream=False))
    spent = 0
    credited = {0: 0, 1: 0}
    for _ in range(1000):
        script.send(frame(DATA, PADDED, 1, b"\xff" + b"x" + bytes(255)))
        spent += 257
        for one in script.take():
            assert one.kind == WINDOW_UPDATE
            credited[one.stream_id] += int.from_bytes(one.payload, "big")
        assert all(spent - octets <= 65_535 // 2 for octets in credited.values())
    script.send(frame(DATA, END_STREAM, 1))
    assert script.ends()[b"/0"].ok
    script.close()


def test_a_server_may_echo_a_file_of_any_size(files: Files) -> None:
    script = Script(session(), {INITIAL: 0})
    script.submit(files(20_000_000))
    script.take()
    script.send(script.response(1, b"200", end_stream=False))
    for _ in range(20_000_000 // 16_000):
        script.send(frame(DATA, 0, 1, bytes(16_000)))
        script.take()
    script.send(frame(DATA, END_STREAM, 1))
    assert script.ends()[b"/0"].ok
    script.close()


def test_a_kept_body_ends_at_its_limit(files: Files) -> None:
    script = uploading(files, keep_responses=True, body_limit=10)
    script.send(script.response(1, b"200", end_stream=False), frame(DATA, 0, 1, b"123456"))
    script.send(frame(DATA, END_STREAM, 1, b"7890abc"))
    assert script.ends()[b"/0"].body == b"1234567890"
    assert unharmed(script) is None


@pytest.mark.parametrize("status", [b"300", b"308", b"404", b"503"])
def test_other_statuses_are_failures_with_their_fields(files: Files, status: bytes) -> None:
    script = uploading(files)
    fields = [(b"retry-after", b"7"), (b"location", b"/elsewhere")]
    script.send(script.response(1, status, *fields, end_stream=False), frame(DATA, END_STREAM, 1, b"why\n"))
    attempt = script.ends()[b"/0"]
    assert (attempt.fields, attempt.body, attempt.ok) == (fields, b"why\n", False)
    failure = unharmed(script)
    assert isinstance(failure, HttpStatus)
    assert (failure.status, failure.retry_after) == (int(status), "7")
    assert (failure.reason, failure.location) == (("redirected", "/elsewhere") if status < b"400" else ("why", None))


def test_of_a_page_for_browsers_the_title_is_the_reason(files: Files) -> None:
    script = uploading(files)
    page = b"<html>\r\n<head><title>413 Request\r\n Entity Too Large</title></head><body>\r\n"
    script.send(script.response(1, b"413", end_stream=False), frame(DATA, END_STREAM, 1, page))
    failure = script.ends()[b"/0"].failure
    assert isinstance(failure, HttpStatus)
    assert failure.reason == "413 Request Entity Too Large"


def told(script: Script, length: bytes, status: bytes = b"200") -> bytes:
    """Return the beginning of a response with a content-length."""
    return script.response(1, status, (b"content-length", length), end_stream=False)


def malformed(*fields: tuple[bytes, bytes], flags: int = END_HEADERS | END_STREAM) -> Callable[[Script], bytes]:
    return lambda script: frame(HEADERS, flags, 1, script.block(*fields))


@pytest.mark.parametrize(
    "octets",
    [
        malformed((b"server", b"no status")),
        malformed((b":status", b"20")),
        malformed((b":status", b"abc")),
        malformed((b":status", b"200"), (b":status", b"200")),
        malformed((b":status", b"200"), (b":path", b"/")),
        malformed((b"server", b"x"), (b":status", b"200")),
        malformed((b":status", b"200"), (b"Upper", b"case")),
        malformed((b":status", b"200"), (b"connection", b"close")),
        malformed((b":status", b"200"), (b"x", b"a\r\nb")),
        malformed((b":status", b"200"), (b"content-length", b"-1")),
        malformed((b":status", b"200"), (b"content-length", b"")),
        malformed((b":status", b"200"), (b"content-length", b"0"), (b"content-length", b"1")),
        malformed((b":status", b"200"), (b"content-length", b"1")),  # with END_STREAM
        lambda script: told(script, b"3") + frame(DATA, END_STREAM, 1, b"four"),
        lambda script: told(script, b"5") + frame(DATA, END_STREAM | PADDED, 1, b"\x01four\0"),
        lambda script: told(script, b"5") + frame(DATA, 0, 1, b"four") + frame(DATA, END_STREAM, 1),
        lambda script: told(script, b"5") + frame(DATA, 0, 1, b"four") + script.trailers(1),
        malformed((b":status", b"100")),  # with END_STREAM
        malformed((b":status", b"101"), flags=END_HEADERS),
        lambda script: frame(DATA, 0, 1, b"before HEADERS"),
        lambda script: frame(DATA, END_STREAM, 1),
        lambda script: (
            script.response(1, end_stream=False) + frame(HEADERS, END_HEADERS, 1, script.block((b"a", b"b")))
        ),
        lambda script: script.response(1, end_stream=False) + script.response(1),
        lambda script: window_update(1, 0),
    ],
)
@pytest.mark.parametrize("size", [100, 9_000_000])
def test_malformed_responses_end_their_stream_alone(files: Files, octets: Callable[[Script], bytes], size: int) -> None:
    script = Script(session(), OPEN)
    script.submit(files(size, 7))
    script.take()
    script.send(octets(script))
    assert resets(script.take()) == [(1, ErrorCode.PROTOCOL_ERROR)]
    failure = unharmed(script)
    assert isinstance(failure, ProtocolViolation)
    assert failure.error_code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "octets",
    [
        lambda script: told(script, b"4") + frame(DATA, END_STREAM | PADDED, 1, b"\x01four\0"),
        lambda script: told(script, b"4") + frame(DATA, 0, 1, b"fo") + frame(DATA, 0, 1, b"ur") + script.trailers(1),
        lambda script: told(script, b"9", b"103") + script.response(1),
        lambda script: script.response(1, b"201", (b"content-length", b"0"), (b"content-length", b"0")),
        # No content belongs to these (RFC 9113 §8.1.1), whatever it would be of.
        lambda script: told(script, b"4", b"204") + frame(DATA, END_STREAM, 1),
        lambda script: told(script, b"4", b"304") + frame(DATA, END_STREAM, 1),
    ],
)
def test_content_length_that_is_true(files: Files, octets: Callable[[Script], bytes]) -> None:
    script = uploading(files)
    script.send(octets(script))
    assert resets(script.take()) == []
    assert script.ends()[b"/0"].status in (200, 201, 204, 304)


# --- early ends -----------------------------------------------------------------------------------


def halfway(files: Files, *, staged: bool = True) -> Script:
    """Return a connection on which half of an upload is sent, and a second that must stay unharmed."""
    script = Script(session(staged=staged), {INITIAL: 100_000}, window=WIDE)
    script.submit(files(200_000, 7))
    script.take()
    return script


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("status", [b"200", b"401", b"413"])
def test_an_early_response_is_the_result(files: Files, status: bytes, staged: bool) -> None:
    script = halfway(files, staged=staged)
    script.send(script.response(1, status, end_stream=False), frame(DATA, END_STREAM, 1, b"enough"))
    # The body isn't sent on, and the server is told so.
    assert resets(script.take()) == [(1, ErrorCode.CANCEL)]
    script.send(rst_stream(1, ErrorCode.NO_ERROR))
    attempt = script.ends()[b"/0"]
    assert attempt.status == int(status)
    assert 0 < attempt.payload < attempt.size
    failure = unharmed(script)
    assert (failure is None) == (status == b"200")


def test_an_early_response_with_no_error(files: Files) -> None:
    script = halfway(files)
    script.send(script.response(1, b"200"), rst_stream(1, ErrorCode.NO_ERROR))
    taken = script.take()
    assert not served_octets(taken)
    assert not resets(taken), "the server has done that: who counts ours would take it for an attack"
    assert script.ends()[b"/0"].ok
    assert unharmed(script) is None


def test_a_reset_of_a_stream_that_is_over_spares_no_other_frame(files: Files) -> None:
    script = halfway(files)
    script.send(script.response(1, b"200"), frame(DATA, 0, 3, b"before its response"), rst_stream(1, 0))
    assert resets(script.take()) == [(1, ErrorCode.CANCEL), (3, ErrorCode.PROTOCOL_ERROR)]
    script.close()


def test_an_early_response_without_its_end_lets_the_body_go_on(files: Files) -> None:
    script = halfway(files)
    script.send(script.response(1, b"200", end_stream=False), window_update(1, 100_000))
    assert sum(octets for stream_id, octets in served_octets(script.take()) if stream_id == 1) == 100_000
    script.send(frame(DATA, END_STREAM, 1))
    assert script.ends()[b"/0"].payload == 200_000
    assert not resets(script.take())
    assert unharmed(script) is None


@pytest.mark.parametrize("code", [*ErrorCode, 0xFF, 0xFFFFFFFF])
@pytest.mark.parametrize("responded", [False, True])
def test_every_reset_code(files: Files, code: int, responded: bool) -> None:
    script = halfway(files)
    if responded:
        script.send(script.response(1, b"200", end_stream=False))
    script.send(rst_stream(1, code))
    assert not kinds(script.take()), "no RST_STREAM answers one, and no DATA follows"
    failure = unharmed(script)
    if code == ErrorCode.REFUSED_STREAM:
        assert isinstance(failure, StreamRefused)
    elif code == ErrorCode.ENHANCE_YOUR_CALM:
        assert isinstance(failure, ServerOverloaded)
    else:
        assert isinstance(failure, StreamReset)
        assert failure.error_code == code


def test_frames_on_closed_streams_are_ignored_but_decoded(files: Files) -> None:
    script = halfway(files)
    script.send(rst_stream(1, ErrorCode.CANCEL))
    script.send(
        # It enters the dynamic table: a session that skipped the block could not read the next response.
        script.response(1, b"200", (b"x-first", b"value"), end_stream=False),
        frame(DATA, 0, 1, b"late"),
        frame(DATA, END_STREAM, 1, b"later"),
        window_update(1, 10),
        window_update(1, LARGEST_WINDOW),
        rst_stream(1, ErrorCode.NO_ERROR),
        frame(2, 0, 1, bytes(5)),
        script.response(1, b"404", (b"x-first", b"value")),
        script.response(3, b"404", (b"x-first", b"value"), end_stream=True),
    )
    assert not kinds(script.take())
    assert script.ends()[b"/1"].fields == [(b"x-first", b"value")]
    assert len(script.ends()) == 2
    script.close()


# --- GOAWAY ---------------------------------------------------------------------------------------


def test_goaway_in_two_steps(files: Files) -> None:
    script = Script(session(concurrency=2), {INITIAL: 1000}, window=WIDE)
    submitted = script.submit(files(1500, 1501, 1502, 1503))
    script.take()
    script.send(goaway(LARGEST_WINDOW))
    assert script.client.plane.draining
    assert [attempt.path for attempt in script.client.take_unsent()] == [b"/2", b"/3"]
    assert all(attempt.started == 0.0 for attempt in submitted[2:])
    script.send(goaway(1))
    # Stream 3 is replayed elsewhere, stream 1 goes on, and so does the connection.
    assert isinstance(script.ends()[b"/1"].failure, NotProcessed)
    script.send(window_update(1, 1000), frame(6, 0, 0, b"8 octets"), settings_frame({FRAME: 20_000}))
    assert {kind for kind, _ in kinds(script.take())} == {DATA, 4, 6}
    script.send(script.response(1))
    assert script.ends()[b"/0"].ok
    assert script.client.plane.open_streams == 0
    del submitted
    script.close()


def test_goaway_below_a_stream_in_the_middle_of_its_body(files: Files) -> None:
    script = halfway(files, staged=False)
    script.client.fill(script.now)
    script.send(goaway(0, ErrorCode.NO_ERROR), window_update(1, 100_000))
    assert not served_octets(script.take())
    assert {type(attempt.failure) for attempt in script.ends().values()} == {NotProcessed}
    script.close()


@pytest.mark.parametrize("last", [0, 1])
def test_a_goaway_that_took_none_is_no_progress(files: Files, last: int) -> None:
    """Its replays count, as a server that takes nothing again and again is not asked for ever."""
    script = halfway(files)
    script.send(goaway(last))
    failure = script.ends()[b"/1"].failure
    assert isinstance(failure, NotProcessed)
    assert failure.progress == (last > 0)
    script.close()


def test_goaway_may_say_why(files: Files) -> None:
    script = halfway(files)
    script.send(frame(GOAWAY, 0, 0, bytes(8) + b"because"))
    assert script.client.failure is None
    assert {type(attempt.failure) for attempt in script.ends().values()} == {NotProcessed}
    script.close()


def test_goaway_enhance_your_calm(files: Files) -> None:
    script = halfway(files)
    script.send(goaway(0, ErrorCode.ENHANCE_YOUR_CALM))
    assert script.client.plane.goaway_code == ErrorCode.ENHANCE_YOUR_CALM
    assert {type(attempt.failure) for attempt in script.ends().values()} == {ServerOverloaded}
    script.close()


def test_goaway_names_its_last_stream_as_processed(files: Files) -> None:
    script = halfway(files)
    script.send(goaway(3))
    assert not script.finished
    script.send(script.response(1))
    assert unharmed(script) is None


def test_what_is_submitted_while_draining_comes_back(files: Files) -> None:
    script = Script(session(), OPEN)
    script.client.plane.drain()
    submitted = script.submit(files(10, 11))
    assert not script.take()
    assert script.client.take_unsent() == submitted
    assert script.client.take_unsent() == []
    del submitted
    script.close()


# --- files ----------------------------------------------------------------------------------------


def test_files_that_cannot_be_opened_fail_alone(files: Files, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    bad = [tmp_path / "vanished", tmp_path / "fifo", tmp_path, Path("/dev/null")]
    script = Script(session(concurrency=1), OPEN)
    script.submit([*bad, *files(10)])
    # They take no stream: the good one is the first on the wire, in the same turn.
    assert kinds(script.take()) == [(HEADERS, 1), (DATA, 1)]
    failures = [script.ends()[b"/%d" % index].failure for index in range(4)]
    assert [type(failure) for failure in failures] == [FileVanished, NotRegularFile, NotRegularFile, NotRegularFile]
    script.send(script.response(1))
    assert script.ends()[b"/4"].ok
    script.close()


def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("root may read everything")
    script = Script(session(), OPEN)
    script.submit([tmp_path / "secret"])
    assert not script.take()
    failure = script.ends()[b"/0"].failure
    assert isinstance(failure, FileUnreadable)
    assert "right to read" in str(failure)
    script.close()


def test_a_file_whose_size_says_less_than_it_holds_is_refused(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit([Path("/proc/version"), *files(0)])
    assert kinds(script.take()) == [(HEADERS, 1)]
    assert isinstance(script.ends()[b"/0"].failure, NotRegularFile)
    script.send(script.response(1))
    assert script.ends()[b"/1"].ok
    script.close()


def test_too_many_open_files_is_no_error(files: Files) -> None:
    """What can't be opened now is opened when a stream has given its descriptor back."""
    script = Script(session(), OPEN, window=1_000_000)
    script.submit(files(100_000, 100_000, 100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_fd = os.dup(0)
    os.close(next_fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd + 1, hard))
    try:
        # The second file is opened only when the first one is sent and closed.
        order = [stream_id for _, stream_id in kinds(script.take())]
        assert order == sorted(order)
        assert set(order) == {1, 3, 5}
        assert script.client.plane.failed_opens
        assert not script.client.plane.out_of_files
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    script.send(*(script.response(stream_id) for stream_id in (1, 3, 5)))
    assert all(attempt.ok for attempt in script.ends().values())
    script.close()


def test_who_is_given_up_for_want_of_a_descriptor_has_ended_then(files: Files) -> None:
    script = Script(session(), {})
    script.submit(files(100, 101))
    script.client.plane.give_up_opening(5.0)
    (attempt,) = script.client.take_finished()
    assert isinstance(attempt.failure, FileUnreadable)
    assert attempt.finished == 5.0
    assert script.client.plane.waiting == 1
    del attempt
    script.close()


def test_a_file_that_shrank_to_nothing_ends_its_stream(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(50_000))
    script = Script(session(), {INITIAL: 10_000})
    script.submit([tmp_path / "file"])
    script.take()
    os.truncate(tmp_path / "file", 0)
    script.send(window_update(1, 40_000))
    # The RST_STREAM is all there is to send. Regression: it waited for whatever came next.
    assert resets(script.take()) == [(1, ErrorCode.CANCEL)]
    assert isinstance(script.ends()[b"/0"].failure, FileChanged)
    script.close()


def grow(file: Path) -> None:
    with file.open("ab") as appending:
        appending.write(b"more")


def touch(file: Path) -> None:
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def shrink(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def replace(file: Path) -> None:
    """As editors and rsync do: the name is another file's then, of the same size and mtime."""
    other = file.with_name("other")
    other.write_bytes(b"x" * file.stat().st_size)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.rename(file)


def put_aside(file: Path) -> None:
    """The old one is kept under another name."""
    octets = file.read_bytes()
    file.rename(file.with_name("backup"))
    file.write_bytes(octets)


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("size", [30_000, 65_537, 300_000])
@pytest.mark.parametrize("change", [grow, touch, shrink, replace, put_aside])
def test_a_file_that_changes_is_never_a_complete_upload(
    files: Files, tmp_path: Path, change: Callable[[Path], None], size: int, staged: bool
) -> None:
    file = tmp_path / "changing"
    file.write_bytes(bytes(size))
    file.with_name("link").hardlink_to(file)
    judge = Judge({INITIAL: 20_000})
    wire = Wire(session(staged=staged), judge)
    wire.client.submit(attempts([file, *files(50_000)]))
    wire.step()
    change(file)
    wire.run()
    assert judge.requests[1].reset == ErrorCode.CANCEL
    assert not judge.requests[1].ended
    ends = {attempt.path: attempt for attempt in wire.finished}
    assert isinstance(ends[b"/0"].failure, FileChanged)
    assert ends[b"/1"].ok
    assert judge.bodies() == {b"/1": files(50_000)[0].read_bytes()}
    wire.finished.clear()
    ends.clear()
    wire.close()


def test_a_response_that_does_not_end_has_no_status(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(10, 10))
    script.take()
    script.send(script.response(1, b"200", end_stream=False), script.response(3, b"507"))
    script.send(rst_stream(1, ErrorCode.INTERNAL_ERROR))
    ends = script.ends()
    assert (ends[b"/0"].status, type(ends[b"/0"].failure)) == (0, StreamReset)
    assert (ends[b"/1"].status, type(ends[b"/1"].failure)) == (507, HttpStatus)
    script.close()


def remove(file: Path) -> None:
    file.unlink()


def remove_another_name(file: Path) -> None:
    file.with_name("link").unlink()


def rename(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))


def forbid(file: Path) -> None:
    file.chmod(0o400)


@pytest.mark.parametrize("change", [remove, remove_another_name, rename, forbid])
def test_a_removed_file_still_goes_up(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file = tmp_path / "file"
    file.write_bytes(octets := random.Random(1).randbytes(200_000))
    file.with_name("link").hardlink_to(file)
    judge = Judge()
    wire = Wire(session(staged=False), judge)
    wire.client.submit(attempts([file]))
    wire.step()
    change(file)
    wire.run()
    assert judge.bodies() == {b"/0": octets}
    wire.finished.clear()
    wire.close()


@pytest.mark.parametrize("left", [0, 12_000])
def test_of_a_file_that_shrank_nothing_is_made_up(tmp_path: Path, left: int) -> None:
    """There are more octets to come than are asked for now, and fewer than that are there."""
    (tmp_path / "file").write_bytes(bytes(50_000))
    script = Script(session(), {INITIAL: 10_000})
    script.submit([tmp_path / "file"])
    script.take()
    os.truncate(tmp_path / "file", left)
    script.send(window_update(1, 20_000))
    assert kinds(script.take()) == [(RST_STREAM, 1)]
    assert isinstance(script.ends()[b"/0"].failure, FileChanged)
    script.close()


def test_the_last_check_comes_after_the_last_slice_was_sent(tmp_path: Path) -> None:
    """END_STREAM of a mapped file never lies in one gather list with slices that the kernel has yet to read."""
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    script = Script(session(staged=False), OPEN, window=WIDE)
    script.submit([file])
    client = script.client
    client.fill(1.0)
    frames = list(split(client.plane.take_octets(1.0)))
    assert not any(one.flags & END_STREAM for one in frames)
    touch(file)
    assert client.fill(1.0)
    assert resets(list(split(client.plane.take_octets(1.0)))) == [(1, ErrorCode.CANCEL)]
    script.take()
    assert isinstance(script.ends()[b"/0"].failure, FileChanged)
    script.close()


# --- where the time goes --------------------------------------------------------------------------


def test_a_tail_that_waits_for_the_socket_is_charged_once(files: Files) -> None:
    script = Script(session(staged=False), OPEN, window=WIDE)
    script.submit(files(70_000))
    assert script.client.fill(script.now)
    script.client.plane.split_time(script.now + 1)
    told = {cause: seconds for cause, seconds in script.client.plane.blocked.seconds().items() if seconds}
    assert told == {"socket": pytest.approx(1)}
    script.close()


def test_who_drains_waits_for_no_stream(files: Files) -> None:
    script = Script(session(concurrency=5), {STREAMS: 2})
    script.submit(files(10, 11, 12, 13))
    script.take()
    plane = script.client.plane
    plane.drain()
    script.client.take_unsent()
    plane.behind = 3
    plane.split_time(script.now + 1)
    assert plane.blocked.seconds()["stream_limit"] == 0.0
    script.close()


def test_who_waits_for_the_line_and_who_for_the_server(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(10, 11))
    assert kinds(script.take()) == [(HEADERS, 1), (HEADERS, 3), (DATA, 1), (DATA, 3)]
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent - (9 + 11), script.now)
    plane.split_time(script.now + 1)
    told = {cause: seconds for cause, seconds in plane.blocked.seconds().items() if seconds}
    assert told == {"socket": pytest.approx(1), "server": pytest.approx(1)}
    script.close()


def test_only_what_left_late_was_sent_late(files: Files) -> None:
    script = Script(session(), OPEN)
    plane = script.client.plane
    (prompt,) = script.submit(files(10))
    script.take(at=1.0)
    (late,) = script.submit(files(11))
    assert plane.fill(2.0)
    assert plane.fill(3.0), "the socket has not taken it"
    plane.take_octets(4.0)
    assert not plane.fill(4.0)
    assert (prompt.body_sent, late.body_sent) == (1.0, 4.0)
    del prompt, late
    script.close()


def test_the_time_up_to_the_loss_of_a_connection_counts(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(10))
    script.take()
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent, script.now)
    script.client.lose(Interrupted("lost"), script.now + 1)
    assert plane.blocked.seconds()["server"] == pytest.approx(1)
    script.close()


# --- cancel, stall, loss --------------------------------------------------------------------------


def test_cancel_resets_one_stream(files: Files) -> None:
    script = Script(session(), {INITIAL: 1000}, window=WIDE)
    first, second = script.submit(files(2000, 2001))
    script.take()
    script.client.plane.cancel(first, Interrupted("stopped"), script.now)
    script.client.plane.cancel(first, Interrupted("stopped"), script.now)
    script.send(window_update(1, 1000), window_update(3, 1001))
    assert kinds(script.take()) == [(RST_STREAM, 1), (DATA, 3)]
    script.send(script.response(3))
    script.client.plane.cancel(second, Interrupted("too late"), script.now)
    assert not script.take()
    assert [(attempt.path, attempt.ok) for attempt in script.finished] == [(b"/0", False), (b"/1", True)]
    del first, second
    script.close()


def test_who_has_stalled(files: Files) -> None:
    script = Script(session(), {INITIAL: 1000}, window=0)
    script.submit(files(2000, 500))
    script.take(at=10.0)
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent, 10.0)
    assert plane.stalled(69.9, 60.0) == []
    # One waits for its window, the other for its response.
    assert [attempt.path for attempt in plane.stalled(70.0, 60.0)] == [b"/0", b"/1"]
    script.now = 65.0
    script.send(window_update(1, 100))
    assert [attempt.path for attempt in plane.stalled(70.0, 60.0)] == [b"/1"]
    script.close()


def test_credit_that_nobody_can_use_is_no_progress(files: Files) -> None:
    script = Script(session(), {INITIAL: 1000})
    script.submit(files(500))
    script.take(at=10.0)
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent, 10.0)
    script.now = 65.0
    script.send(window_update(1, 100))
    assert [attempt.path for attempt in plane.stalled(70.0, 60.0)] == [b"/0"]
    script.close()


def test_what_arrives_moves_the_connection_on(files: Files) -> None:
    """The socket has taken all of it: only the line can tell that it is not stalled."""
    script = Script(session(), OPEN)
    script.submit(files(10))
    script.take(at=10.0)
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent - 8, 10.0)
    plane.note_delivered(plane.delivery.sent - 5, 65.0)
    assert plane.stalled(71.0, 60.0) == []
    assert [attempt.path for attempt in plane.stalled(132.0, 60.0)] == [b"/0"]
    script.close()


def test_a_ping_that_arrives_is_no_progress(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(200_000))
    script.take(at=10.0)
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent, 10.0)
    script.client.ping()
    assert [one.kind for one in script.take(at=65.0)] == [PING]
    plane.note_delivered(plane.delivery.sent, 66.0)
    assert [attempt.path for attempt in plane.stalled(71.0, 60.0)] == [b"/0"]
    script.close()


@pytest.mark.parametrize("moves", ["interim response", "response", "body"])
def test_an_answer_that_comes_slowly_is_no_stall(files: Files, moves: str) -> None:
    script = Script(session(), {INITIAL: 1000})
    script.submit(files(500, 501))
    script.take(at=10.0)
    plane = script.client.plane
    plane.note_delivered(plane.delivery.sent, 10.0)
    if moves == "body":
        script.send(script.response(1, b"200", end_stream=False))
    script.now = 65.0
    if moves == "body":
        script.send(frame(DATA, 0, 1, b"a little"))
    else:
        script.send(script.response(1, b"200" if moves == "response" else b"103", end_stream=False))
    assert [attempt.path for attempt in plane.stalled(70.0, 60.0)] == [b"/1"]
    script.close()


def test_waiting_for_a_turn_is_no_stall(files: Files) -> None:
    script = Script(session(), OPEN)
    script.submit(files(20_000, 200_000, 200_001))
    script.take(at=10.0)
    script.client.plane.note_delivered(script.client.plane.delivery.sent, 10.0)
    script.now = 80.0
    script.send(window_update(0, 100))
    # The first is sent and waits for its response; the others wait for the connection's window, which moves.
    assert [attempt.size for attempt in script.client.plane.stalled(80.0, 60.0)] == [20_000]
    script.close()


def test_every_attempt_comes_out_once_when_the_connection_is_lost(files: Files) -> None:
    script = Script(session(concurrency=3), {INITIAL: 100}, window=WIDE)
    submitted = script.submit(files(50, 200, 300, 400, 500))
    script.take()
    script.send(script.response(1))
    script.client.fill(script.now)
    failure = Interrupted("lost")
    script.client.lose(failure, 3.0)
    script.client.lose(failure, 4.0)
    finished = script.finished + script.client.take_finished()
    unsent = script.client.take_unsent()
    assert sorted(attempt.path for attempt in finished + unsent) == [attempt.path for attempt in submitted]
    assert [attempt.path for attempt in unsent] == [b"/4"]
    assert not script.client.fill(5.0) or not served_octets(script.take())
    del submitted, finished, unsent
    script.close()


@pytest.mark.parametrize("leaves", ["not at all", "in cleartext", "by TLS"])
def test_of_a_request_that_did_not_leave_the_server_knows_nothing(files: Files, leaves: str) -> None:
    script = Script(session(), OPEN, window=WIDE)
    script.submit(files(50))
    plane = script.client.plane
    assert plane.fill(script.now)
    if leaves == "in cleartext":
        plane.take_octets(script.now)
    elif leaves == "by TLS":
        plane.consume(plane.gather.pending, script.now)
    failure = Interrupted("lost")
    script.client.lose(failure, 3.0)
    (attempt,) = script.client.take_finished()
    if leaves == "not at all":
        assert isinstance(attempt.failure, NotProcessed)
        assert attempt.failure.progress
    else:
        assert attempt.failure is failure
    script.close()


def test_nothing_goes_behind_our_goaway(files: Files) -> None:
    script = Script(session(), {INITIAL: 1000}, window=WIDE)
    script.submit(files(5000))
    script.take()
    script.send(window_update(1, 4000), frame(DATA, 0, 0, b"on stream 0"))
    assert isinstance(script.client.failure, ProtocolViolation)
    assert [one.kind for one in script.take()] == [GOAWAY]
    script.close()


def test_a_connection_begins_with_its_first_stream(files: Files) -> None:
    script = Script(session(), OPEN)
    assert not script.client.plane.begun
    script.submit(files(0))
    assert not script.client.plane.begun
    script.take()
    assert script.client.plane.begun
    script.close()


def test_a_failure_is_news_though_a_success_comes_behind_it(files: Files) -> None:
    script = Script(session(concurrency=2), OPEN, window=WIDE)
    script.submit(files(*[10] * 8))
    script.take()
    assert not script.client.plane.news
    script.client.receive(rst_stream(1, ErrorCode.REFUSED_STREAM) + script.response(3), script.now)
    assert script.client.plane.news
    script.client.take_finished()
    assert not script.client.plane.news
    script.close()


def test_nothing_stays_open_when_the_connection_is_lost(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / str(index)).write_bytes(bytes(200_000))
    script = Script(session(staged=False), OPEN)
    script.submit([tmp_path / str(index) for index in range(20)])
    script.take()
    assert live_objects() != (0, 0)
    script.client.fill(script.now)
    script.client.lose(Interrupted("lost"), 3.0)
    # The session is still there, as long as somebody holds it.
    assert live_objects() == (0, 0)
    script.close()


def test_windows_of_one_octet(files: Files) -> None:
    judge = Judge({INITIAL: 1})
    wire = Wire(session(), judge)
    wire.client.submit(attempts(files(5, 3)))
    wire.run()
    assert [octets for _, octets in judge.served] == [1] * 8
    assert all(attempt.payload == attempt.size for attempt in wire.finished)
    assert all(attempt.latency > 0 for attempt in wire.finished)
    wire.finished.clear()
    wire.close()


def test_a_file_that_is_not_the_expected_one_is_never_begun(tmp_path: Path) -> None:
    """A digest is sent along, and the file is no longer the one that it is of."""
    for name in ("same", "other"):
        (tmp_path / name).write_bytes(b"octets")
        os.utime(tmp_path / name, (1, 1))  # an inode is all that tells one from the other
    same, other = attempts([tmp_path / "same", tmp_path / "other"])
    for attempt in (same, other):
        found = (tmp_path / "same").stat()
        attempt.expected = (found.st_size, found.st_mtime_ns, found.st_ino)
    judge = Judge(OPEN)
    wire = Wire(session(), judge)
    wire.client.submit([other, same])
    wire.run()
    assert isinstance(other.failure, FileChanged)
    assert other.payload == 0
    assert same.ok
    assert [bytes(request.body) for request in judge.requests.values()] == [b"octets"]
    assert other.again(replay=False).expected == other.expected


# --- frames that move nothing ---------------------------------------------------------------------


@pytest.mark.parametrize(("a_second", "ends"), [(1, False), (45, False), (300, True)])
def test_time_pays_for_frames_that_move_nothing(files: Files, a_second: int, ends: bool) -> None:
    """RFC 9113 §10.5: a PING a second on a connection that waits for hours is no flood; many a second are."""
    script = Script(session(), {INITIAL: 0})
    script.submit(files(7))
    script.take()
    for _ in range(max(400, 25_000 // a_second)):
        script.now += 1.0
        script.send(frame(PING, 0, 0, bytes(8)) * a_second)
        script.take()
        if script.client.failure is not None:
            break
    failure = script.client.failure
    assert (failure is not None) is ends
    if ends:
        assert isinstance(failure, ProtocolViolation)
        assert failure.error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_long_silence_pays_for_no_endless_flood(files: Files) -> None:
    script = Script(session(), {INITIAL: 0})
    script.submit(files(7))
    script.take()
    script.now += 1_000_000.0
    pings = 0
    while script.client.failure is None:
        script.send(frame(PING, 0, 0, bytes(8)) * 100)
        script.take()
        pings += 100
    assert pings <= 20_200


# --- what other connections may still take --------------------------------------------------------


def opened(script: Script) -> int:
    return sum(sent.kind == HEADERS for sent in script.take())


def test_a_sparing_side_begins_what_two_connection_windows_can_take(files: Files) -> None:
    """Streams that wait for the connection window could go elsewhere; what has a stream can't."""
    script = Script(session(concurrency=50), OPEN)
    script.client.plane.windows_ahead = 2
    script.submit(files(*[800_000] * 20))
    assert opened(script) == 2, (
        "each lasts for more than eight windows of 65,535 octets: it counts as one that fills them"
    )
    script.now += 1.0  # the server is far away
    script.send(window_update(0, 50_000))
    assert opened(script) == 0, "credit is for those that are open"
    script.client.plane.windows_ahead = 0
    assert opened(script) == 18
    script.close()


def test_a_stream_whose_own_window_is_closed_keeps_no_other_from_beginning(files: Files) -> None:
    script = Script(session(concurrency=50), {INITIAL: 0})
    script.client.plane.windows_ahead = 2
    script.submit(files(*[50_000] * 20))
    assert opened(script) == 20
    script.close()


@pytest.mark.parametrize("granted", [100, 16_384, 1 << 20])
def test_the_largest_stream_window_is_one_that_the_server_granted(granted: int) -> None:
    """Not the 65,535 octets that there are before its SETTINGS, in which no upload begins."""
    script = Script(session(), {INITIAL: granted})
    assert script.client.plane.largest_stream_window == granted
    script.client.plane.apply_settings(initial_window_size=50)
    assert script.client.plane.largest_stream_window == granted
    script.close()


def test_beside_a_server_nearby_nothing_is_spared(files: Files) -> None:
    """It opens its window again at once: what is begun goes soon."""
    script = Script(session(), OPEN)
    plane = script.client.plane
    plane.windows_ahead = 2
    script.submit(files(*[800_000] * 10))
    script.take()
    assert plane.open_streams < 10
    script.send(*[window_update(0, 1)] * 10)
    script.take()
    assert plane.open_streams == 10
    script.close()


def test_small_files_all_begin_although_it_is_sparing(files: Files) -> None:
    script = Script(session(concurrency=50), OPEN)
    script.client.plane.windows_ahead = 2
    script.submit(files(*[1000] * 50))
    assert opened(script) == 50
    script.close()


@pytest.mark.parametrize(("limit", "kept"), [(10, 40), (8, 32), (2, 10), (0, 10)])
def test_what_is_in_flight_is_of_the_room_when_the_line_is_withdrawn(files: Files, limit: int, kept: int) -> None:
    script = Script(session(concurrency=10), {INITIAL: 0})
    submitted = script.submit(files(*[100] * 60))
    script.take()
    script.client.plane.limit_concurrency(limit)
    # Ten are in flight, and stay there.
    assert script.client.plane.withdraw() == submitted[kept:]
    assert script.client.plane.waiting == kept - 10
    del submitted
    script.close()


@given(waiting=st.integers(0, 100), limit=st.integers(0, 20), most=st.integers(0, 100))
def test_what_is_withdrawn_is_the_end_of_the_line(waiting: int, limit: int, most: int) -> None:
    client = session(concurrency=50)
    submitted = attempts([Path("/nowhere")] * waiting)
    client.submit(submitted)
    client.plane.limit_concurrency(limit)
    assert client.plane.withdraw() == submitted[4 * limit :]
    assert client.plane.waiting == min(waiting, 4 * limit)
    assert client.plane.withdraw(most) == submitted[most : 4 * limit]
    assert client.plane.waiting == min(waiting, 4 * limit, most)
