"""A server that speaks HTTP/2 frame by frame, so that it can misbehave, and a client's whole run against it.

A scenario is a function of one connection, a `Line`, and runs on that connection's thread from top to bottom: greet,
wait for requests, send anything at all, then serve well to the end. Meanwhile every frame of the client is judged:
windows, frame sizes, stream ids, concurrency, HPACK, content-length. What it got wrong stands in `violations`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

import hpack
from click.testing import CliRunner
from h2.settings import SettingCodes
from h2_judge import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    frame,
    number,
    rst_stream,
    settings_frame,
    window_update,
)
from in_process import HOST
from integration.servers import Certificates

from fastpost import cli

#: Seconds after which a wait for the client is in vain; nothing takes a tenth of it.
PATIENCE = 10.0

TABLE = SettingCodes.HEADER_TABLE_SIZE
STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS
WINDOW = SettingCodes.INITIAL_WINDOW_SIZE
FRAME = SettingCodes.MAX_FRAME_SIZE

Settings = dict[int, int]
Scenario = Callable[["Line"], None]
#: Told of "headers", "data" and "end" of a stream; True: it has acted, and the server does nothing of its own.
React = Callable[["Line", "Stream", str], bool]


class Gone(Exception):
    """The connection is over."""


@dataclasses.dataclass(eq=False)
class Stream:
    """One request, as far as it got."""

    stream_id: int
    path: str
    length: int
    window: int
    fields: dict[str, str]
    body: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False
    #: The status of the complete response.
    status: int = 0
    #: The code of the client's RST_STREAM.
    reset: int | None = None
    #: The server reset it; what was under way is dropped.
    dropped: bool = False

    @property
    def open(self) -> bool:
        """As the server sees it; the client may know it a little longer."""
        return self.reset is None and not self.dropped and not (self.ended and self.status)


class Line:
    """The server's end of one connection. `number` counts from 0."""

    def __init__(self, stream: socket.socket, number: int, violations: list[str]) -> None:
        self.number = number
        self.streams: dict[int, Stream] = {}
        #: Whether DATA is credited as it arrives.
        self.credits = True
        self.encoder = hpack.Encoder()
        #: The code of the client's GOAWAY.
        self.goaway: int | None = None
        self.pings = 0
        #: Octets of all WINDOW_UPDATEs of the client.
        self.granted = 0
        #: The client has opened another connection.
        self.succeeded = threading.Event()
        self._socket = stream
        self._violations = violations
        self._octets = bytearray()
        self._began = False
        self._decoder = hpack.Decoder()
        #: SETTINGS that the client has not acknowledged, and those in force.
        self._told: collections.deque[Settings] = collections.deque()
        self._settings: Settings = {TABLE: 4096, STREAMS: LARGEST_WINDOW, WINDOW: 65_535, FRAME: 16_384}
        self._window = 65_535
        self._block: tuple[Frame, bytearray] | None = None

    # --- what a scenario says ---------------------------------------------------------------------

    def greet(self, settings: Settings | None = None, *more: bytes, window: int = LARGEST_WINDOW) -> None:
        """Send SETTINGS and open the connection window up to `window`, with more behind them in the same segment."""
        self.change(settings or {}, self.credit(0, window - 65_535) if window > 65_535 else b"", *more)

    def change(self, settings: Settings, *more: bytes) -> None:
        """Send SETTINGS, in force from their acknowledgement on."""
        self._told.append(settings)
        self.send(settings_frame(settings), *more)

    def send(self, *octets: bytes) -> None:
        """Send anything. Raises Gone when the client is."""
        try:
            self._socket.sendall(b"".join(octets))
        except OSError as error:
            raise Gone from error

    def credit(self, stream_id: int, octets: int) -> bytes:
        """Return a WINDOW_UPDATE that counts."""
        if stream_id == 0:
            self._window += octets
        else:
            self.streams[stream_id].window += octets
        return window_update(stream_id, octets)

    def block(self, status: int | None, **fields: str) -> bytes:
        """Return a field block; None: trailers. Underscores in names become hyphens."""
        named = [(":status", str(status))] if status is not None else []
        encoded: bytes = self.encoder.encode([*named, *((name.replace("_", "-"), fields[name]) for name in fields)])
        return encoded

    def response(self, stream: Stream, status: int = 201, **fields: str) -> bytes:
        """Return a whole response without content."""
        stream.status = status
        return frame(HEADERS, END_HEADERS | END_STREAM, stream.stream_id, self.block(status, **fields))

    def reset(self, stream: Stream, error_code: int) -> bytes:
        """Return an RST_STREAM; what the client has under way is dropped."""
        stream.dropped = True
        return rst_stream(stream.stream_id, error_code)

    def close(self, *, abort: bool = False) -> NoReturn:
        """End the connection: FIN, or RST when `abort`."""
        if abort:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone

    # --- what a scenario waits for ----------------------------------------------------------------

    def begun(self, count: int) -> list[Stream]:
        """Return the requests so far, once there are so many."""
        self.until(lambda: len(self.streams) >= count)
        return list(self.streams.values())

    def until(self, holds: Callable[[], bool]) -> None:
        """Take frames until something holds. Raises Gone."""
        while not holds():
            self.take()

    def settled(self) -> None:
        """Wait until all SETTINGS are acknowledged."""
        self.until(lambda: not self._told)

    def serve(
        self, react: React = lambda line, stream, event: False, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Answer what is complete and credit what arrives, until something holds. Raises Gone."""
        for stream in list(self.streams.values()):
            if stream.ended and stream.open and not react(self, stream, "end"):
                self.send(self.response(stream))
        while not until():
            for stream, event in self.take():
                if stream.open and not react(self, stream, event) and event == "end" and not stream.status:
                    self.send(self.response(stream))

    def drain(self) -> NoReturn:
        """Read what the client says, and say nothing, until it is gone."""
        self.credits = False
        while True:
            self.take()

    def rest(self) -> NoReturn:
        """Read nothing and say nothing until the client has turned to another connection."""
        if not self.succeeded.wait(PATIENCE):
            self.blame("waited for another connection in vain")
        raise Gone

    # --- what the client says ---------------------------------------------------------------------

    def take(self) -> list[tuple[Stream, str]]:
        """Take one frame; returns what it brought on its stream. Raises Gone."""
        one = self._read()
        if one.kind in (HEADERS, CONTINUATION):
            return self._on_block(one)
        if one.kind == DATA:
            return self._on_data(one)
        if one.kind == RST_STREAM:
            self.streams[one.stream_id].reset = int.from_bytes(one.payload, "big")
        elif one.kind == SETTINGS and one.flags & ACK:
            self._in_force(self._told.popleft() if self._told else {})
        elif one.kind == PING and not one.flags & ACK:
            self.pings += 1
            self.pinged(one)
        elif one.kind == GOAWAY:
            self.goaway = int.from_bytes(one.payload[4:8], "big")
        elif one.kind == WINDOW_UPDATE:
            self.granted += int.from_bytes(one.payload, "big")
        elif one.kind not in (SETTINGS, PING):
            self.blame(f"a frame of type {one.kind}")
        return []

    def pinged(self, ping: Frame) -> None:
        """Answer a PING."""
        self.send(frame(PING, ACK, 0, ping.payload))

    def blame(self, what: str) -> None:
        """Note what the client got wrong."""
        self._violations.append(f"connection {self.number}: {what}")

    def _read(self) -> Frame:
        if not self._began:
            if self._exactly(len(PREFACE)) != PREFACE:
                self.blame("no preface")
            self._began = True
        head = self._exactly(9)
        length = int.from_bytes(head[:3], "big")
        if length > self._settings[FRAME]:
            self.blame(f"a frame of {length} octets")
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        while len(self._octets) < count:
            try:
                got = self._socket.recv(65_536)
            except TimeoutError:
                self.blame("waited for in vain")
                raise Gone from None
            except OSError as error:
                raise Gone from error
            if not got:
                raise Gone
            self._octets += got
        octets = bytes(self._octets[:count])
        del self._octets[:count]
        return octets

    def _in_force(self, settings: Settings) -> None:
        for stream in self.streams.values():
            stream.window += settings.get(WINDOW, self._settings[WINDOW]) - self._settings[WINDOW]
        self._settings.update(settings)
        self._decoder.max_allowed_table_size = self._settings[TABLE]

    def _on_block(self, one: Frame) -> list[tuple[Stream, str]]:
        first, block = self._block or (one, bytearray())
        self._block = (first, block)
        block += one.payload
        if not one.flags & END_HEADERS:
            return []
        self._block = None
        try:
            decoded: Any = self._decoder.decode(bytes(block), raw=True)
            fields = {name.decode(): value.decode("utf-8", "surrogateescape") for name, value in decoded}
        except hpack.HPACKError as error:
            self.blame(f"{type(error).__name__}: {error}")
            raise Gone from error
        if one.stream_id % 2 == 0 or one.stream_id <= max(self.streams, default=0):
            self.blame(f"HEADERS on stream {one.stream_id}")
        stream = Stream(one.stream_id, fields[":path"], int(fields["content-length"]), self._settings[WINDOW], fields)
        self.streams[one.stream_id] = stream
        if sum(known.open for known in self.streams.values()) > self._settings[STREAMS]:
            self.blame(f"more than {self._settings[STREAMS]} streams")
        stream.ended = bool(first.flags & END_STREAM)
        return [(stream, "headers"), (stream, "end")][: 1 + stream.ended]

    def _on_data(self, one: Frame) -> list[tuple[Stream, str]]:
        stream = self.streams[one.stream_id]
        self._window -= len(one.payload)
        stream.window -= len(one.payload)
        if (self._window < 0 or stream.window < 0) and one.payload:
            self.blame(f"more than the windows allow on stream {one.stream_id}")
        if stream.ended or stream.reset is not None:
            self.blame(f"DATA on stream {one.stream_id}, which the client has ended")
        stream.body += one.payload
        stream.ended = bool(one.flags & END_STREAM)
        if stream.ended and len(stream.body) != stream.length:
            self.blame(f"{stream.length} octets promised on stream {one.stream_id}, {len(stream.body)} sent")
        if self.credits and one.payload:
            credit = self.credit(0, len(one.payload))
            if stream.open and not stream.ended:
                credit += self.credit(stream.stream_id, len(one.payload))
            self.send(credit)
        return [(stream, "data"), (stream, "end")][: 1 + stream.ended]


class HostileServer:
    """Plays a scenario to the first connections and serves the others well, as a context manager.

    Args:
        scenario: what to do; when it returns, the connection is served well to its end.
        tls: serve TLS with ALPN h2.
        times: connections that meet the scenario.
        path: a Unix socket to listen on, instead of a port.
    """

    def __init__(
        self, scenario: Scenario, *, tls: Certificates | None = None, times: int = 1, path: Path | None = None
    ) -> None:
        self.lines: list[Line] = []
        self.violations: list[str] = []
        self._scenario = scenario
        self._times = times
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(tls.chain, tls.key)
            self._context.set_alpn_protocols(["h2"])
        if path is None:
            self._listener = socket.create_server((HOST, 0))
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        #: On a Unix socket of a host that nobody knows, as it isn't to be asked for.
        self.host = "store.example" if path else f"{HOST}:{self._listener.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host}/"
        self._unix = path

    @property
    def options(self) -> tuple[str, ...]:
        """What a run needs to upload here."""
        there = ("--unix-socket", str(self._unix)) if self._unix else ()
        return "--to", self.url, *there, *(("--cacert", str(self._tls.cafile)) if self._tls else ())

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the client keeps a connection"
        self._listener.close()

    def streams(self) -> Iterator[Stream]:
        """Yield every request of every connection, in order."""
        for line in self.lines:
            yield from line.streams.values()

    def taken(self) -> dict[str, bytes]:
        """Return the bodies that were complete and answered with success, by name."""
        return {
            stream.path[1:]: bytes(stream.body)
            for stream in self.streams()
            if stream.ended and 200 <= stream.status < 300 and not stream.dropped
        }

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                if self._unix is None:
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream.settimeout(PATIENCE)
                self._threads.append(threading.Thread(target=self._play, args=(stream,), daemon=True))
                self._threads[-1].start()

    def _play(self, plain: socket.socket) -> None:
        number = len(self.lines)
        with plain, contextlib.suppress(Gone, OSError):
            stream = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            with stream:
                line = Line(stream, number, self.violations)
                if self.lines:
                    self.lines[-1].succeeded.set()
                self.lines.append(line)
                if number < self._times:
                    self._scenario(line)
                else:
                    line.greet()
                line.serve()


# --- a run ----------------------------------------------------------------------------------------

#: The tests run under a sanitizer (`make sanitize`).
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
#: Where something changes: empty, one octet, the default frame and window, the border between pread and map.
SIZES = (0, 1, 100, 5_000, 16_384, 16_385, 65_535, 65_536, 65_537, 150_000, 400_000)


def folder_of(folder: Path, sizes: Collection[int] = SIZES) -> Path:
    """Write files of these sizes, each with its own content."""
    made = folder / "files"
    made.mkdir()
    for index, size in enumerate(sizes):
        octets = b"".join(number(index << 24 | word) for word in range(size // 4 + 1))
        made.joinpath(f"{index:03}").write_bytes(octets[:size])
    return made


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to. `failed`: the class name of each failure, by the file's name."""

    code: int
    err: str
    report: dict[str, Any]
    failed: dict[str, str]

    @property
    def repeated(self) -> tuple[int, int]:
        """Retries and replays."""
        attempts = self.report["attempts"]
        return attempts["retried"], attempts["replayed"]


def upload(folder: Path, server: HostileServer, *options: str) -> Outcome:
    """Run `fastpost upload` in this process, so that what it leaves behind is seen."""
    result = CliRunner().invoke(cli.main, _arguments(folder, server, options))
    return _outcome(folder, result.exit_code, result.stdout, result.stderr)


def upload_apart(folder: Path, server: HostileServer, *options: str) -> tuple[Outcome, int]:
    """As `upload`, in a process of its own; returns its largest resident set in octets too."""
    out, err = folder.parent / "out", folder.parent / "err"
    command = [sys.executable, "-m", "fastpost", *_arguments(folder, server, options)]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        watchdog = threading.Timer(PATIENCE * 2, process.kill)
        watchdog.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watchdog.cancel()
    return _outcome(folder, process.returncode, out.read_text(), err.read_text()), usage.ru_maxrss * 1024


def _arguments(folder: Path, server: HostileServer, options: Collection[str]) -> list[str]:
    told = ["-v", "--output-format", "json", "--failures", str(folder.parent / "failures.ndjson")]
    return ["upload", str(folder), *server.options, *told, "--connections", "1", "--retry-delay", "0.001", *options]


def _outcome(folder: Path, code: int, out: str, err: str) -> Outcome:
    print(out, err[-4000:])
    assert "Traceback" not in err
    records = [json.loads(line) for line in (folder.parent / "failures.ndjson").read_text().splitlines()]
    failed = {record["name"]: record["error"] for record in records}
    assert len(failed) == len(records), "a file has two results"
    return Outcome(code, err, json.loads(out), failed)


def check(
    outcome: Outcome, folder: Path, server: HostileServer, failed: Mapping[str, str] | None = None, early: str = ""
) -> None:
    """Assert that each file has one result, the right one, and that successes arrived whole.

    Args:
        outcome: what the run said.
        folder: what was uploaded.
        server: what arrived.
        failed: the failures that there must be.
        early: the file that was answered with success before its end.
    """
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not server.violations, server.violations
    assert outcome.failed == (failed or {})
    assert outcome.code == (1 if failed else 0)
    ok = len(files) - len(outcome.failed)
    assert outcome.report["files"] == {"total": len(files), "ok": ok, "failed": len(outcome.failed), "skipped": 0}
    taken = server.taken()
    for name in files.keys() - outcome.failed.keys() - {early}:
        assert taken[name] == files[name], name
