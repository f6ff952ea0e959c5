"""_rate_limit: how much leaves in how long, by one connection and by several that share a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from h2_judge import Judge, Wire, attempts, jain, nothing_left, session
from h2_judge import files as files
from hostile import HostileServer, Line, Stream, check, folder_of, upload

from fastpost._rate_limit import RateLimit
from fastpost.errors import Interrupted

LARGE = {SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}
RATE = 1_000_000


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    yield
    assert nothing_left()


class Limited(Wire):
    """A connection under a limit, which counts what arrived by when."""

    def __init__(
        self,
        limit: RateLimit,
        paths: list[Path],
        *,
        staged: bool = False,
        window: int = 2**31 - 1,
        status: bytes | None = b"201",
    ) -> None:
        judge = Judge(LARGE, connection_window=window, status=status)
        super().__init__(session(rate_limit=limit, staged=staged), judge)
        self.client.submit(attempts(paths))

    @property
    def octets(self) -> int:
        return sum(octets for _, octets in self.judge.served)


def stepped(wires: list[Limited], seconds: float) -> None:
    for _ in range(round(seconds * 1000)):
        for wire in wires:
            wire.step()


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("rate", [1_000, 50_000, RATE, 20 * RATE])
def test_what_leaves_is_what_is_allowed(files: Callable[..., list[Path]], rate: int, staged: bool) -> None:
    """At first two portions may go, a tenth of a second's octets; after that as many as the limit says."""
    wire = Limited(RateLimit(rate), files(*[4 * rate + 1] * 2), staged=staged)
    taken = []
    for _ in range(4):
        stepped([wire], 1.0)
        taken.append(wire.octets)
    for second, octets in enumerate(taken, 1):
        assert 0.9 * rate * second <= octets <= rate * (second + 0.1) + 1
    wire.close()


def test_frames_are_not_tiny(files: Callable[..., list[Path]]) -> None:
    wire = Limited(RateLimit(RATE), files(2 * RATE))
    stepped([wire], 1.0)
    assert len(wire.judge.served) <= wire.octets / 10_000
    wire.close()


def test_small_files_count_as_well(files: Callable[..., list[Path]]) -> None:
    wire = Limited(RateLimit(RATE), files(*[2_000] * 1_000))
    stepped([wire], 0.5)
    assert 0.4 * RATE <= wire.octets <= 0.61 * RATE
    wire.run()
    assert len(wire.finished) == 1_000


def test_everything_arrives_in_the_end(files: Callable[..., list[Path]]) -> None:
    paths = files(0, 1, 100_000, 300_000, 0)
    wire = Limited(RateLimit(RATE), paths)
    wire.run()
    assert wire.judge.bodies() == {b"/%d" % index: path.read_bytes() for index, path in enumerate(paths)}
    assert not wire.client.plane.wake_at


@pytest.mark.parametrize("count", [2, 3, 5])
def test_connections_share_it_evenly(files: Callable[..., list[Path]], count: int) -> None:
    limit = RateLimit(RATE)
    wires = [Limited(limit, files(4 * RATE)) for _ in range(count)]
    stepped(wires, 3.0)
    served = [wire.octets for wire in wires]
    assert 0.9 * 3 * RATE <= sum(served) <= 3.1 * RATE + 1
    assert jain(served) >= 0.95, served
    for wire in wires:
        wire.close()


def test_who_has_nothing_to_send_leaves_it_to_the_others(files: Callable[..., list[Path]]) -> None:
    limit = RateLimit(RATE)
    wires = [Limited(limit, files(10_000)), Limited(limit, files(4 * RATE))]
    stepped(wires, 2.0)
    assert wires[1].octets >= 0.9 * 2 * RATE
    for wire in wires:
        wire.close()


def test_many_connections_with_little_each_reach_it(files: Callable[..., list[Path]]) -> None:
    """Who has a small file to send doesn't keep a large part of the line from others."""
    limit = RateLimit(RATE)
    wires = [Limited(limit, files(*[1_000] * 100)) for _ in range(20)]
    stepped(wires, 1.0)
    assert 0.9 * RATE <= sum(wire.octets for wire in wires) <= 1.11 * RATE
    for wire in wires:
        wire.close()


def test_nobody_saves_up_for_later(files: Callable[..., list[Path]]) -> None:
    limit = RateLimit(RATE)
    wires = [Limited(limit, files(1)) for _ in range(20)]
    stepped(wires, 2.0)
    before = sum(wire.octets for wire in wires)
    assert before == 20
    for wire in wires:
        wire.client.submit(attempts(files(50_000)))
    stepped(wires, 0.1)
    assert sum(wire.octets for wire in wires) - before <= RATE * (0.1 + 0.1) + 20
    for wire in wires:
        wire.close()


def test_a_connection_that_ends_gives_its_part_to_the_others(files: Callable[..., list[Path]]) -> None:
    limit = RateLimit(RATE)
    wires = [Limited(limit, files(4 * RATE)) for _ in range(20)]
    stepped(wires, 0.2)
    for wire in wires[1:]:
        wire.close()
    before = wires[0].octets
    stepped(wires[:1], 1.0)
    assert wires[0].octets - before >= 0.75 * RATE  # its next part had its time, a quarter of a second away
    wires[0].close()


