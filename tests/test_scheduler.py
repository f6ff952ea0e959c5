"""Whose turn it is: the exact order in which octets are served."""

from __future__ import annotations

import pytest
from h2_judge import jain
from hypothesis import given
from hypothesis import strategies as st

from fastpost._scheduler import Scheduler


class Work:
    """Slots with so many octets left to send, and who was served."""

    def __init__(self, scheduler: Scheduler, *sizes: int) -> None:
        self.scheduler = scheduler
        self.left: dict[int, int] = {}
        self.served: list[int] = []
        self.octets: dict[int, int] = {}
        for size in sizes:
            self.join(len(self.left), size)

    def join(self, slot: int, size: int) -> None:
        self.left[slot] = size
        self.octets[slot] = 0
        self.scheduler.join(slot)

    def serve(self, most: int = 2**62) -> int:
        """Send one frame of at most so many octets. Returns the slot."""
        turn = self.scheduler.turn()
        assert turn is not None
        slot, budget = turn
        octets = min(budget, self.left[slot], most)
        self.scheduler.charge(octets)
        self.left[slot] -= octets
        self.octets[slot] += octets
        self.served.append(slot)
        if not self.left[slot]:
            self.scheduler.leave(slot)
        return slot

    def run(self, frames: int = 1000, most: int = 2**62) -> list[int]:
        """Send so many frames, or until nobody is left. Returns the slots in the order served."""
        first = len(self.served)
        for _ in range(frames):
            if self.scheduler.turn() is None:
                break
            self.serve(most)
        return self.served[first:]


# --- fair -----------------------------------------------------------------------------------------


def test_round_robin_over_several_sizes() -> None:
    work = Work(Scheduler(10), 10, 20, 30, 40)
    assert work.run() == [0, 1, 2, 3, 1, 2, 3, 2, 3, 3]
    assert work.scheduler.turn() is None
    assert work.scheduler.ready == 0


def test_turns_are_octets_not_frames() -> None:
    # Frames of 4 octets: a turn of 10 is three frames, the last one short.
    work = Work(Scheduler(10), 12, 12)
    assert work.run(most=4) == [0, 0, 0, 1, 1, 1, 0, 1]


def test_a_last_short_slice_passes_the_turn_on() -> None:
    work = Work(Scheduler(10), 3, 25, 1)
    assert work.run() == [0, 1, 2, 1, 1]


def test_a_newcomer_waits_for_one_round_at_most() -> None:
    work = Work(Scheduler(10), 100, 100, 100)
    assert work.run(4) == [0, 1, 2, 0]
    work.join(3, 20)
    # Level with the others: behind those that stand in line, and no second turn to make up for its late coming.
    assert work.run(8) == [1, 2, 0, 3, 1, 2, 0, 3]


def test_a_blocked_slot_misses_its_turns_and_returns_at_the_tail() -> None:
    work = Work(Scheduler(10), 100, 100, 100)
    assert work.run(3) == [0, 1, 2]
    work.scheduler.leave(1)
    assert work.run(4) == [0, 2, 0, 2]
    work.scheduler.resume(1)
    # One turn a round as before: what it missed is not made up.
    assert work.run(6) == [0, 2, 1, 0, 2, 1]


def test_the_head_blocked_in_its_turn_starts_a_new_one_later() -> None:
    work = Work(Scheduler(10), 100, 100)
    work.serve(4)
    assert work.scheduler.turn() == (0, 6)
    work.scheduler.leave(0)
    assert work.scheduler.turn() == (1, 10)
    work.scheduler.resume(0)
    assert work.run(3) == [1, 0, 1]
    assert work.octets == {0: 14, 1: 20}


def test_a_turn_that_the_connection_window_cut_goes_on() -> None:
    work = Work(Scheduler(10), 100, 100)
    work.serve(7)
    assert work.scheduler.turn() == (0, 3)
    assert work.run(2) == [0, 1]
    assert work.octets == {0: 10, 1: 10}


