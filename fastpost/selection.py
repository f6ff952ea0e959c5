"""Which of the files that a walk finds are uploaded: by rules for their names, and by their sizes."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Final, NamedTuple

from fastpost.errors import UsageError
from fastpost.globs import Glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastpost._listing import Upload

_EVERYTHING: Final = "/**"


class Rule(NamedTuple):
    """What `glob` matches is taken, or left out."""

    takes: bool
    glob: Glob


class Selection:
    """What is taken: the first rule that matches a name decides, and what no rule matches is taken.

    Args:
        rules: in their order.
        min_size, max_size: octets, both included; None: no limit.
    Raises UsageError when no size could be within.
    """

    def __init__(self, rules: Sequence[Rule] = (), *, min_size: int | None = None, max_size: int | None = None) -> None:
        if min_size is not None and max_size is not None and min_size > max_size:
            raise UsageError(f"--min-size {min_size} is more than --max-size {max_size}: no file is both")
        self._rules = rules
        self._least = min_size or 0
        self._most = max_size
        #: True when sizes have to be known.
        self.by_size = min_size is not None or max_size is not None

    def named(self, uploads: list[Upload]) -> list[Upload]:
        """Return those whose names are taken."""
        return [one for one in uploads if self.takes(one.name)]

    def sized(self, uploads: list[Upload]) -> list[Upload]:
        """Return those whose sizes are taken. An unknown one is: who opens the file will find out why."""
        return [one for one in uploads if self._fits(one.size)] if self.by_size else uploads

    def takes(self, name: bytes) -> bool:
        """Is a file of this name taken, whatever its size? About 1 µs for each rule."""
        text = os.fsdecode(name)
        for takes, glob in self._rules:
            if glob.matches(text):
                return takes
        return True

    def enters(self, name: bytes) -> bool:
        """May anything in the folder of this name be taken? One of which nothing is isn't even listed."""
        text = os.fsdecode(name)
        for takes, glob in self._rules:
            if takes and glob.may_match_below(text):
                return True
            if not takes and glob.matches_all_below(text):
                return False
        return True

    def _fits(self, size: int) -> bool:
        return size < 0 or (size >= self._least and (self._most is None or size <= self._most))


def rules(include: Iterable[str] = (), exclude: Iterable[str] = (), filters: Iterable[Rule | None] = ()) -> list[Rule]:
    """Return the rules in rclone's order: what is included, what is excluded, the lines of filter files.

    Where anything is included by itself, what no rule matches is left out.

    Args:
        include: patterns of files to take.
        exclude: patterns of files to leave out.
        filters: rules of filter files; None forgets all rules before it.
    """
    included = [Rule(True, Glob(pattern)) for pattern in include]
    found = [*included, *(Rule(False, Glob(pattern)) for pattern in exclude)]
    for rule in filters:
        if rule is None:
            found.clear()
        else:
            found.append(rule)
    return [*found, Rule(False, Glob(_EVERYTHING))] if included else found


def filter_lines(lines: Iterable[bytes], place: str) -> Iterator[Rule | None]:
    """Read a filter file: `+ pattern` takes, `- pattern` leaves out, `!` forgets all before; `#` and `;` are comments.

    Raises UsageError for any other line, with its number; `place` is the file as the user named it.
    """
    for number, line in enumerate(lines, 1):
        text = os.fsdecode(line.removeprefix(BOM_UTF8) if number == 1 else line).strip()
        if not text or text[0] in "#;":
            continue
        if text == "!":
            yield None
        elif text[:2] in ("+ ", "- "):
            yield Rule(text[0] == "+", Glob(text[2:].lstrip()))
        else:
            raise UsageError(f"{place}, line {number}: {text!r} is no rule: write '+ pattern' or '- pattern'")
