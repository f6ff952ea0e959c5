"""What options of the command line mean: values in, checked, or a message that has the cure."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

import click

from fastpost.cli_process import shown
from fastpost.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    _FieldType = click.ParamType[tuple[str, str]]
    _TokenType = click.ParamType[str]
    _NumberType = click.ParamType[int | str]
    _NumbersType = click.ParamType[tuple[int | str, ...]]
    _SecondsType = click.ParamType[float]
    _OctetsType = click.ParamType[int]
    _LineType = click.ParamType[str]
    _PairType = click.ParamType[tuple[str, str]]
    _DetourType = click.ParamType[tuple[str | None, int | None, str | None, int | None]]
    _OrderType = click.ParamType[tuple[str, bool]]
else:
    _FieldType = _TokenType = _NumberType = _NumbersType = _SecondsType = click.ParamType
    _OctetsType = _LineType = _OrderType = _PairType = _DetourType = click.ParamType

#: Where a context has the files that options read: (option, name) each; 0 is standard input.
FILES_READ: Final = "fastpost.files_read"

_FIELD: Final = r"(?s)([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*:(.*)"
#: RFC 6750 §2.1.
_BEARER: Final = r"[A-Za-z0-9\-._~+/]+=*"
_DETOUR: Final = r"([^:\[\]\s/@?#]*|\[[^\]]*\]):([0-9]{0,5}):([^:\[\]\s/@?#]*|\[[^\]]*\]):([0-9]{0,5})"
#: 4 EiB: no file is larger, and twice as much would not be counted.
_LARGEST: Final = 1 << 62
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
            value = _first_line(self, "token", value[1:], param, ctx).strip()
        if re.fullmatch(_BEARER, value) is None:
            self.fail("a token has letters, digits and -._~+/= only; what was given is not repeated here", param, ctx)
        return str(value)


class UserPassword(_PairType):
    """NAME:PASSWORD, or @FILE that holds them: a command line can be read by every user of the machine."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and password. No message repeats what was given."""
        if isinstance(value, tuple):
            return value[0], value[1]
        if value.startswith("@"):
            value = _first_line(self, "name and password", value[1:], param, ctx)
        user, colon, password = value.partition(":")
        if not colon:
            self.fail("write NAME:PASSWORD, or @FILE with a file that holds that", param, ctx)
        return user, password


class Detour(_DetourType):
    """HOST1:PORT1:HOST2:PORT2, as curl has it; IPv6 addresses in brackets."""

    name = "detour"
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the four, empty ones as None."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(_DETOUR, value)
        if found is None or any(found[port] and int(found[port]) > 65535 for port in (2, 4)):
            self.fail(
                f"{value!r} can't be meant: write HOST:PORT:HOST:PORT, as store.example:443:127.0.0.1:8443", param, ctx
            )
        try:
            return _host(found[1]), _port(found[2]), _host(found[3]), _port(found[4])
        except UsageError as error:
            self.fail(f"{value!r} can't be meant: {error}", param, ctx)


def _host(text: str) -> str | None:
    """Return a host as a target has it; None for an empty one. Raises UsageError."""
    from fastpost.target import parse

    return parse(f"http://{text}/").host if text else None


def _port(digits: str) -> int | None:
    if not digits:
        return None
    if int(digits) == 0:
        raise UsageError("there is no port 0")
    return int(digits)


def _first_line(
    kind: click.ParamType[Any], what: str, file: str, param: click.Parameter | None, ctx: click.Context | None
) -> str:
    """Return the only line that a file holds."""
    _note_read(file, param, ctx)
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            line, _, rest = opened.read(65536).partition("\n")
        if rest.strip():
            kind.fail(f"{file!r} has more than one line: leave only that of the {what}", param, ctx)
        return line.removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        kind.fail(f"the {what} can't be read from {file!r} ({reason}): name a readable file", param, ctx)


def _note_read(file: Any, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Note that an option reads a file, for those that would write to it."""
    if ctx is not None and param is not None and isinstance(file, str | int):
        ctx.meta.setdefault(FILES_READ, []).append((param.opts[-1], file))


def check_apart(option: str, path: str, others: Iterable[tuple[str, str | int]]) -> None:
    """Raise UsageError when the file that an option writes to is one that another option reads or writes."""
    for other, same in others:
        if is_one_file(path, same):
            named = "standard input" if same == 0 else shown(same)
            raise UsageError(f"{option} {shown(path)} and {other} {named} are one file: name two")


def is_one_file(path: str, other: str | int) -> bool:
    """Are they one file, by the same name, by a link, or by a name that is made only then? An int is a descriptor."""
    if os.path.exists(path) and not os.path.isfile(path):
        return False  # a terminal, a pipe or /dev/null takes both
    try:
        return os.path.samefile(path, other)
    except OSError:
        return isinstance(other, str) and os.path.realpath(path) == os.path.realpath(other)


class Read(click.Path):
    """A file that is read later."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return its name."""
        _note_read(value, param, ctx)
        return super().convert(value, param, ctx)


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


class Line(_LineType):
    """Any text; an environment variable has one a line."""

    name = "text"
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as it is."""
        return str(value)


class Reading(click.File):
    """A file to be read, octets; -: standard input."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the open file."""
        try:
            opened = super().convert(value, param, ctx)
        except RuntimeError:
            self.fail("standard input is closed: name a file, or give the command an input", param, ctx)
        _note_read(0 if value == "-" else value, param, ctx)
        return opened


class Octets(_OctetsType):
    """A size in octets as 4096, 10k or 1.5MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return octets."""
        if isinstance(value, int):
            return value
        from fastpost.sizes import octets

        try:
            return octets(value, largest=_LARGEST)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class OrderBy(_OrderType):
    """What files are sorted by, and whether the last or largest comes first: `size,desc`."""

    name = "order"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, bool]:
        """Return the key, and True for descending order."""
        if isinstance(value, tuple):
            return value[0], value[1]
        key, _, direction = value.partition(",")
        if key not in ("walk", "size", "name") or direction not in ("", "asc", "desc"):
            self.fail(
                f"{value!r} is no order: write walk, size or name, and ,desc behind it to turn it round", param, ctx
            )
        return key, direction == "desc"


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
