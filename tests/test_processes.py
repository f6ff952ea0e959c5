"""What of a run over several processes needs none: portions, tallies that are cut and pasted, outcomes that travel."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost import errors
from fastpost._table import Attempt
from fastpost.config import Settings
from fastpost.errors import FastpostError, HttpStatus, NotProcessed, ProtocolViolation, Reaction, StreamReset
from fastpost.processes import _Portions, _shares
from fastpost.sources import Batch, Upload
from fastpost.tally import Peer, Shares, Tally


def walk(sizes: list[int]) -> Iterator[Batch]:
    number = 0
    for size in sizes:
        batch = Batch()
        batch.uploads = [Upload(b"", b"%d" % each) for each in range(number, number + size)]
        number += size
        yield batch


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(1, 4))
def test_portions_hold_every_upload_once_and_in_order(sizes: list[int], workers: int) -> None:
    portions = _Portions(walk(sizes), workers, lambda batch: batch.uploads)
    taken = []
    while (portion := portions.take(2)) is not None:
        assert 1 <= len(portion) <= 128
        taken += portion
    assert [upload.name for upload in taken] == [b"%d" % number for number in range(sum(sizes))]
    assert portions.take(2) is None


def test_few_uploads_are_divided_evenly() -> None:
    portions = _Portions(walk([4]), 2, lambda batch: batch.uploads)
    assert [len(portions.take(2) or ()) for _ in range(2)] == [2, 2]


def test_nobody_has_a_second_portion_before_all_have_their_first() -> None:
    portions = _Portions(walk([8]), 2, lambda batch: batch.uploads)
    taken: dict[int, list[bytes]] = {0: [], 1: []}

    def ask(worker: int) -> None:
        for number in range(3):
            taken[worker] += [upload.name for upload in portions.take(number) or ()]

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, taken.values())) == [4, 4]


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
