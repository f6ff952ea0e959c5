"""The process of the command line: `fastpost`, and `python -m fastpost`.

What is set here holds for a whole process; nothing that a program may import from fastpost does that.
"""

from __future__ import annotations

import atexit
import os
import sys

from fastpost.collector import spare_loading


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    spare_loading()
    end = _End()
    try:
        from fastpost.cli import main as command_line  # half of a start: Ctrl-C may come in the midst of it

        command_line()
    except SystemExit as told:
        end.code = told.code
        raise
    except KeyboardInterrupt:
        from fastpost.errors import Exit

        end.code = int(Exit.INTERRUPTED)
        raise SystemExit(end.code) from None


class _End:
    """Spares the interpreter its own end: to free, object by object, what the system takes back anyway costs 20 ms.

    Who was registered first is called last: threads are joined by then, and whatever asked to be called has been. It is
    left out for those that were registered still earlier (coverage, profilers), which it would forget, and for who
    looks after memory (PYTHONMALLOC, as under a sanitizer).
    """

    def __init__(self) -> None:
        #: The exit code, once it is known.
        self.code: object = None
        if not atexit._ncallbacks() and "PYTHONMALLOC" not in os.environ:
            atexit.register(self._end)

    def _end(self) -> None:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return  # the interpreter tells of it
        if isinstance(self.code, int):
            os._exit(self.code)


if __name__ == "__main__":
    main()
