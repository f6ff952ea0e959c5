r"""rclone's patterns for names: `*.jpg`, `/top/**`, `dir/`, `{a,b}`, `[a-z]`, `{{regular expression}}`.

`*` and `?` stop at a slash, `**` does not. A pattern that begins with a slash is matched from the top, any other at the
end of a name, behind a slash or as a whole. One that ends with a slash means all that is in folders of that name. `\`
takes the next character as it is.

However many stars there are, a name is matched in time that grows with its length (squared, with `**`): what a star
skipped is never looked at again. Names are whatever others have called their files.
"""

from __future__ import annotations

import itertools
import re
import warnings
from typing import Final, NamedTuple

from fastpost.errors import UsageError

#: What a slash at the end stands for: `dir/` is `dir/**`.
_ALL_BELOW: Final = "**"
#: Ways to choose among all the alternatives of one pattern.
_MOST_VARIANTS: Final = 1000


_NAMES_OF_CLASSES: Final = "classes with a name such as [:alpha:] aren't known here: write a-zA-Z"
#: What means something else in an expression for Python than for Go, or nothing for one of them.
_NOT_AS_IN_GO: Final = {
    r"\[:\^?[a-z]+:\]": _NAMES_OF_CLASSES,
    r"\A\(\?[A-Za-z]+\)": "of flags only i, m and s are known, at the beginning, as in {{(?i)…}}",
    r"\(\?[A-Za-z]*i[A-Za-z]*:": "flags stand at the beginning, as in {{(?i)…}}",
    r"(?<!\\)(?:\\\\)*\\[1-9]|\(\?P=|\(\?\(": "what a group has matched can't be asked for again (\\1)",
    r"\{,[0-9]+\}": "write {0,3} for {,3}",
}


class _Token(NamedTuple):
    """A part of a pattern, as a regular expression; `kind` is that of one of the constants below."""

    kind: str
    regex: str


_ONE: Final = "one"  # exactly one character that is no slash
_OWN: Final = "own"  # the user's own expression, of any length
_SLASH: Final = _Token("/", "/")
_STAR: Final = _Token("*", "[^/]*")
_STARS: Final = _Token("**", ".*")


class Glob:
    """One pattern. Raises UsageError when it can't be meant.

    Args:
        pattern: as the user wrote it.
    """

    __slots__ = ("_variants", "_whole", "pattern")

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise UsageError("a pattern is empty: write * for every file (is a shell variable unset?)")
        self.pattern = pattern
        glob = pattern + _ALL_BELOW if pattern.endswith("/") else pattern
        anchored = glob.startswith("/")
        tokens = _Parser(glob.removeprefix("/"), pattern).variants()
        self._variants = [_Variant(one, anchored, pattern) for one in tokens]
        #: All of them at once, but where they hold groups of the user's own, each with its number.
        self._whole = None if "{{" in pattern else _compiled("|".join(one.regex for one in self._variants), pattern)

    def matches(self, name: str) -> bool:
        """Is it a name that the pattern means? Names are relative, with "/" between their parts."""
        if self._whole is None:
            return any(one.whole.fullmatch(name) for one in self._variants)
        return self._whole.fullmatch(name) is not None

    def matches_all_below(self, folder: str) -> bool:
        """Does it surely match everything in this folder? What ends with `**` goes on over whatever follows."""
        return any(one.goes_on and one.whole.fullmatch(folder + "/") for one in self._variants)

    def may_match_below(self, folder: str) -> bool:
        """May it match anything in this folder, or further down? True where that is not known."""
        names = folder.split("/")
        return any(one.may_match_below(names) for one in self._variants)


class _Variant:
    """A pattern with one of each of its alternatives.

    Attributes:
        regex: of whole names.
        whole: the same, compiled.
        goes_on: what it matches, it matches with anything behind it.
    """

    def __init__(self, tokens: list[_Token], anchored: bool, pattern: str) -> None:
        self.regex = _linear(tokens) if anchored else _anywhere(tokens)
        self.whole = _compiled(self.regex, pattern)
        #: An expression of the user's may look at what follows.
        self.goes_on = tokens[-1:] == [_STARS] and all(token.kind != _OWN for token in tokens)
        self._anchored = anchored
        #: The folders on the way to what it can match, as far as they are known one by one.
        self._folders = []
        part: list[_Token] = []
        for token in tokens:
            if token is _STARS or token.kind == _OWN:
                self._deep = True
                break
            if token is _SLASH:
                self._folders.append(_compiled(_linear(part), pattern))
                part = []
            else:
                part.append(token)
        else:
            self._deep = False

    def may_match_below(self, names: list[str]) -> bool:
        if not self._anchored:
            return True
        if len(names) > len(self._folders) and not self._deep:
            return False
        return all(regex.fullmatch(name) for regex, name in zip(self._folders, names, strict=False))


def _linear(tokens: list[_Token]) -> str:
    """Return the regular expression of a whole variant, without needless backtracking.

    Of all places where what follows a star could be, the first one is as good as any, as long as the next star may skip
    at least as much: so that place is never given up again (an atomic group). The last star takes what is left; so does
    one before an expression of the user's, of which nothing is known.
    """
    for index, token in enumerate(tokens):
        if token.kind == _OWN:
            return _linear(tokens[:index]) + token.regex + _linear(tokens[index + 1 :])
    first, *others = _split(tokens, _STARS)
    regex = _within(first, last=not others)
    for index, part in enumerate(others):
        last = index == len(others) - 1
        regex += f".*{_within(part, last=True)}" if last else f"(?>.*?{_within(part, last=False)})"
    return regex


