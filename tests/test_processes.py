"""What of a run over several processes needs none: portions, tallies that are cut and pasted, outcomes that travel."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost import errors
from fastpost._table import Attempt
from fastpost.config import Settings
from fastpost.cores import Cores, Room, Used, _used_by, busy, room
from fastpost.errors import FastpostError, HttpStatus, NotProcessed, ProtocolViolation, Reaction, StreamReset
from fastpost.portions import Portions
from fastpost.processes import _shares
from fastpost.sources import Batch, Upload
from fastpost.tally import Peer, Shares, Tally


def walk(sizes: list[int]) -> Iterator[Batch]:
    number = 0
    for size in sizes:
        batch = Batch()
        batch.uploads = [Upload(b"", b"%d" % each) for each in range(number, number + size)]
        number += size
        yield batch


ROOM = Room(left=8.0, idle=8.0)
FULL = Room(left=1.1, idle=0.1)


def names(portion: list[Upload] | None) -> list[bytes]:
    return [upload.name for upload in portion or ()]


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(2, 4))
def test_portions_hold_every_upload_once(sizes: list[int], processes: int) -> None:
    portions = Portions(walk(sizes), processes, lambda batch: batch.uploads)
    portions.judge(None, ROOM)
    taken: list[bytes] = []

    def ask(process: int) -> None:
        while (portion := portions.take(process)) is not None:
            assert 1 <= len(portion) <= 128
            taken.extend(names(portion))

    threads = [threading.Thread(target=ask, args=(process,)) for process in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(taken) == sorted(b"%d" % number for number in range(sum(sizes)))


def test_few_uploads_are_divided_evenly_whoever_asks_first() -> None:
    portions = Portions(walk([8]), 2, lambda batch: batch.uploads)
    assert names(portions.take(0)) == [b"0", b"1", b"2", b"3"]
    assert names(portions.take(1)) == [b"4", b"5", b"6", b"7"]


def test_single_uploads_are_divided_too() -> None:
    portions = Portions(walk([1, 1, 0, 1]), 3, lambda batch: batch.uploads)
    assert [names(portions.take(process)) for process in (1, 0, 2)] == [[b"1"], [b"0"], [b"2"]]


def test_what_is_kept_for_a_process_that_is_gone_is_for_the_first_one() -> None:
    portions = Portions(walk([2]), 2, lambda batch: batch.uploads)
    assert names(portions.take(0)) == [b"0"]
    portions.leave(1)
    assert names(portions.take(0)) == [b"1"]
    assert portions.take(0) is None


def test_the_first_one_stays_until_the_others_have_what_is_kept_for_them() -> None:
    portions = Portions(walk([2]), 2, lambda batch: batch.uploads)
    assert names(portions.take(0)) == [b"0"]
    with answer(portions, 0) as answered:
        assert not answered
        assert names(portions.take(1)) == [b"1"]
    assert answered == [None]


def test_small_uploads_go_to_one_process_while_the_cores_are_busy() -> None:
    portions = Portions(walk([1000, 1000]), 2, lambda batch: batch.uploads)
    portions.judge(4096, FULL)
    assert [len(portions.take(process) or ()) for process in (1, 0)] == [128, 128]
    with answer(portions, 1) as answered:
        assert len(portions.take(0) or ()) == 744, "alone it takes the rest of the batch at once"
        assert len(portions.take(0) or ()) == 1000
        assert not answered
        assert portions.take(0) is None
    assert answered == [None], "the end is told to those that wait"


@pytest.mark.parametrize(
    ("mean", "room"), [(4096, ROOM), (2**20, FULL), (None, FULL)], ids=["idle cores", "large files", "none has arrived"]
)
def test_another_process_gets_more_where_it_pays(mean: float | None, room: Room) -> None:
    portions = Portions(walk([1000]), 2, lambda batch: batch.uploads)
    portions.judge(4096, FULL)
    for process in (0, 1):
        portions.take(process)
    with answer(portions, 1) as answered:
        portions.judge(mean, room)
    assert len(answered[0] or ()) in (64, 128)


def test_processes_are_added_one_by_one_and_taken_back_when_others_need_the_cores() -> None:
    portions = Portions(walk([]), 4, lambda batch: batch.uploads)
    welcome = []
    for left, idle in ((8, 8), (4, 2), (4, 0.5), (4, 0), (2.5, 0), (2.5, 0), (0.5, 0)):
        portions.judge(4096, Room(left, idle))
        welcome.append(portions._welcome)
    assert welcome == [1, 2, 2, 2, 1, 1, 0]


def test_portions_of_huge_files_are_small() -> None:
    portions = Portions(walk([1000]), 2, lambda batch: batch.uploads)
    portions.judge(2**30, FULL)
    for process in (0, 1):
        portions.take(process)
    assert len(portions.take(0) or ()) == 1


def test_a_stop_is_told_to_those_that_wait() -> None:
    portions = Portions(walk([1000]), 2, lambda batch: batch.uploads)
    portions.take(0)
    portions.take(1)
    with answer(portions, 1) as answered:
        portions.stop()
    assert answered == [None]
    assert portions.take(0) is None


def test_a_walk_that_fails_says_so_once_and_ends_the_others() -> None:
    def broken() -> Iterator[Batch]:
        yield from walk([2])
        raise OSError("gone")

    portions = Portions(broken(), 2, lambda batch: batch.uploads)
    assert names(portions.take(1)) == [b"1"]
    assert names(portions.take(0)) == [b"0"]
    with pytest.raises(OSError, match="gone"):
        portions.take(0)
    assert portions.take(1) is None


@contextlib.contextmanager
def answer(portions: Portions, process: int) -> Iterator[list[list[Upload] | None]]:
    """Ask in a thread, which must be done at the end of the block; what it got is in the list."""
    answered: list[list[Upload] | None] = []
    thread = threading.Thread(target=lambda: answered.append(portions.take(process)))
    thread.start()
    yield answered
    thread.join(20)
    assert not thread.is_alive()


def test_the_cores_of_others_are_what_is_busy_and_not_ours() -> None:
    before = Used(at=10.0, all=100.0, ours=5.0)
    assert room(2, before, Used(11.0, 101.5, 6.0)) == Room(left=1.5, idle=0.5)
    assert room(2, before, Used(11.0, 102.5, 5.0)) == Room(left=0.0, idle=0.0)
    assert room(2, before, Used(11.0, 100.0, 6.5)) == Room(left=2.0, idle=2.0), "clocks of several grains"
    assert room(2, None, Used(11.0, 101.0, 6.0)) == Room(2.0, 2.0)
    assert room(2, before, before) == Room(2.0, 2.0)


def test_only_allowed_cores_count() -> None:
    stat = (
        "cpu  9 9 9 9 9 9 9 9 0 0\n"
        "cpu0 100 10 20 999 999 3 4 5 7 7\n"
        "cpu1 1 1 1 1 1 1 1 1 0 0\n"
        "cpu10 50 0 0 0 0 0 0 0 0 0\n"
    )
    ticks = os.sysconf("SC_CLK_TCK")
    assert busy(stat, {0}) == 142 / ticks
    assert busy(stat, {1, 10}) == 56 / ticks


def test_a_process_that_spins_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        others, ours = Cores(), Cores([spinning.pid])
        until_busy(spinning.pid, 0.3)
        as_others, as_ours = others.room(), ours.room()
        spinning.kill()
    assert as_ours.left > as_others.left


def until_busy(pid: int, seconds: float) -> None:
    begun = _used_by(pid)
    deadline = time.monotonic() + 60
    while _used_by(pid) < begun + seconds:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("connections", ["auto", 3, 8])
def test_shares_add_up(connections: int | str) -> None:
    shares = _shares(Settings(to="http://a/", concurrency=50, connections=connections), 3)  # type: ignore[arg-type]
    assert sorted(share.concurrency for share in shares) == [16, 17, 17]
    if connections == "auto":
        assert all(share.connections == "auto" and share.most_connections == 2 for share in shares)
    else:
        assert sum(int(share.connections) for share in shares) == connections


def filled(seed: int) -> Tally:
    tally = Tally()
    tally.ok, tally.failed, tally.payload, tally.sent, tally.connections = seed, 1, 10 * seed, 100 * seed, seed
    tally.statuses = {200: seed}
    tally.errors = {"ConnectionLost": 1}
    tally.causes = {"ConnectionLost": 1}
    tally.first_failures = {"ConnectionLost": [(f"file{seed}", "gone")]}
    tally.latencies.record(seed)
    tally.blocked = {"server": float(seed)}
    tally.shares = Shares(seed, float(seed), float(seed), 1.0, 1.0)
    tally.peer = Peer(server=f"server{seed}")
    return tally


def test_a_tally_that_is_cut_counts_anew_and_what_it_measured_stays() -> None:
    tally = filled(3)
    cut = tally.cut()
    assert (cut.ok, cut.failed, cut.payload, cut.latencies.total, cut.latencies.mean()) == (3, 1, 30, 1, 3.0)
    assert (tally.ok, tally.failed, tally.payload, tally.statuses, tally.latencies.total) == (0, 0, 0, {}, 0)
    assert (tally.sent, tally.connections, cut.sent, cut.connections) == (300, 3, 300, 3)


def test_cuts_of_several_processes_are_pasted_into_one() -> None:
    whole = Tally()
    first, second = filled(1), filled(2)
    early = first.cut()
    first.ok, first.sent = 5, 700
    late, other = first.cut(), second.cut()
    for cut in (early, late, other):
        whole.paste(pickle.loads(pickle.dumps(cut)))
    whole.measured([late, other])
    assert (whole.ok, whole.failed, whole.statuses, whole.errors) == (8, 2, {200: 3}, {"ConnectionLost": 2})
    assert whole.first_failures == {"ConnectionLost": [("file1", "gone"), ("file2", "gone")]}
    assert (whole.sent, whole.connections, whole.blocked) == (900, 3, {"server": 3.0})
    assert whole.shares.uploads == 3
    assert (whole.latencies.total, whole.latencies.largest, whole.latencies.mean()) == (2, 2_000_000, 1.5)
    assert [count for _, count in whole.latencies.counts()] == [1, 1]


def test_no_more_names_are_kept_than_one_process_keeps() -> None:
    whole = Tally()
    for number in range(9):
        whole.paste(filled(number).cut())
    assert len(whole.first_failures["ConnectionLost"]) == 5


@pytest.mark.parametrize(
    "failure",
    [
        HttpStatus(503, "later", "7"),
        HttpStatus(403),
        StreamReset(8),
        ProtocolViolation(1, "noise"),
        NotProcessed("gone", progress=True),
        errors.FileChanged("changed"),
        errors.DuplicateTarget.at("http://a/b"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_failures_travel_as_they_are(failure: FastpostError) -> None:
    arrived = pickle.loads(pickle.dumps(failure))
    assert type(arrived) is type(failure)
    assert str(arrived) == str(failure)
    assert arrived.__dict__ == failure.__dict__
    assert arrived.reaction is failure.reaction
    assert isinstance(arrived.reaction, Reaction)


def test_outcomes_travel_as_they_are() -> None:
    attempt = Attempt(Upload(b"/a/b", b"b", 3), b"/a/b", b"/b", ((b"x", b"y"),), 1, 2, False)
    attempt.failure = HttpStatus(403, "no")
    arrived = pickle.loads(pickle.dumps(attempt))
    for name in ("file", "path", "request_fields", "retried", "replayed", "follow", "status", "size", "payload"):
        assert getattr(arrived, name) == getattr(attempt, name)
    assert str(arrived.failure) == "status 403: no"
    assert arrived.upload.name == b"b"
    assert arrived.body == b""
