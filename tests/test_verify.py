"""SHA-256 of files against what a server says it received."""

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

from fastpost.errors import DigestMismatch, FastpostError, FileChanged, FileVanished, HttpStatus
from fastpost.sources import Batch, Upload
from fastpost.verify import CHUNK, Verifier, received_digest

Fields = list[tuple[bytes, bytes]]


@dataclasses.dataclass(eq=False)
class Attempt:
    upload: Upload
    fields: Fields | None
    payload: int
    failure: FastpostError | None = None


def digest_fields(content: bytes) -> Fields:
    digest = base64.b64encode(hashlib.sha256(content).digest())
    return [(b"content-length", b"0"), (b"repr-digest", b"sha-256=:" + digest + b":")]


def uploaded(path: pathlib.Path, content: bytes, **values: Any) -> Any:
    """Return the result of an upload of that content, with the file on disk."""
    path.write_bytes(content)
    return Attempt(Upload(os.fsencode(path), os.fsencode(path.name)), digest_fields(content), len(content), **values)


@dataclasses.dataclass
class Checked:
    verifier: Verifier
    failures: list[tuple[Any, FastpostError]]

    def only_failure(self) -> FastpostError:
        ((_, failure),) = self.failures
        return failure


@pytest.fixture
def checked() -> Iterator[Checked]:
    failures: list[tuple[Any, FastpostError]] = []
    verifier = Verifier(failures.extend)
    yield Checked(verifier, failures)
    verifier.abandon()
    verifier.finish()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_an_intact_file_is_counted(checked: Checked, tmp_path: pathlib.Path, size: int) -> None:
    checked.verifier.submit([uploaded(tmp_path / "a", os.urandom(size))])
    checked.verifier.finish()
    assert (checked.verifier.intact, checked.failures) == (1, [])


def test_a_changed_octet_is_a_mismatch_that_names_both_digests(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    (tmp_path / "a").write_bytes(b"kept")
    checked.verifier.submit([result])
    checked.verifier.finish()
    failure = checked.only_failure()
    assert isinstance(failure, DigestMismatch)
    assert hashlib.sha256(b"sent").hexdigest() in str(failure)
    assert hashlib.sha256(b"kept").hexdigest() in str(failure)
    assert checked.verifier.intact == 0


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


def test_a_response_without_digest_is_a_failure(checked: Checked, tmp_path: pathlib.Path) -> None:
    result = uploaded(tmp_path / "a", b"sent")
    result.fields = [(b"server", b"x")]
    checked.verifier.submit([result])
    checked.verifier.finish()
    assert isinstance(checked.only_failure(), DigestMismatch)


def test_failed_uploads_are_passed_over(checked: Checked, tmp_path: pathlib.Path) -> None:
    checked.verifier.submit([uploaded(tmp_path / "a", b"sent", failure=HttpStatus(500))])
    checked.verifier.finish()
    assert (checked.verifier.intact, checked.failures) == (0, [])


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

    def deliver(_failures: object) -> None:
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
    verifier = Verifier(lambda _: None, backlog=0)
    verifier.abandon()
    verifier.submit([uploaded(tmp_path / "a", b"sent")])
    assert len(list(verifier.gate([Batch(), Batch()]))) == 2
    verifier.finish()
    assert verifier.intact == 0


def test_what_breaks_the_thread_is_raised_by_finish(tmp_path: pathlib.Path) -> None:
    def deliver(_failures: object) -> None:
        raise RuntimeError("broken")

    verifier = Verifier(deliver, backlog=0)
    result = uploaded(tmp_path / "a", b"sent")
    result.fields = None
    verifier.submit([result])
    with pytest.raises(RuntimeError, match="broken"):
        verifier.finish()
    assert list(verifier.gate([])) == []


DIGEST = hashlib.sha256(b"x").digest()
CODED = base64.b64encode(DIGEST)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"sha-256=:%b:" % CODED, DIGEST),
        (b"sha-512=:AAAA:, sha-256=:%b:" % CODED, DIGEST),
        (b"sha-256=:%b:, md5=:AAAA:" % CODED, DIGEST),
        (b"sha-512=:%b:" % CODED, None),
        (b"x-sha-256=:%b:" % CODED, None),
        (b"sha-256=:A:", None),
        (b"sha-256=%b" % CODED, None),
        (b"", None),
    ],
)
def test_the_digest_is_read_as_rfc_9530_writes_it(value: bytes, expected: bytes | None) -> None:
    assert received_digest([(b"date", b"x"), (b"repr-digest", value)]) == expected


def test_no_fields_hold_no_digest() -> None:
    assert received_digest(None) is None
    assert received_digest([]) is None
