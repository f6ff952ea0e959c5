"""Loads without end, and the clock of the open loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import drive
from in_process import nothing_leaks as nothing_leaks

from fastpost import load, sizes
from fastpost._alarm import Alarm
from fastpost._payload import Payload
from fastpost.errors import NothingMatched
from fastpost.feed import Feed
from fastpost.sources import Batch, Upload

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def uploads(batches: object, count: int) -> list[Upload]:
    found: list[Upload] = []
    for batch in load.first(batches, count):  # type: ignore[arg-type]
        found += batch.uploads
    return found


def test_made_up_uploads_are_the_same_again_but_for_their_content() -> None:
    payload = Payload(65_536)
    one, other = (uploads(load.made_up(sizes.parse("1KiB..1MiB"), payload, 10), 600) for _ in range(2))
    assert [(each.name, each.size) for each in one] == [(each.name, each.size) for each in other]
    assert len({each.size for each in one}) > 100
    assert [each.name for each in one[:10]] == [each.name for each in one[10:20]]
    assert len({each.name for each in one}) == 10
    starts = [each.content.start for each in one if each.content is not None]
    assert len(set(starts)) > 500  # no two servers' caches meet the same body soon


def test_the_first_few() -> None:
    assert len(uploads(load.made_up(sizes.parse("1"), Payload(65_536), 3), 257)) == 257


def test_a_tree_again_and_again(tmp_path: Path) -> None:
    for name, size in (("a", 5), ("b", 7)):
        tmp_path.joinpath(name).write_bytes(b"x" * size)
    os.mkfifo(tmp_path / "pipe")
    copied = uploads(load.replayed(str(tmp_path), None), 5)
    made_up = uploads(load.replayed(str(tmp_path), Payload(65_536)), 4)
    assert sorted({(each.name, each.content) for each in copied}) == [(b"a", None), (b"b", None)]
    assert [each.name for each in copied[:3]] == [copied[0].name, copied[1].name, copied[0].name]
    assert {(each.name, each.content.size) for each in made_up if each.content} == {(b"a", 5), (b"b", 7)}


@pytest.mark.parametrize("files", [1, 3, 300])
def test_a_few_files_come_as_many_at_a_time_as_many_do(files: int, tmp_path: Path) -> None:
    for number in range(files):
        tmp_path.joinpath(f"{number}").touch()
    batches = list(itertools.islice(load.replayed(str(tmp_path), None), 4))
    assert sum(len(batch.uploads) for batch in batches) >= 2 * 256
    found = [one for batch in batches for one in batch.uploads]
    assert len(set(map(id, found))) == len(found)  # each is due at a time of its own
    names = [one.name for one in found[:files]]
    assert len(set(names)) == files
    assert [one.name for one in found] == list(itertools.islice(itertools.cycle(names), len(found)))


def test_a_tree_without_files(tmp_path: Path) -> None:
    with pytest.raises(NothingMatched, match="no file in it"):
        next(load.replayed(str(tmp_path), None))


def run_open(
    rate: float, most: int, until: int, *, ends: bool, count: int = 10_000, begins: float | None = None
) -> tuple[list[Upload], load.OpenLoop]:
    """Run an open loop until so many uploads were due; `ends`: each ends at once."""
    brought: list[Upload] = []

    async def main() -> load.OpenLoop:
        done = asyncio.get_running_loop().create_future()
        opened = load.OpenLoop(rate, most, begins)

        def arrived(batch: Batch | None, failure: BaseException | None) -> None:
            assert failure is None
            if batch is not None:
                brought.extend(batch.uploads)
                if ends:
                    opened.ended(len(batch.uploads))
            if not done.done() and (batch is None or len(brought) >= until):
                done.set_result(None)

        source = load.first(load.made_up(sizes.parse("1"), payload, 10), count)
        opened.start(source, asyncio.get_running_loop(), arrived)
        while not done.done() and len(brought) + opened.dropped < until:
            await asyncio.sleep(0.001)
        opened.stop()
        return opened

    payload = Payload(65_536)
    return brought, drive(main())


def test_uploads_are_due_one_by_one_whenever_they_are_brought() -> None:
    brought, opened = run_open(2000.0, 100, 300, ends=True)
    gaps = [after.due - before.due for before, after in itertools.pairwise(brought)]
    assert gaps == pytest.approx([1 / 2000] * len(gaps))
    assert all(each.due <= time.monotonic() for each in brought)
    assert (opened.dropped, opened.in_flight) == (0, 0)


def test_above_the_limit_they_are_dropped_and_keep_their_place_in_time() -> None:
    brought, opened = run_open(2000.0, 5, 100, ends=False)
    assert len(brought) == 5
    assert opened.in_flight == 5
    assert opened.dropped >= 95


def test_what_is_due_and_not_in_stock_is_unfinished_too() -> None:
    """A walk that is late, on a slow disk say, is no server that keeps up with all that was due."""
    goes_on = threading.Event()

    def late() -> Iterator[Batch]:
        yield from load.first(load.made_up(sizes.parse("1"), payload, 10), 5)
        assert goes_on.wait(30)

    async def main() -> int:
        brought: list[Upload] = []
        opened = load.OpenLoop(1000.0, 100)
        opened.start(
            late(), asyncio.get_running_loop(), lambda batch, _: brought.extend(batch.uploads if batch else ())
        )
        began = time.monotonic()
        while time.monotonic() < began + 0.1 or len(brought) < 5:
            await asyncio.sleep(0.001)
        opened.ended(2)
        unfinished = opened.unfinished(began + 0.1)
        opened.stop()
        goes_on.set()
        assert (len(brought), opened.dropped, opened.in_flight) == (5, 0, 3)
        return unfinished

    payload = Payload(65_536)
    assert drive(main()) == pytest.approx(98, abs=2)


def test_parts_of_a_load_have_no_name_in_common() -> None:
    payload = Payload(65_536)
    parts = [load.Part(index, 3) for index in range(3)]
    made = [uploads(load.made_up(sizes.parse("1..9"), payload, 100, part), 300) for part in parts]
    names = [{each.name for each in part} for part in made]
    assert [len(each) for each in names] == [34, 33, 33]
    assert len(set.union(*names)) == 100
    assert len({tuple(each.size for each in part) for part in made}) == 3


def test_parts_of_a_folder_together_are_the_folder_again_and_again(tmp_path: Path) -> None:
    for number in range(5):
        tmp_path.joinpath(f"{number}").write_bytes(bytes(number))
    parts = [uploads(load.replayed(str(tmp_path), None, load.Part(index, 2)), 10) for index in range(2)]
    together = [each.name for pair in zip(*parts, strict=True) for each in pair]
    whole = [each.name for each in uploads(load.replayed(str(tmp_path), None), 20)]
    assert together == whole


def test_parts_of_a_folder_together_have_the_content_of_one(tmp_path: Path) -> None:
    for number in range(6):
        tmp_path.joinpath(f"{number}").write_bytes(bytes(1 + number))
    payload = Payload(65_536)
    parts = [uploads(load.replayed(str(tmp_path), payload, load.Part(index, 2)), 6) for index in range(2)]
    starts = [[each.content.start for each in part if each.content is not None] for part in parts]
    whole = [each.content.start for each in uploads(load.replayed(str(tmp_path), payload), 12) if each.content]
    assert sorted(starts[0] + starts[1]) == sorted(whole)


def test_an_open_loop_has_the_beginning_that_it_is_given() -> None:
    begins = time.monotonic() + 0.05
    brought, _ = run_open(2000.0, 100, 50, ends=True, begins=begins)
    assert [each.due for each in brought[:50]] == pytest.approx([begins + place / 2000 for place in range(50)])


def test_it_ends_with_its_load() -> None:
    brought, opened = run_open(5000.0, 100, 10**9, ends=True, count=50)
    assert len(brought) == 50
    assert opened.exhausted


def test_an_alarm_goes_off_once_at_its_moment() -> None:
    alarm = Alarm()
    assert not select.select([alarm.fd], [], [], 0)[0]
    at = time.monotonic() + 0.01
    alarm.set(at)
    assert select.select([alarm.fd], [], [], 10)[0]
    assert time.monotonic() >= at
    alarm.take()
    alarm.take()
    assert not select.select([alarm.fd], [], [], 0)[0]
    alarm.set(0.0)  # long past: at once
    assert select.select([alarm.fd], [], [], 10)[0]
    alarm.close()
    alarm.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        alarm.set(1.0)


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_walk_that_was_stopped_is_waited_for(rate: float | None) -> None:
    async def main() -> Feed | load.OpenLoop:
        start = Feed if rate is None else load.OpenLoop(rate, 10).start
        feed = start(load.made_up(sizes.parse("1"), payload, 10), asyncio.get_running_loop(), lambda *_: None)
        feed.stop()
        return feed

    payload = Payload(65_536)
    drive(main()).join(10.0)
    assert "fastpost-walk" not in {thread.name for thread in threading.enumerate()}
