"""What a journal holds: its format, torn and strange files, and what counts as recorded."""

from __future__ import annotations

import io
import os
import pathlib
import random
from collections.abc import Iterable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from fastpost import recorded
from fastpost._records import record
from fastpost.errors import UsageError
from fastpost.recorded import Contents, Entry, Recorded, head
from fastpost.sources import Batch, Upload, mtime_ns, walk
from fastpost.target import Target, parse

TARGET = parse("https://store.example/dav/")
SHOWN = "PUT https://store.example/dav/"
ENTRIES = [Entry(b"a", 1, 2, 3), Entry(b"folder/\xff\n", 0, -1, 2**64 - 1), Entry(b"x" * 4000, 2**62, 2**62, 0)]


def journal(entries: Iterable[Entry], target: Target = TARGET) -> bytes:
    return head(target) + b"".join(record(*entry) for entry in entries)


def contents(octets: bytes) -> Contents:
    return Contents(io.BytesIO(octets), "the journal")


def read_all(octets: bytes) -> tuple[str | None, list[Entry], int]:
    found = contents(octets)
    entries = list(found.entries())
    return found.target, entries, found.intact


# --- the format -------------------------------------------------------------------------------------------------------


@hypothesis.given(
    st.lists(
        st.builds(
            Entry,
            st.binary(max_size=100),
            st.integers(0, 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 2**64 - 1),
        )
    )
)
def test_what_is_written_is_read(entries: list[Entry]) -> None:
    octets = journal(entries)
    assert read_all(octets) == (SHOWN, entries, len(octets))


def test_a_journal_cut_at_any_octet_holds_what_is_whole() -> None:
    octets = journal(ENTRIES)
    ends = [len(journal(ENTRIES[:count])) for count in range(len(ENTRIES) + 1)]
    for length in (0, *range(len(b"fastpost journal "), len(octets) + 1)):
        target, entries, intact = read_all(octets[:length])
        whole = [end for end in ends if end <= length]
        assert entries == ENTRIES[: max(0, len(whole) - 1)]
        assert target == (SHOWN if whole else None)
        if whole:
            assert intact == whole[-1]


def test_damage_at_any_octet_costs_its_record_alone() -> None:
    entries = [Entry(b"%d" % number * 40, number, -number, 2**64 - 1 - number) for number in range(4)]
    ends = [len(journal(entries[:count])) for count in range(len(entries) + 1)]
    octets = journal(entries)
    for at in range(ends[0], len(octets)):
        damaged = bytearray(octets)
        damaged[at] ^= 1 << at % 8
        found = contents(bytes(damaged))
        hit = next(number for number in range(4) if at < ends[number + 1])
        assert list(found.entries()) == [entry for entry in entries if entry is not entries[hit]]
        last = hit == 3
        assert found.damaged == (0 if last else ends[hit + 1] - ends[hit])
        assert found.intact == (ends[3] if last else len(octets))


@pytest.mark.parametrize(
    "length",
    [1, 4096, recorded.BUFFER - 1, recorded.BUFFER, recorded.BUFFER + 20_000, 3 * recorded.BUFFER + 5],
)
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_what_lies_behind_a_stretch_of_damage_is_found(length: int, kind: str) -> None:
    damage = bytes(length) if kind == "zeros" else random.Random(length).randbytes(length)
    octets = journal(ENTRIES[:1]) + damage
    found = contents(octets + b"".join(record(*entry) for entry in ENTRIES[1:]) + b"torn")
    assert list(found.entries()) == ENTRIES
    assert found.damaged == length
    assert found.intact == len(octets) + len(journal(ENTRIES[1:])) - len(journal([]))


def test_damage_in_a_long_record_does_not_hide_the_next_one() -> None:
    """Its length may be wrong as well, and lead far beyond the end."""
    long, short = Entry(b"x" * 65_535, 1, 2, 3), Entry(b"y", 1, 2, 3)
    octets = bytearray(journal([short, long, short]))
    octets[len(journal([short])) + 5] = 0xFE
    assert read_all(bytes(octets)) == (SHOWN, [short, short], len(octets))


