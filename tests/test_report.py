"""What a run came to."""

from __future__ import annotations

import base64
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fastpost import report
from fastpost._meter import Histogram
from fastpost.errors import FileVanished, HttpStatus
from fastpost.sources import Rejected
from fastpost.tally import Peer, Shares, Tally


@pytest.fixture
def tally() -> Tally:
    """A run of 2 s: 1000 files, 998 of them uploaded."""
    tally = Tally(50)
    tally.walking = False
    tally.found, tally.ok, tally.skipped = 998, 998, 4
    tally.payload, tally.sent, tally.wasted = 4_000_000, 4_100_000, 50_000
    tally.retried, tally.replayed, tally.connections = 3, 2, 1
    tally.statuses = {204: 8, 201: 990}
    for n in range(1, 999):
        tally.latencies.record(n / 1000)
    tally.started, tally.finished = 10.0, 12.0
    tally.blocked = {"stream_window": 3.0, "connection_window": 6.5, "disk": 0.25, "server": 0.25}
    tally.peer = Peer(stream_window=65_535, connection_window=65_535, server="nghttpd nghttp2/1.52.0")
    tally.shares = Shares(2, 1.5, 1.25, 0.5, 1.0)
    tally.reject([Rejected(b"gone", b"/x/gone", FileVanished("the file vanished"))])
    tally.reject([Rejected(b"no", b"/x/no", HttpStatus(403, "no entry"))])
    return tally


def test_the_json_has_exactly_the_keys_of_its_schema(tally: Tally) -> None:
    assert report.as_json(tally, "https://store.example/") == {
        "schema": "fastpost.upload/1",
        "target": "https://store.example/",
        "files": {"total": 1000, "ok": 998, "failed": 2, "skipped": 4},
        "bytes": {"payload": 4_000_000, "sent": 4_100_000, "wasted": 50_000},
        "seconds": 2.0,
        "status": {"201": 990, "204": 8},
        "errors": {"FileVanished": 1, "HttpStatus": 1},
        "attempts": {"retried": 3, "replayed": 2},
        "connections": 1,
        "latency_ms": {"p50": 499.072, "p90": 898.816, "p99": 988.928, "p999": 998.0, "max": 998.0},
        "blocked_s": {
            "stream_limit": 0.0,
            "stream_window": 3.0,
            "connection_window": 6.5,
            "socket": 0.0,
            "disk": 0.25,
            "server": 0.25,
            "retry": 0.0,
            "client": 0.0,
        },
        "limited_by": {
            "cause": "connection_window",
            "share": 0.65,
            "sentence": "65% of the time the connection window was closed: the server grants 64 KiB; "
            "nghttpd: --connection-window-bits; or --connections 4",
        },
        "fairness": {"jain": 0.9, "slowest": 0.5, "fastest": 1.0},
        "verified": None,
        "unverifiable": None,
        "mismatched": None,
    }


def test_where_the_time_went_is_a_bar_and_a_sentence(tally: Tally) -> None:
    assert "waited for" in report.plain(report.rows(tally, "https://store.example/"))
    tally.blocked = {}
    assert "waited for" not in report.plain(report.rows(tally, "https://store.example/"))


def test_a_run_that_never_began_has_a_report_too() -> None:
    found = json.loads(json.dumps(report.as_json(Tally(), "https://store.example/")))
    assert found["seconds"] == 0.0
    assert found["latency_ms"] == {"p50": None, "p90": None, "p99": None, "p999": None, "max": None}


@pytest.mark.parametrize(
    ("ok", "took", "told"),
    [
        (1, 3.0, "0.333 files/s"),
        (3, 2.0, "1.50 files/s"),
        (1, 3600.0, "0.00028 files/s"),
        (0, 2.0, " 0 files/s"),
        (100_000, 2.0, "50,000 files/s"),
    ],
)
def test_few_files_a_second_are_told_in_digits_too(ok: int, took: float, told: str) -> None:
    tally = Tally()
    tally.ok, tally.payload, tally.finished = ok, 1000 * ok, took
    assert told in report.plain(report.rows(tally, "https://store.example/"))


def recorded(latencies: list[float]) -> Histogram:
    histogram = Histogram()
    for latency in latencies:
        histogram.record(latency)
    return histogram


def test_percentiles_are_nearest_ranks() -> None:
    (*percentiles, (_, largest)) = report.percentiles(recorded([3.0]))
    assert [value for _, value in percentiles] == pytest.approx([3.0] * 4, rel=0.001)
    assert largest == 3.0
    assert dict(report.percentiles(recorded([n / 1000 for n in range(10, 0, -1)]))) == pytest.approx(
        {"p50": 0.005, "p90": 0.009, "p99": 0.01, "p999": 0.01, "max": 0.01}, rel=0.001
    )


@given(st.lists(st.floats(0, 3600), min_size=1))
def test_percentiles_rise_to_the_largest(latencies: list[float]) -> None:
    values = [value or 0.0 for _, value in report.percentiles(recorded(latencies))]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(max(latencies), abs=1e-6)


