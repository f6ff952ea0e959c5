"""`fastpost bench` as a user runs it, against real servers: is it true, and does it say so in every form?"""

from __future__ import annotations

import csv
import http.client
import importlib.resources
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from in_process import Server

from bench import servers as bench_servers
from bench.relay import Relay

from . import command, delay_app, servers
from .scripted import Peer, Request, Script


def schema(name: str) -> Any:
    text = importlib.resources.files("fastpost").joinpath("schemas", f"{name}.json").read_text("utf-8")
    return json.loads(text)


def bench(*arguments: str | Path) -> command.Run:
    """Run it with JSON on stdout, and validate that."""
    run = command.run("bench", "--output-format", "json", *arguments)
    if run.report:
        jsonschema.Draft202012Validator(schema("bench-1")).validate(run.report)
    return run


def only(run: command.Run) -> dict[str, Any]:
    (measured,) = run.report["measurements"]
    one: dict[str, Any] = measured
    return one


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema("bench-1"))


def test_a_sink_is_measured_without_a_url() -> None:
    run = bench("--count", "500", "-c", "10", "--size", "1KiB..64KiB", "-q")
    assert run.code == 0
    one = only(run)
    assert (one["uploads"]["ok"], one["uploads"]["failed"]) == (500, 0)
    assert one["status"] == {"200": 500}
    assert one["bytes"]["payload"] < one["bytes"]["sent"] < 1.1 * one["bytes"]["payload"] + 100_000
    assert one["peer"]["settings"]["MAX_CONCURRENT_STREAMS"] == 10_000
    assert sum(row["ok"] for row in one["timeline"]) == 500
    assert run.report["load"]["loop"] == "closed"


def test_every_form_at_once(tmp_path: Path) -> None:
    log, table, intervals = tmp_path / "log.ndjson", tmp_path / "table.csv", tmp_path / "run.hlog"
    run = bench("--count", "300", "-c", "5,20", "--runs", "2", "--log", log, "--csv", table, "--hdr-log", intervals)
    assert run.code == 0
    keys = [(one["concurrency"], one["run"]) for one in run.report["measurements"]]
    assert keys == [(5, 1), (20, 1), (5, 2), (20, 2)]
    assert run.report["knee"]["concurrency"] in (5, 20)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 1200
    assert all(line["status"] == 200 and line["size"] == 4096 and line["latency_ms"] > 0 for line in lines)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["ok"]) for row in rows) == 1200
    assert {row["concurrency"] for row in rows} == {"5", "20"}
    reader = HistogramLogReader(str(intervals), HdrHistogram(1, 3_600_000_000, 3))
    counted = 0
    while (interval := reader.get_next_interval_histogram()) is not None:
        counted += interval.get_total_count()
    reader.close()
    assert counted == 1200


def test_text_for_people() -> None:
    run = command.run("bench", "--count", "200", "-c", "1,10", "-q")
    assert (run.code, run.out) == (0, "")
    run = command.run("bench", "--count", "200", "-c", "1,10")
    assert run.code == 0
    for word in ("closed loop", "knee", "uploads/s", "p99.99", "MAX_CONCURRENT_STREAMS", "█"):
        assert word in run.out


def test_a_threshold_that_is_missed_is_exit_code_5() -> None:
    run = bench("--count", "100", "--fail-if", "max>0ms", "--fail-if", "rate<0.001")
    assert run.code == 5
    assert [one["missed"] for one in run.report["thresholds"]] == [True, False]
    assert run.told("max>0ms", "ms with 50 in flight")


