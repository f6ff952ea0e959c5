"""globs: what rclone's patterns match, and which folders they can be satisfied in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpost.errors import UsageError
from fastpost.globs import Glob


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        # From rclone's own documentation of its patterns.
        ("*.jpg", ["file.jpg", "dir/file.jpg", ".jpg"], ["file.jpg.bak", "file.jpeg", "file.jpg/x"]),
        ("/*.jpg", ["file.jpg"], ["dir/file.jpg"]),
        ("file.jpg", ["file.jpg", "directory/file.jpg"], ["afile.jpg", "directory/afile.jpg"]),
        ("/dir/file", ["dir/file"], ["dir/file/x", "a/dir/file"]),
        ("dir/file", ["dir/file", "a/dir/file"], ["adir/file", "dir/files"]),
        ("dir/", ["dir/a", "dir/b/c", "x/dir/a"], ["dir", "adir/a"]),
        ("/dir/", ["dir/a", "dir/b/c"], ["x/dir/a"]),
        ("dir/*", ["dir/a", "x/dir/a"], ["dir/a/b"]),
        ("dir/**", ["dir/a", "dir/a/b/c"], ["dir"]),
        ("/dir/**.txt", ["dir/a.txt", "dir/a/b.txt"], ["dir/a.txt/b"]),
        ("**", ["a", "a/b"], []),
        ("/a**b", ["ab", "a/x/b", "axb"], ["xab", "abc"]),
        ("a?c", ["abc", "x/abc", "aéc"], ["ac", "abbc", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "/x"]),
        ("[!a-c]x", ["dx", "éx"], ["ax", "/x"]),
        ("[^a]x", ["bx"], ["ax"]),
        (r"[\]a]", ["]", "a"], ["\\", "b"]),
        (r"[\a-\c]", ["a", "b"], ["\\"]),
        ("[a&&b|~]", ["&", "|", "~", "a"], ["c"]),
        ("*.{jpg,png}", ["a.jpg", "d/a.png"], ["a.gif", "a.{jpg,png}"]),
        ("{a*,b}/c", ["ax/c", "b/c", "z/b/c"], ["bx/c", "c"]),
        ("/{x/y,z}", ["x/y", "z"], ["a/z", "x"]),
        ("a,b", ["a,b"], ["a"]),
        ("{{ab+}}.txt", ["abbb.txt", "x/ab.txt"], ["a.txt"]),
        (r"/{{\d{2,3}}}", ["12", "123"], ["1", "1234"]),
        (r"\*.jpg", ["*.jpg"], ["a.jpg"]),
        (r"a\{b", ["a{b"], ["a{c"]),
        ("a.b+c(d)$^|", ["a.b+c(d)$^|"], ["axb+c(d)$^|"]),
        ("two\nlines*", ["two\nlines\n!"], ["two"]),
        ("\udcff*", ["\udcffx"], ["x"]),
        ("/", ["a", "a/b"], []),
    ],
)
def test_matches(pattern: str, matching: list[str], other: list[str]) -> None:
    glob = Glob(pattern)
    assert [name for name in matching if not glob.matches(name)] == []
    assert [name for name in other if glob.matches(name)] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"),
        ("***", "two stars"),
        ("a[b", "without"),
        ("[]", "between"),
        ("[!]", "between"),
        ("a]", "without"),
        ("{a", "without"),
        ("a}", "without"),
        ("{a,{b}", "braces in braces"),
        ("{{a", "without"),
        ("{{(}}", "unterminated"),
        ("a\\", "follows"),
        ("[[:alpha:]]", "a-zA-Z"),
        ("[z-a]", "range"),
    ],
)
def test_what_can_not_be_meant(pattern: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Glob(pattern)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pattern", ["[+--]", "[a||b]", "[[a]", "[a~~b]"])
def test_python_has_nothing_to_say_of_a_class(pattern: str) -> None:
    Glob(pattern)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("*.jpg", ["a", "a/b/c"], []),
        ("/a/*.jpg", ["a"], ["b", "a/b"]),
        ("/a/b*/c", ["a", "a/bx"], ["a/c", "a/b/c", "x"]),
        ("/a/**", ["a", "a/b/c"], ["b"]),
        ("/a/", ["a", "a/b/c"], ["b"]),
        ("/{a/b,c}/d", ["a", "c", "x"], []),  # which of them is not looked at
        ("/top", [], ["top", "a"]),
    ],
)
def test_in_which_folders_a_match_may_be(pattern: str, inside: list[str], outside: list[str]) -> None:
    glob = Glob(pattern)
    assert [folder for folder in inside if not glob.may_match_below(folder)] == []
    assert [folder for folder in outside if glob.may_match_below(folder)] == []


@pytest.mark.parametrize(
    ("pattern", "all_of", "not_all_of"),
    [
        ("dir/", ["dir", "x/dir", "dir/sub"], ["adir", "x"]),
        ("/dir/**", ["dir", "dir/sub"], ["x/dir"]),
        ("**", ["a"], []),
        ("a**", ["ab", "x/a"], ["b"]),
        ("*", [], ["a"]),
        (r"dir/\**", [], ["dir"]),
    ],
)
def test_of_which_folders_everything_matches(pattern: str, all_of: list[str], not_all_of: list[str]) -> None:
    glob = Glob(pattern)
    assert [folder for folder in all_of if not glob.matches_all_below(folder)] == []
    assert [folder for folder in not_all_of if glob.matches_all_below(folder)] == []


PIECES = ["a", "b", "/", "*", "**", "?", "[ab]", "[!a]", "{a,b}", "{a/b,b}", "{{a.*}}", "\\*", "ab/"]
NAMES = st.lists(st.sampled_from(["a", "b", "ab", "*", "aab"]), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


@given(PATTERNS, NAMES)
def test_what_is_said_of_folders_holds_for_every_name_in_them(pattern: str, name: str) -> None:
    try:
        glob = Glob(pattern)
    except UsageError:
        return
    parts = name.split("/")
    for count in range(1, len(parts)):
        folder = "/".join(parts[:count])
        if glob.matches(name):
            assert glob.may_match_below(folder)
        else:
            assert not glob.matches_all_below(folder)
