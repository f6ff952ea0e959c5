"""When the garbage collector of a command-line process looks: hardly ever while it loads, rarely while it runs."""

from __future__ import annotations

import gc


def spare_loading() -> None:
    """Never look while modules are loaded: 40,000 objects, and no garbage."""
    gc.set_threshold(50_000, 5, 2)


def spare_running() -> None:
    """Never look at what is loaded by now, and rarely at the rest.

    A run makes next to no cycles: of each connection that ended, what h2 keeps of it, 10 kB in 50 objects or more. So
    hundreds of them may lie about, not thousands.
    """
    gc.freeze()
    gc.set_threshold(10_000, 5, 2)
