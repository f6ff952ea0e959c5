from typing import Any, final

from fastpost._labels import Labels
from fastpost._listing import Upload
from fastpost._payload import Excerpt
from fastpost.errors import FastpostError, HttpStatus

def live_attempts() -> int: ...
def make_attempts(uploads: list[Upload], labels: Labels) -> tuple[list[Attempt], list[Attempt]]: ...
def status_failure(attempt: Attempt) -> HttpStatus: ...

@final
class Attempt:
    upload: Any
    file: bytes
    content: Excerpt | None
    follow: bool
    path: bytes
    redirected: int
    request_fields: tuple[tuple[bytes, bytes], ...]
    expected: tuple[int, int, int] | None
    retried: int
    replayed: int
    replayed_in_a_row: int
    status: int
    failure: FastpostError | None
    size: int
    mtime_ns: int
    inode: int
    payload: int
    began: float
    started: float
    body_sent: float
    finished: float
    fields: list[tuple[bytes, bytes]] | None
    def __init__(
        self,
        upload: Any,
        file: bytes,
        path: bytes,
        fields: tuple[tuple[bytes, bytes], ...] = (),
        retried: int = 0,
        replayed: int = 0,
        follow: bool = True,
        content: Excerpt | None = None,
        due: float = 0.0,
    ) -> None: ...
    @property
    def ok(self) -> bool: ...
    @property
    def latency(self) -> float: ...
    @property
    def body(self) -> bytes: ...
    def again(self, *, replay: bool, counted: bool = True) -> Attempt: ...

@final
class StreamTable:
    count: int
    def __init__(self) -> None: ...
