"""Any octets a server may send, into a session: only documented errors, each upload ends once, nothing stays behind.

    python tests/fuzz/fuzz_session.py --seconds 60

The first three octets of an input choose how the session is set up and how large the pieces are in which the rest
arrives. What the session sends must always be whole frames, no larger than the server allows.
"""

from __future__ import annotations

import atexit
import gc
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Hashable
from pathlib import Path

import hpack
from harness import main

sys.path.insert(0, str(Path(__file__).parent.parent))

from h2_judge import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    attempts,
    frame,
    number,
    session,
    split,
)

from fastpost._chunker import live_objects
from fastpost._table import live_attempts
from fastpost.errors import ConnectionLost, FastpostError, NotHttp2, ProtocolViolation

FOLDER = Path(tempfile.mkdtemp(prefix="fastpost-fuzz-"))
atexit.register(shutil.rmtree, FOLDER)
FILES = []
for size in (0, 1, 20_000, 70_000, 300_000):
    FILES.append(FOLDER / str(size))
    FILES[-1].write_bytes(bytes(size))

NUMBERS = (0, 1, 2, 3, 5, 7, 100, 16_383, 16_384, 65_535, 65_536, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
STREAMS = (0, 1, 1, 3, 3, 5, 7, 9, 2, 11, 99, 2**31 - 1)


def check(octets: bytes) -> Hashable:
    """Feed one session; returns how it ended."""
    setup, piece, late = (*octets[:3], 0, 0, 0)[:3]
    octets = octets[3:]
    client = session(staged=bool(setup & 1), fair=bool(setup & 2), keep_responses=bool(setup & 4))
    client.data_to_send(1.0)
    files = FILES[: 1 + (setup >> 3) % len(FILES)]
    size = max((1, 7, 100, 16_384, len(octets) + 1)[piece % 5], len(octets) // 500)
    submitted = attempts(files)
    if late % 2 == 0:
        client.submit(submitted)
    now, sent = 2.0, 0
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    for index, part in enumerate(pieces):
        client.receive(part, now)
        if late % 2 and index == len(pieces) // 2:
            client.submit(submitted)
        if index % (1 + late % 7) == 0:
            sent += outgoing(client.data_to_send(now))
        now += 0.003
        if client.failure is not None and index % 3 == 0:
            break  # a connection reads no further, but what it has read it hands over
    sent += outgoing(client.data_to_send(now))
    failure: FastpostError | None = client.failure
    assert failure is None or isinstance(failure, ProtocolViolation | NotHttp2), failure
    client.plane.stalled(now + 100, 1.0)
    client.plane.note_delivered(sent, now)
    client.lose(ConnectionLost("the input is over"), now)
    over = [*client.take_finished(), *client.take_unsent()]
    if over or late % 2 == 0:
        assert sorted(map(id, over)) == sorted(map(id, submitted)), "an upload without its one end"
    ends = frozenset(type(one.failure).__name__ for one in over)
    del over, client, submitted
    if live_objects() != (0, 0) or live_attempts():
        gc.collect()
    assert (live_objects(), live_attempts()) == ((0, 0), 0), "something stays behind"
    return re.sub(r"\d+", "n", str(failure)), ends


def outgoing(octets: bytes) -> int:
    """Require whole frames; returns their octets."""
    for one in split(octets):
        assert one.kind <= CONTINUATION
        assert len(one.payload) < 2**24
    assert len(octets) < 4_000_000, "more than all files and answers together"
    return len(octets)


def make(rng: random.Random) -> bytes:
    """Draw a connection: mostly SETTINGS first, then frames that could come, in any order."""
    encoder = hpack.Encoder()
    parts = [rng.randbytes(3)]
    if rng.random() < 0.95:
        parts.append(settings(rng))
    for _ in range(rng.choice((1, 3, 10, 40))):
        one = any_frame(rng, encoder)
        parts.append(one * rng.choice((1, 1, 1, 1, 2, 3 if len(one) > 100 else 300)))
    if rng.random() < 0.1:
        parts.insert(rng.randrange(1, len(parts) + 1), rng.randbytes(rng.randrange(60)))
    return b"".join(parts)


def settings(rng: random.Random) -> bytes:
    """Return SETTINGS with any values."""
    values = [(rng.randrange(8), rng.choice(NUMBERS)) for _ in range(rng.choice((0, 0, 1, 3)))]
    return frame(SETTINGS, 0, 0, b"".join(code.to_bytes(2, "big") + number(value) for code, value in values))


def any_frame(rng: random.Random, encoder: hpack.Encoder) -> bytes:
    """Return one frame, right or wrong."""
    kind = rng.choice((HEADERS,) * 5 + (DATA,) * 4 + (WINDOW_UPDATE,) * 4 + (RST_STREAM, SETTINGS, PING, GOAWAY) * 2
                      + (PRIORITY, PUSH_PROMISE, CONTINUATION, 0x42))  # fmt: skip
    stream_id = rng.choice(STREAMS)
    flags = rng.choice((0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM, PADDED, rng.randrange(256)))
    if kind == SETTINGS and rng.random() < 0.8:
        return settings(rng)
    if kind in (PING, GOAWAY) and rng.random() < 0.9:
        stream_id = 0
    payload = {
        HEADERS: lambda: block(rng, encoder),
        CONTINUATION: lambda: block(rng, encoder),
        DATA: lambda: bytes(rng.choice((0, 1, 100, 16_384, 16_385))),
        WINDOW_UPDATE: lambda: number(rng.choice(NUMBERS)),
        RST_STREAM: lambda: number(rng.randrange(15)),
        GOAWAY: lambda: number(rng.choice(STREAMS)) + number(rng.randrange(15)),
        PING: lambda: rng.choice((b"fastpost", bytes(8))),
    }.get(kind, lambda: rng.randbytes(rng.randrange(20)))()
    if rng.random() < 0.05:
        payload = payload[: rng.randrange(len(payload) + 1)] + rng.randbytes(rng.randrange(3))
    if flags & PADDED and rng.random() < 0.8:
        padding = rng.randrange(20)
        payload = bytes([padding]) + payload + bytes(padding)
    return frame(kind, flags, stream_id, payload)


def block(rng: random.Random, encoder: hpack.Encoder) -> bytes:
    """Return a field block: mostly a response."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(40))
    fields = [(":status", str(rng.choice((100, 103, 200, 201, 204, 301, 404, 413, 503))))] * (rng.random() < 0.9)
    fields += [("retry-after", "1"), ("location", "/x"), ("server", "fuzz"), ("x", "y" * 500)][: rng.randrange(5)]
    encoded: bytes = encoder.encode(fields)
    return encoded


if __name__ == "__main__":
    sys.exit(main("session", make, check))
