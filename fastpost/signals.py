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
    """Have SIGINT and SIGTERM call `interrupted` on the loop."""
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    for number in EXIT_CODES:
        loop.add_signal_handler(number, interrupted, loop, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
