"""The command line: click commands; options in, runs out.

Only click is loaded here; each command loads what it needs, so that --version and --help answer at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from fastpost import __version__
from fastpost.cli_network import netrc_file, networking
from fastpost.cli_network import settings as network_settings
from fastpost.cli_process import Terminated, outcome, outlets, say, shown, traced
from fastpost.cli_selection import Choice, choosing
from fastpost.cli_types import FILES_READ, NumberOr, check_apart, is_one_file
from fastpost.collector import spare_running
from fastpost.errors import Exit, NothingMatched, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastpost.outlet import Outlet
    from fastpost.sources import Batch

#: Commands of `cli_bench`.
_MEASURING: Final = ("bench", "compare", "probe")
#: Variables that stand for --to.
_TARGETS: Final = ("FASTPOST_UPLOAD_TO", "FASTPOST_URL")
#: Largest part of a response body that --show-response prints, in octets.
_BODY_SHOWN: Final = 64 * 1024


class _Commands(click.Group):
    """A group whose every error is one line on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; with `standalone_mode` off, return and raise as click does."""
        run = functools.partial(
            super().main, args, prog_name or "fastpost", complete_var, standalone_mode=False, **extra
        )
        if not standalone_mode:
            return run()
        sys.exit(outcome(run))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *_MEASURING])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; those that measure are loaded when they are named."""
        if cmd_name not in _MEASURING:
            return super().get_command(ctx, cmd_name)
        from fastpost import cli_bench

        return cli_bench.command(cmd_name, upload.params)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"auto_envvar_prefix": "FASTPOST", "help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="fastpost %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Upload files and folders over HTTP/2, fast and intact.

    Every option can be set in the environment as FASTPOST_COMMAND_OPTION (FASTPOST_UPLOAD_CONCURRENCY=100).
    NO_COLOR, SSL_CERT_FILE and SSLKEYLOGFILE are honoured.

    Exit codes: 0 all uploaded, 1 some files failed, 2 usage, 3 nothing matched, 4 target unreachable or not HTTP/2,
    5 a threshold of bench or compare missed, 130 or 143 interrupted.
    """
    if ctx.invoked_subcommand is None:
        outlets()[1].write(f"{ctx.get_help()}\n")
        ctx.exit(Exit.USAGE)


@main.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--to",
    metavar="URL",
    envvar=list(_TARGETS),
    help="Where to (or FASTPOST_URL). It may hold {path} {name} {stem} {ext}; a URL that ends in / gets the relative "
    "path appended; any other URL receives every file. Without --to an embedded server on loopback takes the files, "
    "and their SHA-256 is compared.",
)
@click.option("--method", metavar="NAME", help="Default: PUT when each file has its own URL, else POST.")
@click.option("-c", "--concurrency", default=50, show_default=True, help="Uploads in flight, over all connections.")
@click.option(
    "--connections",
    metavar="N",
    type=NumberOr("auto"),
    default="auto",
    show_default=True,
    help="Connections to the target; auto: one, and up to 8 where the server's windows or streams make uploads wait.",
)
@click.option(
    "--processes",
    metavar="N",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Most processes that share files, concurrency, connections; with small files they join where a core is idle.",
)
@click.option(
    "--schedule",
    type=click.Choice(["fair", "fifo"]),
    default="fair",
    show_default=True,
    help="Who sends next on a connection: all in turn, or the oldest first.",
)
@networking
@choosing
@click.option("--dry-run", is_flag=True, help="List what would go where, without connecting.")
@click.option(
    "--journal",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Record in FILE what is uploaded; a second run with it sends only what is missing or has changed.",
)
@click.option(
    "--digest",
    metavar="ALGORITHM",
    type=click.Choice(["sha-256", "sha-512"]),
    help="Send the digest of each file along, as Content-Digest; sha-256 or sha-512.",
)
@click.option(
    "--verify", is_flag=True, help="Compare each file with the digest that the server tells; a difference is a failure."
)
@click.option("--show-response", is_flag=True, help="Print status, fields and body of every response.")
@click.option(
    "--failures",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write every failure to FILE, one JSON object a line.",
)
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write what became of each upload to FILE, one JSON object a line.",
)
@click.option("--fail-early", is_flag=True, help="Stop at the first file that fails for good.")
@click.option(
    "--output-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the report on stdout.",
)
@click.option("--progress/--no-progress", default=None, help="Default: when stderr is a terminal.")
@click.option("-v", "--verbose", count=True, help="Name each failure as it happens; -vv: each upload, and tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only; JSON is printed all the same.")
def upload(verbose: int, quiet: bool, **options: Any) -> int:
    """Upload files and folders to a server.

    SOURCE is a file or a folder; "fastpost upload photos --to https://store.example/dav/" stores photos/a/b.jpg as
    /dav/a/b.jpg.
    """
    with traced(verbose):
        return _upload(verbose=verbose, quiet=quiet, **options)


def _upload(
    *,
    sources: tuple[str, ...],
    to: str | None,
    choice: Choice,
    dry_run: bool,
    journal: str | None,
    verify: bool,
    show_response: bool,
    failures: str | None,
    log: str | None,
    fail_early: bool,
    processes: int,
    output_format: str,
    progress: bool | None,
    verbose: int,
    quiet: bool,
    **network: Any,
) -> int:
    from fastpost.config import Settings

    if to is None and (unset := [name for name in _TARGETS if os.environ.get(name) == ""]):
        raise UsageError(f"{unset[0]} is set but empty: give it the URL to upload to, or unset it")
    read = [*click.get_current_context().meta.get(FILES_READ, ())]
    if network["netrc"]:
        read.append(("--netrc", netrc_file()))
    _check_written({"--failures": failures, "--log": log, "--journal": journal}, sources, read)
    _check_together(to, journal, verify, processes, network)
    out, err = outlets()
    settings = Settings(
        to="http://127.0.0.1/" if to is None else to,
        keep_responses=show_response or verify or to is None,
        body_limit=_BODY_SHOWN if show_response else 1024,
        **network_settings(to, network),
    )
    if not dry_run:
        from fastpost.open_files import raise_open_files

        raise_open_files(processes - 1, settings.connections_at_most, embedded=to is None)
    batches = _begun(choice.batches(sources, sizes=dry_run), sources, choice)
    if dry_run:
        from fastpost.dry_run import list_uploads

        if to is None:
            say(err, "no --to: the files would go to an embedded server on loopback, on a port chosen then")
        return list_uploads(batches, settings, out, err, journal=journal, as_json=output_format == "json")

    from fastpost.upload_run import Display, UploadRun

    display = Display(
        json=output_format == "json",
        progress=(err.terminal and not quiet) if progress is None else progress,
        responses=show_response,
        verbose=verbose,
        quiet=quiet,
    )
    with contextlib.ExitStack() as stack:
        if to is None:
            settings = stack.enter_context(_embedded(settings, None if quiet else err))
        run = UploadRun(
            settings,
            display,
            out,
            err,
            failures=failures,
            log=log,
            journal=journal,
            fail_early=fail_early,
            verify=verify or to is None,
            distinct=len(sources) == 1,
            processes=processes,
        )
        spare_running()
        return run.execute(batches)


def _check_together(to: str | None, journal: str | None, verify: bool, processes: int, network: dict[str, Any]) -> None:
    """Refuse options that don't go together."""
    if to is None and journal is not None:
        raise UsageError("--journal needs --to: the embedded server keeps nothing that a later run could build upon")
    if to is None and network["form"] is not None:
        raise UsageError("--form needs --to: the embedded server takes files as they are")
    if verify and network["form"] is not None:
        raise UsageError("--verify compares a file with what the server got, which with --form is more than the file")
    if processes > 1 and network["limit_rate"] is not None:
        raise UsageError("--limit-rate is kept by one process, which reaches any rate: leave out --processes")