def test_what_is_cancelled_holds_nothing_back(files: Callable[..., list[Path]]) -> None:
    wire = Limited(RateLimit(RATE), files(RATE))
    for _ in range(3):
        wire.step()
    assert wire.client.plane.wake_at
    (attempt,) = wire.client.plane.open_attempts()
    wire.client.plane.cancel(attempt, Interrupted("enough"), wire.now)
    wire.step()
    assert not wire.client.plane.wake_at
    wire.close()


def test_time_under_the_limit_has_a_name_of_its_own(files: Callable[..., list[Path]]) -> None:
    wire = Limited(RateLimit(RATE), files(2 * RATE))
    stepped([wire], 1.0)
    blocked = wire.client.plane.blocked.seconds()
    assert blocked["rate_limit"] >= 0.9 * sum(blocked.values())
    wire.close()


def test_what_is_held_back_wakes_somebody_and_nothing_else_does(files: Callable[..., list[Path]]) -> None:
    wire = Limited(RateLimit(RATE), files(3 * RATE // 20), status=None)
    wire.step()
    assert 0.0 < wire.client.plane.wake_at - wire.now <= 0.05
    for _ in range(300):
        wire.step()
    assert wire.octets == 3 * RATE // 20
    assert wire.client.plane.wake_at == 0.0, "all that is left is the answer"
    wire.close()


def test_credit_is_not_waited_for_awake_while_the_limit_is_reached(files: Callable[..., list[Path]]) -> None:
    """A server nearby with a small window would be: it credits at once."""
    wire = Limited(RateLimit(RATE), files(RATE), window=65_535)
    assert wire.client.plane.awaits_credit is False  # nothing is begun
    for _ in range(200):
        wire.step()
        held_back = wire.client.plane.wake_at > wire.now
        assert not (held_back and wire.client.plane.awaits_credit)
    assert held_back
    wire.close()


def test_who_is_held_back_is_not_stalled(files: Callable[..., list[Path]]) -> None:
    """Eight octets a second over many connections: each waits for minutes."""
    limit = RateLimit(1)
    wires = [Limited(limit, files(1000)) for _ in range(8)]
    for wire in wires:
        wire.step()
    held_back = [wire for wire in wires if wire.client.plane.wake_at]
    assert len(held_back) >= 6
    for wire in held_back:
        assert wire.client.plane.stalled(wire.now + 1.0, 0.5) == []
        assert wire.client.plane.stalled(wire.now + 1.4, 0.5) == []
    for wire in wires:
        wire.close()


def test_a_server_that_reads_no_more_is_stalled_all_the_same(files: Callable[..., list[Path]]) -> None:
    """What is gathered can't leave: then it isn't the limit that is waited for."""
    wire = Limited(RateLimit(RATE), files(3 * RATE))
    for _ in range(200):
        wire.step()
    while not wire.client.fill(wire.now):
        wire.now += 0.01
    for later in (0.2, 1.0, 2.0, 3.0):
        stalled = wire.client.plane.stalled(wire.now + later, 1.5)
    assert len(stalled) == 1
    wire.close()


def test_a_limit_of_nothing() -> None:
    with pytest.raises(ValueError, match="less than an octet"):
        RateLimit(0)


def test_other_origins_have_a_part_of_it(tmp_path: Path) -> None:
    """A redirect leads half of the octets to another server: both together keep the limit."""
    folder = folder_of(tmp_path, [150_000] * 4)

    def react(line: Line, stream: Stream, event: str) -> bool:
        if event == "headers" and stream.path in ("/000", "/001"):
            line.send(line.response(stream, 307, location=other.url + stream.path[1:]))
            return True
        return False

    def scenario(line: Line) -> None:
        line.greet()
        line.serve(react)

    with HostileServer(lambda line: line.greet()) as other, HostileServer(scenario) as server:
        outcome = upload(folder, server, "--limit-rate", "500000", "--location")
    assert outcome.failed == {}
    assert len(other.taken()) == len(server.taken()) == 2
    assert outcome.report["seconds"] >= (600_000 - 50_000) / 500_000


def test_the_whole_way(tmp_path: Path) -> None:
    """By the command line: it takes as long as it must, at least, and the report says why."""
    folder = folder_of(tmp_path, [100_000, 200_000, 10])
    with HostileServer(lambda line: line.greet()) as server:
        outcome = upload(folder, server, "--limit-rate", "500000", "--connections", "2", "--log", str(tmp_path / "log"))
    check(outcome, folder, server)
    # At least as long as it must; and not as if nobody woke up when it is time, which would be ten seconds.
    assert (300_010 - 50_000) / 500_000 <= outcome.report["seconds"] < 6
    assert outcome.report["blocked_s"]["rate_limit"] > 0
    assert outcome.report["limited_by"]["cause"] == "rate_limit"
    assert "--limit-rate was reached" in outcome.report["limited_by"]["sentence"]
