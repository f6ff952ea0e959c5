"""What the embedded server's application answers, without a server."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from fastpost.ingest_app import DRAINED, IngestApp
from fastpost.ingest_store import Store

DISCONNECT = {"type": "http.disconnect"}


class Response(NamedTuple):
    status: int
    fields: dict[bytes, bytes]
    body: bytes


class Exchange:
    """One request to the application: the messages of its body, and what comes back."""

    def __init__(self, *chunks: bytes, length: int | None = None, method: str = "PUT", path: bytes = b"/a") -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        self.messages.append({"type": "http.request", "body": b"", "more_body": False})
        fields = [] if length is None else [(b"content-length", b"%d" % length)]
        self.scope = {"type": "http", "method": method, "raw_path": path, "headers": fields}
        self.sent: list[Any] = []
        self.read = 0

    async def receive(self) -> Any:
        self.read += 1
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def run(self, app: IngestApp) -> Response:
        asyncio.run(app(self.scope, self.receive, self.send))
        start, body = self.sent
        return Response(start["status"], dict(start["headers"]), body["body"])

    def vanish(self, app: IngestApp) -> None:
        """Lose the client instead of ending the body."""
        self.messages[-1] = DISCONNECT
        asyncio.run(app(self.scope, self.receive, self.send))
        assert self.sent == []


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def storing(root: pathlib.Path) -> Iterator[IngestApp]:
    with Store(root) as store:
        yield IngestApp(store)


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("chunks", [(), (b"a",), (b"one", b"", b"two" * 100_000)])
def test_a_complete_body_is_answered_with_its_digest(chunks: tuple[bytes, ...], method: str) -> None:
    response = Exchange(*chunks, method=method).run(IngestApp())
    digest = base64.b64encode(hashlib.sha256(b"".join(chunks)).digest())
    assert response == (200, {b"repr-digest": b"sha-256=:" + digest + b":", b"content-length": b"0"}, b"")


def test_a_sink_tells_no_digest_and_still_counts_octets() -> None:
    assert Exchange(b"one", b"two").run(IngestApp(digests=False)) == (200, {b"content-length": b"0"}, b"")
    assert Exchange(b"one", length=4).run(IngestApp(digests=False)).status == 400


def test_without_a_store_any_path_will_do() -> None:
    assert Exchange(b"x", path=b"/../%00").run(IngestApp()).status == 200


def test_a_stored_body_is_created(storing: IngestApp, root: pathlib.Path) -> None:
    response = Exchange(b"one", b"two", length=6, path=b"/b/%ff").run(storing)
    assert response.status == 201
    assert b"repr-digest" in response.fields
    assert (root / "b" / os.fsdecode(b"\xff")).read_bytes() == b"onetwo"


def test_a_refusal_tells_why_in_a_line(storing: IngestApp) -> None:
    response = Exchange(b"x", path=b"/../x").run(storing)
    assert response.status == 403
    assert response.fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert response.fields[b"content-length"] == b"%d" % len(response.body)
    assert response.body.endswith(b"\n")
    assert b"leave the root" in response.body


@pytest.mark.parametrize("method", ["GET", "DELETE", "put"])
def test_other_methods_are_told_what_is_allowed(method: str) -> None:
    response = Exchange(method=method).run(IngestApp())
    assert (response.status, response.fields[b"allow"]) == (405, b"PUT, POST")


def test_a_lost_client_leaves_nothing(storing: IngestApp, root: pathlib.Path) -> None:
    Exchange(b"old").run(storing)
    Exchange(b"half", length=8).vanish(storing)
    assert os.listdir(root) == ["a"]
    assert (root / "a").read_bytes() == b"old"


def test_a_cancelled_upload_leaves_nothing(storing: IngestApp, root: pathlib.Path) -> None:
    async def cancel() -> None:
        waiting = asyncio.Event()
        exchange = Exchange()

        async def receive() -> Any:
            if not waiting.is_set():
                waiting.set()
                return {"type": "http.request", "body": b"half", "more_body": True}
            return await asyncio.Event().wait()

        task = asyncio.create_task(storing(exchange.scope, receive, exchange.send))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert os.listdir(root) == []


@pytest.mark.parametrize("length", [2, 4])
def test_a_body_of_another_length_than_promised_is_not_stored(
    storing: IngestApp, root: pathlib.Path, length: int
) -> None:
    response = Exchange(b"abc", length=length).run(storing)
    assert response.status == 400
    assert os.listdir(root) == []


def test_a_full_disk_is_told(storing: IngestApp, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, octets: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exchange = Exchange(b"x")
    with monkeypatch.context() as patched, asyncio.Runner() as runner:
        runner.get_loop()  # it writes to a pipe of its own
        patched.setattr(os, "write", fail)
        runner.run(storing(exchange.scope, exchange.receive, exchange.send))
    assert exchange.sent[0]["status"] == 507
    assert os.listdir(root) == []


@pytest.mark.parametrize(("length", "status"), [(5, 413), (None, 413), (4, 200)])
def test_a_body_above_the_limit_is_refused(length: int | None, status: int) -> None:
    body = b"x" * (5 if length is None else length)
    assert Exchange(body, length=length).run(IngestApp(max_body=4)).status == status


def test_a_promised_length_above_the_limit_is_refused_before_a_byte() -> None:
    exchange = Exchange(b"x", length=1 << 40)
    assert exchange.run(IngestApp(max_body=4)).status == 413
    assert exchange.read == 0


def test_a_short_body_is_read_before_a_refusal(storing: IngestApp) -> None:
    exchange = Exchange(b"x" * DRAINED, length=DRAINED, path=b"/..")
    assert exchange.run(storing).status == 403
    assert exchange.messages == []


def test_a_long_body_is_not_read_before_a_refusal(storing: IngestApp) -> None:
    exchange = Exchange(b"x" * (DRAINED + 1), length=DRAINED + 1, path=b"/..")
    assert exchange.run(storing).status == 403
    assert exchange.read == 0


def test_too_many_at_once_are_asked_to_come_again() -> None:
    app = IngestApp(max_requests=1)

    async def two() -> tuple[Exchange, Exchange]:
        first, second = Exchange(b"x"), Exchange(b"x")
        go_on = asyncio.Event()

        async def slow() -> Any:
            await go_on.wait()
            return await first.receive()

        task = asyncio.create_task(app(first.scope, slow, first.send))
        await asyncio.sleep(0)
        await app(second.scope, second.receive, second.send)
        go_on.set()
        await task
        return first, second

    first, second = asyncio.run(two())
    assert first.sent[0]["status"] == 200
    assert second.sent[0]["status"] == 503
    assert (b"retry-after", b"1") in second.sent[0]["headers"]
    assert Exchange(b"x").run(app).status == 200


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_other_scopes_are_left_alone(kind: str) -> None:
    exchange = Exchange()
    asyncio.run(IngestApp()({"type": kind}, exchange.receive, exchange.send))
    assert (exchange.read, exchange.sent) == (0, [])