def _check_written(files: dict[str, str | None], sources: tuple[str, ...], read: list[tuple[str, str | int]]) -> None:
    """Raise UsageError when two options write to one file, one to what another reads, or one can't write to its own."""
    given = [(option, path) for option, path in files.items() if path is not None]
    for option, path in given:
        _check_file(option, path, sources)
        for name, stream in (("standard output", sys.__stdout__), ("standard error", sys.__stderr__)):
            if stream is not None and os.path.isfile(path) and is_one_file(path, stream.fileno()):
                raise UsageError(f"{option} {shown(path)} is where {name} goes too: name another file")
    for index, (option, path) in enumerate(given):
        check_apart(option, path, [*given[index + 1 :], *read])


def _check_file(option: str, path: str, sources: tuple[str, ...]) -> None:
    """Raise UsageError when an option's file can't be made there, or would be in the way of what is uploaded."""
    from fastpost.sources import check_place

    if not path:
        raise UsageError(f"{option} is given an empty name: name a file (is a shell variable unset?)")
    if path == "-":
        raise UsageError(f"{option} - is no file: name one, or ./- if it is to be called that")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise UsageError(f"{option} {shown(path)}: its folder doesn't exist: make it, or name another file")
    check_place(option, path, sources)


@main.group()
def journal() -> None:
    """Look at what `upload --journal FILE` has recorded."""


