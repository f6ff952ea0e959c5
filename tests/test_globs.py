"""globs: what rclone's patterns match, and which folders they can be satisfied in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
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
        ("[!-a]x", ["Bx", "zx"], ["-x", "ax", "/x"]),
        ("[!a-]x", ["Bx", "zx"], ["-x", "ax", "/x"]),
        ("[-a]x", ["-x", "ax"], ["bx", "/x"]),
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
        ("/{a/b,c}/d", ["a", "a/b", "c"], ["x", "a/x"]),
        ("/{{a|b}}/c", ["a", "x", "x/y"], []),  # it may hold any number of slashes
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


PIECES = ["a", "b", "/", "*", "**", "?", "[ab]", "[!a]", "[!-a]", "[*-z]", "{a,b}", "{a/b,b}", "{{a.*}}", "\\*", "ab/"]
NAMES = st.lists(st.sampled_from(["a", "b", "ab", "*", "aab"]), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


def tried(glob: str, name: str) -> bool:
    """Match by trying everything, from where the pattern is now: the meaning of patterns in a dozen lines."""
    if not glob:
        return not name
    if glob.startswith("**"):
        return any(tried(glob[2:], name[skipped:]) for skipped in range(len(name) + 1))
    if glob.startswith("*"):
        return any(tried(glob[1:], name[end:]) for end in range(len(name) + 1) if "/" not in name[:end])
    if glob.startswith("{"):
        ways, _, rest = glob[1:].partition("}")
        return any(tried(f"{way}\0{rest}", name) for way in ways.split(","))  # two stars that meet are no **
    if glob.startswith("\0"):
        return tried(glob[1:], name)
    if glob.startswith("\\"):
        return name.startswith(glob[1]) and tried(glob[2:], name[1:])
    if glob.startswith("["):
        held, _, rest = glob[1:].partition("]")
        negated = held.startswith("!")
        characters = {"a-b": "ab", "a": "a", "*-z": "".join(map(chr, range(42, 123)))}[held.removeprefix("!")]
        return bool(name) and name[0] != "/" and (name[0] in characters) != negated and tried(rest, name[1:])
    if glob.startswith("?"):
        return bool(name) and name[0] != "/" and tried(glob[1:], name[1:])
    return name.startswith(glob[0]) and tried(glob[1:], name[1:])


SIMPLE = ["a", "b", "/", "*", "**", "?", "[a-b]", "[!a]", "[*-z]", "{a,b}", "{a*,*b}", "{a/b,b,}", "\\*"]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(SIMPLE), min_size=1, max_size=8).map("".join), st.booleans(), NAMES)
def test_it_is_what_trying_everything_finds(pattern: str, anchored: bool, name: str) -> None:
    pattern = pattern.lstrip("/") or "a"
    try:
        glob = Glob(f"/{pattern}" if anchored else pattern)
    except UsageError:
        return
    whole = pattern + "**" if pattern.endswith("/") else pattern
    starts = [0] if anchored else [0, *(at + 1 for at, char in enumerate(name) if char == "/")]
    assert glob.matches(name) == any(tried(whole, name[at:]) for at in starts)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*-*-*-*-*-*-*-*.jpg", "-" * 250),
        ("{*a,*b}{*a,*b}{*a,*b}{*a,*b}x", "ab" * 120),
        ("**/*-*-*/**/*-*-*/**-*-x", "-/-" * 1300),
        ("*?*?*?*?*?*?*?*?*x", "y" * 255),
        ("**a**a**a**a**a**x", "a" * 4000),
        ("*-*-*-*-*-*-*-*{{\\.jpe?g}}", "-" * 250),
        ("**a**b*c", "a/" * 1000 + "b" * 1000),
        ("a/**b*c", "a/" * 1000 + "b" * 2000),
        ("*-*-*-*-*-*-*{{x?}}*-*-*-*-*-*-*y", "-" * 60),
    ],
)
@pytest.mark.timeout(20)
def test_no_name_keeps_a_pattern_busy(pattern: str, name: str) -> None:
    """A backtracking engine would need years for each of them."""
    assert not Glob(pattern).matches(name)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"{a,b}{{(x)\1}}", "asked for again"),
        ("{{(?P<q>x)(?P=q)}}", "asked for again"),
        ("{{(?x) a }}", "only i, m and s"),
        ("{{a(?i:b)}}", "at the beginning"),
        ("{{(?i)ä}}", "ASCII letters only"),
        ("{{(a)?(?(1)c|d)}}", "asked for again"),
        ("{{a{,3}}}", "write {0,3}"),
        ("[z-a]", "bad character range z-a$"),
    ],
)
def test_what_only_pythons_engine_knows(pattern: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Glob(pattern)


def test_what_looks_ahead_prunes_nothing() -> None:
    glob = Glob("/cache/{{(?!keep)}}**")
    assert not glob.matches("cache/keep")
    assert glob.matches("cache/drop")
    assert not glob.matches_all_below("cache")


def test_a_dot_takes_no_newline_unless_asked_to() -> None:
    assert not Glob("{{a.b}}").matches("a\nb")
    assert Glob("{{(?s)a.b}}").matches("a\nb")
    assert Glob("{{[:;]x}}").matches(":x")


def test_groups_are_each_variants_own() -> None:
    glob = Glob("{a,b}{{(?P<q>x)|y}}")
    assert [name for name in ("ax", "bx", "by", "cx") if glob.matches(name)] == ["ax", "bx", "by"]
    assert Glob(r"a{{\\1}}").matches(r"a\1"), "a backslash and a digit"


@pytest.mark.parametrize("pattern", ["{{[[:alpha:]]}}", "{{a{99999999999}}}", "{{" + "(" * 3000 + ")" * 3000 + "}}"])
def test_expressions_that_no_engine_takes(pattern: str) -> None:
    with pytest.raises(UsageError, match="can't be meant"):
        Glob(pattern)


def test_expressions_are_as_in_go() -> None:
    assert not Glob(r"{{\w+}}.txt").matches("é.txt")
    assert not Glob(r"{{\d}}").matches("٣")
    assert Glob("{{(?i)a}}.TXT").matches("A.TXT")
    assert not Glob("{{(?i)a}}.TXT").matches("A.txt")
    with pytest.raises(UsageError, match="position 0"):
        Glob("*{{(}}")


def test_alternatives_have_an_end() -> None:
    with pytest.raises(UsageError, match="1,000 ways"):
        Glob("{a,b}" * 10)


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
