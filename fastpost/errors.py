"""Every failure: its class, what may be done about it, its exit code and its RFC 9113 error code.

A failure is an exception so that it can be raised where it is found, and a value so that it can
be stored on an attempt and judged by `retry`. The class name is what the JSON report counts.
"""

from __future__ import annotations

import enum
import os


class ErrorCode(enum.IntEnum):
    """HTTP/2 error codes (RFC 9113 §7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def error_code_name(code: int) -> str:
    """Return the RFC's name of an HTTP/2 error code, or its number in hex when it has none."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


class Exit(enum.IntEnum):
    """Exit codes of the command line."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NOTHING_MATCHED = 3
    UNREACHABLE = 4
    THRESHOLD_MISSED = 5
    INTERRUPTED = 130
    TERMINATED = 143


class Reaction(enum.Enum):
    """What a failure allows, before budgets are looked at."""

    FINAL = "final"
    #: The server certainly did not process the request: send it again, any method, outside the retry budget.
    REPLAY = "replay"
    #: Retry within the budget, any method.
    RETRY = "retry"
    #: Retry within the budget when the request may be repeated (PUT, DELETE, idempotency key).
    RETRY_IF_REPEATABLE = "retry-if-repeatable"
    #: One fresh attempt, because the file itself changed.
    RETRY_ONCE = "retry-once"
    #: The server asks for less: halve the streams, back off, give up after three.
    EASE = "ease"


class FastpostError(Exception):
    """Base of every failure that fastpost names."""

    reaction: Reaction = Reaction.FINAL
    exit_code: Exit = Exit.SOME_FAILED

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as it is: by default it would be made anew from its message, which few subclasses take."""
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[FastpostError], args: tuple[object, ...], state: dict[str, object]) -> FastpostError:
    failure = kind.__new__(kind, *args)
    failure.__dict__.update(state)
    return failure


# --- before a run: usage and selection ------------------------------------------------------------


class UsageError(FastpostError):
    """An option, URL or library argument that can't be meant."""

    exit_code = Exit.USAGE


class NothingMatched(FastpostError):
    """No file to upload was found."""

    exit_code = Exit.NOTHING_MATCHED


# --- reaching the target --------------------------------------------------------------------------


class TargetUnreachable(FastpostError):
    """No HTTP/2 connection to the target could be had. No request was sent."""

    exit_code = Exit.UNREACHABLE


class NameNotResolved(TargetUnreachable):
    """The host name has no address."""

    reaction = Reaction.RETRY


class ConnectFailed(TargetUnreachable):
    """The TCP connection was refused, unreachable or timed out."""

    reaction = Reaction.RETRY


class CertificateNotTrusted(TargetUnreachable):
    """The server's certificate did not verify."""


class TlsFailed(TargetUnreachable):
    """The TLS handshake failed for another reason than trust."""


class NotHttp2(TargetUnreachable):
    """The server speaks, but not HTTP/2."""


class ServeFailed(TargetUnreachable):
    """The embedded server could not be started, or ended by itself."""


# --- one upload: the wire -------------------------------------------------------------------------


class NotProcessed(FastpostError):
    """The connection ended before the server looked at the request (GOAWAY below its id).

    Args:
        message: what happened.
        progress: the server took other requests of that connection, so the upload was merely not reached yet.
    """

    reaction = Reaction.REPLAY

    def __init__(self, message: str, *, progress: bool) -> None:
        super().__init__(message)
        self.progress = progress


class StreamRefused(FastpostError):
    """RST_STREAM(REFUSED_STREAM): the server did not process the request (RFC 9113 §8.7)."""

    reaction = Reaction.REPLAY


class ServerOverloaded(FastpostError):
    """RST_STREAM or GOAWAY with ENHANCE_YOUR_CALM.

    Args:
        message: what happened.
        unprocessed: the server certainly did not process the request (GOAWAY below its id): any method may go again.
    """

    reaction = Reaction.EASE

    def __init__(self, message: str, *, unprocessed: bool = False) -> None:
        super().__init__(message)
        self.unprocessed = unprocessed


