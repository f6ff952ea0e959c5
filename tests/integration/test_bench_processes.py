"""`bench --processes`: one load, one window and one report, whoever of them sends; and what ends it."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from in_process import Server

from . import command
from .scripted import Peer, Request, Script
from .test_bench import bench, only, schema
from .test_processes import alive, children, until


class Some(Script):
    """Refuses every upload whose number ends in 7, and says how many were in flight at most."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_flight = self.most = 0
        self.twice = False
        self.names: set[str] = set()

    def requested(self, peer: Peer, request: Request) -> None:
        with self.lock:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            self.twice = self.twice or request.path in self.names
            self.names.add(request.path)

    def completed(self, peer: Peer, request: Request) -> None:
        with self.lock:
            self.in_flight -= 1
            self.names.discard(request.path)
        peer.answer(request, 403 if request.path.endswith("7.bin") else 201)


def test_figures_are_the_sums_of_all_of_them(tmp_path: Path) -> None:
    script = Some()
    log, table, intervals = tmp_path / "log.ndjson", tmp_path / "table.csv", tmp_path / "run.hlog"
    files = ("--log", log, "--csv", table, "--hdr-log", intervals)
    options = ("--processes", "3", "--count", "401", "-c", "10", "--connections", "4", "--size", "1KiB..8KiB")
    with Server(script) as server:
        run = bench(server.url, *options, *files)
        requests = server.requests
    refused = sum(request.path.endswith("7.bin") for request in requests)
    payload = sum(len(request.body) for request in requests)
    one = only(run)
    assert run.code == 1
    assert len(requests) == 401
    assert (one["processes"], one["connections"], one["concurrency"]) == (3, 4, 10)
    assert (one["uploads"]["ok"], one["uploads"]["failed"]) == (401 - refused, refused)
    assert one["status"] == {"201": 401 - refused, "403": refused}
    assert one["errors"] == {"HttpStatus": refused}
    assert "403" in one["examples"]["HttpStatus 403"]
    assert one["bytes"]["payload"] + one["bytes"]["wasted"] == payload < one["bytes"]["sent"]
    assert one["connections_opened"] == server.connections == 4
    assert 3 <= script.most <= 10
    assert not script.twice, "two uploads of one name at the same time"
    assert HdrHistogram.decode(one["histogram"]["latency"]).get_total_count() == 401 - refused
    assert one["peer"]["settings"]["MAX_CONCURRENT_STREAMS"] > 0
    assert sum(row["ok"] + row["failed"] for row in one["timeline"]) == 401
    assert sum(row["sent"] for row in one["timeline"]) == one["bytes"]["sent"]
    assert len(one["client"]["processes"]) == 3
    assert all(each["cpu_s"] > 0 for each in one["client"]["processes"])
    assert one["client"]["cpu_s"] > sum(each["cpu_s"] for each in one["client"]["processes"]), "and the parent's"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 401
    assert sum(line["status"] == 403 for line in lines) == refused
    assert {(line["processes"], line["connections"], line["concurrency"], line["run"]) for line in lines} == {
        (3, 4, 10, 1)
    }
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["ok"]) for row in rows) == 401 - refused
    assert {row["processes"] for row in rows} == {"3"}
    reader = HistogramLogReader(str(intervals), HdrHistogram(1, 3_600_000_000, 3))
    counted = 0
    while (interval := reader.get_next_interval_histogram()) is not None:
        counted += interval.get_total_count()
    reader.close()
    assert counted == 401 - refused


def test_arrivals_of_all_of_them_are_the_schedule_of_one(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    with Server() as server:
        one = only(bench(server.url, "--processes", "3", "--rate", "200", "--count", "100", "--log", log))
        assert len(server.requests) == 100
    assert one["uploads"]["ok"] == 100
    due = sorted(json.loads(line)["at_ms"] for line in log.read_text().splitlines())
    assert due == pytest.approx([5.0 * place for place in range(100)], abs=0.01)


def test_all_of_them_count_in_one_window_of_whole_seconds() -> None:
    with Server() as server:
        options = ("--processes", "2", "--rate", "100", "--warm-up", "300ms", "--duration", "2s")
        one = only(bench(server.url, *options))
    assert one["seconds"] == pytest.approx(2.0, abs=0.01)
    assert [round(row["seconds"], 1) for row in one["timeline"]] == [1.0, 1.0]
    assert one["uploads"]["ok"] == pytest.approx(200, abs=20)


def test_a_sweep_over_processes_with_runs_and_thresholds() -> None:
    with Server() as server:
        options = ("--processes", "1,2", "-c", "2,4", "--count", "60", "--runs", "2")
        run = bench(server.url, *options, "--fail-if", "failed>0", "--fail-if", "max>0ms")
        assert len(server.requests) == 8 * 60
    keys = ("processes", "connections", "concurrency", "run")
    found = [tuple(one[key] for key in keys) for one in run.report["measurements"]]
    assert found == [(n, n, c, r) for r, n, c in itertools.product((1, 2), (1, 2), (2, 4))]
    assert all(one["uploads"]["ok"] == 60 for one in run.report["measurements"])
    assert run.report["knee"]["processes"] in (1, 2)
    assert run.code == 5
    assert [one["missed"] for one in run.report["thresholds"]] == [False, True]


def test_text_says_how_many_they_were() -> None:
    with Server() as server:
        run = command.run("bench", server.url, "--processes", "1,2", "-c", "2,4", "--count", "60")
    assert run.code == 0
    assert "knee" in run.out
    assert "procs" in run.out
    rows = [line.split()[:3] for line in run.out.splitlines() if line.split()[:1] in (["1"], ["2"])]
    assert rows == [["1", "1", "2"], ["1", "1", "4"], ["2", "2", "2"], ["2", "2", "4"]]


def test_files_of_a_folder_are_shared_out(tmp_path: Path) -> None:
    for number in range(5):
        tmp_path.joinpath(f"{number}").write_bytes(bytes(100 + number))
    with Server() as server:
        options = ("--from", tmp_path, "--with-content", "--count", "20", "-c", "2")
        one = only(bench(server.url, "--processes", "2", *options))
        paths = sorted(request.path for request in server.requests)
    assert one["uploads"]["ok"] == 20
    assert paths == sorted([f"/{number}" for number in range(5)] * 4)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--processes", "0"), ("'0' is no number from 1 on",)),
        (("--processes", "65"), ("65 is more than 64",)),
        (("--processes", "1,4", "-c", "2,50"), ("--processes 4 can't share --concurrency 2", "--concurrency 4")),
        (("--processes", "3", "--connections", "auto,2"), ("--processes 3 can't share --connections 2",)),
        (("--processes", "2", "--rate", "9", "--max-in-flight", "1"), ("can't share --max-in-flight 1",)),
        (("--processes", "4", "--count", "3"), ("--processes 4 can't share --count 3", "fewer processes")),
    ],
)
def test_too_little_to_share_is_told_with_the_cure(arguments: tuple[str, ...], told: tuple[str, ...]) -> None:
    run = command.run("bench", "http://127.0.0.1:1/", *arguments)
    assert run.code == 2
    assert run.told(*told)


