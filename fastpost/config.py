"""Frozen, validated settings of a run."""

from __future__ import annotations

import dataclasses
import os
import re
import typing

from fastpost.errors import UsageError

if typing.TYPE_CHECKING:
    import pathlib

Schedule = typing.Literal["fair", "fifo"]
Detour = tuple[str | None, int | None, str | None, int | None]
Algorithm = typing.Literal["sha-256", "sha-512"]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: RFC 9113 §8.2.2: fields that belong to an HTTP/1.1 connection.
_CONNECTION_FIELDS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host", "content-length", "te"}
)

#: Octets of the path of a Unix socket (unix(7)).
_LONGEST_SOCKET = 107

_CONTENT_FIELDS = frozenset({"content-type", "content-encoding"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run was asked to do. Raises UsageError when the values can't be meant.

    Times are in seconds, sizes in octets. `to` is the URL or URL template of `--to`.
    """

    to: str
    method: str | None = None
    concurrency: int = 50
    #: "auto": one, and more where waiting for the server's windows or streams was measured.
    connections: int | typing.Literal["auto"] = "auto"
    #: Most connections of "auto".
    most_connections: int = 8
    schedule: Schedule = "fair"
    #: Wait awake, some 30 microseconds, for a server nearby that grants small windows. Not beside another process of
    #: the run, nor where busy cores are what is measured.
    busy_poll: bool = True
    #: Nap, half a millisecond at most, while a server with many uploads before it answers one by one. Not where the
    #: time of each answer is what is measured.
    naps: bool = True
    #: Not in the repr: they may hold a password.
    fields: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    content_type: str | None = None
    #: The field of a form (multipart/form-data) that holds the file.
    form: str | None = None
    cacert: pathlib.Path | None = None
    cert: pathlib.Path | None = None
    key: pathlib.Path | None = None
    insecure: bool = False
    #: For which host and port which others are connected to; None: any, or the same. The first that fits counts.
    connect_to: tuple[Detour, ...] = ()
    #: Connect to this Unix socket, whatever the host.
    unix_socket: str | None = None
    connect_timeout: float = 10.0
    stall_timeout: float = 60.0
    #: One attempt may take so long from its HEADERS to its response.
    max_time: float | None = None
    #: Octets of files a second, over all connections.
    limit_rate: int | None = None
    retries: int = 3
    retry_delay: float = 0.5
    retry_max_time: float | None = None
    retry_post: bool = False
    #: Follow 307 and 308 to other paths of the same origin.
    location: bool = False
    #: Send the digest of each file's octets along (RFC 9530), computed before the upload.
    digest: Algorithm | None = None
    #: Keep fields and body of every response (--show-response), not only of failures.
    keep_responses: bool = False
    #: Largest part of a response body that is kept, in octets.
    body_limit: int = 1024

    def __post_init__(self) -> None:
        _require(1 <= self.concurrency <= 100_000, "concurrency must be between 1 and 100000")
        _require(
            self.connections == "auto" or (isinstance(self.connections, int) and 1 <= self.connections <= 1000),
            "connections must be auto, or between 1 and 1000",
        )
        _require(1 <= self.most_connections <= 8, "most_connections must be between 1 and 8")
        _require(self.schedule in ("fair", "fifo"), "schedule must be fair or fifo")
        _require(
            self.unix_socket is None or (self.unix_socket != "" and "\0" not in self.unix_socket),
            "unix-socket is empty, or holds a NUL: name the socket's path",
        )
        _require(
            self.unix_socket is None or len(os.fsencode(self.unix_socket)) <= _LONGEST_SOCKET,
            f"unix-socket is a path longer than the {_LONGEST_SOCKET} octets that the system takes: give a shorter "
            "one, relative to where you are or by a link",
        )
        _require(
            self.unix_socket is None or not self.connect_to,
            "unix-socket and connect-to both say where to connect: leave one out",
        )
        _require(self.connect_timeout > 0, "connect-timeout must be more than 0 seconds")
        _require(self.stall_timeout > 0, "stall-timeout must be more than 0 seconds")
        _require(self.max_time is None or self.max_time > 0, "max-time must be more than 0 seconds")
        _require(
            self.limit_rate is None or 1 <= self.limit_rate <= 1 << 62,
            "limit-rate must be at least 1 octet a second, and less than 2^63",
        )
        _require(self.retries >= 0, "retries can't be negative")
        _require(self.retry_delay >= 0, "retry-delay can't be negative")
        _require(self.retry_max_time is None or self.retry_max_time >= 0, "retry-max-time can't be negative")
        _require(self.key is None or self.cert is not None, "key needs cert: the certificate that it belongs to")
        _require(
            self.method is None or re.fullmatch(_TOKEN, self.method) is not None,
            f"method {self.method!r} is not an HTTP method",
        )
        _require(self.digest in (None, "sha-256", "sha-512"), "digest must be sha-256 or sha-512")
        _require(
            self.form is None or self.digest is None,
            "digest is that of the content, which is a form and not the file: leave out one of the two",
        )
        for name, value in self.fields:
            _check_field(name, value)
            _require(
                self.digest is None or name.lower() != "content-digest",
                f"header {name!r} is computed for each file, as --digest asks: leave out one of the two",
            )

    @property
    def connections_at_most(self) -> int:
        """How many connections a run may have at once, if each is to have a stream at least."""
        return min(self.most_connections if self.connections == "auto" else self.connections, self.concurrency)

    @property
    def repeats_post(self) -> bool:
        """True when a POST may be sent twice: --retry-post or an Idempotency-Key field."""
        return self.retry_post or any(name.lower() == "idempotency-key" for name, _ in self.fields)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _check_field(name: str, value: str) -> None:
    """Refuse what RFC 9110 §5.5 and RFC 9113 §8.2 forbid in a field; a newline would inject another field."""
    _require(
        re.fullmatch(_TOKEN, name) is not None, f"header name {name!r} has characters that a field name can't have"
    )
    _require(
        name.lower() not in _CONNECTION_FIELDS,
        f"header {name!r} is set by fastpost or belongs to HTTP/1.1; leave it out",
    )
    _require(
        name.lower() not in _CONTENT_FIELDS,
        f"header {name!r} is guessed from each file's name: say --content-type to set it for every file",
    )
    _require(
        re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value) is None,
        f"the value of header {name!r} holds a newline or another control character, which no field may",
    )
    _require(
        re.search("[\ud800-\udc7f\udd00-\udfff]", value) is None,
        f"the value of header {name!r} holds a lone surrogate, which stands for no octet",
    )
