"""A standard stream that may be a terminal, a pipe, full, or closed by whoever was reading it (`| head`).

Once the other end is gone, everything written is dropped: uploads matter more than who watches them.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console

#: ETIMEDOUT: it is there, and takes nothing, though the process is to end.
_READER_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.EIO, errno.ENXIO, errno.ETIMEDOUT})
#: Seconds that a write may take once a signal has asked the process to end.
_LAST_WRITE: Final = 0.2

#: A write is under way; and the process was asked to end.
_writing = False
_hurried = False


def hurry(*_: object) -> None:
    """Take a signal that asks the process to end: no write outlasts it for long, be it under way or still to come.

    Nobody else could: a loop calls nothing before the write is over, and who reads may have stopped for good.
    """
    global _hurried
    _hurried = True
    if _writing:
        signal.setitimer(signal.ITIMER_REAL, _LAST_WRITE)


def break_off(*_: object) -> None:
    """Take SIGALRM: raises TimeoutError out of a write that is under way."""
    if _writing:  # not EINTR, after which Python would write once more
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def take_time() -> None:
    """Let writes take as long as they like once more."""
    global _hurried
    _hurried = False
    signal.setitimer(signal.ITIMER_REAL, 0)


class Outlet:
    """Text to a stream.

    Args:
        stream: the stream, or None when the process was started without it.
        name: what to call it in an error.
        colour: what the user wants (NO_COLOR); a stream that is no terminal has none anyway.
        redraws: False for a terminal that can't redraw a line in place (TERM=dumb); it is treated as a pipe.
        essential: what is lost raises OSError. False for messages: there is nowhere left to tell of it, and a full
            disk must not end the uploads.
    """

    def __init__(
        self,
        stream: TextIO | None,
        name: str,
        *,
        colour: bool = True,
        redraws: bool = True,
        essential: bool = True,
    ) -> None:
        self._stream = stream
        self._name = name
        self._essential = essential
        #: False once the reader is gone.
        self.open = stream is not None and not stream.closed
        #: True when the stream can redraw a line in place.
        self.terminal = redraws and self.open and stream is not None and stream.isatty()
        self.colour = colour and self.terminal

    def write(self, text: str) -> None:
        """Write text. Raises OSError when it is lost for another reason than that nobody reads, a full disk say."""
        global _writing
        if not self.open or self._stream is None:
            return
        _writing = True
        if _hurried:
            signal.setitimer(signal.ITIMER_REAL, _LAST_WRITE)
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            self._close(error)
        except ValueError:  # closed from inside the process
            self.open = False
        finally:
            _writing = False
            if _hurried:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def offer(self, text: str) -> None:
        """Write text if the reader takes it at once, else drop it: a paused terminal must not pause the uploads."""
        if self.open and self._ready():
            self.write(text)

    def console(self) -> Console:
        """Return a rich console that draws what this stream can show, for `write`; it loads rich: only to draw."""
        from rich.console import Console

        return Console(
            file=_Canvas(self._stream),
            force_terminal=self.terminal,
            no_color=not self.colour,
            color_system="auto" if self.colour else None,
            highlight=False,
            markup=False,
            emoji=False,
            width=self.columns(),
        )

    def columns(self) -> int:
        """Return the width of the terminal now; windows are resized."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80 if self._stream is not None else 80
        except (OSError, ValueError):
            return 80

    def _ready(self) -> bool:
        try:
            return self._stream is not None and bool(select.select((), (self._stream,), (), 0)[1])
        except (OSError, ValueError):  # no file descriptor: a stream in memory, always ready
            return True

    def _close(self, error: OSError) -> None:
        self.open = False
        if self._stream is not None:
            _silence(self._stream)
        if self._essential and error.errno not in _READER_GONE:
            raise OSError(error.errno, error.strerror, self._name) from error


class _Canvas(io.StringIO):
    """What rich has in place of the stream: it would flush that, and meet its errors."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return self._encoding


def _silence(stream: TextIO) -> None:
    """Point the stream to nowhere, so that the interpreter's flush at exit finds nothing to complain about."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
