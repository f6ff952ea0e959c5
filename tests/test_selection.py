"""selection: which files the rules take, in which order they count, and which folders are entered."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_globs import NAMES, PATTERNS

from fastpost.errors import UsageError
from fastpost.globs import Glob
from fastpost.selection import Rule, Selection, filter_lines, rules
from fastpost.sources import Upload


def chosen(include: tuple[str, ...] = (), exclude: tuple[str, ...] = (), *lines: bytes) -> Selection:
    return Selection(rules(include, exclude, filter_lines(lines, "rules.txt")))


def test_without_rules_everything_is_taken() -> None:
    assert chosen().takes(b"a/b")
    assert chosen().enters(b"a")


def test_an_include_leaves_out_the_rest() -> None:
    one = chosen(("*.jpg",))
    assert one.takes(b"a/b.jpg")
    assert not one.takes(b"a/b.png")
    assert one.enters(b"a")


def test_an_exclude_takes_the_rest() -> None:
    one = chosen((), ("*.tmp", "cache/"))
    assert not one.takes(b"a.tmp")
    assert not one.takes(b"x/cache/a")
    assert one.takes(b"a")
    assert not one.enters(b"x/cache")
    assert one.enters(b"x")


def test_includes_count_before_excludes() -> None:
    one = chosen(("/a/*.jpg",), ("a/b.jpg", "/a/c/"))
    assert one.takes(b"a/b.jpg")
    assert not one.takes(b"x/a/b.jpg")
    assert one.enters(b"a")
    assert not one.enters(b"a/c")
    assert not one.enters(b"x")


def test_the_first_line_that_matches_decides() -> None:
    one = chosen((), (), b"# photographs\n", b"; too\n", b"\n", b"+ keep.jpg\n", b"- *.jpg\n", b" + *.png \r\n", b"- *")
    assert [one.takes(name) for name in (b"keep.jpg", b"a.jpg", b"a.png", b"a.txt")] == [True, False, True, False]


def test_an_exclamation_mark_forgets_what_came_before() -> None:
    assert chosen((), ("*.jpg",), b"!\n", b"- *.png").takes(b"a.jpg")
    assert not chosen((), ("*.jpg",), b"!\n", b"- *.png").takes(b"a.png")


@pytest.mark.parametrize("line", [b"*.jpg\n", b"+*.jpg\n", b"include x\n", b"+\n"])
def test_any_other_line_is_a_mistake_with_its_number(line: bytes) -> None:
    with pytest.raises(UsageError, match=r"rules\.txt, line 2: .* write '\+ pattern'"):
        chosen((), (), b"- a\n", line)


def test_names_that_are_no_text() -> None:
    assert not chosen((), ("\udcff*",)).takes(b"\xff\xfe")
    assert not chosen((), (), b"- \xff*").takes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("least", "most", "taken"), [(None, 10, [0, 10]), (10, None, [10, 11]), (10, 10, [10]), (0, None, [0, 10, 11])]
)
def test_sizes_are_within_both_limits(least: int | None, most: int | None, taken: list[int]) -> None:
    uploads = [Upload(b"/f", b"f", size) for size in (0, 10, 11, -1)]
    found = Selection(min_size=least, max_size=most).sized(uploads)
    assert [one.size for one in found] == [*taken, -1]  # -1: who opens it will find out why


def test_limits_that_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="no file is both"):
        Selection(min_size=2, max_size=1)


@given(st.lists(st.tuples(st.booleans(), PATTERNS), max_size=4), NAMES)
def test_a_folder_is_entered_when_anything_in_it_is_taken(given: list[tuple[bool, str]], name: str) -> None:
    made = []
    for takes, pattern in given:
        try:
            made.append(Rule(takes, Glob(pattern)))
        except UsageError:
            continue
    one = Selection(made)
    if one.takes(name.encode()):
        for folder in itertools.accumulate(name.split("/")[:-1], lambda above, part: f"{above}/{part}"):
            assert one.enters(folder.encode())
