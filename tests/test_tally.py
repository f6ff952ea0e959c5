"""The counts of a run."""

from __future__ import annotations

from typing import Any

from outcomes import ended

from fastpost._table import Attempt
from fastpost.errors import DigestMismatch, FileVanished, HttpStatus, NotRegularFile
from fastpost.sources import Rejected, Upload
from fastpost.tally import NAMES_KEPT, Peer, Tally


def attempt(name: str = "a", **values: Any) -> Attempt:
    return ended(Upload(name.encode(), name.encode()), **{"payload": 100, "started": 1.0, "finished": 1.5, **values})


def test_a_new_tally_is_empty_and_walking() -> None:
    tally = Tally()
    assert (tally.found, tally.ok, tally.failed, tally.payload, tally.verified) == (0, 0, 0, 0, None)
    assert tally.walking


def test_uploads_that_went_well_are_counted_with_octets_status_and_latency() -> None:
    tally = Tally()
    tally.add([attempt(), attempt(status=204, payload=1, finished=3.0), attempt(payload=0)])
    assert (tally.ok, tally.failed, tally.payload, tally.wasted) == (3, 0, 101, 0)
    assert tally.statuses == {201: 2, 204: 1}
    assert [count for _, count in tally.latencies.counts()] == [2, 1]
    assert (tally.latencies.largest, tally.latencies.mean()) == (2_000_000, 1.0)


def test_batches_add_up() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add([attempt(retried=1), attempt(replayed=2)])
    assert (tally.ok, tally.retried, tally.replayed) == (6, 3, 6)
    assert tally.statuses == {201: 6}


def test_an_empty_batch_counts_nothing() -> None:
    tally = Tally()
    tally.add([])
    assert (tally.ok, tally.statuses) == (0, {})


def test_a_failed_upload_wastes_its_octets_and_has_no_latency() -> None:
    tally = Tally()
    tally.add([attempt(status=0, failure=FileVanished("gone"), payload=7, retried=3)])
    assert (tally.ok, tally.failed, tally.payload, tally.wasted, tally.retried) == (0, 1, 0, 7, 3)
    assert (tally.statuses, tally.latencies.total) == ({}, 0)
    assert tally.errors == {"FileVanished": 1}
    assert tally.first_failures == {"FileVanished": [("a", "gone")]}


def test_statuses_are_causes_of_their_own() -> None:
    tally = Tally()
    tally.add([attempt(str(n), status=403, failure=HttpStatus(403)) for n in range(10)])
    tally.add([attempt("full", status=507, failure=HttpStatus(507))])
    assert tally.statuses == {403: 10, 507: 1}
    assert tally.errors == {"HttpStatus": 11}
    assert tally.causes == {"HttpStatus 403": 10, "HttpStatus 507": 1}
    assert tally.first_failures["HttpStatus 507"] == [("full", "status 507")]


def test_only_the_first_names_of_a_cause_are_kept() -> None:
    tally = Tally()
    tally.add([attempt(str(n), status=0, failure=FileVanished("gone")) for n in range(1000)])
    names = [name for name, _ in tally.first_failures["FileVanished"]]
    assert names == [str(n) for n in range(NAMES_KEPT)]


def test_a_name_that_is_no_utf_8_survives_as_surrogate_escapes() -> None:
    tally = Tally()
    tally.reject([Rejected(b"\xff", b"/x/\xff", NotRegularFile("a FIFO"))])
    assert tally.first_failures == {"NotRegularFile": [("\udcff", "a FIFO")]}


def test_what_the_walk_rejects_is_found_and_failed() -> None:
    tally = Tally()
    tally.reject([Rejected(b"f", b"/x/f", NotRegularFile("a FIFO")), Rejected(b"g", b"/x/g", FileVanished("gone"))])
    assert (tally.found, tally.failed, tally.ok) == (2, 2, 0)
    assert tally.errors == {"NotRegularFile": 1, "FileVanished": 1}


def test_a_mismatch_turns_an_upload_into_a_failure() -> None:
    tally = Tally()
    good, bad = attempt("good"), attempt("bad", payload=30)
    tally.add([good, bad])
    tally.revoke([(bad, DigestMismatch("other octets"))])
    assert (tally.ok, tally.failed, tally.mismatched) == (1, 1, 1)
    assert (tally.payload, tally.wasted) == (100, 30)
    assert tally.errors == {"DigestMismatch": 1}


def test_a_file_that_can_no_longer_be_compared_is_no_mismatch() -> None:
    tally = Tally()
    gone = attempt("gone")
    tally.add([gone])
    tally.revoke([(gone, FileVanished("uploaded, but gone"))])
    assert (tally.ok, tally.failed, tally.mismatched) == (0, 1, 0)


def test_who_met_no_server_says_nothing_of_it() -> None:
    """As a process that was begun and had nothing to do: its defaults are not what the server grants."""
    met = Peer(16_384, 65_535, 1, "small", {"MAX_CONCURRENT_STREAMS": 1})
    assert met.joined(Peer()) == met
    assert Peer().joined(met) == met
    later = Peer(32_768, 70_000, 2, "", {"MAX_CONCURRENT_STREAMS": 2})
    assert met.joined(later) == Peer(32_768, 70_000, 2, "small", later.settings)