def test_a_tree_gives_sizes_names_and_content(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    folder.joinpath("a.txt").write_bytes(b"a" * 1000)
    folder.joinpath("sub", "b.bin").write_bytes(b"b" * 70_000)
    (tmp_path / "server").mkdir()
    with servers.h2corn(tmp_path / "server", None) as server:
        made_up = bench(server.url, "--from", folder, "--count", "10", "-c", "2")
        copied = bench(server.url, "--from", folder, "--with-content", "--count", "10", "-c", "2")
        received = server.received()
    assert [only(run)["bytes"]["payload"] for run in (made_up, copied)] == [355_000, 355_000]
    assert set(received) == {"/a.txt", "/sub/b.bin"}
    assert all({size for size, _ in both} == {1000 if path == "/a.txt" else 70_000} for path, both in received.items())
    contents = {digest for both in received.values() for _, digest in both}
    assert len(contents) > 4  # those of the files, and others for each upload from memory


def test_failures_are_counted_by_status_and_class(tmp_path: Path) -> None:
    with servers.nginx(tmp_path, None) as server:
        run = bench(server.url, "--count", "50", "--method", "POST", "--retries", "0")
    one = only(run)
    assert run.code == 1
    assert (one["uploads"]["ok"], one["uploads"]["failed"]) == (0, 50)
    assert one["status"] == {"404": 50}
    assert one["errors"] == {"HttpStatus": 50}
    assert "404" in one["examples"]["HttpStatus 404"]
    assert one["latency_ms"]["p99"] is None
    assert one["peer"]["server"].startswith("nginx")


def test_connections_that_end_after_1000_requests_are_replaced(tmp_path: Path) -> None:
    with servers.nginx(tmp_path, None) as server:
        one = only(bench(server.url, "--count", "5000", "--connections", "2"))
    assert (one["uploads"]["ok"], one["uploads"]["failed"]) == (5000, 0)
    assert one["connections_opened"] >= 5


def test_over_tls(tmp_path: Path, certificates: servers.Certificates) -> None:
    with servers.granian(tmp_path, certificates) as server:
        assert server.cafile is not None
        one = only(bench(server.url, "--cacert", server.cafile, "--count", "300", "--size", "4KiB:9,1MiB:1"))
    assert one["uploads"]["ok"] == 300


@pytest.mark.unsanitized
@pytest.mark.parametrize(
    "loop", [("-c", "100"), ("--rate", "150"), ("-c", "100", "--processes", "2"), ("--rate", "150", "--processes", "2")]
)
def test_known_delays_are_recovered_within_two_percent(loop: tuple[str, str], tmp_path: Path) -> None:
    """A machine that is busy with something else delays too, and not by what is injected: three tries."""
    expected = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
    with servers.delaying(tmp_path) as server:
        for _ in range(3):
            one = only(bench(f"{server.url}delayed", *loop, "--count", "1000", "--method", "PUT"))
            assert one["uploads"]["ok"] == 1000
            off = {name: one["latency_ms"][name] / (delay_app.DELAYS[share] * 1e3) for name, share in expected.items()}
            if all(abs(ratio - 1) <= 0.02 for ratio in off.values()):
                return
    pytest.fail(f"measured ÷ injected: {off}")


def test_an_open_loop_shows_a_pause_of_the_server_and_a_closed_one_is_labelled(tmp_path: Path) -> None:
    """For a second nothing is answered: what was due at its beginning waited for all of it, and that is many."""
    with servers.delaying(tmp_path) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        pause = threading.Timer(1.5, _pause, (port,))
        pause.start()
        opened = bench(server.url + "now", "--rate", "200", "--duration", "3s", "--method", "PUT")
        pause.join()
        closed = bench(server.url + "now", "-c", "1", "--count", "50")
    one = only(opened)
    assert one["latency_ms"]["p99"] > 900
    assert one["uploads"]["dropped"] == 0
    assert opened.report["load"]["loop"] == "open"
    assert "it is the limit" not in one["limited_by"]["sentence"]
    assert closed.report["load"]["loop"] == "closed"


def test_the_ceiling_of_probe_is_what_bench_measures(tmp_path: Path) -> None:
    """Over a line with a round trip of 50 ms, to a server whose windows are 64 KiB."""
    with servers.hypercorn(tmp_path, None) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with Relay(port, rtt=0.05) as relay:
            url = f"http://127.0.0.1:{relay.port}/"
            probed = command.run("probe", url, "--budget", "512KiB", "--output-format", "json").report
            one = only(bench(url, "-c", "2", "--size", "1MiB", "--warm-up", "1s", "--duration", "6s"))
    assert probed["windows"]["connection_largest"] == 65_535
    assert probed["server"]["name"] == "hypercorn"
    # Of octets on the wire: in six seconds a few uploads end, and each is a tenth of them.
    measured = one["bytes"]["sent"] / one["seconds"]
    assert measured == pytest.approx(probed["ceiling"]["connections"][0]["octets_per_s"], rel=0.15)
    assert one["limited_by"]["cause"] == "connection_window"


def test_probe_over_tls(tmp_path: Path, certificates: servers.Certificates) -> None:
    with servers.nginx(tmp_path, certificates) as server:
        assert server.cafile is not None
        probed = command.run("probe", server.url, "--cacert", server.cafile, "--output-format", "json").report
        refused = command.run("probe", server.url)
    assert probed["tls"]["version"].startswith("TLSv1.")
    assert probed["tls"]["alpn"] == "h2"
    assert probed["upload"]["octets"] == 16 << 20
    assert probed["server"]["knobs"]["stream_limit"] == "http2_max_concurrent_streams"
    assert refused.code == 4
    assert refused.told("not trusted", "--cacert")


def _pause(port: int) -> None:
    """Ask for a pause by HTTP/1.1, which this server speaks too."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    asking.request("PUT", "/pause", b"x")
    asking.getresponse().read()
    asking.close()


def test_arrivals_above_the_limit_are_dropped(tmp_path: Path) -> None:
    with servers.delaying(tmp_path) as server:
        run = bench(server.url + "delayed", "--rate", "500", "--max-in-flight", "10", "--duration", "2s")
    one = only(run)
    assert one["uploads"]["dropped"] > one["uploads"]["ok"]  # 10 in 0.1 s are 100 a second
    assert one["uploads"]["failed"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--size", "big"), ("--size 'big'", "write 4KiB")),
        (("--count", "5", "--duration", "5s"), ("--count and --duration",)),
        (("--max-in-flight", "5"), ("--max-in-flight belongs to --rate",)),
        (("--rate", "5", "-c", "9"), ("--concurrency is that of a closed loop", "--max-in-flight")),
        (("--rate", "0"), ("--rate", "above 0")),
        (("--rate", "1e-300"), ("--rate", "from 0.000001")),  # the clock has no such moment
        (("--with-content",), ("--with-content belongs to --from",)),
        (("--from", ".", "--size", "1k"), ("leave out --size",)),
        (("-c", "1,x"), ("'x' is no number", "like 1,10,50")),
        (("-c", "1,"), ("'' is no number", "like 1,10,50")),
        (("-c", "1,5,1"), ("'1,5,1' names one of them twice",)),
        (("--size", ""), ("--size ''", "write 4KiB")),
        (("--size", "9" * 400), ("more than 1 TiB",)),
        (("--size", f"1KiB:{'9' * 400}"), ("the weights are too large",)),
        (("--size", "2TiB"), ("--size '2TiB'", "more than 1 TiB")),
        (("--log", ""), ("--log is given an empty name", "shell variable")),
        (("--log", "x.out", "--hdr-log", "./x.out"), ("--log and --hdr-log name the same file, ./x.out",)),
        (("--processes", "1,"), ("'' is no number", "like 1,10,50")),
        (("--duration", "5d"), ("'5d' is no time",)),
        (("--fail-if", "speed>1"), ("--fail-if 'speed>1'", "write a figure")),
        (("ftp://x/",), ("ftp",)),
        (("", "--count", "1"), ("the URL is empty",)),
    ],
)
def test_what_can_not_be_meant_is_told(arguments: tuple[str, ...], told: tuple[str, ...]) -> None:
    run = command.run("bench", *arguments)
    assert run.code == 2
    assert run.told(*told)


@pytest.mark.parametrize("options", [("--count", "5", "--duration", "5s"), ("--size", "big"), ("-c", "100001")])
def test_no_server_is_started_for_what_can_not_be_meant(options: tuple[str, ...]) -> None:
    run = command.run("bench", *options)
    assert run.code == 2
    assert "embedded server" not in run.err


def test_a_rate_below_one_a_second() -> None:
    with Server() as server:
        one = only(bench(server.url, "--rate", "0.001", "--count", "1"))
    assert one["uploads"]["ok"] == 1


def test_nobody_there_is_exit_code_4() -> None:
    run = command.run("bench", "http://127.0.0.1:1/", "--count", "5", "--retries", "0")
    assert run.code == 4
    assert run.out == ""
    assert run.told("can't connect to 127.0.0.1:1")


def test_an_empty_folder_is_exit_code_3(tmp_path: Path) -> None:
    run = command.run("bench", "--from", tmp_path, "--count", "5")
    assert run.code == 3
    assert run.told("no file in it")


def test_a_file_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    run = command.run("bench", "--count", "5", "--csv", tmp_path / "no" / "x.csv")
    assert run.code == 1
    assert run.told("x.csv", "No such file")


@pytest.mark.parametrize("options", [(), ("--output-format", "json")])
def test_a_full_disk_under_the_report_is_told(options: tuple[str, ...]) -> None:
    script = 'exec "$@" > /dev/full'
    run = command.run("bench", "--count", "20", *options, prefix=("sh", "-c", script, "sh"))
    assert run.code == 1
    assert run.told("standard output", "No space left")


def test_a_full_disk_ends_no_measurement() -> None:
    run = bench("--count", "2000", "--log", "/dev/full")
    assert run.code == 1
    assert only(run)["uploads"]["ok"] == 2000
    assert run.told("/dev/full", "No space left")


def test_a_full_disk_ends_no_other_file(tmp_path: Path) -> None:
    full, also_full, table, page = tmp_path / "full", tmp_path / "also full", tmp_path / "table.csv", tmp_path / "page"
    for path in (full, also_full):
        path.symlink_to("/dev/full")
    files = ("--log", full, "--hdr-log", also_full, "--csv", table, "--html", page)
    run = bench("--count", "2000", "-c", "1,2", *files)
    assert run.code == 1
    assert [run.told(str(path), "No space left") for path in (full, also_full)] == [True, True]
    with table.open() as file:
        assert sum(int(row["ok"]) for row in csv.DictReader(file)) == 4000
    assert page.read_text("utf-8").rstrip().endswith("</html>")


class Mute(Script):
    """Takes uploads whole, and never answers."""

    def completed(self, peer: Peer, request: Request) -> None:
        pass


@pytest.mark.parametrize("processes", ["1", "2"])
def test_measurements_in_which_no_upload_ended_are_told(processes: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ends = ("--warm-up", "0", "--duration", "0.5s", "--processes", processes)
    with Server(Mute()) as server:
        run = bench(server.url, "-c", "2,4", *ends, "--html", page)
        missed = bench(server.url, "-c", "2", *ends, "--fail-if", "rate<5")
    assert (run.code, missed.code) == (1, 5)
    assert [one["uploads"]["ok"] for one in run.report["measurements"]] == [0, 0]
    assert run.report["knee"] is None
    for number in ("2", "4"):
        assert run.told(f"no upload ended in 0.5 s with {number} in flight", "they waited for the server")
    assert "No upload ended in 0.5 s" in page.read_text("utf-8")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_that_allows_no_stream_is_told(processes: str) -> None:
    ends = ("--warm-up", "0", "--duration", "2.5s", "--processes", processes)
    with Server(max_concurrent_streams=0) as server:
        run = bench(server.url, "-c", "4", *ends)
    assert run.code == 1
    assert run.told("no upload ended", "the server allows no stream at present (MAX_CONCURRENT_STREAMS 0)")
    assert only(run)["limited_by"]["cause"] == "stream_limit"
    assert "--connections" not in only(run)["limited_by"]["sentence"]


class Falters(Mute):
    """Answers the first uploads, and then nothing any more."""

    def completed(self, peer: Peer, request: Request) -> None:
        if request.stream_id <= 2 * 5:
            peer.answer(request, 201)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_uploads_that_were_due_and_have_no_answer_at_the_end_are_told(processes: str) -> None:
    """They are in no latency: a server that stops answering late in the window would look like a fast one."""
    ends = ("--warm-up", "0", "--duration", "1.5s", "--processes", processes)
    with Server(Falters(), max_concurrent_streams=1000) as server:
        run = bench(server.url, "--rate", "200", *ends)
        told = command.run("bench", server.url, "--rate", "200", *ends).out
    uploads = only(run)["uploads"]
    assert (uploads["ok"], uploads["failed"], uploads["dropped"]) == (5 * int(processes), 0, 0)
    assert uploads["unfinished"] >= 200
    assert "not ended, in no latency" in told


class Early(Script):
    """Answers when it has seen the fields, and takes none of the body."""

    def requested(self, peer: Peer, request: Request) -> None:
        peer.answer(request, 201)

    def received(self, peer: Peer, request: Request, octets: int) -> None:
        pass

    def completed(self, peer: Peer, request: Request) -> None:
        pass


def test_an_answer_before_the_last_octet_has_no_time_from_that(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    ends = ("--warm-up", "0", "--count", "1", "-c", "1")
    with Server(Early()) as server:
        run = bench(server.url, "--size", "1MiB", "--log", log, *ends)
        told = command.run("bench", server.url, "--size", "1MiB", *ends).out
    one = only(run)
    assert one["uploads"]["ok"] == 1
    assert one["latency_ms"]["max"] < 60_000
    assert one["response_ms"]["max"] is None
    assert [json.loads(line)["response_ms"] for line in log.read_text().splitlines()] == [None]
    assert "response" not in told


class Gone(Script):
    """Takes so many uploads, and then there is no server any more."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.stop: Callable[[], None] = lambda: None
        self.lock = threading.Lock()

    def completed(self, peer: Peer, request: Request) -> None:
        with self.lock:
            self.left -= 1
            if not self.left:
                self.stop()
        if self.left > 0:
            super().completed(peer, request)
        else:
            peer.drop()


@pytest.mark.parametrize(
    "options",
    [("-c", "4"), ("-c", "4", "--warm-up", "50s"), ("-c", "4", "--processes", "2"), ("--rate", "500")],
    ids=" ".join,
)
def test_a_server_that_goes_away_ends_it_with_what_was_measured(options: tuple[str, ...]) -> None:
    script = Gone(100)
    ends = ("--duration", "100s", "--retries", "1", "--retry-delay", "0.1")
    with Server(script) as server:
        script.stop = server.refuse
        run = bench(server.url, "--warm-up", "0", *options, *ends)
    assert run.code == 4
    assert run.told("can't connect", "trying again (1 of 1)")
    assert run.err.splitlines()[-1].endswith("check host and port, and that the server is up")
    if "--warm-up" in options:
        assert run.out == ""
    else:
        assert run.report["interrupted"] is True
        assert 50 <= only(run)["uploads"]["ok"] < 100
        assert only(run)["seconds"] < 60


class Leaves(Script):
    """Ends its first connection with the first answer, and speaks on no other one."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def accepts(self, number: int) -> bool:
        return number == 0 or not self.over.wait(30)

    def completed(self, peer: Peer, request: Request) -> None:
        peer.answer(request, 201)
        peer.drop()


def test_settings_of_a_server_whose_connections_have_ended_are_told() -> None:
    script = Leaves()
    with Server(script) as server:
        run = bench(server.url, "-c", "1", "--duration", "0.5s", "--warm-up", "0")
        script.over.set()
    assert only(run)["peer"]["settings"]["MAX_CONCURRENT_STREAMS"] == 100


def test_ctrl_c_ends_it_with_a_report() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fastpost", "bench", "--duration", "100s", "--warm-up", "0", "--output-format", "json",
         "--log", "/dev/stderr"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        while not running.stderr.readline().startswith("{"):
            pass
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    report = json.loads(out)
    assert report["interrupted"] is True
    assert report["measurements"][0]["uploads"]["ok"] > 0


class Second(Script):
    """Says when an upload of the second measurement has come."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def accepts(self, number: int) -> bool:
        if number == 1:
            self.begun.set()
        return True


@pytest.mark.parametrize("form", ["text", "json"])
def test_ctrl_c_before_the_second_measurement_counts_is_told_with_the_first(form: str) -> None:
    """What is reported is whole, and not all that was asked for."""
    script = Second()
    with (
        Server(script) as server,
        subprocess.Popen(
            [sys.executable, "-m", "fastpost", "bench", server.url, "-c", "1,2", "--warm-up", "2s", "--count", "5",
             "--output-format", form],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running,
    ):  # fmt: skip
        assert script.begun.wait(60)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    if form == "text":
        assert "interrupted this is what was measured until then" in out
    else:
        assert json.loads(out)["interrupted"] is True
        assert [one["concurrency"] for one in json.loads(out)["measurements"]] == [1]


def test_the_server_that_discards_answers_every_upload_on_a_connection_of_its_own(tmp_path: Path) -> None:
    """It stands in for one on another machine (bench.processes)."""
    for name in ("one", "two"):
        tmp_path.joinpath(name).write_bytes(bytes(1 << 20))
    with bench_servers.start("discard", tls=True) as server:
        assert server.cafile is not None
        run = command.upload(tmp_path, "--to", server.url, "--cacert", server.cafile)
    assert run.code == 0
    assert run.report["status"] == {"200": 2}
    assert run.report["connections"] == 2
    assert run.report["bytes"]["payload"] == 2 << 20
    assert run.report["bytes"]["wasted"] == run.report["attempts"]["replayed"] == 0