@pytest.mark.parametrize("tail", [bytes(1), bytes(30), bytes(5000), b"\xff" * 100])
def test_what_a_lost_write_leaves_behind_is_no_record(tail: bytes) -> None:
    """After a power loss a file may be longer than what was written, with zeros at its end."""
    octets = journal(ENTRIES)
    assert read_all(octets + tail) == (SHOWN, ENTRIES, len(octets))


@hypothesis.given(st.binary(max_size=300))
def test_any_octets_are_a_journal_or_a_usage_error(octets: bytes) -> None:
    for start in (b"", b"fastpost journal ", head(TARGET)):
        try:
            _, entries, intact = read_all(start + octets)
        except UsageError:
            continue
        assert intact <= len(start + octets)
        assert len(entries) <= len(octets)


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (b"fastpost journal 2\n...", "format 2, and this version of fastpost knows format 1 only"),
        (b"fastpost journal two\n", "is no journal of fastpost"),
        (b"f", "is no journal of fastpost"),
        (b"fastpost journal", "is no journal of fastpost"),
        (b"photos and letters", "is no journal of fastpost"),
        (b"\x00" * 100, "is no journal of fastpost"),
    ],
)
def test_other_files_are_refused_with_the_cure(octets: bytes, told: str) -> None:
    with pytest.raises(UsageError, match="name another file") as caught:
        contents(octets)
    assert told in str(caught.value)
    assert "the journal" in str(caught.value)


def test_a_target_that_no_record_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="shorten it"):
        head(parse("https://store.example/" + "x" * 70_000))


# --- what is recorded -------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def entry(path: pathlib.Path, name: bytes | None = None) -> Entry:
    found = path.stat()
    return Entry(name or os.fsencode(path.name), found.st_size, mtime_ns(found), found.st_ino)


def sifted(known: Recorded, folder: pathlib.Path, **options: Any) -> tuple[list[bytes], list[bytes]]:
    """Return the names that are to be sent, and those that were."""
    batches = list(known.sift(walk([folder], **options)))
    return (
        sorted(upload.name for batch in batches for upload in batch.uploads),
        sorted(upload.name for batch in batches for upload in batch.recorded),
    )


def test_what_is_recorded_and_unchanged_is_left_out(tree: pathlib.Path) -> None:
    known = Recorded(shared=False)
    assert sifted(known, tree) == ([b"a", b"b", b"c"], [])
    for name in ("a", "b"):
        known.add(entry(tree / name))
    assert sifted(known, tree) == ([b"c"], [b"a", b"b"])
    assert len(known) == 2


def test_a_file_dated_in_the_year_2300_is_recorded(tree: pathlib.Path) -> None:
    """Its nanoseconds are more than the 64 bits of a journal hold."""
    os.utime(tree / "a", ns=(0, 10_413_792_000 * 10**9))
    known = Recorded(shared=False)
    known.add(entry(tree / "a"))
    assert sifted(known, tree) == ([b"b", b"c"], [b"a"])


@pytest.mark.parametrize("what", ["size", "mtime", "inode"])
def test_a_file_that_changed_in_any_way_is_sent(tree: pathlib.Path, what: str) -> None:
    known = Recorded(shared=False)
    known.add(entry(tree / "a"))
    before = (tree / "a").stat()
    match what:
        case "size":
            (tree / "a").write_bytes(b"longer")
            os.utime(tree / "a", ns=(0, before.st_mtime_ns))
        case "mtime":
            os.utime(tree / "a", ns=(0, before.st_mtime_ns + 1))
        case "inode":
            (tree / "new").write_bytes(b"a")
            os.utime(tree / "new", ns=(0, before.st_mtime_ns))
            (tree / "new").rename(tree / "a")
    assert sifted(known, tree)[0] == [b"a", b"b", b"c"]


def test_a_file_that_is_what_it_was_before_its_last_upload_is_sent(tree: pathlib.Path) -> None:
    """The server holds the later one: for each name only the last record counts."""
    known = Recorded(shared=False)
    known.add(entry(tree / "a"))
    known.add(entry(tree / "b", b"a"))
    assert sifted(known, tree)[1] == []


