"""ordering: all files by size or name, and nothing lost."""

from __future__ import annotations

import pytest

from fastpost.errors import FileUnreadable
from fastpost.ordering import ordered
from fastpost.sources import Batch, Rejected, Upload

SIZES = [(b"b", 3), (b"a", 5), (b"c", 3), (b"\xff", 0)]


def batches() -> list[Batch]:
    made = []
    for name, size in SIZES:
        batch = Batch()
        batch.uploads = [Upload(b"/" + name, name, size)]
        batch.rejected = [Rejected(b"no" + name, b"/", FileUnreadable("no"))]
        batch.skipped = 1
        made.append(batch)
    return made


@pytest.mark.parametrize(
    ("key", "descending", "names"),
    [
        ("name", False, [b"a", b"b", b"c", b"\xff"]),
        ("name", True, [b"\xff", b"c", b"b", b"a"]),
        ("size", False, [b"\xff", b"b", b"c", b"a"]),
        ("size", True, [b"a", b"b", b"c", b"\xff"]),
        ("walk", False, [b"b", b"a", b"c", b"\xff"]),
        ("walk", True, [b"\xff", b"c", b"a", b"b"]),
    ],
)
def test_the_order(key: str, descending: bool, names: list[bytes]) -> None:
    found = list(ordered(batches(), key, descending))
    assert [upload.name for batch in found for upload in batch.uploads] == names
    assert sum(len(batch.rejected) for batch in found) == 4
    assert sum(batch.skipped for batch in found) == 4


def test_batches_stay_small() -> None:
    one = Batch()
    one.uploads = [Upload(b"/f", b"%d" % number, number) for number in range(2500)]
    assert [len(batch.uploads) for batch in ordered([one], "size")] == [1024, 1024, 452]


def test_nothing_found_is_no_batch() -> None:
    assert list(ordered([], "name")) == []
