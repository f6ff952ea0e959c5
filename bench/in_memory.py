"""The whole session against a peer that costs nothing: frames written ahead, octets thrown away.

What is measured is then the session. The microbenchmarks time it with `Memory`; bench/instructions.py counts it with
`Pair` and `Null`, where the octets take the way that they take in `connection.py`, in a process of its own:

    python -m bench.in_memory small 10 FOLDER
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fastpost._table import Attempt
from fastpost._wire import Wire
from fastpost.errors import ConnectionLost
from fastpost.session import Session

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
LARGEST_WINDOW = 2**31 - 1
AUTHORITY, AGENT = b"store.example", (b"user-agent", b"fastpost/0.1")
FIELDS = ((b"content-type", b"image/jpeg"),)
#: :status 200, from the static table.
RESPONSE = b"\x88"
NOW = 1.0
#: Seconds of a tick, and gather lists that one sends: as `connection.py` has it with wide windows.
TICK = 0.001
LISTS_PER_TICK = 8


def frame(kind: int, stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    """Return the octets of a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def window_update(stream_id: int, octets: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, stream_id, octets.to_bytes(4, "big"))


#: What the peer sends first: the largest windows, frames of 64 KiB.
GREETING = frame(SETTINGS, 0, b"\x00\x04\x7f\xff\xff\xff" + b"\x00\x05\x00\x01\x00\x00") + window_update(
    0, LARGEST_WINDOW - 65535
)


def answers(batches: int, streams: int, octets: int) -> list[bytes]:
    """Return, for each batch of streams of a connection, the responses to all of them and credit for their octets."""
    credit = window_update(0, octets) if octets else b""
    response = [
        frame(HEADERS, 2 * number + 1, RESPONSE, END_STREAM | END_HEADERS) for number in range(batches * streams)
    ]
    return [b"".join(response[at : at + streams]) + credit for at in range(0, len(response), streams)]


class Peer(Protocol):
    """Where octets go, and where answers come from."""

    def take(self, session: Session, now: float) -> None:
        """Take what is in the gather list."""

    def say(self, session: Session, octets: bytes, now: float) -> None:
        """Have the session receive the octets."""


class Memory:
    """Nobody: what is gathered counts as sent, unseen."""

    def take(self, session: Session, now: float) -> None:
        session.plane.consume(session.gather.pending, now)

    def say(self, session: Session, octets: bytes, now: float) -> None:
        session.receive(octets, now)


class Null(Memory):
    """/dev/null, which is given the whole arena as TLS would be."""

    def __init__(self) -> None:
        self._file = open(os.devnull, "wb", buffering=0)  # noqa: SIM115 - as long as the peer

    def take(self, session: Session, now: float) -> None:
        session.plane.consume(self._file.write(session.gather), now)


class Pair:
    """A socket pair, emptied after each sendmsg by the same process, so that it takes the same octets in every run."""

    def __init__(self) -> None:
        self._client, self._server = socket.socketpair()
        # What Linux allows everyone: the number of sendmsg calls shall not depend on how a machine is set up.
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212992)
        self._buffer = bytearray(1 << 20)

    def take(self, session: Session, now: float) -> None:
        sent = session.plane.send(self._client.fileno(), now)
        while sent > 0:
            sent -= self._server.recv_into(self._buffer)

    def say(self, session: Session, octets: bytes, now: float) -> None:
        self._server.send(octets)
        Wire(session.plane, self._client.fileno()).receive(now)


def opened(peer: Peer | None = None, *, staged: bool = False, concurrency: int = 50) -> Session:
    """Return a session whose server has opened all windows."""
    peer = peer or Memory()
    session = Session(
        method=b"PUT", scheme=b"http", authority=AUTHORITY, fields=[AGENT], concurrency=concurrency, staged=staged
    )
    session.begin()
    peer.say(session, GREETING, NOW)
    while session.fill(NOW):
        peer.take(session, NOW)
    return session


def close(session: Session) -> None:
    """End the session and drop all that it holds."""
    session.lose(ConnectionLost("the benchmark is over"), NOW)
    session.take_finished()


def upload(session: Session, peer: Peer, files: Sequence[tuple[bytes, bytes]], answers: Sequence[bytes]) -> None:
    """Upload all files (their names and paths of URLs) at once, as often as there are answers.

    The clock goes on with every tick: what its answers bring, and the lists that are sent behind them.
    """
    now = NOW
    for answer in answers:
        session.submit([Attempt(None, file, path, FIELDS) for file, path in files])
        lists = 0
        while session.fill(now):
            peer.take(session, now)
            lists += 1
            if lists % LISTS_PER_TICK == 0:
                now += TICK
        now += TICK
        peer.say(session, answer, now)
        finished = session.take_finished()
        assert len(finished) == len(files), session.failure
        assert not [attempt for attempt in finished if not attempt.ok]


class Case(NamedTuple):
    """What goes up at once: so many files of so many octets, staged or not."""

    files: int
    size: int
    staged: bool = False


#: Those of bench/instructions.py. Files of zeros without blocks do: what the kernel does is not counted.
CASES = {"small": Case(50, 4096), "mapped": Case(1, 1 << 28), "staged": Case(1, 1 << 28, staged=True)}


def make(case: Case, folder: Path) -> list[tuple[bytes, bytes]]:
    """Make the case's files. Returns their names and paths of URLs."""
    made = []
    for number in range(case.files):
        file = folder / f"IMG_{number:05}.jpg"
        with file.open("wb") as out:
            out.truncate(case.size)
        made.append((bytes(file), b"/dav/photos/2024/" + file.name.encode()))
    return made


def main(name: str, batches: int, most: int, folder: Path) -> None:
    """Upload a case's files so many times; what is prepared is for `most` times, so that it costs the same."""
    case = CASES[name]
    peer = Null() if case.staged else Pair()
    prepared = answers(most, case.files, case.files * case.size)
    session = opened(peer, staged=case.staged)
    upload(session, peer, make(case, folder), prepared[:batches])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