def test_the_summary_tells_people_the_same(tally: Tally) -> None:
    tally.verified = 998
    assert report.plain(report.rows(tally, "https://store.example/")).splitlines() == [
        "target      https://store.example/",
        "files       998 ok · 2 failed · 4 symbolic links skipped (--follow-symlinks)",
        "octets      4.0 MB of files · 4.1 MB sent · 50.0 kB wasted",
        "time        2.00 s · 499 files/s · 2.00 MB/s",
        "latency     p50 499.1 · p90 898.8 · p99 988.9 · p99.9 998.0 · max 998.0 ms",
        "status      201 × 990 · 204 × 8",
        "repeated    3 retried · 2 replayed",
        "connections 1",
        "waited for  connection window █████████████ 65% · stream window ██████ 30% · server █ 2% · disk █ 2%",
        "limit       65% of the time the connection window was closed: the server grants 64 KiB; "
        "nghttpd: --connection-window-bits; or --connections 4",
        "fairness    0.9000 (Jain's index) · slowest 0.50, fastest 1.00 of an even share",
        "verified    998 of 998 arrived intact",
        "failed      1 × FileVanished",
        "              gone: the file vanished",
        "failed      1 × HttpStatus 403",
        "              no: status 403: no entry",
    ]


def test_what_was_uploaded_before_is_skipped_but_told_apart_from_links(tally: Tally) -> None:
    tally.recorded = 12_000
    assert "4 symbolic links skipped" in report.plain(report.rows(tally, "x"))
    assert "12,000 skipped, uploaded before (--journal)" in report.plain(report.rows(tally, "x"))
    files = report.as_json(tally, "x")["files"]
    assert files == {"total": 1000, "ok": 998, "failed": 2, "skipped": 12_004}


def test_what_was_verified_what_not_and_what_could_not_be_is_told(tally: Tally) -> None:
    tally.verified, tally.unverifiable, tally.mismatched = 900, 97, 1
    told = (
        "900 of 998 arrived intact · 1 mismatched · 97 unverifiable: the server told no digest of them · 1 not compared"
    )
    assert told in report.plain(report.rows(tally, "x"))
    counts = report.as_json(tally, "x")
    assert (counts["verified"], counts["unverifiable"], counts["mismatched"]) == (900, 97, 1)


def test_what_an_interruption_left_uncompared_is_told(tally: Tally) -> None:
    tally.verified = 990
    assert "990 of 998 arrived intact · 8 not compared" in report.plain(report.rows(tally, "x"))


def test_failures_are_grouped_by_cause_the_most_frequent_first() -> None:
    tally = Tally()
    tally.reject([Rejected(b"one", b"one", FileVanished("gone"))])
    tally.reject([Rejected(b"no%d" % n, b"no", HttpStatus(403)) for n in range(2000)])
    text = report.plain(report.rows(tally, "https://store.example/"))
    assert text.index("2,000 × HttpStatus 403") < text.index("1 × FileVanished")
    assert "no0" in text
    assert "and 1,997 more: --failures FILE names them all" in text


def test_the_cure_is_not_named_to_those_who_took_it() -> None:
    tally = Tally()
    tally.reject([Rejected(b"no%d" % n, b"no", HttpStatus(403)) for n in range(10)])
    text = report.plain(report.rows(tally, "https://store.example/", all_failures_kept=True))
    assert "--failures" not in text
    assert "… and 7 more" in text


def test_files_that_an_interruption_left_are_told() -> None:
    tally = Tally()
    tally.found, tally.ok = 10, 4
    assert "4 ok · 0 failed · 6 not sent" in report.plain(report.rows(tally, "x"))


EVIL = b"a\nfastpost: all is well\x1b[2J\x07\xe2\x80\xae[red]\xff\\"


def test_no_name_reaches_a_terminal_raw() -> None:
    tally = Tally()
    tally.reject([Rejected(EVIL, EVIL, HttpStatus(500, "\x1b]0;title\x07"))])
    rows = report.rows(tally, "https://store.example/\x1b[1m")
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    for text in (report.plain(rows), report.drawn(rows, console)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "a\\nfastpost: all is well\\x1b[2J\\x07\\u202e[red]\\xff\\" in text


@given(st.text())
def test_safe_text_is_printable_and_printable_text_is_untouched(text: str) -> None:
    found = report.safe(text)
    assert found.isprintable()
    found.encode("utf-8")
    if text.isprintable():
        assert found == text


def test_colours_are_for_terminals(tally: Tally) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=100, no_color=False)
    assert "\x1b[31m" in report.drawn(report.rows(tally, "x"), console)
    assert "\x1b" not in report.plain(report.rows(tally, "x"))


def test_a_failure_record_has_all_keys() -> None:
    record = report.failure_record(b"a/b", b"/x/a/b", "https://store.example/a/b", HttpStatus(403, "no"), 403, 2)
    assert record == {
        "name": "a/b",
        "file": "/x/a/b",
        "url": "https://store.example/a/b",
        "error": "HttpStatus",
        "message": "status 403: no",
        "status": 403,
        "attempts": 2,
    }


def test_a_failure_without_response_has_no_status() -> None:
    assert report.failure_record(b"a", b"a", "u", FileVanished("gone"), 0, 0)["status"] is None


def test_a_name_that_is_no_utf_8_keeps_its_octets() -> None:
    record = report.failure_record(b"\xff\n", b"/x/\xff\n", "u", FileVanished("\udcff gone"), 0, 0)
    again = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8"))
    assert again["name"] == "\\xff\n"
    assert base64.b64decode(again["name_b64"]) == b"\xff\n"
    assert base64.b64decode(again["file_b64"]) == b"/x/\xff\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (8_589_934_592, "8.6 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_octets_are_told_in_decimal_units(count: int, text: str) -> None:
    assert report.octets_text(count) == text