def test_crumbs_of_a_turn_are_carried_over() -> None:
    work = Work(Scheduler(6400), 64000, 64000)
    work.serve(6350)
    # 50 octets, less than a 64th of the turn, are worth no frame; the next turn has them.
    assert work.run(2) == [1, 0]
    assert work.octets[0] == 6350 + 6450


def test_resume_and_leave_twice_change_nothing() -> None:
    work = Work(Scheduler(10), 30, 30)
    work.scheduler.resume(0)
    work.scheduler.leave(1)
    work.scheduler.leave(1)
    work.scheduler.resume(1)
    work.scheduler.resume(1)
    assert work.scheduler.ready == 2
    assert work.run() == [0, 1, 0, 1, 0, 1]


def test_a_slot_can_be_used_again() -> None:
    work = Work(Scheduler(10), 10, 40)
    assert work.run(2) == [0, 1]
    work.join(0, 20)
    assert work.run() == [1, 0, 1, 0, 1]


def test_a_single_slot_goes_on_alone() -> None:
    work = Work(Scheduler(10), 35)
    assert work.run() == [0, 0, 0, 0]


def test_later_turns_are_shorter_while_the_window_is_scarce() -> None:
    scheduler = Scheduler(16384)
    scheduler.scarce = True
    work = Work(scheduler, 100_000, 100_000)
    turns = []
    for _ in range(4):
        turn = work.scheduler.turn()
        assert turn is not None
        turns.append(turn)
        work.serve()
    assert turns == [(0, 16384), (1, 16384), (0, 2730), (1, 2730)]


# --- fifo -----------------------------------------------------------------------------------------


def test_fifo_serves_by_arrival() -> None:
    work = Work(Scheduler(10, False), 10, 20, 30)
    assert work.run(most=10) == [0, 1, 1, 2, 2, 2]


def test_fifo_goes_back_to_the_earliest_when_it_may_send_again() -> None:
    work = Work(Scheduler(10, False), 30, 30, 30)
    assert work.run(1, most=10) == [0]
    work.scheduler.leave(0)
    assert work.run(1, most=10) == [1]
    work.scheduler.leave(1)
    assert work.run(1, most=10) == [2]
    work.scheduler.resume(1)
    assert work.run(1, most=10) == [1]
    work.scheduler.resume(0)
    assert work.run(most=10) == [0, 0, 1, 2, 2]


def test_fifo_takes_arrival_not_slot_number() -> None:
    work = Work(Scheduler(10, False))
    for slot in (5, 0, 3):
        work.join(slot, 10)
    for slot in (3, 5, 0):
        work.scheduler.leave(slot)
    for slot in (3, 5, 0):
        work.scheduler.resume(slot)
    assert work.run(most=10) == [5, 0, 3]


@given(st.permutations(range(7)), st.permutations(range(7)))
def test_fifo_order_survives_any_blocking(leaving: list[int], resuming: list[int]) -> None:
    work = Work(Scheduler(10, False), *[10] * 7)
    for slot in leaving[:4]:
        work.scheduler.leave(slot)
    for slot in resuming:
        work.scheduler.resume(slot)
    assert work.run(most=10) == list(range(7))


# --- both -----------------------------------------------------------------------------------------


def test_only_octets_of_a_turn_can_be_charged() -> None:
    scheduler = Scheduler(10)
    with pytest.raises(ValueError, match="turn"):
        scheduler.charge(1)
    scheduler.join(0)
    for octets in (0, -1, 11):
        with pytest.raises(ValueError, match="turn"):
            scheduler.charge(octets)
    for slot in (-1, 1):
        with pytest.raises(ValueError, match="slot"):
            scheduler.leave(slot)
        with pytest.raises(ValueError, match="slot"):
            scheduler.resume(slot)
    with pytest.raises(ValueError, match="slot"):
        scheduler.join(-1)


steps = st.lists(
    st.tuples(st.sampled_from(["serve", "serve", "serve", "leave", "resume", "join"]), st.integers(0, 6)), max_size=120
)


