"""What servers say of the octets that they hold."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from typing import Any

import pytest

from fastpost.statements import Statement, sent, stated

Fields = list[tuple[bytes, bytes]]

CONTENT = b"what the file holds"
SHA_256 = hashlib.sha256(CONTENT).digest()
SHA_512 = hashlib.sha512(CONTENT).digest()
CODED = base64.b64encode(SHA_256)
CODED_512 = base64.b64encode(SHA_512)
OF_NOTHING = base64.b64encode(hashlib.sha256(b"").digest())


@dataclasses.dataclass(eq=False)
class Attempt:
    """A stand-in for a result."""

    fields: Fields | None = None
    body: bytes = b""
    request_fields: tuple[tuple[bytes, bytes], ...] = ()


def says(fields: Fields | None, body: bytes = b"") -> list[Statement]:
    result: Any = Attempt(fields, body)
    return list(stated(result))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"sha-256=:%b:" % CODED, [Statement("sha-256", SHA_256)]),
        (
            b"sha-256=:%b:, sha-512=:%b:" % (CODED, CODED_512),
            [Statement("sha-512", SHA_512), Statement("sha-256", SHA_256)],
        ),
        (b"unixsum=:AAAA:,sha-256=:%b:" % CODED, [Statement("sha-256", SHA_256)]),
        (b"sha-256=:%b:;note=1, id-sha-256=:AAAA:" % CODED, [Statement("sha-256", SHA_256)]),
        (b"sha-256=:AAAA:", []),
        (b"sha-256=:%b" % CODED, []),
        (b"sha-256=%b" % CODED, []),
        (b"sha-256=:A:", []),
        (b"SHA-256=:%b:" % CODED, []),
        (b"sha-256=?1", []),
        (b"sha-256=(:%b:)" % CODED, []),
        # Of equal keys the last one counts (RFC 9651 §4.2.2), even when that is none that can be compared.
        (b"sha-256=:%b:, sha-256=:%b:" % (OF_NOTHING, CODED), [Statement("sha-256", SHA_256)]),
        (b"sha-256=:%b:, sha-256=7" % CODED, []),
        # What is quoted is no member.
        (b'note="x, sha-256=:%b:, y"' % CODED, []),
        # A field that is malformed anywhere is ignored as a whole.
        (b"sha-256=:%b:, " % CODED, []),
        (b"sha-256=:%b: junk" % CODED, []),
        (b"sha-256=:%b:, sha-512=:A:" % CODED, []),
        (b"", []),
        (b"\xff=:,", []),
    ],
)
def test_a_digest_field_is_read_as_rfc_9530_writes_it(value: bytes, expected: list[Statement]) -> None:
    assert says([(b"date", b"x"), (b"repr-digest", value)]) == expected


def test_the_lines_of_a_field_are_one_dictionary() -> None:
    md5 = b"md5=:%b:" % base64.b64encode(hashlib.md5(CONTENT).digest())
    lines = [b"sha-256=:%b:" % OF_NOTHING, md5, b"sha-256=:%b:" % CODED]
    found = says([(b"repr-digest", line) for line in lines])
    assert found == [Statement("sha-256", SHA_256), Statement("md5", hashlib.md5(CONTENT).digest())]
    assert says([(b"repr-digest", lines[2]), (b"repr-digest", b"=")]) == []


def test_repr_digest_comes_before_content_digest_and_etag() -> None:
    md5 = hashlib.md5(CONTENT).hexdigest().encode()
    fields = [(b"etag", b'"%b"' % md5), (b"content-digest", b"sha-512=:%b:" % CODED_512)]
    fields.append((b"repr-digest", b"sha-256=:%b:" % CODED))
    assert [one.algorithm for one in says(fields)] == ["sha-256", "sha-512", "md5"]


def test_content_digest_of_the_response_itself_says_nothing_of_the_file() -> None:
    """RFC 9530 §2: it is the digest of the content that it comes with."""
    assert says([(b"content-digest", b"sha-256=:%b:" % OF_NOTHING)]) == []
    own = base64.b64encode(hashlib.sha256(b"stored").digest())
    assert says([(b"content-digest", b"sha-256=:%b:" % own)], body=b"stored") == []
    assert says([(b"content-digest", b"sha-256=:%b:" % CODED)], body=b"stored") == []


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_an_etag_of_hex_digits_is_taken_for_what_it_looks_like(algorithm: str) -> None:
    found = hashlib.new(algorithm, CONTENT)
    names = {"md5": "md5", "sha1": "sha", "sha256": "sha-256", "sha512": "sha-512"}
    for digits in (found.hexdigest(), found.hexdigest().upper()):
        assert says([(b"etag", b'"%b"' % digits.encode())]) == [Statement(names[algorithm], found.digest())]


@pytest.mark.parametrize("tag", [b'W/"%b"', b"%b", b'"%b-2"', b'"x%b"', b'"%b'])
def test_other_etags_say_nothing(tag: bytes) -> None:
    """A weak one is not of the octets, and one with a hyphen is of an upload in parts."""
    assert says([(b"etag", tag % hashlib.md5(CONTENT).hexdigest().encode())]) == []


def test_two_etags_say_nothing() -> None:
    tag = (b"etag", b'"%b"' % hashlib.md5(CONTENT).hexdigest().encode())
    assert says([tag, (b"etag", b'"other"')]) == []
    assert says([tag, tag]) == []


def test_what_was_sent_along_is_found_again() -> None:
    attempt: Any = Attempt(request_fields=((b"a", b"b"), (b"content-digest", b"sha-512=:%b:" % CODED_512)))
    assert sent(attempt) == Statement("sha-512", SHA_512)
    attempt.request_fields = ()
    assert sent(attempt) is None


def test_no_fields_say_nothing() -> None:
    assert says(None) == []
    assert says([]) == []
