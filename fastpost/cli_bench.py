"""The commands that measure: options in, plans out. A command of `cli` each, loaded when it is named."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, Final

import click

from fastpost.cli_network import check_embedded
from fastpost.cli_network import settings as network_settings
from fastpost.cli_process import outlets, say, traced
from fastpost.cli_types import FILES_READ, Numbers, Seconds, Share, check_apart
from fastpost.collector import spare_running
from fastpost.errors import Exit, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastpost.config import Settings
    from fastpost.measurement import Plan
    from fastpost.outlet import Outlet
    from fastpost.sizes import Range, Weighted

_FILE: Final = click.Path(dir_okay=False, writable=True)
#: Options of `upload` that mean the same to whoever measures: how a server is reached and what requests carry.
LIKE_UPLOAD: Final = frozenset(
    {
        "method",
        "schedule",
        "header",
        "oauth2_bearer",
        "user",
        "netrc",
        "connect_to",
        "unix_socket",
        "content_type",
        "cacert",
        "cert",
        "key",
        "insecure",
        "connect_timeout",
        "stall_timeout",
        "retries",
        "retry_delay",
        "output_format",
        "progress",
        "quiet",
    }
)
#: Those of them that a single upload has no use for.
_OF_A_RUN: Final = frozenset({"schedule", "stall_timeout", "retries", "retry_delay", "progress", "quiet"})
_DURATION: Final = 10.0
_SIZE: Final = "4KiB"
_CONCURRENCY: Final = 50
_MOST_IN_FLIGHT: Final = 1000
_WARM_UP: Final = 1.0


@click.command()
@click.argument("url", required=False)
@click.option(
    "-c",
    "--concurrency",
    metavar="N[,N...]",
    type=Numbers(),
    help="Closed loop: uploads in flight, over all connections; a list measures each.  [default: 50]",
)
@click.option(
    "--rate", metavar="N", type=float, help="Open loop: begin so many uploads a second, whatever became of the others."
)
@click.option(
    "--max-in-flight",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --rate: more than these are dropped.  [default: 1000]",
)
@click.option(
    "--connections",
    metavar="N[,N...]",
    type=Numbers("auto"),
    help="Connections to the server, or auto; a list measures each.  [default: one for each process]",
)
@click.option(
    "--processes",
    metavar="N[,N...]",
    type=Numbers(most=64),
    default="1",
    show_default=True,
    help="Processes that share the load, for a server that one core can't keep busy; a list measures each.",
)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End with so many uploads.")
@click.option("--duration", metavar="TIME", type=Seconds(), help="End after 30s, 5m, …  [default: 10s without --count]")
@click.option(
    "--warm-up",
    metavar="TIME",
    type=Seconds(),
    help="Before anything counts.  [default: 1s, with --count none]",
)
@click.option(
    "--size",
    metavar="SIZE",
    help="Of an upload: 4KiB; 1KiB..1MiB, each factor of two equally often; 4KiB:80,1MiB:20 with weights.  "
    "[default: 4KiB]",
)
@click.option(
    "--from",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Names, sizes and order of the files in DIR, again and again.",
)
@click.option("--with-content", is_flag=True, help="With --from: send the files, not octets from memory.")
@click.option("--runs", metavar="N", type=click.IntRange(min=1), default=1, show_default=True, help="Measure N times.")
@click.option(
    "--fail-if", metavar="'p99>50ms'", multiple=True, help="Exit with 5 when it holds: rate<1000, failed>0, max>1s, …"
)
@click.option("--log", metavar="FILE", type=_FILE, help="Write every upload to FILE, one JSON object a line.")
@click.option("--csv", metavar="FILE", type=_FILE, help="Write every second to FILE.")
@click.option("--hdr-log", metavar="FILE", type=_FILE, help="Write an HdrHistogram log, one interval a second.")
@click.option("--html", metavar="FILE", type=_FILE, help="Write one page with charts, which needs no network.")
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
def bench(verbose: int, **options: Any) -> int:
    """Measure how fast a server takes uploads.

    Without URL the embedded server is measured. The payload comes from memory, not from a disk. A URL that ends in /
    gets names that come again: fastpost-bench-0.bin and so on. Exit code 5: a --fail-if holds.
    """
    with traced(verbose):
        return _bench(**options)


@click.command()
@click.argument("before", metavar="A.json", type=click.Path(exists=True, dir_okay=False))
@click.argument("after", metavar="B.json", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--fail-if-slower",
    metavar="SHARE",
    type=Share(),
    help="Exit with 5 when a figure is shown to be slower by more than this, 5% say.",
)
@click.option("--html", metavar="FILE", type=_FILE, help="Write one page with charts, which needs no network.")
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
def compare(
    before: str,
    after: str,
    fail_if_slower: float | None,
    html: str | None,
    output_format: str,
    verbose: int,
) -> int:
    """Compare two reports of fastpost bench --output-format json.

    Rate, throughput and percentiles, each with its change, a 95 % confidence interval and a verdict: faster, slower, or
    no difference shown. Make both with --runs 5. Exit code 5: something is slower than --fail-if-slower allows.
    """
    with traced(verbose):
        return _compare(before, after, fail_if_slower, html, output_format == "json")


@click.command()
@click.argument("url")
@click.option(
    "--budget", metavar="SIZE", default="16MiB", show_default=True, help="Upload at most so many octets to find out."
)
@click.option(
    "--requests",
    metavar="N",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="Then make so many empty uploads on the same connection, to see after how many the server says GOAWAY.",
)
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
def probe(url: str, budget: str, requests: int, output_format: str, verbose: int, **network: Any) -> int:
    """Tell what a server advertises, and the ceiling that follows from it.

    Times to connect, SETTINGS, windows and how it opens them, round trip, and window ÷ round trip for 1 to 8
    connections. Makes one upload, and with --requests empty ones of the same name after it.
    """
    with traced(verbose):
        return _probe(url, budget, requests, output_format == "json", network)


def _probe(url: str, budget: str, requests: int, as_json: bool, network: dict[str, Any]) -> int:
    import json

    from fastpost import probe, probe_text, report, sizes

    try:
        octets = sizes.octets(budget)
    except UsageError as error:
        raise UsageError(f"--budget: {error}") from None
    out, _ = outlets()
    found = probe.Probe(_settings(url, 1, 1, network), octets, requests).look()
    if as_json:
        out.write(json.dumps(found) + "\n")
    else:
        rows = probe_text.rows(found)
        out.write(report.drawn(rows, out.console()) if out.terminal else report.plain(rows))
    return Exit.OK


def command(name: str, like: Sequence[click.Parameter]) -> click.Command:
    """Return a command by its name, with the options of `upload` (`like`) that mean the same there."""
    found = {"bench": bench, "compare": compare, "probe": probe}[name]
    own = {option.name for option in found.params}
    alike = {"bench": LIKE_UPLOAD, "compare": frozenset({"output_format"}), "probe": LIKE_UPLOAD - _OF_A_RUN}[name]
    found.params += [_under(name, option) for option in like if option.name in alike - own]
    return found


def _under(name: str, like: click.Parameter) -> click.Parameter:
    """Return an option of `upload` for the command of that name: its help names the variable that is read there."""
    own = copy.copy(like)
    if isinstance(own, click.Option) and own.help:
        own.help = own.help.replace("FASTPOST_UPLOAD_", f"FASTPOST_{name.upper()}_")
    return own


def _compare(before: str, after: str, limit: float | None, html: str | None, as_json: bool) -> int:
    import json
    import os

    from fastpost import compare, compare_text

    _check_files({"html": html})
    if html is not None and os.path.realpath(html) in map(os.path.realpath, (before, after)):
        raise UsageError(f"--html {html} is one of the reports: give the page a name of its own")
    out, err = outlets()
    comparison = compare.compared(compare.load(before), compare.load(after), (before, after))
    out.write(json.dumps(comparison) + "\n" if as_json else compare_text.drawn(comparison, out.console()))
    if html is not None:
        from fastpost import compare_page

        try:
            with open(html, "w", encoding="utf-8") as file:
                file.write(compare_page.drawn(comparison, limit))
        except OSError as error:
            raise OSError(error.errno, error.strerror, html) from None
    missed = [] if limit is None else compare.slower(comparison, limit)
    for told in missed:
        say(err, f"slower than --fail-if-slower {limit:.1%} allows: {told}")
    return Exit.THRESHOLD_MISSED if missed else Exit.OK


def _bench(*, url: str | None, quiet: bool, progress: bool | None, **options: Any) -> int:
    from fastpost import sizes, thresholds
    from fastpost.bench_files import Paths
    from fastpost.bench_run import BenchRun, Shown
    from fastpost.open_files import raise_open_files

    fail_if = [thresholds.parse(text) for text in options.pop("fail_if")]
    paths = Paths(**{name: options.pop(name) for name in Paths._fields})
    _check_files(paths._asdict())
    json = options.pop("output_format") == "json"
    _check(**options)
    if url is None:
        check_embedded(options)
    if options["size"] is None:
        options["size"] = _SIZE
    options["drawn"] = sizes.parse(options["size"])
    plans, load = _plans("http://127.0.0.1/" if url is None else url, **options)
    out, err = outlets()
    processes = max(plan.processes for plan, _ in plans)
    connections = max(plan.settings.connections_at_most for plan, _ in plans)
    raise_open_files(processes if processes > 1 else 0, connections, embedded=url is None)
    with contextlib.ExitStack() as stack:
        if url is None:
            url = stack.enter_context(_embedded(None if quiet else err))
            plans = [(_at(plan, url), run) for plan, run in plans]
        if not quiet and (told := _too_many(processes)):
            say(err, told)
        shown = Shown(json, (err.terminal and not quiet) if progress is None else progress, quiet)
        spare_running()
        return BenchRun(plans, load, shown, out, err, paths=paths, fail_if=fail_if).execute()


def _plans(
    url: str,
    *,
    concurrency: tuple[int, ...] | None,
    connections: tuple[int | str, ...] | None,
    processes: tuple[int, ...],
    rate: float | None,
    max_in_flight: int | None,
    count: int | None,
    duration: float | None,
    warm_up: float | None,
    runs: int,
    size: str,
    drawn: Range | Weighted,
    folder: str | None,
    with_content: bool,
    **network: Any,
) -> tuple[list[tuple[Plan, int]], dict[str, object]]:
    """Return what to measure, each with the number of its run, and the same in words for the report."""
    from fastpost import load
    from fastpost._payload import Payload
    from fastpost.measurement import Plan

    if count is None and duration is None:
        duration = _DURATION
    if warm_up is None:
        warm_up = 0.0 if count is not None else _WARM_UP
    in_flight = (concurrency or (_CONCURRENCY,)) if rate is None else (max_in_flight or _MOST_IN_FLIGHT,)
    payload = None if with_content else Payload()

    def batches(part: load.Part) -> Iterator[Any]:
        if folder is not None:
            return load.replayed(folder, payload, part)
        assert payload is not None
        # Twice as many names as uploads in flight: no two of one name meet.
        return load.made_up(drawn, payload, max(2 * max(in_flight), 1000), part)

    plans = [
        (
            Plan(
                settings=_settings(url, most, number, network),
                batches=batches,
                rate=rate,
                count=count,
                duration=duration,
                warm_up=warm_up,
                processes=several,
            ),
            run,
        )
        for run in range(1, runs + 1)
        for several in processes
        for number in connections or (several,)
        for most in in_flight
    ]
    return plans, {
        "loop": "closed" if rate is None else "open",
        "rate": rate,
        "count": count,
        "duration_s": duration,
        "warm_up_s": warm_up,
        "size": None if folder is not None else size,
        "from": folder,
        "with_content": with_content,
        "runs": runs,
    }


def _at(plan: Plan, url: str) -> Plan:
    import dataclasses

    return dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, to=url))


def _settings(url: str, concurrency: int, connections: int | str, network: dict[str, Any]) -> Settings:
    from fastpost.config import Settings

    # What is measured is a client that wakes for each answer: awake it would be told as at its limit, after a nap late.
    rest = network_settings(url, network) | {"busy_poll": False, "naps": False}
    return Settings(to=url, concurrency=concurrency, connections=connections, **rest)  # type: ignore[arg-type]


def _check_files(paths: Mapping[str, str | None]) -> None:
    """Refuse names of files that can't be meant."""
    import os

    found: dict[str, str] = {}
    for name, path in paths.items():
        option = f"--{name.replace('_', '-')}"
        if path == "":
            raise UsageError(f"{option} is given an empty name: name a file (is a shell variable unset?)")
        if path is None or (os.path.exists(path) and not os.path.isfile(path)):
            continue  # a terminal, a pipe, /dev/null take what several write
        if (other := found.setdefault(os.path.realpath(path), option)) != option:
            raise UsageError(f"{other} and {option} name the same file, {path}: give each one of its own")
        check_apart(option, path, click.get_current_context().meta.get(FILES_READ, ()))


