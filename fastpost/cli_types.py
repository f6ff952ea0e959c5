"""What options of the command line mean: values in, checked, or a message that has the cure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from fastpost.errors import UsageError

if TYPE_CHECKING:
    _FieldType = click.ParamType[tuple[str, str]]
    _TokenType = click.ParamType[str]
    _NumberType = click.ParamType[int | str]
    _NumbersType = click.ParamType[tuple[int | str, ...]]
    _SecondsType = click.ParamType[float]
else:
    _FieldType = _TokenType = _NumberType = _NumbersType = _SecondsType = click.ParamType

_FIELD: Final = r"(?s)([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*:(.*)"
#: RFC 6750 §2.1.
_BEARER: Final = r"[A-Za-z0-9\-._~+/]+=*"
_SECONDS: Final = r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|)"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class Field(_FieldType):
    """`Name: value`. No message repeats what was given: it may hold a password."""

    name = "field"
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and value."""
        if isinstance(value, tuple):
            return value[0], value[1]
        matched = re.fullmatch(_FIELD, value)
        if matched is None:
            self.fail("write 'Name: value'; what was given is not repeated here, as it may be secret", param, ctx)
        return matched[1], matched[2].strip(" \t")


class Token(_TokenType):
    """A bearer token, or @FILE that holds one: a command line can be read by every user of the machine."""

    name = "token"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the token."""
        if value.startswith("@"):
            try:
                with open(value[1:], encoding="utf-8") as file:
                    value = file.read(65536).strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not text"
                self.fail(f"the token can't be read from {value[1:]!r} ({reason}): name a readable file", param, ctx)
        if re.fullmatch(_BEARER, value) is None:
            self.fail("a token has letters, digits and -._~+/= only; what was given is not repeated here", param, ctx)
        return str(value)


class NumberOr(_NumberType):
    """A number, or `word`."""

    name = "number"

    def __init__(self, word: str) -> None:
        self._word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the word."""
        if value == self._word:
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no whole number: write one, or {self._word}", param, ctx)


class Seconds(_SecondsType):
    """Seconds as 30, 30s, 500ms, 2m or 1h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(_SECONDS, value.strip())
        if found is None:
            self.fail(f"{value!r} is no time: write 30s, 500ms, 2m or 1h", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Share(_SecondsType):
    """A share as 5% or 0.05."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, 0.05 for 5%."""
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(%?)", value.strip())
        if found is None:
            self.fail(f"{value!r} is no share: write 5% or 0.05", param, ctx)
        share = float(found[1]) / (100 if found[2] else 1)
        if share > 1 and not found[2]:
            self.fail(f"{value} is {share:.0%}: write {value}% if that was meant", param, ctx)
        return share


class Numbers(_NumbersType):
    """One number from 1 to `most`, or a list of them with commas; also `word`, when there is one."""

    name = "numbers"

    def __init__(self, word: str | None = None, most: int | None = None) -> None:
        self._word = word
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | str, ...]:
        """Return the numbers, and the word where it was given."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        for part in parts:
            if part == self._word:
                continue
            if not part.isdecimal() or not int(part):
                self.fail(f"{part!r} is no number from 1 on: write 50, or a list like 1,10,50", param, ctx)
            if self._most is not None and int(part) > self._most:
                self.fail(f"{part} is more than {self._most}: write a smaller number", param, ctx)
        numbers = tuple(part if part == self._word else int(part) for part in parts)
        if len(set(numbers)) < len(numbers):
            self.fail(f"{value!r} names one of them twice: write each once", param, ctx)
        return numbers


def fields(header: tuple[tuple[str, str], ...], bearer: str | None) -> tuple[tuple[str, str], ...]:
    """Return the fields of -H and --oauth2-bearer together. Raises UsageError when both say who the user is."""
    if bearer is None:
        return header
    if any(name.lower() == "authorization" for name, _ in header):
        raise UsageError("--oauth2-bearer and -H 'Authorization: …' both say who you are: leave one out")
    return (*header, ("Authorization", f"Bearer {bearer}"))