@given(steps, st.booleans(), st.booleans(), st.lists(st.integers(1, 40), min_size=1))
def test_any_order_of_calls_serves_only_who_is_ready(
    calls: list[tuple[str, int]], fair: bool, scarce: bool, frames: list[int]
) -> None:
    scheduler = Scheduler(16, fair)
    scheduler.scarce = scarce
    joined: list[int] = []
    ready: set[int] = set()
    waited = 0  # turns since slot 0 was served last
    for position, (call, slot) in enumerate(calls):
        if call == "join":
            scheduler.join(slot)
            joined = [other for other in joined if other != slot] + [slot]
            ready.add(slot)
        elif call == "serve":
            turn = scheduler.turn()
            assert (turn is None) == (not ready)
            if turn is None:
                continue
            assert turn[0] in ready
            assert turn[1] > 0
            if not fair:
                assert turn[0] == min(ready, key=joined.index)
            scheduler.charge(min(turn[1], frames[position % len(frames)]))
            passed = scheduler.turn()
            waited = 0 if turn[0] == 0 or 0 not in ready else waited + (passed is not None and passed[0] != turn[0])
            assert not fair or waited < 7
        elif slot in joined:
            (scheduler.leave if call == "leave" else scheduler.resume)(slot)
            (ready.discard if call == "leave" else ready.add)(slot)
        assert scheduler.ready == len(ready)


@given(st.integers(2, 12), st.lists(st.integers(2000, 70000), min_size=1, max_size=20), st.integers(8, 16))
def test_equal_slots_stay_level_under_a_scarce_window(slots: int, windows: list[int], turns: int) -> None:
    quantum = 16384
    scheduler = Scheduler(quantum)
    scheduler.scarce = True
    work = Work(scheduler, *[turns * quantum] * slots)
    credits = 0
    while scheduler.turn() is not None:
        window = windows[credits % len(windows)]
        credits += 1
        while window > 0 and scheduler.turn() is not None:
            before = sum(work.left.values())
            work.serve(window)
            window -= before - sum(work.left.values())
            if min(work.octets.values()) >= quantum - quantum // 64:
                assert jain(work.octets.values()) >= 0.99


# --- shares ---------------------------------------------------------------------------------------


def test_short_stays_say_nothing_of_turns() -> None:
    """Each stream has credit for one turn at a time, in the same order: the last one isn't slow, all had their fill."""
    scheduler = Scheduler(1000)
    for slot in range(10):
        scheduler.join(slot)
    for _ in range(20):
        for slot in range(10):
            turn = scheduler.turn()
            assert turn is not None
            assert turn[0] == slot
            scheduler.charge(1000)
            scheduler.leave(slot)
        for slot in range(10):
            scheduler.resume(slot)
    for slot in range(10):
        scheduler.end(slot)
    assert scheduler.retired == 0


def test_all_stays_that_tell_make_one_share() -> None:
    scheduler = Scheduler(1000)
    scheduler.join(0)
    for _ in range(3):
        scheduler.resume(0)
        for _ in range(5):
            scheduler.charge(1000)
        scheduler.leave(0)
    scheduler.end(0)
    assert scheduler.retired == 1
    assert scheduler.shares == pytest.approx(1.0)


@pytest.mark.parametrize("fair", [True, False])
def test_shares_tell_turns_that_are_even_from_those_that_are_not(fair: bool) -> None:
    scheduler = Scheduler(1000, fair)
    left = dict.fromkeys(range(10), 50_000)
    for slot in left:
        scheduler.join(slot)
    while (turn := scheduler.turn()) is not None:
        slot = turn[0]
        scheduler.charge(min(turn[1], 1000))
        left[slot] -= 1000
        if not left[slot]:
            scheduler.end(slot)
    assert scheduler.retired == 10
    index = scheduler.shares**2 / (10 * scheduler.squares)
    assert index > 0.99 if fair else index < 0.6
    assert (scheduler.smallest > 0.9) is fair