def _check(
    *,
    concurrency: tuple[int, ...] | None,
    connections: tuple[int | str, ...] | None,
    processes: tuple[int, ...],
    rate: float | None,
    max_in_flight: int | None,
    count: int | None,
    duration: float | None,
    size: str | None,
    folder: str | None,
    with_content: bool,
    **_: object,
) -> None:
    """Refuse what can't be meant together, before anything is started for it."""
    if rate is not None and not 1e-6 <= rate <= 1e6:
        raise UsageError("--rate is a number of uploads a second, above 0: from 0.000001 to 1000000")
    if max_in_flight is not None and rate is None:
        raise UsageError("--max-in-flight belongs to --rate: a closed loop has --concurrency")
    if concurrency is not None and rate is not None:
        raise UsageError("--concurrency is that of a closed loop: with --rate the most in flight is --max-in-flight")
    if count is not None and duration is not None:
        raise UsageError("--count and --duration both say when to end: leave one of them out")
    if duration is not None and duration <= 0:
        raise UsageError("--duration must be more than 0")
    if folder is not None and size is not None:
        raise UsageError("--from takes the sizes from the folder: leave out --size")
    if with_content and folder is None:
        raise UsageError("--with-content belongs to --from DIR: the folder whose files are sent")
    shared = {
        "--concurrency": (concurrency or (_CONCURRENCY,)) if rate is None else (),
        "--max-in-flight": () if rate is None else (max_in_flight or _MOST_IN_FLIGHT,),
        "--connections": [number for number in connections or () if not isinstance(number, str)],
        "--count": () if count is None else (count,),
    }
    _check_shares(max(processes), shared)


def _check_shares(processes: int, shared: Mapping[str, Sequence[int]]) -> None:
    """Refuse what so many processes can't share: each has to have one at least of everything."""
    for name, values in shared.items():
        if (least := min(values, default=processes)) < processes:
            raise UsageError(
                f"--processes {processes} can't share {name} {least}, as each needs one of its own: "
                f"give {name} {processes} at least, or fewer processes"
            )


def _too_many(processes: int) -> str | None:
    """Return a note when processes will wait for each other's cores."""
    import os

    cores = len(os.sched_getaffinity(0))
    if processes <= cores:
        return None
    return (
        f"{processes} processes on {cores} core{'' if cores == 1 else 's'} wait for each other: "
        f"their latencies count that; --processes {cores} is the most that each have a core"
    )


@contextlib.contextmanager
def _embedded(err: Outlet | None) -> Iterator[str]:
    """Run the embedded server; gives its URL."""
    from fastpost.ingest import Ingest

    if err is not None:
        say(err, "no URL: measuring the embedded server on loopback, which drops every upload")
    with Ingest(digests=False) as server:
        yield server.url