class StreamReset(FastpostError):
    """RST_STREAM before a complete response.

    Args:
        error_code: the code that the server sent (RFC 9113 §7).
    """

    reaction = Reaction.RETRY_IF_REPEATABLE

    def __init__(self, error_code: int) -> None:
        super().__init__(f"the server reset the stream ({error_code_name(error_code)})")
        self.error_code = error_code


class ConnectionLost(FastpostError):
    """The connection was reset or ended with the request in flight."""

    reaction = Reaction.RETRY_IF_REPEATABLE


class Stalled(FastpostError):
    """No octet moved for the stall timeout."""

    reaction = Reaction.RETRY_IF_REPEATABLE


class TookTooLong(FastpostError):
    """The upload was not done within the time that it may take."""

    reaction = Reaction.RETRY_IF_REPEATABLE


class ProtocolViolation(FastpostError):
    """The server broke RFC 9113 or RFC 7541.

    Args:
        error_code: the code for our GOAWAY or RST_STREAM.
        detail: what was wrong, without a full stop.
    """

    reaction = Reaction.RETRY_IF_REPEATABLE

    def __init__(self, error_code: int, detail: str) -> None:
        super().__init__(f"the server broke HTTP/2: {detail} ({error_code_name(error_code)})")
        self.error_code = error_code
        self.detail = detail


class HttpStatus(FastpostError):
    """A complete final response that is no success.

    Args:
        status: 300 … 599.
        reason: what to tell the user: the Location of a redirect, or the start of the body.
        retry_after: the Retry-After field as sent, if any.
        location: the Location of a redirect as sent, if any.
    """

    #: Any method: the server says that it did not take the request.
    _RETRY_ANY = frozenset({429, 503})
    _RETRY_REPEATABLE = frozenset({408, 425, 500, 502, 504})

    def __init__(
        self, status: int, reason: str = "", retry_after: str | None = None, location: str | None = None
    ) -> None:
        super().__init__(f"status {status}" + (f": {reason}" if reason else ""))
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.location = location
        if status in self._RETRY_ANY:
            self.reaction = Reaction.RETRY
        elif status in self._RETRY_REPEATABLE:
            self.reaction = Reaction.RETRY_IF_REPEATABLE


class DigestMismatch(FastpostError):
    """The server received other octets than the file holds."""


class Interrupted(FastpostError):
    """The run was stopped before this upload was done."""


class WorkerLost(FastpostError):
    """A process of `--processes` ended by itself: what became of its uploads is not known."""


# --- one upload: the file -------------------------------------------------------------------------


class FileFailed(FastpostError):
    """The file could not be read; the message names why and the cure."""


class FileVanished(FileFailed):
    """The file was there when the folder was walked and is gone now."""


class FileUnreadable(FileFailed):
    """No permission, or a read error."""


class NotRegularFile(FileFailed):
    """A FIFO, socket, device, folder or dangling symlink."""


class FileChanged(FileFailed):
    """Size or modification time changed while the file was sent."""

    reaction = Reaction.RETRY_ONCE


class DuplicateTarget(FileFailed):
    """Another file of this run goes to the same URL."""

    @classmethod
    def at(cls, where: str) -> DuplicateTarget:
        """Return the failure of the second file that goes to the URL `where`."""
        return cls(f"another file of this run goes to {where} too: use {{path}} in --to, or upload one of them apart")


def file_failure(number: int) -> FileFailed:
    """Return the failure for an errno met at opening or reading a file."""
    text = os.strerror(number)
    match errno_name(number):
        case "ENOENT" | "ENOTDIR":
            return FileVanished("the file vanished before it could be read: if it should be there, upload it again")
        case "EACCES" | "EPERM":
            return FileUnreadable(f"{text}: give the user that runs fastpost the right to read it")
        case "EISDIR" | "ESPIPE" | "ENXIO" | "ENODEV":
            return NotRegularFile("not a regular file, and only those can be uploaded: leave it out")
        case "ELOOP":
            return NotRegularFile("a symbolic link: follow it with --follow-symlinks")
        case _:
            return FileUnreadable(f"could not be read: {text}")


def errno_name(number: int) -> str:
    """Return the symbolic name of an errno, or its number."""
    import errno

    return errno.errorcode.get(number, str(number))
