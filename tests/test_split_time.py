"""Where time goes, without a socket: what streams waited for is charged when somebody looks, a tick or not."""

from __future__ import annotations

import pytest
from h2_judge import OPEN, Files, Script, session, window_update
from h2_judge import files as files


def test_a_loop_that_stands_still_keeps_all_its_connections_waiting(files: Files) -> None:
    """The seconds are the disk's for the one whose read it was, for others, and for one that comes later only later."""

    def waiting() -> Script:
        script = Script(session(concurrency=4), OPEN)
        script.submit(files(100_000))
        script.take()
        script.client.plane.fill(script.now)
        return script

    both = [waiting(), waiting()]
    both[0].client.plane.stalled_on_disk(0.25)
    both.append(waiting())
    for script in both:
        script.client.plane.split_time(script.now + 1.0)
    seconds = [script.client.plane.blocked.seconds() for script in both]
    assert [one["disk"] for one in seconds] == pytest.approx([0.25, 0.25, 0.0])
    assert [one["connection_window"] for one in seconds] == pytest.approx([0.75, 0.75, 1.0])
    for script in both:
        script.close()


def test_whoever_looks_between_two_ticks_leaves_the_sums_as_they_are(files: Files) -> None:
    def waits(looks: int) -> tuple[dict[str, float], float]:
        """A second in which two uploads wait for the connection's window, a quarter of it for the disk."""
        script = Script(session(concurrency=4), OPEN)
        plane = script.client.plane
        script.submit(files(100_000, 100_000))
        script.take()
        plane.fill(script.now)
        plane.stalled_on_disk(0.25)
        for look in range(1, looks + 1):
            plane.split_time(script.now + 0.25 + 0.75 * look / (looks + 1))
        script.now += 1.0
        script.send(window_update(0, 10))
        seconds, closed = plane.blocked.seconds(), plane.window.closed_for
        script.close()
        return seconds, closed

    seconds, closed = waits(0)
    assert (seconds["connection_window"], seconds["disk"], closed) == pytest.approx((1.5, 0.5, 0.75))
    for looks in (1, 4, 7):
        more, closed_more = waits(looks)
        assert more == pytest.approx(seconds)
        assert closed_more == pytest.approx(closed)
