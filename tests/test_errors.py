"""errors: every failure has a class with a reaction and an exit code, and a message with the cure."""

from __future__ import annotations

import errno
import inspect
import os

import pytest

from fastpost import errors
from fastpost.errors import (
    ErrorCode,
    Exit,
    FastpostError,
    FileFailed,
    FileUnreadable,
    FileVanished,
    HttpStatus,
    NotRegularFile,
    Reaction,
    TargetUnreachable,
    error_code_name,
    file_failure,
)

CLASSES = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, FastpostError)]


@pytest.mark.parametrize("failure", CLASSES)
def test_every_class_is_complete(failure: type[FastpostError]) -> None:
    assert failure.__doc__
    assert isinstance(failure.reaction, Reaction)
    assert isinstance(failure.exit_code, Exit)


def test_every_reaction_is_somebodys() -> None:
    assert {failure.reaction for failure in CLASSES} == set(Reaction)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.UsageError, 2),
        (errors.NothingMatched, 3),
        (errors.TargetUnreachable, 4),
        (errors.NameNotResolved, 4),
        (errors.ConnectFailed, 4),
        (errors.CertificateNotTrusted, 4),
        (errors.TlsFailed, 4),
        (errors.NotHttp2, 4),
        (errors.FileVanished, 1),
        (errors.HttpStatus, 1),
        (errors.StreamReset, 1),
    ],
)
def test_exit_codes(failure: type[FastpostError], code: int) -> None:
    assert failure.exit_code == code


def test_exit_codes_are_those_of_the_manual() -> None:
    assert sorted(Exit) == [0, 1, 2, 3, 4, 5, 130, 143]


@pytest.mark.parametrize(
    ("code", "name"),
    [(0, "NO_ERROR"), (7, "REFUSED_STREAM"), (13, "HTTP_1_1_REQUIRED"), (14, "0xe"), (2**32 - 1, "0xffffffff")],
)
def test_error_codes_have_names(code: int, name: str) -> None:
    assert error_code_name(code) == name


def test_error_codes_are_those_of_the_rfc() -> None:
    assert [code.value for code in ErrorCode] == list(range(14))


class TestStatus:
    @pytest.mark.parametrize(
        ("reaction", "statuses"),
        [
            (Reaction.RETRY, {429, 503}),
            (Reaction.RETRY_IF_REPEATABLE, {408, 425, 500, 502, 504}),
        ],
    )
    def test_retryable(self, reaction: Reaction, statuses: set[int]) -> None:
        assert {status for status in range(300, 600) if HttpStatus(status).reaction is reaction} == statuses

    def test_all_others_are_final(self) -> None:
        assert sum(HttpStatus(status).reaction is Reaction.FINAL for status in range(300, 600)) == 300 - 7

    def test_one_does_not_change_the_next(self) -> None:
        assert HttpStatus(503).reaction is Reaction.RETRY
        assert HttpStatus(404).reaction is Reaction.FINAL

    def test_message(self) -> None:
        assert str(HttpStatus(413)) == "status 413"
        assert str(HttpStatus(413, "too large")) == "status 413: too large"
        assert HttpStatus(503, retry_after="7").retry_after == "7"


def test_messages_name_the_code() -> None:
    assert "INTERNAL_ERROR" in str(errors.StreamReset(2))
    violation = errors.ProtocolViolation(ErrorCode.FRAME_SIZE_ERROR, "a PING of 9 octets")
    assert "a PING of 9 octets" in str(violation)
    assert "FRAME_SIZE_ERROR" in str(violation)
    assert violation.error_code == ErrorCode.FRAME_SIZE_ERROR


class TestFileFailure:
    @pytest.mark.parametrize(
        ("number", "kind", "says"),
        [
            (errno.ENOENT, FileVanished, "vanished"),
            (errno.ENOTDIR, FileVanished, "vanished"),
            (errno.EACCES, FileUnreadable, "right to read"),
            (errno.EPERM, FileUnreadable, "right to read"),
            (errno.EIO, FileUnreadable, "Input/output error"),
            (errno.EISDIR, NotRegularFile, "regular"),
            (errno.ENXIO, NotRegularFile, "regular"),
            (errno.ELOOP, NotRegularFile, "--follow-symlinks"),
        ],
    )
    def test_by_errno(self, number: int, kind: type[FileFailed], says: str) -> None:
        failure = file_failure(number)
        assert type(failure) is kind
        assert says in str(failure)

    @pytest.mark.parametrize("number", [*errno.errorcode, 0, 9999])
    def test_each_errno_gives_a_failure_that_stays_with_its_file(self, number: int) -> None:
        failure = file_failure(number)
        assert str(failure)
        assert failure.reaction is Reaction.FINAL
        assert failure.exit_code == Exit.SOME_FAILED

    def test_an_unnamed_errno_is_shown_in_the_systems_words(self) -> None:
        assert os.strerror(errno.ESTALE) in str(file_failure(errno.ESTALE))


def test_only_what_was_never_sent_is_unreachable() -> None:
    assert {each for each in CLASSES if each.exit_code == Exit.UNREACHABLE} == {
        each for each in CLASSES if issubclass(each, TargetUnreachable)
    }
