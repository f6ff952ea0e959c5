"""Standard streams that are full, closed or not there."""

from __future__ import annotations

import fcntl
import os
import pathlib

import pytest

from fastpost.outlet import Outlet


def test_a_pipe_that_nobody_reads_is_written_to_no_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream, "standard output")
        outlet.write("first")
        assert not outlet.open
        outlet.write("second")


def test_a_full_pipe_drops_frames_instead_of_waiting() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with open(reading, "rb"), open(writing, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream, "standard error")
        for _ in range(100):
            outlet.offer("x" * 1000)
        assert outlet.open


def test_a_full_disk_is_an_error_that_names_the_stream() -> None:
    with pathlib.Path("/dev/full").open("w", encoding="utf-8") as stream:
        outlet = Outlet(stream, "standard output")
        with pytest.raises(OSError, match="No space left") as raised:
            outlet.write("report")
        assert raised.value.filename == "standard output"
        outlet.write("silently dropped")


def test_a_stream_that_does_not_exist_takes_everything() -> None:
    outlet = Outlet(None, "standard output")
    outlet.write("x")
    outlet.offer("x")
    assert not outlet.open
    assert not outlet.terminal