def test_more_processes_than_cores_are_noted(tmp_path: Path) -> None:
    with Server() as server:
        pinned = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
        run = command.run("bench", server.url, "--processes", "2", "--count", "20", prefix=pinned)
    assert run.code == 0
    assert run.told("2 processes on 1 core", "--processes 1")


def test_nobody_there_is_one_message_and_exit_code_4() -> None:
    run = command.run("bench", "http://127.0.0.1:1/", "--processes", "2", "--count", "5", "--retries", "0")
    assert run.code == 4
    assert run.out == ""
    assert sum("can't connect to 127.0.0.1:1" in line for line in run.err.splitlines()) == 1


def test_an_empty_folder_is_exit_code_3(tmp_path: Path) -> None:
    run = command.run("bench", "--processes", "2", "--from", tmp_path, "--count", "5")
    assert run.code == 3
    assert run.told("no file in it")


def test_a_full_disk_ends_no_measurement() -> None:
    run = bench("--processes", "2", "--count", "2000", "--log", "/dev/full")
    assert run.code == 1
    assert only(run)["uploads"]["ok"] == 2000
    assert run.told("/dev/full", "No space left")


# --- what ends it early -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def begin(*options: str) -> Iterator[tuple[subprocess.Popen[str], Server]]:
    """A measurement without end by two processes, both in the midst of it."""
    with Server() as server:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "fastpost", "bench", server.url, "--output-format", "json", "--warm-up", "0"),
                *("--processes", "2", "--duration", "100s", "-c", "4", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            env={**os.environ, "PYTHONPATH": command.python_path(Path(command._package_folder()))},
        )
        try:
            yield process, server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def both_send(process: subprocess.Popen[str], server: Server, before: int = 0) -> list[int]:
    """Wait until both have sent for a while; returns their process ids."""
    until(lambda: len({request.number for request in server.requests[before:]}) == 2)
    until(lambda: len(server.requests) >= before + 50)
    found = children(process.pid)
    assert len(found) == 2
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_of_them_ends_it_with_a_report(number: signal.Signals, code: int) -> None:
    """As a terminal does, and `timeout`: the parent alone acts on it."""
    with begin() as (process, server):
        workers = both_send(process, server)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
        sent = len(server.requests)
    assert process.returncode == code, err
    assert err == ""
    report: dict[str, Any] = json.loads(out)
    jsonschema.Draft202012Validator(schema("bench-1")).validate(report)
    (one,) = report["measurements"]
    assert report["interrupted"] is True
    assert 30 <= one["uploads"]["ok"] <= sent
    assert one["uploads"]["failed"] == 0
    assert one["seconds"] > 0
    assert not any(map(alive, workers))


def test_one_that_is_killed_is_told_and_the_measurement_does_not_count() -> None:
    with begin() as (process, server):
        first, second = both_send(process, server)
        os.kill(first, signal.SIGKILL)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("fastpost: process 1 of 2 was killed by SIGKILL")
    assert not alive(second)


def test_what_was_measured_before_one_was_killed_is_reported() -> None:
    with begin("--processes", "1,2", "--duration", "1s") as (process, server):
        until(lambda: len(children(process.pid)) == 2)
        both_send(process, server, len(server.requests))
        os.kill(children(process.pid)[1], signal.SIGKILL)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert "process 2 of 2 was killed by SIGKILL" in err
    assert [one["processes"] for one in json.loads(out)["measurements"]] == [1]


def test_they_end_with_a_parent_that_was_killed() -> None:
    with begin() as (process, server):
        workers = both_send(process, server)
        process.kill()
        process.wait()
        until(lambda: not any(map(alive, workers)))


def signalled(process: subprocess.Popen[str]) -> bool:
    """Send Ctrl-C; tells whether it has ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    return process.returncode is not None


def test_a_second_signal_ends_it_at_once_and_leaves_nobody() -> None:
    with begin() as (process, server):
        workers = both_send(process, server)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)  # they can't obey
        signalled(process)
        until(lambda: signalled(process))
    # It may be met by a third one while the interpreter ends; a shell says 130 to both.
    assert process.returncode in (130, -signal.SIGINT)
    assert not any(map(alive, workers))
