"""name_lists: names as `find` and people write them."""

from __future__ import annotations

import io
import os

import pytest

from fastpost.errors import UsageError
from fastpost.name_lists import NameList, names_in


def names(octets: bytes, *, by_nul: bool = False) -> list[bytes]:
    return [name for some in names_in([NameList(io.BytesIO(octets), by_nul, "list")]) for name in some]


def test_a_name_a_line() -> None:
    assert names(b"a\nb/c\r\n\n#x\n;y\n  d e  \nlast") == [b"a", b"b/c", b"#x", b";y", b"  d e  ", b"last"]


def test_a_mark_of_the_byte_order_is_no_part_of_a_name() -> None:
    assert names(b"\xef\xbb\xbfa\n\xef\xbb\xbfb") == [b"a", b"\xef\xbb\xbfb"]
    assert names(b"\xef\xbb\xbfa\0", by_nul=True) == [b"\xef\xbb\xbfa"]


def test_a_nul_behind_each_name_lets_it_hold_anything_else() -> None:
    octets = b"a\0\n#b\n\0 c \0\0last\0"
    assert names(octets, by_nul=True) == [b"a", b"\n#b\n", b" c ", b"last"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b"./a", b"a"),
        (b"/a/b", b"a/b"),
        (b"a//b/./c/", b"a/b/c"),
        (b".", b"."),
        (b".hidden", b".hidden"),
        (b"a/", b"a"),
    ],
)
def test_names_are_relative(written: bytes, name: bytes) -> None:
    assert names(written, by_nul=True) == [name]


def test_names_come_as_they_are_written() -> None:
    """Whoever writes a list slowly has what is written already go up."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as out:
        found = names_in([NameList(stream, False, "-")])
        out.write(b"a\nb\nc")
        assert next(found) == [b"a", b"b"]
        out.write(b"d\n")
        assert next(found) == [b"cd"]


def test_a_name_that_is_longer_than_a_read() -> None:
    long = b"x" * 50_000
    assert names(long + b"\n" + long) == [long, long]


def test_several_lists() -> None:
    lists = [NameList(io.BytesIO(b"a\n"), False, "one"), NameList(io.BytesIO(b"b\0"), True, "two")]
    assert list(names_in(lists)) == [[b"a"], [b"b"]]


def test_what_is_no_list() -> None:
    with pytest.raises(UsageError, match=r"list: .* without a line.s end: is it a list with NULs"):
        names(b"x" * 200_000)
    with pytest.raises(UsageError, match=r"list: .* without a NUL: is it a list with lines"):
        names(b"x" * 200_000, by_nul=True)
    with pytest.raises(UsageError, match=r"list: a name holds a NUL: .*--files-from0"):
        names(b"a\0b\0")


def test_a_list_that_can_not_be_read() -> None:
    class Broken(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(UsageError, match="list can't be read: Input/output error"):
        list(names_in([NameList(Broken(), False, "list")]))
