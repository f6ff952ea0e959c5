"""Where the time goes: for each cause a server that is made to cause it, and that must be named."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from h2.settings import SettingCodes
from h2_judge import settings_frame, window_update
from in_process import Answering, Raw, Server, batches, drive, files, uploader
from in_process import nothing_leaks as nothing_leaks
from integration import command
from integration.scripted import Peer, Request, Script

from fastpost import causes
from fastpost.sources import Upload
from fastpost.tally import Peer as Granted
from fastpost.tally import Tally

pytestmark = pytest.mark.usefixtures("nothing_leaks")

#: What the servers do: they make wait. Nothing is asserted about how long that took.
PAUSE = threading.Event()
OPEN = (settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}), window_update(0, 2**31 - 1 - 65_535))


def upload(url: str, uploads: list[Upload], **options: Any) -> Tally:
    async def main() -> Tally:
        client = uploader(url, **options)
        await client.run(batches(uploads))
        assert client.tally.ok == len(uploads)
        return client.tally

    return drive(main())


def named(tally: Tally, cause: str, least: float = 0.9) -> None:
    """Assert that the cause is named, with nine tenths of the time at least."""
    verdict = causes.verdict(tally)
    assert verdict is not None
    assert verdict.cause == cause, causes.split(tally)
    assert verdict.share >= least, causes.split(tally)


def test_stream_limit(tmp_path: Path) -> None:
    class Pausing(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            PAUSE.wait(0.01)
            peer.answer(request, 201)

    with Server(Pausing(), max_concurrent_streams=1) as server:
        tally = upload(server.url, files(tmp_path, 60), concurrency=50)
    named(tally, "stream_limit")
    assert tally.peer.max_concurrent_streams == 1
    assert "allows 1 at once" in _sentence(tally)


def test_stream_window(tmp_path: Path) -> None:
    """The connection window is wide open; each stream waits for credit of its own."""
    with Raw(Answering(window_update(0, 2**30), credit="stream", pause=0.01)) as server:
        tally = upload(server.url, files(tmp_path, 4, 2_000_000))
    named(tally, "stream_window")
    assert "64 KiB" in _sentence(tally)


def test_connection_window(tmp_path: Path) -> None:
    with Raw(Answering(OPEN[0], credit="connection", pause=0.01)) as server:
        tally = upload(server.url, files(tmp_path, 8, 300_000))
    named(tally, "connection_window")
    assert "64 KiB" in _sentence(tally)
    assert "--connections 4" in _sentence(tally)


def test_an_answer_tells_that_the_octets_arrived(tmp_path: Path) -> None:
    """One upload at a time, answered at once: whichever was under way when the kernel was asked is answered soon."""
    with Raw(Answering(*OPEN, pause=0.001)) as server:
        tally = upload(server.url, files(tmp_path, 200), concurrency=1)
    named(tally, "server")


def test_socket(tmp_path: Path) -> None:
    """All windows are open, and the server reads slowly."""
    with Raw(Answering(*OPEN, pause=0.002, piece=60_000)) as server:
        tally = upload(server.url, files(tmp_path, 4, 16_000_000))
    named(tally, "socket")


def test_slow_line(tmp_path: Path) -> None:
    """All is given to the kernel at once, and lies there: the server has not had it yet."""
    with Raw(Answering(*OPEN, pause=0.005, piece=20_000)) as server:
        tally = upload(server.url, files(tmp_path, 40, 120_000))
    named(tally, "socket")


def test_server(tmp_path: Path) -> None:
    class Thinking(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            if sum(one.ended for one in peer.requests.values()) == 20:
                PAUSE.wait(0.3)
                for one in peer.requests.values():
                    peer.answer(one, 201)

    with Server(Thinking()) as server:
        tally = upload(server.url, files(tmp_path, 20))
    named(tally, "server")


#: A disk that has nothing in its cache and takes 10 ms for every read.
SLOW_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    errno = EAGAIN;
    return -1;
}

ssize_t pread(int fd, void *out, size_t length, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pread");
    usleep(10000);
    return real(fd, out, length, offset);
}

ssize_t pread64(int fd, void *out, size_t length, off_t offset) { return pread(fd, out, length, offset); }
ssize_t preadv64v2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    return preadv2(fd, vector, count, offset, flags);
}
"""


#: The same where the file system can't tell what is cached (FUSE and some file servers), and where opening is slow.
CAN_NOT_TELL = SLOW_DISK.replace("EAGAIN", "EOPNOTSUPP")
SLOW_TO_OPEN = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

static void wait(const char *path) { if (strstr(path, ".bin")) usleep(10000); }