def test_where_all_go_to_one_url_files_of_one_name_are_kept_apart(tree: pathlib.Path) -> None:
    known = Recorded(shared=True)
    known.add(entry(tree / "a"))
    known.add(entry(tree / "b", b"a"))
    assert sifted(known, tree)[1] == [b"a"]
    assert len(known) == 2


def test_a_file_that_is_gone_is_left_to_who_opens_it(tree: pathlib.Path) -> None:
    known = Recorded(shared=False)
    known.add(entry(tree / "a"))
    batch = Batch()
    batch.uploads = [Upload(os.fsencode(tree / "gone"), b"a")]
    (after,) = known.sift([batch])
    assert len(after.uploads) == 1


def test_a_link_is_recorded_as_what_it_points_to(tree: pathlib.Path) -> None:
    (tree / "link").symlink_to("a")
    known = Recorded(shared=False)
    known.add(entry(tree / "a", b"link"))
    assert sifted(known, tree, follow_symlinks=True)[1] == [b"link"]
    (tree / "link").unlink()
    (tree / "link").symlink_to("b")
    assert sifted(known, tree, follow_symlinks=True)[1] == []


def test_a_link_that_is_not_followed_is_not_what_it_points_to(tree: pathlib.Path) -> None:
    known = Recorded(shared=False)
    known.add(entry(tree / "a"))
    (tree / "a").rename(tree / "elsewhere")
    (tree / "a").symlink_to("elsewhere")
    batch = Batch()
    batch.uploads = [Upload(os.fsencode(tree / "a"), b"a", follow=follow) for follow in (False, True)]
    (after,) = known.sift([batch])
    assert [upload.follow for upload in after.uploads] == [False]
    assert [upload.follow for upload in after.recorded] == [True]


def test_a_file_that_was_uploaded_twice_is_held_once(tree: pathlib.Path) -> None:
    known = Recorded(shared=False)
    for _ in range(2):
        known.add(entry(tree / "a"))
    assert len(known) == 1


def test_hashes_are_found_again_however_many() -> None:
    """It grows, and holds 0 and what probes past others."""
    rng = random.Random(1)
    expected = {rng.getrandbits(64) - 2**63: rng.getrandbits(64) - 2**63 for _ in range(5_000)}
    expected |= {key << 20: 7 for key in range(3_000)} | {0: 5, 1: 0}
    table = recorded._Hashes()
    for key, value in expected.items():
        if key != 1:
            table.put(key, value)
    assert table.count == len(expected) - 1
    assert all(table.get(key) == (value or 1) for key, value in expected.items() if key > 1 or key < 0)
    assert table.get(0) == 5
    assert table.get(12345) == 0
    table.put(7 << 20, 9)
    assert table.get(7 << 20) == 9


def test_reading_changes_nothing_and_a_missing_journal_is_empty(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "journal"
    assert len(recorded.read(str(path), TARGET)) == 0
    assert not path.exists()
    torn = journal(ENTRIES)[:-1]
    path.write_bytes(torn)
    assert len(recorded.read(str(path), TARGET)) == 2
    assert path.read_bytes() == torn
    with pytest.raises(UsageError, match="not PUT https://other"):
        recorded.read(str(path), parse("https://other.example/"))


def test_what_is_masked_or_of_another_method_is_another_target(tmp_path: pathlib.Path) -> None:
    """Nobody can read from the file what its secrets are."""
    path = tmp_path / "journal"
    mine = parse("https://store.example/{path}?author=s3cret")
    path.write_bytes(journal(ENTRIES, mine))
    assert b"s3cret" not in path.read_bytes()
    assert len(recorded.read(str(path), parse("https://store.example:443/{path}?author=s3cret"))) == len(ENTRIES)
    for other, told in (
        (parse("https://store.example/{path}?author=other"), r"with another value where \*\*\* stands: name another"),
        (parse("https://store.example/{path}?author=s3cret", method="POST"), "not POST https://store.example/"),
    ):
        with pytest.raises(UsageError, match=told):
            recorded.read(str(path), other)