@journal.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, exists=True))
@click.option("--list", "listed", is_flag=True, help="Also list each success: octets, time of change, name.")
@click.option(
    "--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the report."
)
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
def show(file: str, listed: bool, output_format: str, verbose: int) -> int:
    """Say what a journal holds: its target, and how many files are uploaded. Nothing is changed."""
    from fastpost.journal_show import show_journal

    with traced(verbose):
        return show_journal(file, outlets()[0], listed=listed, as_json=output_format == "json")


@main.command()
@click.option("--root", metavar="DIR", type=click.Path(file_okay=False), help="Store the files there; default: drop.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", metavar="N", default=0, type=click.IntRange(0, 65535), help="Default: a free one.")
@click.option("--tls", is_flag=True, help="TLS with a certificate made for the occasion.")
@click.option(
    "--max-body",
    metavar="OCTETS",
    type=click.IntRange(min=0),
    help="Refuse larger uploads (413); default: no limit.",
)
@click.option(
    "--max-requests",
    metavar="N",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Put off uploads beyond so many at once with 503.",
)
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
def serve(verbose: int, **options: Any) -> int:
    """Run the embedded server on its own, until Ctrl-C.

    It answers every upload with its SHA-256 in repr-digest. Prints its URL on stdout, with --tls the file of its
    CA certificate on a second line. Stopping it is a success: exit code 0.
    """
    from fastpost.ingest import Ingest
    from fastpost.open_files import check_serving

    check_serving()
    out, err = outlets()
    with traced(verbose), Ingest(**options) as server:
        trust = f" --cacert {server.cafile}" if server.cafile else ""
        with contextlib.suppress(KeyboardInterrupt, Terminated):
            out.write(server.url + "\n" + (f"{server.cafile}\n" if server.cafile else ""))
            say(err, f"serving; Ctrl-C ends it. Upload with: fastpost upload SOURCE --to {server.url}{trust}")
            server.wait()
    return Exit.OK


@contextlib.contextmanager
def _embedded(settings: Any, err: Outlet | None) -> Iterator[Any]:
    """Run the embedded server; gives the settings to upload to it."""
    import dataclasses

    from fastpost.ingest import Ingest

    if err is not None:
        say(err, "no --to: uploading to an embedded server on loopback, which hashes every file and keeps none")
    with Ingest() as server:
        yield dataclasses.replace(settings, to=server.url)


def _begun(batches: Iterator[Batch], sources: tuple[str, ...], choice: Choice) -> Iterator[Batch]:
    """Return the walk with its first batch in hand: what is wrong with a SOURCE is told before anything starts."""
    import itertools

    first = next(batches, None)
    if first is None:
        raise NothingMatched(f"nothing to upload: {choice.nothing_in(', '.join(map(shown, sources)))}")
    return itertools.chain((first,), batches)
