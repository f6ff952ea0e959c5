"""Digests of files against what a server says it received."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fastpost.digest import CHUNK
from fastpost.errors import DigestMismatch, FastpostError, FileChanged, FileVanished, HttpStatus
from fastpost.sources import Batch, Upload
from fastpost.verify import Verifier

Fields = list[tuple[bytes, bytes]]


@dataclasses.dataclass(eq=False)
class Attempt:
    upload: Upload
    fields: Fields | None
    size: int
    mtime_ns: int
    inode: int
    failure: FastpostError | None = None
    request_fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


def digest_fields(content: bytes) -> Fields:
    digest = base64.b64encode(hashlib.sha256(content).digest())
    return [(b"content-length", b"0"), (b"repr-digest", b"sha-256=:" + digest + b":")]


def uploaded(path: pathlib.Path, content: bytes, **values: Any) -> Any:
    """Return the result of an upload of that content, with the file on disk."""
    path.write_bytes(content)
    upload = Upload(os.fsencode(path), os.fsencode(path.name))
    found = path.stat()
    return Attempt(upload, digest_fields(content), found.st_size, found.st_mtime_ns, found.st_ino, **values)


def content_digest(content: bytes) -> tuple[bytes, bytes]:
    return b"content-digest", b"sha-256=:%b:" % base64.b64encode(hashlib.sha256(content).digest())


@dataclasses.dataclass
class Checked:
    verifier: Verifier
    passed: list[Any]
    failures: list[tuple[Any, FastpostError]]

    def counts(self) -> tuple[int, int, int]:
        """Return how many are intact, unverifiable and not intact."""
        return self.verifier.intact, self.verifier.unverifiable, len(self.failures)

    def only_failure(self) -> FastpostError:
        ((_, failure),) = self.failures
        return failure


@pytest.fixture
def checked() -> Iterator[Checked]:
    passed: list[Any] = []
    failures: list[tuple[Any, FastpostError]] = []

    def deliver(good: list[Any], bad: list[tuple[Any, FastpostError]]) -> None:
        passed.extend(good)
        failures.extend(bad)

    verifier = Verifier(deliver)
    yield Checked(verifier, passed, failures)
    verifier.abandon()
    verifier.finish()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_an_intact_file_is_counted(checked: Checked, tmp_path: pathlib.Path, size: int) -> None:
    result = uploaded(tmp_path / "a", os.urandom(size))
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert checked.counts() == (1, 0, 0)
    assert checked.passed == [result]


def test_a_changed_octet_is_a_mismatch_that_names_both_digests(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"kept")
    result.fields = digest_fields(b"sent")
    checked.verifier.submit([result])
    checked.verifier.finish()
    failure = checked.only_failure()
    assert isinstance(failure, DigestMismatch)
    assert hashlib.sha256(b"sent").hexdigest() in str(failure)
    assert hashlib.sha256(b"kept").hexdigest() in str(failure)
    assert checked.counts() == (0, 0, 1)
    assert checked.passed == []


def test_what_was_sent_along_is_compared_without_reading_the_file_again(
    checked: Checked, tmp_path: pathlib.Path
) -> None:
    good, bad = (uploaded(tmp_path / name, b"sent", request_fields=(content_digest(b"sent"),)) for name in "ab")
    bad.fields = digest_fields(b"other")
    for name in "ab":
        (tmp_path / name).unlink()
    checked.verifier.submit([good, bad])
    checked.verifier.finish()
    assert checked.passed == [good]
    assert isinstance(checked.only_failure(), DigestMismatch)


def test_another_algorithm_than_that_sent_along_is_compared_with_the_file(
    checked: Checked, tmp_path: pathlib.Path
) -> None:
    result = uploaded(tmp_path / "a", b"sent", request_fields=(content_digest(b"sent"),))
    result.fields = [(b"etag", b'"%b"' % hashlib.md5(b"sent").hexdigest().encode())]
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert checked.counts() == (1, 0, 0)


def test_a_file_of_the_same_size_that_changed_since_is_named_as_changed(
    checked: Checked, tmp_path: pathlib.Path
) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    (tmp_path / "b").write_bytes(b"kept")
    (tmp_path / "b").rename(tmp_path / "a")
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert isinstance(checked.only_failure(), FileChanged)


def test_a_file_that_grew_since_is_named_as_changed(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    (tmp_path / "a").write_bytes(b"sent and more")
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert isinstance(checked.only_failure(), FileChanged)


def test_a_file_that_is_gone_is_named_as_vanished(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    (tmp_path / "a").unlink()
    checked.verifier.submit([result])
    checked.verifier.finish()
    failure = checked.only_failure()
    assert isinstance(failure, FileVanished)
    assert "uploaded" in str(failure)


def test_a_fifo_in_the_place_of_the_file_does_not_block(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert len(checked.failures) == 1


def test_a_response_without_digest_is_counted_apart(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    result.fields = [(b"server", b"x")]
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert checked.counts() == (0, 1, 0)
    assert checked.passed == [result]


def test_failed_uploads_are_passed_over(checked: Checked, tmp_path: pathlib.Path) -> None:
    checked.verifier.submit([uploaded(tmp_path / "a", b"sent", failure=HttpStatus(500))])
    checked.verifier.finish()
    assert checked.counts() == (0, 0, 0)
    assert checked.passed == []


def test_the_good_and_the_bad_of_many_batches_are_told_apart(checked: Checked, tmp_path: pathlib.Path) -> None:
    results = [uploaded(tmp_path / str(n), str(n).encode()) for n in range(100)]
    for result in results[::10]:
        result.fields = digest_fields(b"other")
    for start in range(0, 100, 7):
        checked.verifier.submit(results[start : start + 7])
    checked.verifier.finish()
    assert checked.verifier.intact == 90
    assert [result for result, _ in checked.failures] == results[::10]


def test_the_walk_waits_while_too_much_is_queued(tmp_path: pathlib.Path) -> None:
    delivering, go_on = threading.Event(), threading.Event()

    def deliver(_passed: object, _failures: object) -> None:
        delivering.set()
        go_on.wait()

    verifier = Verifier(deliver, backlog=1)
    bad = [uploaded(tmp_path / str(n), b"sent") for n in range(2)]
    for result in bad:
        result.fields = None
    verifier.submit(bad)
    delivering.wait()
    passed = threading.Event()

    def walk() -> None:
        next(verifier.gate([Batch()]))
        passed.set()

    walker = threading.Thread(target=walk)
    walker.start()
    try:
        assert not passed.wait(0.05)  # two are queued, one may be
    finally:
        go_on.set()
    walker.join()
    assert passed.is_set()
    verifier.finish()


def test_abandon_opens_the_gate_and_ends_the_thread(tmp_path: pathlib.Path) -> None:
    verifier = Verifier(lambda _passed, _failures: None, backlog=0)
    verifier.abandon()
    verifier.submit([uploaded(tmp_path / "a", b"sent")])
    assert len(list(verifier.gate([Batch(), Batch()]))) == 2
    verifier.finish()
    assert verifier.intact == 0


def test_what_breaks_the_thread_is_raised_by_finish(tmp_path: pathlib.Path) -> None:
    def deliver(_passed: object, _failures: object) -> None:
        raise RuntimeError("broken")

    verifier = Verifier(deliver, backlog=0)
    result = uploaded(tmp_path / "a", b"sent")
    result.fields = None
    verifier.submit([result])
    with pytest.raises(RuntimeError, match="broken"):
        verifier.finish()
    assert list(verifier.gate([])) == []
