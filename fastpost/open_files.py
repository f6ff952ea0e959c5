"""How many files a run may have open: raised as far as the system lets it, and refused where that is too little."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import Final

from fastpost._folder import spare_descriptors
from fastpost.errors import UsageError

#: Descriptors that a run opens beside its files' own, with all options: modules, loop, connection, walk, journal.
_NEEDED: Final = 18
#: Those of each process that shares its work.
_NEEDED_EACH: Final = 2
#: Those of the embedded server, beside one for each connection.
_NEEDED_SERVING: Final = 20
#: Descriptors that files leave to what is opened in the midst of a run, beside its connections; at most half of what it
#: does not need.
_SPARED: Final = 8


def raise_open_files(processes: int = 0, connections: int = 8, *, embedded: bool = False) -> None:
    """Raise the limit of open files to what the system lets this process have.

    Files leave some to all else, so many `connections` among that (by default those of `auto`): they may be opened when
    files have all the rest.

    Raises UsageError when that is too little for a run, with so many processes beside this one, or for the embedded
    server, if there is one: it would end anywhere.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return
    needed = _NEEDED + _NEEDED_EACH * processes
    beyond = soft - _first_free() - needed
    if beyond < 0:
        raise UsageError(
            f"{soft} open files are too few for a run, which needs {needed} beside those that are open already: "
            f"raise the limit (ulimit -n {max(1024, 2 * needed)})"
        )
    if embedded:
        check_serving(connections)
    spare_descriptors(soft - min(_SPARED + connections, beyond // 2))


def check_serving(connections: int = 1) -> None:
    """Raise UsageError when the system lets the embedded server have too few files open for so many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < _NEEDED_SERVING + connections:
        raise UsageError(
            f"{most} open files are too few for the embedded server and "
            f"{connections} connection{'' if connections == 1 else 's'}: "
            f"raise the limit (ulimit -n {max(1024, 2 * connections)})"
        )


def _first_free() -> int:
    """Return the number that the next file gets; the limit is one for numbers, not for how many are open."""
    try:
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.close(fd)
    return fd
