"""The payload in memory: excerpts of any size, round and round, and the source that reads them."""

from __future__ import annotations

import zlib

import pytest
from h2_judge import Judge, Wire, session

from fastpost._payload import Payload
from fastpost._table import Attempt

OVERLAP = 65_536


def whole(payload: Payload) -> bytes:
    return b"".join(payload.excerpt(at, OVERLAP).octets(0, OVERLAP) for at in range(0, payload.period, OVERLAP))


def test_an_excerpt_goes_round_and_round() -> None:
    payload = Payload(OVERLAP)
    octets = whole(payload)
    start, size = OVERLAP - 10, 3 * OVERLAP
    excerpt = payload.excerpt(start, size)
    expected = (octets * 5)[start : start + size]
    assert b"".join(excerpt.octets(at, OVERLAP) for at in range(0, size, OVERLAP)) == expected


def test_it_is_incompressible_and_never_the_same() -> None:
    octets = whole(Payload(OVERLAP))
    assert len(zlib.compress(octets, 9)) > len(octets)
    assert octets != whole(Payload(OVERLAP))


def test_excerpts_outlive_their_payload() -> None:
    payload = Payload(OVERLAP)
    excerpt = payload.excerpt(5, 10)
    octets = whole(payload)[5:15]
    del payload
    assert excerpt.octets(0, 10) == octets


@pytest.mark.parametrize("period", [0, -4096, 4096, OVERLAP + 1])
def test_a_period_is_whole_pages(period: int) -> None:
    with pytest.raises(ValueError, match="page size"):
        Payload(period)


def test_nothing_beyond_the_end() -> None:
    excerpt = Payload(OVERLAP).excerpt(0, 100)
    for offset, length in ((0, 101), (-1, 5), (90, 11), (0, -1)):
        with pytest.raises(ValueError, match="beyond the end"):
            excerpt.octets(offset, length)
    with pytest.raises(ValueError, match="negative"):
        Payload(OVERLAP).excerpt(-1, 1)


@pytest.mark.parametrize("staged", [False, True])
def test_what_arrives_is_the_excerpt(staged: bool) -> None:
    """Read when small, in place when large, over the edge of the circle; h2 judges every frame."""
    payload = Payload(2 * OVERLAP)
    octets = whole(payload) * 20
    excerpts = [payload.excerpt(payload.period - 3, size) for size in (0, 1, 100, OVERLAP, OVERLAP + 1, 1_000_000)]
    judge = Judge(connection_window=2**20)
    wire = Wire(session(staged=staged), judge)
    wire.client.submit([Attempt(None, b"", b"/%d" % n, content=one) for n, one in enumerate(excerpts)])
    wire.run()
    assert [attempt.failure for attempt in wire.finished] == [None] * len(excerpts)
    for number, one in enumerate(excerpts):
        assert judge.bodies()[b"/%d" % number] == octets[one.start : one.start + one.size]
        assert one.size == len(judge.bodies()[b"/%d" % number])
