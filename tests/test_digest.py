"""Digests of files before they are sent."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import errno
import hashlib
import os
import pathlib
import threading
from typing import Any

import pytest

from fastpost import digest
from fastpost._chunker import Source
from fastpost.digest import CHUNK, Abandoned, Digester, Reader
from fastpost.errors import FileUnreadable, FileVanished, NotRegularFile
from fastpost.sources import Batch, Upload
from fastpost.waiting import Waiting

CONTENT = b"what the file holds"
CODED_512 = base64.b64encode(hashlib.sha512(CONTENT).digest())


@dataclasses.dataclass(eq=False)
class Attempt:
    """A stand-in for what is to be sent."""

    request_fields: tuple[tuple[bytes, bytes], ...] = ()
    expected: tuple[int, int, int] | None = None


def file(path: pathlib.Path, content: bytes = CONTENT, follow: bool = False) -> Upload:
    path.write_bytes(content)
    return Upload(os.fsencode(path), os.fsencode(path.name), follow=follow)


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


@pytest.mark.parametrize("seconds", [2**31, 9_223_372_035, 9_223_372_036, 9_223_372_037, 10_413_792_000, 1 - 2**31])
def test_a_file_dated_far_away_has_the_identity_that_the_data_plane_sees(tmp_path: pathlib.Path, seconds: int) -> None:
    """Beyond 2262 nanoseconds don't fit in 64 bits; it failed as changed, each time."""
    upload = file(tmp_path / "a")
    os.utime(upload.file, ns=(0, seconds * 10**9 + 999_999_999))
    if os.stat(upload.file).st_mtime_ns // 10**9 != seconds:
        pytest.skip("the file system can't hold the date")
    _, identity = Reader().digest(upload, "sha-256")
    source = Source.from_path(upload.file)
    assert identity == (source.size, source.mtime_ns, source.inode)
    assert source.mtime_ns == (2**63 - 1 if seconds >= 9_223_372_036 else seconds * 10**9 + 999_999_999)
    assert source.is_unchanged()
    source.shut()


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


def test_files_in_hand_are_not_forgotten(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_STEP", 100)
    batch = Batch()
    batch.uploads = [file(tmp_path / str(number), bytes(size)) for number, size in enumerate((60, 60, 1, 1))]
    digester = Digester("sha-256")
    digested = digester.digested([batch])
    assert [upload.name for upload in next(digested).uploads] == [b"0", b"1"]
    assert [upload.name for upload in digester.abandon().uploads] == [b"2", b"3"]
    assert list(digested) == []


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


def test_what_is_taken_back_while_it_is_read_again_is_due_no_more() -> None:
    reading = threading.Event()

    told: list[object] = []

    class Reading:
        """A digester that takes its time."""

        def again(self, upload: Upload) -> None:
            assert reading.wait(60)

        def attach(self, attempt: Attempt, found: None) -> None:
            told.append("attached, though nobody wants it any more")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = Waiting(loop, on_due=told.append, on_failed=told.append, on_error=told.append)
        attempt: Any = Attempt()
        attempt.upload = Upload(b"/a", b"a")
        waiting.digest(attempt, 0.0, Reading())  # type: ignore[arg-type]
        assert len(waiting) == 1
        assert waiting.take_back() == [attempt]
        reading.set()
        await loop.shutdown_default_executor()
        await asyncio.sleep(0)
        assert not told
        assert len(waiting) == 0

    asyncio.run(main())
