"""The process of the command line: its standard streams, its signals, and an exit code for whatever ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from fastpost.errors import Exit, FastpostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastpost.outlet import Outlet

#: What standard output is called in an error.
_OUT: Final = "standard output"


class Terminated(BaseException):
    """SIGTERM, while no loop takes it."""


def outlets() -> tuple[Outlet, Outlet]:
    """Return standard output and standard error, as the environment wants them (NO_COLOR, TERM)."""
    from fastpost.outlet import Outlet

    wishes = {"colour": not os.environ.get("NO_COLOR"), "redraws": os.environ.get("TERM") != "dumb"}
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return Outlet(sys.stdout, _OUT, **wishes), Outlet(sys.stderr, "standard error", essential=False, **wishes)


def outcome(run: Callable[[], Any]) -> int:
    """Run and return the exit code; every failure has become one line on stderr."""
    _fill_standard_descriptors()
    with _sigterm_raises():
        try:
            return int(_named(run) or 0)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "fastpost"
            return _complain(f"{error.format_message().rstrip('.')} (see {command} --help)", Exit.USAGE)
        except click.ClickException as error:
            return _complain(error.format_message(), Exit.USAGE)
        except FastpostError as error:
            return _complain(str(error), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _end_at_the_next_signal()
            return _complain("interrupted", Exit.INTERRUPTED)
        except Terminated:
            return _complain("terminated", Exit.TERMINATED)
        except OSError as error:
            what = f"{shown(error.filename)}: " if error.filename is not None else ""
            cure = ": raise the limit (ulimit -n)" if error.errno == errno.EMFILE else ""
            return _complain(f"{what}{error.strerror or error}{cure}", Exit.SOME_FAILED)
        except Exception as error:
            told = f"an error in fastpost itself, please report it: {type(error).__name__}: {error}"
            return _complain(f"{told} (-vv shows where)", Exit.SOME_FAILED)


def _named(run: Callable[[], Any]) -> Any:
    """Run; OSError names standard output, if it is what can't take what click has written: a help text, the version."""
    try:
        return run()
    except OSError as error:
        from fastpost.outlet import Outlet

        Outlet(sys.stdout, _OUT).write("")  # drops what it can't take: the interpreter would meet it again, and tell
        if error.errno == errno.ENOSPC and error.filename is None:  # all else that is written to is named
            raise OSError(error.errno, error.strerror, _OUT) from error
        raise


def _complain(message: str, code: Exit) -> int:
    with contextlib.suppress(OSError):
        say(outlets()[1], message)
    return code


def say(err: Outlet, message: str) -> None:
    """Write a line to standard error, as this program's."""
    err.write(f"fastpost: {shown(message)}\n")


def shown(text: str | bytes | int) -> str:
    """Return a name as a terminal may show it."""
    from fastpost.report import safe

    return safe(os.fsdecode(text) if isinstance(text, bytes) else str(text))


@contextlib.contextmanager
def traced(verbose: int) -> Iterator[None]:
    """With -vv, print the traceback of what nobody foresaw."""
    try:
        yield
    except (FastpostError, click.ClickException):
        raise
    except Exception:
        if verbose >= 2:
            import traceback

            outlets()[1].write(traceback.format_exc())
        raise


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Make SIGTERM unwind the stack, so that the embedded server is stopped too. Signals are the main thread's."""

    def terminate(_number: int, _frame: object) -> None:
        _end_at_the_next_signal()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGINT: signal.getsignal(signal.SIGINT), signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # not one of Python's
                signal.signal(number, handler)


def _end_at_the_next_signal() -> None:
    """Leave no handler that would raise in the midst of what the first signal has brought about."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


def _fill_standard_descriptors() -> None:
    """Open /dev/null in place of closed standard streams.

    Else the first socket or file would get their number, and a stray message would be written into an upload.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)
