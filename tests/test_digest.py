"""Digests of files before they are sent, and what servers say of what they hold."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import os
import pathlib
from typing import Any

import pytest

from fastpost import digest
from fastpost.digest import CHUNK, Abandoned, Digester, Reader, Statement, sent, stated
from fastpost.errors import FileUnreadable, FileVanished, NotRegularFile
from fastpost.sources import Batch, Upload

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
    expected: tuple[int, int, int] | None = None


def says(fields: Fields | None, body: bytes = b"") -> list[Statement]:
    result: Any = Attempt(fields, body)
    return list(stated(result))


def file(path: pathlib.Path, content: bytes = CONTENT, follow: bool = False) -> Upload:
    path.write_bytes(content)
    return Upload(os.fsencode(path), os.fsencode(path.name), follow=follow)


# --- what a server says -----------------------------------------------------------------------------------------------


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
        (b"", []),
        (b"\xff=:,", []),
    ],
)
def test_a_digest_field_is_read_as_rfc_9530_writes_it(value: bytes, expected: list[Statement]) -> None:
    assert says([(b"date", b"x"), (b"repr-digest", value)]) == expected


def test_repr_digest_comes_before_content_digest_and_etag() -> None:
    md5 = hashlib.md5(CONTENT).hexdigest().encode()
    fields = [(b"etag", b'"%b"' % md5), (b"content-digest", b"sha-512=:%b:" % CODED_512)]
    fields.append((b"repr-digest", b"sha-256=:%b:" % CODED))
    assert [one.algorithm for one in says(fields)] == ["sha-256", "sha-512", "md5"]


def test_content_digest_of_the_response_itself_says_nothing_of_the_file() -> None:
    """RFC 9530 §2: it is the digest of the content that it comes with."""
    assert says([(b"content-digest", b"sha-256=:%b:" % OF_NOTHING)]) == []
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


def test_no_fields_say_nothing() -> None:
    assert says(None) == []
    assert says([]) == []


# --- what a file holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 1])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_uploads_go_on_with_digest_and_identity(tmp_path: pathlib.Path, size: int, algorithm: str) -> None:
    content = os.urandom(size)
    batch = Batch()
    batch.uploads = [file(tmp_path / "a", content)]
    (done,) = Digester(algorithm).digested([batch])
    assert done.digests is not None
    found = done.digests[done.uploads[0]]
    coded = base64.b64encode(hashlib.new(algorithm.replace("-", ""), content).digest())
    assert found.field == (b"content-digest", b"%b=:%b:" % (algorithm.encode(), coded))
    status = os.stat(tmp_path / "a")
    assert found.identity == (size, status.st_mtime_ns, status.st_ino)


def test_a_large_file_does_not_hold_back_those_before_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_STEP", 100)
    batch = Batch()
    batch.uploads = [file(tmp_path / str(number), bytes(size)) for number, size in enumerate((60, 60, 200, 1))]
    batch.skipped = 3
    pieces = list(Digester("sha-256").digested([batch]))
    assert [[upload.name for upload in piece.uploads] for piece in pieces] == [[b"0", b"1"], [b"2"], [b"3"]]
    assert sum(piece.skipped for piece in pieces) == 3


def test_what_cannot_be_read_is_rejected_by_name_and_the_others_go_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch()
    batch.uploads = [file(tmp_path / name) for name in ("bad", "fifo", "gone", "good", "link")]
    for name in ("fifo", "gone", "link"):
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("good")
    real, bad = os.preadv, os.stat(tmp_path / "bad").st_ino

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    (done,) = Digester("sha-256").digested([batch])
    assert [upload.name for upload in done.uploads] == [b"good"]
    assert [(one.name, type(one.error)) for one in done.rejected] == [
        (b"bad", FileUnreadable),
        (b"fifo", NotRegularFile),
        (b"gone", FileVanished),
        (b"link", NotRegularFile),
    ]


def test_a_new_digest_takes_the_place_of_the_old_one(tmp_path: pathlib.Path) -> None:
    digester = Digester("sha-512")
    attempt: Any = Attempt(request_fields=((b"content-type", b"a/b"), (b"content-digest", b"sha-512=:AAAA:")))
    found = digester.again(file(tmp_path / "a"))
    digester.attach(attempt, found)
    assert attempt.request_fields == ((b"content-type", b"a/b"), (b"content-digest", b"sha-512=:%b:" % CODED_512))
    assert attempt.expected == found.identity
    assert sent(attempt) == Statement("sha-512", SHA_512)


def test_an_abandoned_reader_stops(tmp_path: pathlib.Path) -> None:
    reader = Reader()
    reader.abandoned = True
    with pytest.raises(Abandoned):
        reader.digest(file(tmp_path / "a"), "sha-256")
    digester = Digester("sha-256")
    digester.abandon()
    batch = Batch()
    batch.uploads = [file(tmp_path / "b")]
    assert list(digester.digested([batch])) == []