#define OPEN(name) int name(const char *path, int flags, ...) { \\
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \\
    wait(path); return real(path, flags, 0600); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \\
    int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \\
    wait(path); return real(folder, path, flags, 0600); }
OPEN(open) OPEN(open64) OPEN(__open_2) OPEN(__open64_2)
OPENAT(openat) OPENAT(openat64) OPENAT(__openat_2) OPENAT(__openat64_2)
"""


@pytest.mark.unsanitized
@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize(
    "disk", [SLOW_DISK, CAN_NOT_TELL, SLOW_TO_OPEN], ids=["nothing cached", "cache can't be asked", "slow to open"]
)
def test_disk(tmp_path: Path, disk: str, connections: int) -> None:
    """A loop that waits for it keeps all its connections waiting, not only the one whose file it is."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "the compiler that fastpost needs anyway"
    source, library = tmp_path / "slow_disk.c", tmp_path / "slow_disk.so"
    source.write_text(disk)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    files(folder, 60, 3000)
    with Raw(Answering(*OPEN)) as server:
        told = ("--to", server.url, "--connections", str(connections))
        run = command.upload(folder, *told, prefix=("env", f"LD_PRELOAD={library}"))
    assert run.code == 0
    waited = run.report["blocked_s"]
    assert waited["disk"] >= 0.9 * sum(waited.values()), waited
    assert run.report["limited_by"]["cause"] == "disk"


