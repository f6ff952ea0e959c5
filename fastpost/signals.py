"""SIGINT and SIGTERM while a loop runs: what they call, and the exit codes that they mean."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Final

from fastpost.errors import Exit
from fastpost.outlet import break_off, hurry, take_time

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

EXIT_CODES: Final = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


@contextlib.contextmanager
def signals_taken(
    loop: asyncio.AbstractEventLoop, interrupted: Callable[[asyncio.AbstractEventLoop, signal.Signals], None]
) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `interrupted` on the loop, also those that were `signals_held` so far."""
    before = {number: signal.getsignal(number) for number in (*EXIT_CODES, signal.SIGALRM)}
    for number in EXIT_CODES:
        loop.add_signal_handler(number, interrupted, loop, number)
        # In place of the loop's, which does nothing and has a write go on. The loop is told by a descriptor.
        signal.signal(number, hurry)
    signal.signal(signal.SIGALRM, break_off)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in EXIT_CODES:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
        take_time()
        signal.signal(signal.SIGALRM, before[signal.SIGALRM])


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep SIGINT and SIGTERM waiting between one loop and the next, for whom `signals_taken` has then."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
