"""forms, _envelope: files arrive as parts of a form, whatever their size, their name and the windows."""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from h2.settings import SettingCodes
from h2_judge import Judge, Wire, nothing_left, session
from h2_judge import files as files
from hostile import HostileServer, Line, Stream
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from integration import command

from fastpost import cli
from fastpost._chunker import live_objects
from fastpost._table import make_attempts
from fastpost.config import Settings
from fastpost.errors import Interrupted, UsageError
from fastpost.sources import Upload
from fastpost.target import of, parse

pytestmark = pytest.mark.timeout(60)

URL = "http://store.example/inbox"


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    yield
    assert nothing_left()


def part(fields: dict[str, str], body: bytes) -> tuple[str, str, str, bytes]:
    """Read a form of one part, as a server does; returns field, filename, type and content."""
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + fields["content-type"].encode() + b"\r\n\r\n" + body)
    assert message.get_content_type() == "multipart/form-data"
    (one,) = message.iter_parts()
    head, _, rest = body.partition(b"\r\n\r\n")
    content = rest.rpartition(b"\r\n--")[0]
    disposition = head.partition(b'name="')[2]
    field, _, filename = disposition.partition(b'"; filename="')
    name = filename.partition(b'"\r\n')[0]
    return field.decode(), name.decode("utf-8", "surrogateescape"), one.get_content_type(), content


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("window", [1, 1_000, 65_535, 2**31 - 1])
def test_a_file_of_any_size(files: Callable[..., list[Path]], window: int, staged: bool) -> None:
    sizes = (0, 1, 4_096, 16_384, 65_536, 65_537, 70_000, 82_000, 300_000) if window > 1 else (0, 1, 50)
    target = parse(URL, form="file")
    uploads = [Upload(bytes(path), b"photos/%d.jpg" % index) for index, path in enumerate(files(*sizes))]
    made, unfit = make_attempts(uploads, target.labels)
    assert not unfit
    judge = Judge({SettingCodes.INITIAL_WINDOW_SIZE: window}, connection_window=2**31 - 1)
    client = session(method=target.method, staged=staged)
    wire = Wire(client, judge)
    client.submit(made)
    wire.run()
    assert sorted(attempt.payload for attempt in wire.finished) == sorted(sizes)
    requests = list(judge.requests.values())
    assert len(requests) == len(sizes)
    for index, (request, size) in enumerate(zip(requests, sizes, strict=True)):
        fields = {name.decode(): value.decode() for name, value in request.fields.items()}
        assert fields[":method"] == "POST"
        assert int(fields["content-length"]) == len(request.body)
        field, name, kind, content = part(fields, bytes(request.body))
        assert (field, name, kind) == ("file", f"{index}.jpg", "image/jpeg")
        assert content == files(size)[0].read_bytes()


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 200_000),
    field=st.integers(1, 40),
    window=st.integers(1, 200_000),
    staged=st.booleans(),
)
def test_any_window_and_any_length(
    files: Callable[..., list[Path]], size: int, field: int, window: int, staged: bool
) -> None:
    window = max(window, size // 200)
    (file,) = files(size - size % 997)
    target = parse(URL, form="f" * field)
    made, _ = make_attempts([Upload(bytes(file), b"x")], target.labels)
    judge = Judge({SettingCodes.INITIAL_WINDOW_SIZE: window}, connection_window=2**31 - 1)
    client = session(staged=staged)
    wire = Wire(client, judge)
    client.submit(made)
    wire.run()
    (request,) = judge.requests.values()
    fields = {name.decode(): value.decode() for name, value in request.fields.items()}
    assert part(fields, bytes(request.body))[3] == file.read_bytes()
    wire.close()


def sent(folder: Path, *options: str) -> list[Stream]:
    with HostileServer(lambda line: line.greet()) as server:
        arguments = ["upload", str(folder), "--to", server.url + "inbox", "--connections", "1", "--form", "data"]
        result = CliRunner().invoke(cli.main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert not server.violations
    return list(server.streams())


def test_names_that_would_end_a_quoted_one(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in (b'a"b', b"a\r\nb", b"\xc3\xa4.txt", b"\xff"):
        (folder / os.fsdecode(name)).write_bytes(name)
    found = {part(stream.fields, bytes(stream.body))[1:] for stream in sent(folder)}
    assert found == {
        ("a%22b", "application/octet-stream", b'a"b'),
        ("a%0D%0Ab", "application/octet-stream", b"a\r\nb"),
        ("ä.txt", "text/plain", b"\xc3\xa4.txt"),
        ("\udcff", "application/octet-stream", b"\xff"),
    }


def test_what_is_compressed_is_sent_as_octets(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.tar.gz").write_bytes(b"x")
    (stream,) = sent(folder)
    assert part(stream.fields, bytes(stream.body))[2] == "application/octet-stream"
    assert "content-encoding" not in stream.fields


def test_a_type_for_all(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    (stream,) = sent(folder, "--content-type", "x/y", "--method", "PUT")
    assert part(stream.fields, bytes(stream.body))[2] == "x/y"
    assert stream.fields[":method"] == "PUT"


def test_one_boundary_a_run_and_another_for_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(b"x")
    runs = [{stream.fields["content-type"] for stream in sent(folder)} for _ in range(2)]
    assert [len(kinds) for kinds in runs] == [1, 1]
    assert runs[0] != runs[1]


def test_a_large_file_is_sent_from_its_mapping(files: Callable[..., list[Path]]) -> None:
    made, _ = make_attempts([Upload(bytes(files(500_000)[0]), b"x")], parse(URL, form="file").labels)
    judge = Judge({SettingCodes.INITIAL_WINDOW_SIZE: 100_000}, connection_window=2**31 - 1)
    client = session(staged=False)
    wire = Wire(client, judge)
    client.submit(made)
    wire.step(credit=False)
    _, mapped = live_objects()
    assert mapped == 1
    wire.run()
    (request,) = judge.requests.values()
    assert files(500_000)[0].read_bytes() in bytes(request.body)


@pytest.mark.parametrize("staged", [False, True])
def test_a_file_that_changes_is_no_complete_form(tmp_path: Path, staged: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(200_000))
    made, _ = make_attempts([Upload(bytes(file), b"file")], parse(URL, form="file").labels)
    judge = Judge({SettingCodes.INITIAL_WINDOW_SIZE: 100_000}, connection_window=2**31 - 1)
    client = session(staged=staged)
    wire = Wire(client, judge)
    client.submit(made)
    wire.step(credit=False)
    wire.step(credit=False)
    os.truncate(file, 1_000 if staged else 200_001)  # a mapping that is copied here must keep its pages
    wire.run()
    (attempt,) = wire.finished
    assert type(attempt.failure).__name__ == "FileChanged"
    (request,) = judge.requests.values()
    assert not request.ended
    assert request.reset is not None


def test_pages_that_vanish_beneath_a_slice(tmp_path: Path) -> None:
    """The kernel meets them (EFAULT): the frame is filled up to its length, the stream reset, and all others go on."""
    file = tmp_path / "file"
    file.write_bytes(bytes(400_000))
    other = tmp_path / "other"
    other.write_bytes(b"other")
    made, _ = make_attempts(
        [Upload(bytes(file), b"file"), Upload(bytes(other), b"other")], parse(URL, form="file").labels
    )
    judge = Judge({SettingCodes.INITIAL_WINDOW_SIZE: 300_000}, connection_window=2**31 - 1)
    client = session(staged=False)
    wire = Wire(client, judge)
    client.submit(made)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for side in (ours, theirs):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        ours.setblocking(False)
        theirs.setblocking(False)
        assert client.fill(wire.now)
        os.truncate(file, 0)
        octets = bytearray()
        for _ in range(100):
            client.plane.send(ours.fileno(), wire.now)
            with contextlib.suppress(BlockingIOError):
                octets += theirs.recv(4 << 20)
            if not client.fill(wire.now):
                break
    judge.receive(bytes(octets))
    wire.run()
    ends = {attempt.upload.name: attempt for attempt in wire.finished}
    assert type(ends[b"file"].failure).__name__ == "FileChanged"
    assert ends[b"other"].ok
    requests = {request.fields[b":path"]: request for request in judge.requests.values()}
    assert sum(request.reset is not None for request in judge.requests.values()) == 1
    assert len(requests) == 1  # all go to one URL


def test_octets_are_those_of_files(tmp_path: Path) -> None:
    """Whatever was sent of the rest: what is reported as payload or wasted is the file's."""
    for size in (0, 10, 100_000):
        file = tmp_path / str(size)
        file.write_bytes(bytes(size))
        (attempt,), _ = make_attempts([Upload(bytes(file), b"file")], parse(URL, form="file").labels)
        judge = Judge({SettingCodes.INITIAL_WINDOW_SIZE: 50}, connection_window=2**31 - 1)
        client = session()
        wire = Wire(client, judge)
        client.submit([attempt])
        wire.step(credit=False)
        wire.step(credit=False)
        client.plane.cancel(attempt, Interrupted("enough"), wire.now)
        assert attempt.payload == 0  # the window ends before the file begins
        wire.close()


def test_a_retry_sends_the_same(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    (first,), _ = make_attempts([Upload(bytes(file), b"file")], parse(URL, form="file").labels)
    bodies = []
    for attempt in (first, first.again(replay=True)):
        judge = Judge()
        client = session()
        wire = Wire(client, judge)
        client.submit([attempt])
        wire.run()
        bodies += [bytes(request.body) for request in judge.requests.values()]
    assert bodies[0] == bodies[1]
    assert b"content" in bodies[0]


def test_another_form_is_another_target() -> None:
    prints = {parse(URL, method="POST", form=form).fingerprint for form in (None, "a", "b")}
    assert len(prints) == 3


def test_what_arrives_by_several_processes_and_what_a_dry_run_says(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(60):
        (folder / str(number)).write_bytes(b"%d" % number)
    with HostileServer(lambda line: line.greet()) as server:
        to = ("--to", server.url + "inbox", "--form", "data")
        run = command.upload(folder, *to, "--processes", "2", "--connections", "2", code=command.SPREAD)
    assert run.code == 0
    found = {part(stream.fields, bytes(stream.body))[1:] for stream in server.streams()}
    assert found == {(str(number), "application/octet-stream", b"%d" % number) for number in range(60)}
    dry = CliRunner().invoke(cli.main, ["upload", str(folder), "--to", "http://a/{path}", "--form", "x", "--dry-run"])
    assert dry.stdout.startswith("POST\t")


def test_a_redirect_to_another_origin_takes_the_form_along(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"content")

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers":
            line.send(line.response(stream, 307, location=other.url + "there"))
        return True

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(lambda line: line.greet()) as other, HostileServer(scenario) as server:
        arguments = ["upload", str(folder), "--to", server.url + "inbox", "--form", "data", "--location"]
        assert CliRunner().invoke(cli.main, arguments).exit_code == 0
    (stream,) = other.streams()
    assert part(stream.fields, bytes(stream.body))[1:] == ("a.txt", "text/plain", b"content")


def test_the_journal_of_another_form_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"x")
    journal = ("--journal", str(tmp_path / "journal"))
    sent(tmp_path / "files", *journal)
    with HostileServer(lambda line: line.greet()) as server:
        arguments = ["upload", str(tmp_path / "files"), "--to", server.url + "inbox", *journal]
        result = CliRunner().invoke(cli.main, [*arguments, "--form", "other"])
    assert result.exit_code == 2
    assert "(--form data)" in result.stderr
    assert "(--form other)" in result.stderr


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for options, why in (
        (["--form", ""], "the name of the form's field"),
        (["--form", "f", "--digest", "sha-256"], "a form and not the file"),
        (["--form", "f", "--verify"], "is more than the file"),
    ):
        result = CliRunner().invoke(cli.main, ["upload", str(tmp_path), "--to", URL, *options])
        assert result.exit_code == 2
        assert why in result.stderr
    result = CliRunner().invoke(cli.main, ["upload", str(tmp_path), "--form", "f"])
    assert result.exit_code == 2
    assert "--form needs --to" in result.stderr
    with pytest.raises(UsageError):
        of(Settings(to=URL, form="\0"))
