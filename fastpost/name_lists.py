"""Lists of names, as `find` or a person writes them: one a line, or with a NUL behind each."""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Final, NamedTuple

from fastpost.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

#: Octets read at a time at most: what a slow `find` has written goes up while it goes on.
_READ: Final = 1 << 16
#: Octets of a name beyond which the list is something else.
_LONGEST: Final = 1 << 16


class NameList(NamedTuple):
    """A list to be read.

    Attributes:
        stream: its octets; read to the end once.
        by_nul: names end with a NUL and hold anything else. False: each is a line, as it is; empty lines mean nothing.
        place: the list as the user named it.
    """

    stream: BinaryIO
    by_nul: bool
    place: str


def names_in(lists: Iterable[NameList]) -> Iterator[list[bytes]]:
    """Yield the names of all lists, as many at a time as could be read at once.

    They are relative: a slash or "./" at the beginning is dropped. Raises UsageError when a list can't be one.
    """
    for one in lists:
        for part in _split(one):
            if found := [name for text in part if (name := _name(text, one))]:
                yield found


def _split(one: NameList) -> Iterator[list[bytes]]:
    separator = b"\0" if one.by_nul else b"\n"
    rest = b""
    begun = False
    try:
        while octets := one.stream.read1(_READ):  # type: ignore[attr-defined]
            if not begun and not one.by_nul:
                octets = octets.removeprefix(BOM_UTF8)
            begun = True
            *whole, rest = (rest + octets).split(separator)
            yield whole
            if len(rest) > _LONGEST:
                end, other = (
                    ("a NUL", "lines (--files-from)") if one.by_nul else ("a line's end", "NULs (--files-from0)")
                )
                raise UsageError(f"{one.place}: {len(rest):,} octets without {end}: is it a list with {other}?")
    except OSError as error:
        raise UsageError(f"{one.place} can't be read: {error.strerror}") from None
    yield [rest]


def _name(text: bytes, of: NameList) -> bytes:
    """Return the name in a line; empty: there is none."""
    if not of.by_nul:
        text = text.removesuffix(b"\r")
        if b"\0" in text:
            raise UsageError(f"{of.place}: a name holds a NUL: is it a list for --files-from0?")
    if not text:
        return b""
    if text[:1] not in b"./" and text[-1:] != b"/" and b"//" not in text and b"/./" not in text:
        return text
    return b"/".join(part for part in text.split(b"/") if part not in (b"", b".")) or b"."