def _anywhere(tokens: list[_Token]) -> str:
    """The same from any slash on, or from the beginning."""
    if tokens[:1] == [_STARS]:
        return _linear(tokens)
    first, *others = _split(tokens, _STARS)
    if not others or any(token.kind == _OWN for token in first):
        return "(?:.*/)?" + _linear(tokens)
    # Of all places where the first part could be, again the first one is as good as any.
    return f"(?>(?:.*?/)??{_within(first, last=False)}){_linear([_STARS, *tokens[len(first) + 1 :]])}"


def _within(tokens: list[_Token], *, last: bool) -> str:
    """The same between two `**`; the `last` part ends where the name does."""
    first, *others = (("".join(token.regex for token in part)) for part in _split(tokens, _STAR))
    regex = first
    for index, part in enumerate(others):
        regex += f"[^/]*{part}" if last and index == len(others) - 1 else f"(?>[^/]*?{part})"
    return regex


def _split(tokens: list[_Token], at: _Token) -> list[list[_Token]]:
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token is at:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


class _Parser:
    """Reads a pattern."""

    def __init__(self, glob: str, pattern: str) -> None:
        self._rest = glob
        self._pattern = pattern

    def variants(self) -> list[list[_Token]]:
        """Return the tokens of each way to choose among the alternatives. Raises UsageError."""
        choices: list[list[list[_Token]]] = []
        ways = 1
        while self._rest:
            choices.append(self._next())
            ways *= len(choices[-1])
            if ways > _MOST_VARIANTS:
                raise self._mistake(f"its alternatives can be chosen in more than {_MOST_VARIANTS:,} ways")
        return [list(itertools.chain.from_iterable(way)) for way in itertools.product(*choices)]

    def _next(self) -> list[list[_Token]]:
        """Return the alternatives of what comes next; mostly one."""
        char = self._take()
        if char == "{" and self._rest.startswith("{"):
            return [[self._own()]]
        if char == "{":
            return self._alternatives()
        if char == "}":
            raise self._mistake("a '}' without '{'")
        return [[self._one(char)]]

    def _take(self) -> str:
        char, self._rest = self._rest[0], self._rest[1:]
        return char

    def _one(self, char: str) -> _Token:
        """Return the token that begins with `char`, which is no brace."""
        if char == "/":
            return _SLASH
        if char == "*":
            return self._stars()
        if char == "?":
            return _Token(_ONE, "[^/]")
        if char == "[":
            return self._class()
        if char == "]":
            raise self._mistake("a ']' without '['")
        if char == "\\":
            if not self._rest:
                raise self._mistake("nothing follows its last '\\'")
            char = self._take()
        return _SLASH if char == "/" else _Token(_ONE, re.escape(char))

    def _stars(self) -> _Token:
        if not self._rest.startswith("*"):
            return _STAR
        self._take()
        if self._rest.startswith("*"):
            raise self._mistake("more than two stars in a row")
        return _STARS

    def _class(self) -> _Token:
        negated = self._rest[:1] in ("!", "^")
        found = re.match(r"((?:\\.|[^\]\\])+)\]", self._rest[negated:], re.DOTALL)
        if found is None:
            raise self._mistake("a '[' without ']', or nothing between them")
        if "[:" in found[1]:
            raise self._mistake(_NAMES_OF_CLASSES)
        self._rest = self._rest[negated + found.end() :]
        held = re.sub(r"\\(.)", lambda one: re.escape(one[1]), found[1], flags=re.DOTALL)
        return _Token(_ONE, f"(?!/)[{'^' * negated}{held}]")

    def _alternatives(self) -> list[list[_Token]]:
        """Read {a,b}; they may not be nested."""
        ways: list[list[_Token]] = [[]]
        while self._rest:
            char = self._take()
            if char == "}":
                return ways
            if char == "{":
                raise self._mistake("braces in braces")
            if char == ",":
                ways.append([])
            else:
                ways[-1].append(self._one(char))
        raise self._mistake("a '{' without '}'")

    def _own(self) -> _Token:
        r"""Read {{…}}: a regular expression, which may match slashes and end with a brace of its own.

        As in Go, classes such as \w are ASCII, and flags may stand at its beginning.
        """
        found = re.match(r"\{(?:\(\?([ims]+)\))?(.*?)\}\}(?!\})", self._rest, re.DOTALL)
        if found is None:
            raise self._mistake("a '{{' without '}}'")
        flags, regex = found[1] or "", found[2]
        for other, why in _NOT_AS_IN_GO.items():
            if re.search(other, regex):
                raise self._mistake(why)
        if "i" in flags and not regex.isascii():
            raise self._mistake("(?i) knows ASCII letters only: write [Öö] for others")
        try:
            _engine(regex)
        except (re.error, OverflowError, RecursionError) as error:
            raise self._mistake(str(error)) from None
        self._rest = self._rest[found.end() :]
        dots = "" if "s" in flags else "-s"
        return _Token(_OWN, f"(?a{flags}{dots}:{regex})")

    def _mistake(self, what: str) -> UsageError:
        return _mistake(self._pattern, what)


def _compiled(regex: str, pattern: str) -> re.Pattern[str]:
    try:
        return _engine(regex)
    except (re.error, OverflowError, RecursionError) as error:
        # Without its position, which is that in the translation.
        raise _mistake(pattern, getattr(error, "msg", None) or str(error)) from None


def _engine(regex: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python may have other plans for "--" and "[[" in a class
        return re.compile(regex, re.DOTALL)


def _mistake(pattern: str, what: str) -> UsageError:
    return UsageError(f"the pattern {pattern!r} can't be meant: {what}")
