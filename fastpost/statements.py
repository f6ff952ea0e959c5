"""What servers say of the octets that they hold: Repr-Digest and Content-Digest (RFC 9530), and ETag."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import http_sf

from fastpost.digest import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastpost._table import Attempt

    Fields = Sequence[tuple[bytes, bytes]]

#: An entity tag is one of these when it has so many hex digits.
_BY_DIGITS: Final = {32: "md5", 40: "sha", 64: "sha-256", 128: "sha-512"}
#: A strong validator (RFC 9110 §8.8.3) of hex digits alone; a weak one says nothing of octets.
_HEX_TAG: Final = re.compile(rb'"([0-9A-Fa-f]+)"')


class Statement(NamedTuple):
    """What a server says of the octets it holds: the algorithm by its RFC 9530 name, and the value."""

    algorithm: str
    value: bytes


def sent(attempt: Attempt) -> Statement | None:
    """Return the Content-Digest that went with an upload, or None."""
    return next(_digests(attempt.request_fields, b"content-digest"), None)


def stated(attempt: Attempt) -> Iterator[Statement]:
    """Yield what a response says of the octets that the server holds now, the most telling first.

    Repr-Digest is that of the representation (RFC 9530 §3). Content-Digest is by the RFC that of the response's own
    content (§2), but some servers say there what they received: it counts where there is no content that it may be
    true of, and it isn't the digest of nothing. An ETag counts when it looks like an MD5 or SHA in hex; of two, none.
    """
    fields = attempt.fields or ()
    yield from _digests(fields, b"repr-digest")
    if not attempt.body:
        yield from (one for one in _digests(fields, b"content-digest") if one != _of_nothing(one.algorithm))
    tags = [value for name, value in fields if name == b"etag"]
    if len(tags) == 1:
        yield from _tag(tags[0])


def _digests(fields: Fields, name: bytes) -> Iterator[Statement]:
    """Yield the digests of a field that are known, the strongest first; none of a malformed one (RFC 9651 §4.2)."""
    lines = b", ".join(value for found, value in fields if found == name)
    try:
        members = cast("dict[str, tuple[object, object]]", http_sf.parse(lines, tltype="dictionary"))
    except http_sf.StructuredFieldError:
        return
    for algorithm in ALGORITHMS:
        value, _ = members.get(algorithm, (None, None))
        if isinstance(value, bytes) and len(value) == len(_of_nothing(algorithm).value):
            yield Statement(algorithm, value)


def _tag(value: bytes) -> Iterator[Statement]:
    match = _HEX_TAG.fullmatch(value.strip(b" \t"))
    if match is not None and (algorithm := _BY_DIGITS.get(len(match[1]))) is not None:
        yield Statement(algorithm, bytes.fromhex(match[1].decode("ascii")))


def _of_nothing(algorithm: str) -> Statement:
    return Statement(algorithm, hashlib.new(ALGORITHMS[algorithm], usedforsecurity=False).digest())