class Later(Script):
    """Puts each file off once, for so many seconds."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._put_off: set[str] = set()

    def completed(self, peer: Peer, request: Request) -> None:
        again = request.path in self._put_off
        self._put_off.add(request.path)
        peer.answer(request, 201) if again else peer.answer(request, 503, retry_after=str(self._seconds))


def test_what_waits_to_be_tried_again(tmp_path: Path) -> None:
    """Streams are free and nothing is in flight: what the server put off is the limit, however fast it answers."""
    with Server(Later(1)) as server:
        tally = upload(server.url, files(tmp_path, 60), concurrency=20)
    named(tally, "retry")
    assert tally.retried == 60
    assert causes.split(tally)["retry"] <= 20 * (tally.finished - tally.started)
    assert "its log says why" in _sentence(tally)


def test_what_waits_although_no_more_may_begin(tmp_path: Path) -> None:
    """More than a thousand are put off: what is still in line may not begin, and is no reason to say that it could."""
    (file,) = files(tmp_path, 1)
    uploads = [Upload(file.file, b"%06d" % number, 100) for number in range(2000)]

    with Server(Later(2)) as server:
        tally = upload(server.url, uploads, concurrency=50)
    verdict = causes.verdict(tally)
    assert verdict is not None
    assert verdict.cause == "retry", causes.split(tally)


def test_only_streams_that_the_server_allows_are_free(tmp_path: Path) -> None:
    with Server(Later(1), max_concurrent_streams=5) as server:
        tally = upload(server.url, files(tmp_path, 30), concurrency=20)
    assert 0 < causes.split(tally)["retry"] <= 5 * (tally.finished - tally.started)


def test_what_waits_for_a_new_connection(tmp_path: Path) -> None:
    """The server ends each one after some answers, and the next one comes late."""

    class Ending(Script):
        answered = 0

        def accepts(self, number: int) -> bool:
            if number:
                PAUSE.wait(0.6)
            return True

        def completed(self, peer: Peer, request: Request) -> None:
            peer.answer(request, 201)
            self.answered += 1
            if self.answered == 20:
                peer.flush()
                peer.drop()

    with Server(Ending()) as server:
        tally = upload(server.url, files(tmp_path, 60), concurrency=10)
    assert tally.connections == 2
    named(tally, "retry")


def test_time_before_a_run_is_cut_short_is_told_too(tmp_path: Path) -> None:
    """A server that answers nothing makes no turn in which time would be split."""

    class Silent(Script):
        def completed(self, peer: Peer, request: Request) -> None:
            PAUSE.wait(0.0)

    async def main(url: str) -> Tally:
        client = uploader(url, concurrency=10)
        running = asyncio.ensure_future(client.run(batches(files(tmp_path, 10))))
        await asyncio.sleep(0.5)
        client.stop(0.0)
        await running
        return client.tally

    with Server(Silent()) as server:
        tally = drive(main(server.url))
    named(tally, "server")
    assert causes.split(tally)["server"] > 10 * 0.4


def test_no_more_at_a_time_is_proposed_to_who_puts_off(tmp_path: Path) -> None:
    tally = Tally()
    tally.blocked, tally.retried, tally.ok = {"server": 9.0}, 30, 100
    assert "--concurrency" not in _sentence(tally)
    assert "no cure" in _sentence(tally)


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("server", "latency is made of that"),
        ("stream_window", "it alone can grant more (nginx: http2_body_preread_size, client_body_buffer_size)"),
        ("connection_window", "--connections 4"),
    ],
)
def test_no_more_uploads_at_a_time_are_proposed_to_those_that_begin_by_the_clock(cause: str, told: str) -> None:
    """And that the server was the limit nobody knows: their rate is the one that was asked for."""
    tally = Tally(50)
    tally.found = 51
    tally.blocked, tally.peer = {cause: 1.0}, Granted(server="nginx/1.22.1")
    verdict = causes.verdict(tally, scheduled=True)
    assert verdict is not None
    assert told in verdict.sentence
    assert "--concurrency" not in verdict.sentence
    assert "it is the limit" not in verdict.sentence


@pytest.mark.parametrize(
    ("blocked", "at_once", "refused", "told", "untold"),
    [
        ({"server": 9.0}, 1, 0, "(--concurrency)", "--connections"),
        ({"stream_window": 9.0}, 1, 0, "(--concurrency)", "--connections"),
        (
            {"server": 9.0, "stream_limit": 1.0},
            1,
            0,
            "4 uploads at once on a connection; --connections 4",
            "--concurrency",
        ),
        ({"server": 9.0, "stream_limit": 1.0}, 8, 0, "--connections 16", "--concurrency"),
        ({"stream_limit": 9.0}, 16, 0, "it alone can grant more", "--connections"),
        ({"stream_limit": 9.0}, 32, 0, "it alone can grant more", "--connections"),
        ({"connection_window": 9.0}, 2, 6, "it alone can grant more", "--connections"),
    ],
)
def test_no_cure_is_named_that_was_tried(
    blocked: dict[str, float], at_once: int, refused: int, told: str, untold: str
) -> None:
    tally = Tally(50)
    tally.found = 51
    tally.blocked, tally.at_once, tally.refused = blocked, at_once, refused
    tally.peer = Granted(max_concurrent_streams=4)
    assert told in _sentence(tally)
    assert untold not in _sentence(tally)


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        ({"ENABLE_CONNECT_PROTOCOL": 1, "MAX_CONCURRENT_STREAMS": 100}, "HAProxy: tune.h2.fe.rxbuf"),
        ({"MAX_CONCURRENT_STREAMS": 7}, "granian: --http2-initial-connection-window-size"),
    ],
)
def test_the_knob_is_that_of_a_proxy_and_not_of_what_is_behind_it(settings: dict[str, int], knob: str) -> None:
    """A proxy passes on the `server` field; windows are its own, as `probe` says too."""
    tally = Tally(50)
    tally.found = 51
    tally.blocked, tally.peer = {"connection_window": 1.0}, Granted(server="granian", settings=settings)
    assert f"; {knob}; or --connections" in _sentence(tally)


@pytest.mark.parametrize(
    ("cause", "found", "concurrency", "at_once", "told"),
    [
        ("connection_window", 1, 50, 1, "64 KiB, and it alone can grant more"),
        ("connection_window", 3, 50, 1, "64 KiB; --connections 3"),
        ("connection_window", 8, 50, 8, "64 KiB, and it alone can grant more"),
        ("connection_window", 100, 2, 1, "64 KiB; --concurrency 4 --connections 4"),
        ("stream_window", 50, 50, 1, "for each upload, and it alone can grant more"),
        ("server", 50, 50, 1, "had not answered yet: it is the limit"),
    ],
)
def test_a_cure_is_for_as_many_uploads_as_there_are(
    cause: str, found: int, concurrency: int, at_once: int, told: str
) -> None:
    """More at a time help nobody who has no more, nor do connections beyond what may be in flight."""
    tally = Tally(concurrency)
    tally.blocked, tally.found, tally.at_once = {cause: 1.0}, found, at_once
    tally.peer = Granted(connection_window=65_536, stream_window=65_536)
    assert _sentence(tally).endswith(told)


def test_time_adds_up(tmp_path: Path) -> None:
    """No more stream-seconds than streams and seconds, and none while nothing is in flight."""
    uploads = files(tmp_path, 200, 20_000)
    with Server() as server:
        tally = upload(server.url, uploads, concurrency=10)
    total = sum(causes.split(tally).values())
    assert 0 < total <= 10 * (tally.finished - tally.started)


def _sentence(tally: Tally) -> str:
    verdict = causes.verdict(tally)
    assert verdict is not None
    return verdict.sentence
