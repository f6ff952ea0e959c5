r"""rclone's patterns for names: `*.jpg`, `/top/**`, `dir/`, `{a,b}`, `[a-z]`, `{{regular expression}}`.

`*` and `?` stop at a slash, `**` does not. A pattern that begins with a slash is matched from the top, any other at the
end of a name, behind a slash or as a whole. One that ends with a slash means all that is in folders of that name. `\`
takes the next character as it is.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

from fastpost.errors import UsageError

#: What a slash at the end stands for: `dir/` is `dir/**`.
_ALL_BELOW: Final = "**"


class Glob:
    """One pattern. Raises UsageError when it can't be meant.

    Args:
        pattern: as the user wrote it.
    """

    __slots__ = ("_deep", "_folders", "_to_the_end", "_whole", "pattern")

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise UsageError("a pattern is empty: write * for every file (is a shell variable unset?)")
        self.pattern = pattern
        glob = pattern + _ALL_BELOW if pattern.endswith("/") else pattern
        anchored = glob.startswith("/")
        parts = _Parts(glob.removeprefix("/"), pattern)
        start = "" if anchored else "(?:.*/)?"
        self._whole = _compiled(start + "/".join(parts.regexes), pattern)
        #: The folders on the way to what it can match, by a regular expression each; None: any folder may hold that.
        self._folders = [_compiled(regex, pattern) for regex in parts.folders] if anchored else None
        #: Behind those folders there may be others.
        self._deep = parts.deep
        self._to_the_end = glob.endswith(_ALL_BELOW) and not glob.endswith("\\" + _ALL_BELOW)

    def matches(self, name: str) -> bool:
        """Is it a name that the pattern means? Names are relative, with "/" between their parts."""
        return self._whole.fullmatch(name) is not None

    def matches_all_below(self, folder: str) -> bool:
        """Does it surely match everything in this folder? What ends with `**` goes on over whatever follows."""
        return self._to_the_end and self.matches(folder + "/")

    def may_match_below(self, folder: str) -> bool:
        """May it match anything in this folder, or further down? True where that is not known."""
        if self._folders is None:
            return True
        names = folder.split("/")
        if len(names) > len(self._folders) and not self._deep:
            return False
        return all(regex.fullmatch(name) for regex, name in zip(self._folders, names, strict=False))


class _Parts:
    """A pattern as regular expressions, one for each part between slashes.

    Attributes:
        regexes: of all parts; one that holds an alternative or expression with a slash counts as one part.
        folders: of those parts that stand for one folder each, from the top.
        deep: what follows those folders may hold any number of slashes.
    """

    def __init__(self, glob: str, pattern: str) -> None:
        self._rest = glob
        self._pattern = pattern
        self._part = ""
        self.regexes: list[str] = []
        self.folders: list[str] = []
        self.deep = False
        while self._rest:
            self._take()
        self.regexes.append(self._part)

    def _take(self) -> None:
        """Translate what comes next."""
        char, self._rest = self._rest[0], self._rest[1:]
        if char == "/":
            self._end_part()
        elif char == "{" and self._rest.startswith("{"):
            self._part += self._expression()
        elif char == "{":
            self._part += self._alternatives()
        elif char == "}":
            raise _mistake(self._pattern, "a '}' without '{'")
        else:
            self._part += self._one(char)

    def _end_part(self) -> None:
        if not self.deep:
            self.folders.append(self._part)
        self.regexes.append(self._part)
        self._part = ""

    def _one(self, char: str) -> str:
        """Return the regular expression of what begins with `char` and is neither slash nor brace."""
        if char == "*":
            return self._stars()
        if char == "?":
            return "[^/]"
        if char == "[":
            return self._class()
        if char == "]":
            raise _mistake(self._pattern, "a ']' without '['")
        if char == "\\":
            if not self._rest:
                raise _mistake(self._pattern, "nothing follows its last '\\'")
            char, self._rest = self._rest[0], self._rest[1:]
            self.deep |= char == "/"
        return re.escape(char)

    def _stars(self) -> str:
        if not self._rest.startswith("*"):
            return "[^/]*"
        self._rest = self._rest[1:]
        if self._rest.startswith("*"):
            raise _mistake(self._pattern, "more than two stars in a row")
        self.deep = True
        return ".*"

    def _class(self) -> str:
        negated = self._rest[:1] in ("!", "^")
        found = re.match(r"((?:\\.|[^\]\\])+)\]", self._rest[negated:], re.DOTALL)
        if found is None:
            raise _mistake(self._pattern, "a '[' without ']', or nothing between them")
        if "[:" in found[1]:
            raise _mistake(self._pattern, "classes with a name such as [:alpha:] aren't known here: write a-zA-Z")
        self._rest = self._rest[negated + found.end() :]
        held = re.sub(r"\\(.)", lambda one: re.escape(one[1]), found[1], flags=re.DOTALL)
        return f"[^/{held}]" if negated else f"(?!/)[{held}]"

    def _alternatives(self) -> str:
        """Translate {a,b}; they may not be nested."""
        regex = "(?:"
        while self._rest:
            char, self._rest = self._rest[0], self._rest[1:]
            if char == "}":
                return regex + ")"
            if char == "{":
                raise _mistake(self._pattern, "braces in braces")
            self.deep |= char == "/"
            regex += "|" if char == "," else self._one(char)
        raise _mistake(self._pattern, "a '{' without '}'")

    def _expression(self) -> str:
        """Translate {{…}}: a regular expression, which may match slashes and end with a brace of its own."""
        found = re.match(r"\{(.*?)\}\}(?!\})", self._rest, re.DOTALL)
        if found is None:
            raise _mistake(self._pattern, "a '{{' without '}}'")
        regex, self._rest = found[1], self._rest[found.end() :]
        self.deep = True
        return f"(?:{regex})"


def _compiled(regex: str, pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Python may have other plans for "--" and "[[" in a class
            return re.compile(regex, re.DOTALL)
    except re.error as error:
        raise _mistake(pattern, str(error)) from None


def _mistake(pattern: str, what: str) -> UsageError:
    return UsageError(f"the pattern {pattern!r} can't be meant: {what}")
