"""What connections have in line is levelled, so that none is idle while another one has a line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from h2_judge import OPEN, Script, attempts, session

from fastpost.pool import Pool


def connection(waiting: int) -> Any:
    """Return what a pool knows a connection by: four streams, none of them open, and a line."""
    script = Script(session(concurrency=4), OPEN)
    client = script.client
    client.submit(attempts([Path("/nowhere")] * waiting))
    return SimpleNamespace(session=client, submit=client.submit)


def waiting(*connections: Any) -> list[int]:
    return [one.session.plane.waiting for one in connections]


@pytest.mark.parametrize(
    ("own", "longest", "most", "after"),
    [
        (0, 12, 100, [6, 6]),
        (0, 13, 100, [7, 6]),
        (0, 12, 2, [2, 10]),
        (0, 1, 100, [1, 0]),
        (0, 0, 100, [0, 0]),
        (2, 12, 100, [8, 6]),
        (4, 12, 100, [4, 12]),
        (3, 2, 100, [3, 2]),
    ],
)
def test_who_has_too_little_gets_half_of_the_longest_line(own: int, longest: int, most: int, after: list[int]) -> None:
    """But no more than it may have, and nothing while it can fill its streams."""
    poor, rich, other = connection(own), connection(longest), connection(0)
    pool = cast(Pool, SimpleNamespace(connections=[poor, rich, other]))
    Pool.level(pool, poor, most)
    assert waiting(poor, rich, other) == [*after, 0]


def test_one_connection_has_nobody_to_take_from() -> None:
    alone = connection(2)
    Pool.level(cast(Pool, SimpleNamespace(connections=[alone])), alone, 100)
    assert waiting(alone) == [2]
