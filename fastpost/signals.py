"""SIGINT and SIGTERM while a loop runs: what they call, and the exit codes that they mean."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final

from fastpost.errors import Exit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

EXIT_CODES: Final = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


@contextlib.contextmanager
def signals_taken(
    loop: asyncio.AbstractEventLoop, interrupted: Callable[[asyncio.AbstractEventLoop, signal.Signals], None]
) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `interrupted` on the loop, also those that were `signals_held` so far."""
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    for number in EXIT_CODES:
        loop.add_signal_handler(number, interrupted, loop, number)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep SIGINT and SIGTERM waiting between one loop and the next, for whom `signals_taken` has then."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
