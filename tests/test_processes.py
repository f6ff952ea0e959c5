"""What of a run over several processes needs none: portions, tallies that are cut and pasted, outcomes that travel."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost import errors
from fastpost._table import Attempt
from fastpost.config import Settings
from fastpost.cores import Cores, ThisThread, asked_of_a_core, busy, idle
from fastpost.errors import FastpostError, HttpStatus, NotProcessed, ProtocolViolation, Reaction, StreamReset
from fastpost.portions import Portions
from fastpost.processes import Processes, _shares
from fastpost.sources import Batch, Upload
from fastpost.tally import Peer, Shares, Tally
from fastpost.uploader import Uploader
from fastpost.worker import packed, unpacked


@pytest.mark.parametrize("wanted", [True, False])
def test_the_first_process_waits_awake_as_long_as_it_is_alone_and_the_others_never(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    allowed: list[bool] = []
    monkeypatch.setattr(Uploader, "allow_busy_poll", lambda _, allow: allowed.append(allow))
    processes = Processes(Settings(to="http://a/", connections=3, busy_poll=wanted), 3)
    with processes.workers(tells_results=False, grace=1.0):
        assert [one.settings.busy_poll for one in processes._workers] == [False, False]
    assert processes._uploader.settings.busy_poll is wanted
    processes.hold_back(2)
    assert allowed == [], "nobody is there yet"
    for others in (1, 2, 0):
        processes.limit(others)
    assert allowed == [False, False, True]


def test_what_talks_to_a_process_is_loaded_when_there_is_one() -> None:
    """5 ms of a run that may be over before that pays."""
    code = "import sys, fastpost.processes; print('pickle' in sys.modules or 'fastpost.worker' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def walk(sizes: list[int]) -> Iterator[Batch]:
    number = 0
    for size in sizes:
        batch = Batch()
        batch.uploads = [Upload(b"", b"%d" % each) for each in range(number, number + size)]
        number += size
        yield batch


def names(portion: list[Upload] | None) -> list[bytes]:
    return [upload.name for upload in portion or ()]


def test_a_worker_has_uploads_as_they_were_found() -> None:
    """A symbolic link that is not to be followed, above all: the worker would send what it points to."""
    found = [
        Upload(b"/a/\xff", b"\xff", 7, "image/png", follow=False),
        Upload(b"/b", b"b"),
    ]
    told = unpacked(io.BytesIO(packed(found, 5)))
    assert told is not None
    for one, original in zip(told, found, strict=True):
        for fact in ("file", "name", "size", "content_type", "follow"):
            assert getattr(one, fact) == getattr(original, fact)
    assert [getattr(one, "number", None) for one in told] == [5, 6]
    assert unpacked(io.BytesIO(packed(None, 7))) is None


def test_what_nobody_has_taken_comes_back_once() -> None:
    """With what is kept for one that has not asked for it yet."""
    portions = Portions(walk([10]), 2, lambda batch: batch.uploads, secure=False)
    portions.admit(1, None)
    assert names(portions.take(0)) == [b"%d" % number for number in range(5)]
    portions.stop()
    assert sorted(names(portions.take_back())) == [b"%d" % number for number in range(5, 10)]
    assert portions.take_back() == []
    assert portions.take(1) is None


def cut(sizes: list[int], processes: int, octets: int = 4096, *, secure: bool = True) -> Portions:
    """Portions of a walk that finds batches of so many files of so many octets."""

    def arrived(batch: Batch) -> list[Upload]:
        for upload in batch.uploads:
            upload.size = octets
        return batch.uploads

    return Portions(walk(sizes), processes, arrived, secure=secure)


def test_large_files_go_in_portions_though_nothing_was_answered_yet() -> None:
    """Else the first process had all that is left, and nobody else could join."""
    portions = cut([200], 2, 4 * 2**20, secure=False)
    assert len(portions.take(0) or ()) == 16
    portions.admit(0, None)
    assert len(portions.take(0) or ()) == 16
    portions.admit(0, 4096.0)
    assert len(portions.take(0) or ()) == 168


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(2, 4), st.sampled_from([0, 2**20]), st.booleans())
def test_portions_hold_every_upload_once(sizes: list[int], processes: int, octets: int, admitted: bool) -> None:
    portions = cut(sizes, processes, octets)
    if admitted:
        portions.admit(processes - 1, octets)
    taken: list[bytes] = []

    def ask(process: int) -> None:
        while (portion := portions.take(process)) is not None:
            assert 1 <= len(portion) <= (128 if admitted or octets else 700)
            taken.extend(names(portion))

    threads = [threading.Thread(target=ask, args=(process,)) for process in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(taken) == sorted(b"%d" % number for number in range(sum(sizes)))


GB = 2**30


def test_of_few_huge_files_over_tls_each_process_has_its_part() -> None:
    """The first one would begin them all before it is known who else there will be."""
    portions = cut([8], 3, GB)
    assert names(portions.take(0)) == [b"0"]
    portions.admit(1, GB)
    portions.admit(2, GB)
    assert [names(portions.take(process)) for process in (1, 2)] == [[b"5", b"6", b"7"], [b"3", b"4"]]
    assert [names(portions.take(0)) for _ in range(2)] == [[b"1"], [b"2"]]
    assert portions.take(0) is None


def test_what_was_set_aside_stays_so_although_another_one_takes_all_that_is_left() -> None:
    portions = cut([12, 12], 3, GB)
    taken = names(portions.take(0))
    portions.admit(1, GB)
    for _ in range(30):
        taken += names(portions.take(1)) if len(taken) < 19 else []
    portions.admit(2, GB)
    others = names(portions.take(2))
    assert len(others) == 4, "of the first twelve"
    with answer(portions, 1) as ended:
        while (portion := portions.take(0)) is not None:
            taken += names(portion)
    assert ended[0] is None or len(ended[0]) == 1
    taken += names(ended[0])
    assert sorted(taken + others) == sorted(b"%d" % number for number in range(24))


def test_nothing_is_kept_for_those_that_have_not_joined() -> None:
    portions = cut([100, 300], 3)
    portions.take(0)
    portions.admit(1, 4096)
    with answer(portions, 2) as waiting:
        assert len(portions.take(1) or ()) == 128
        assert not waiting
        portions.admit(2, 4096)
    assert waiting


def test_what_was_set_aside_is_for_the_first_one_when_nobody_joins() -> None:
    portions = cut([4], 2, GB)
    assert [names(portions.take(0)) for _ in range(2)] == [[b"0"], [b"1"]]
    with answer(portions, 1) as other:
        with answer(portions, 0) as answered:
            assert portions.worth(0.6, 0.9) == 0
            assert not answered
            assert portions.worth(0.1, 0.9) == 0
        assert names(answered[0]) == [b"2"]
        assert names(portions.take(0)) == [b"3"]
        assert portions.take(0) is None
    assert other == [None], "who never joined ends with the last file"


def test_one_look_is_enough_for_huge_files_where_a_core_is_clearly_idle() -> None:
    portions = cut([4], 2, GB)
    names(portions.take(0))
    assert portions.sets_aside
    assert portions.worth(0.9, 0.5) == 0, "the first one is not busy: it waits for the server"
    portions = cut([4], 2, GB)
    names(portions.take(0))
    assert portions.worth(0.9, 0.9) == 1
    portions = cut([4], 2)
    portions.take(0)
    assert portions.worth(0.9, 0.9) == 0, "small files are handed over, which costs"


def test_nobody_is_wanted_for_files_that_are_handed_out() -> None:
    portions = cut([4], 2, GB)
    assert not portions.is_handed_out
    names(portions.take(0))
    names(portions.take(0))
    with answer(portions, 0) as ended:
        assert not portions.is_handed_out, "some are set aside"
        portions.set_nothing_aside()
    while ended[-1] is not None:
        ended.append(portions.take(0))
    assert portions.is_handed_out


@pytest.mark.parametrize("more", [0, 2])
def test_what_was_set_aside_is_not_lost_when_it_is_given_back_in_the_midst_of_a_walk(more: int) -> None:
    walking, go_on = threading.Event(), threading.Event()

    def walk_slowly() -> Iterator[Batch]:
        first, *rest = walk([4, more])
        yield first
        walking.set()
        assert go_on.wait(20)
        yield from rest

    def arrived(batch: Batch) -> list[Upload]:
        for upload in batch.uploads:
            upload.size = GB
        return batch.uploads

    portions = Portions(walk_slowly(), 2, arrived, secure=True)
    taken = [names(portions.take(0)) for _ in range(2)]
    with answer(portions, 0) as later:
        assert walking.wait(20)
        portions.set_nothing_aside()
        go_on.set()
    while later[-1] is not None:
        later.append(portions.take(0))
    assert len(taken) + len(later) - 1 == 4 + more


def test_nothing_is_set_aside_any_more_once_it_is_known_that_nobody_comes() -> None:
    portions = cut([4, 4], 2, GB)
    first = portions.take(0)
    portions.set_nothing_aside()
    assert not portions.sets_aside
    assert names(first) + [name for _ in range(7) for name in names(portions.take(0))] == [
        b"%d" % number for number in range(8)
    ]


@pytest.mark.parametrize(
    ("count", "octets", "others"),
    [(4, 2**28, [b"3"]), (5, 2**28, [b"3", b"4"]), (2, 2**29, [b"1"]), (8, 2**27, [b"6", b"7"])],
)
def test_the_first_one_has_what_it_sends_until_another_is_there(count: int, octets: int, others: list[bytes]) -> None:
    portions = cut([count], 2, octets)
    portions.take(0)
    assert portions.worth(0.9, 0.9) == 1
    portions.admit(1, octets)
    assert names(portions.take(1)) == others


@pytest.mark.parametrize(("count", "octets", "secure"), [(8, GB, False), (8, 2**20, True), (1, GB, True), (0, 0, True)])
def test_nothing_is_set_aside_that_would_be_missed(count: int, octets: int, secure: bool) -> None:
    """The first one is done with it before anyone could join, or has room for it all."""
    portions = cut([count], 2, octets, secure=secure)
    taken: list[bytes] = []
    with answer(portions, 1):
        while (portion := portions.take(0)) is not None:
            taken += names(portion)
    assert len(taken) == count


def test_sizes_are_looked_up_where_they_are_not_known(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as out:
        out.truncate(2 * GB)
    batch = Batch()
    batch.uploads = [Upload(os.fsencode(tmp_path / name), name.encode()) for name in ("huge", "gone")]
    portions = Portions([batch], 2, lambda batch: batch.uploads, secure=True)
    assert names(portions.take(0)) == [b"huge"]
    portions.admit(1, GB)
    assert names(portions.take(1)) == [b"gone"]


def test_what_is_kept_for_a_process_that_is_gone_is_for_the_first_one() -> None:
    portions = cut([2], 2, GB)
    assert names(portions.take(0)) == [b"0"]
    portions.admit(1, GB)
    portions.leave(1)
    assert names(portions.take(0)) == [b"1"]
    assert portions.take(0) is None


def test_for_one_that_is_gone_nothing_more_is_taken_though_it_waits() -> None:
    portions = cut([1000], 2)
    with answer(portions, 1) as answered:
        portions.leave(1)
    assert answered == [None]
    portions.admit(1, 4096)
    assert portions.take(1) is None
    assert len(portions.take(0) or ()) == 128


def test_the_first_one_stays_until_the_others_have_what_is_kept_for_them() -> None:
    portions = cut([2], 2, GB)
    assert names(portions.take(0)) == [b"0"]
    portions.admit(1, GB)
    with answer(portions, 0) as answered:
        assert not answered
        assert names(portions.take(1)) == [b"1"]
    assert answered == [None]


def test_small_files_are_the_first_ones_alone_a_batch_at_a_time() -> None:
    portions = cut([1000, 1000], 2)
    with answer(portions, 1) as answered:
        assert len(portions.take(0) or ()) == 1000
        assert len(portions.take(0) or ()) == 1000
        assert not answered
        assert portions.take(0) is None
    assert answered == [None], "the end is told to those that wait"


def test_one_that_is_admitted_gets_portions() -> None:
    portions = cut([1000], 2)
    with answer(portions, 1) as answered:
        portions.admit(1, 4096)
    assert len(answered[0] or ()) == 128
    assert len(portions.take(0) or ()) == 128


@pytest.mark.parametrize(("octets", "portion"), [(4096, 1000), (2**18, 128), (2**28, 1)])
def test_the_first_one_begins_alone_and_leaves_large_files_to_those_that_may_come(octets: int, portion: int) -> None:
    portions = cut([1000], 2, octets)
    assert len(portions.take(0) or ()) == portion
    assert portions.welcome == 0


def test_processes_are_worth_having_one_by_one_where_a_core_stays_idle_and_the_first_one_is_busy() -> None:
    portions = cut([], 3)
    worth = []
    for idle_cores in (0.1, 0.9, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9, 0.0):
        worth.append(portions.worth(idle_cores, 0.95))
        portions.admit(worth[-1], 4096)
    assert worth == [0, 0, 0, 0, 1, 1, 2, 2, 2]


def test_one_that_waits_for_its_server_needs_no_second_one_to_wait() -> None:
    portions = cut([], 3)
    assert [portions.worth(1.9, busy) for busy in (0.1, 0.5, 0.6, 0.1)] == [0, 0, 0, 0]
    assert [portions.worth(1.0, busy) for busy in (0.9, 0.5, 0.9, 0.9)] == [0, 0, 0, 1]


def test_portions_of_huge_files_are_small() -> None:
    portions = cut([1000], 2, 2**30)
    portions.admit(1, 2**30)
    for process in (0, 1):
        portions.take(process)
    assert len(portions.take(0) or ()) == 1


def test_a_stop_is_told_to_those_that_wait() -> None:
    portions = cut([1000], 2)
    portions.take(0)
    with answer(portions, 1) as answered:
        portions.stop()
    assert answered == [None]
    assert portions.take(0) is None


def test_a_walk_that_fails_says_so_once_and_ends_the_others() -> None:
    def broken() -> Iterator[Batch]:
        yield from walk([2])
        raise OSError("gone")

    portions = Portions(broken(), 2, lambda batch: batch.uploads, secure=False)
    assert names(portions.take(0)) == [b"0", b"1"]
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


def test_cores_are_idle_as_far_as_they_are_not_busy() -> None:
    before = (10.0, 100.0)
    assert idle(2, before, (11.0, 101.5)) == 0.5
    assert idle(2, before, (11.0, 102.5)) == 0.0, "clocks of several grains"
    assert idle(2, None, (11.0, 101.0)) == 2.0, "where nobody can tell"
    assert idle(2, before, before) == 2.0


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
    cores = Cores()
    deadline = time.process_time() + 0.3
    while time.process_time() < deadline:
        pass
    assert cores.idle() < len(os.sched_getaffinity(0))


def test_a_thread_that_sleeps_is_not_busy_and_one_that_spins_is() -> None:
    thread = ThisThread()
    time.sleep(0.1)
    idle = thread.busy()
    deadline = time.thread_time() + 0.1
    while time.thread_time() < deadline:
        pass
    assert idle < 0.5
    assert thread.busy() > 2 * idle


def test_what_a_thread_asks_of_a_core_is_what_it_used_and_what_it_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def schedstat(path: str, *_: object, **__: object) -> io.BytesIO:
        told.append(path)
        return io.BytesIO(b"1000 2500000000 7\n")

    monkeypatch.setattr("builtins.open", schedstat)
    assert asked_of_a_core() == pytest.approx(time.thread_time() + 2.5, abs=0.1)
    assert told == ["/proc/thread-self/schedstat"]


@pytest.mark.parametrize("told", [b"", b"0 x 0\n", None])
def test_without_that_file_it_is_what_it_used(monkeypatch: pytest.MonkeyPatch, told: bytes | None) -> None:
    def schedstat(*_: object, **__: object) -> io.BytesIO:
        if told is None:
            raise FileNotFoundError
        return io.BytesIO(told)

    monkeypatch.setattr("builtins.open", schedstat)
    assert asked_of_a_core() == pytest.approx(time.thread_time(), abs=0.1)


def test_what_a_thread_asks_of_a_core_grows_as_it_works() -> None:
    before = asked_of_a_core()
    deadline = time.thread_time() + 0.1
    while time.thread_time() < deadline:
        pass
    assert asked_of_a_core() >= before + 0.1


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
