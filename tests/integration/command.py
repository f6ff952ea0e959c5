"""Runs the command line in a process of its own, as a user would."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Has every process of `--processes` join at once, and an even part of the first files set aside for each.
SPREADING = """
from fastpost import cores, portions, processes
cores.Cores.idle = lambda self: 9.0
portions._BUSY = 0
processes._LOOK = 0.01
processes._LASTS = 0
processes._LARGE = 0
portions.set_aside = lambda uploads, processes, *, secure: len(uploads) - -(-len(uploads) // processes)
"""
#: The command line, with that.
SPREAD = f"{SPREADING}\nfrom fastpost.__main__ import main\nmain()\n"
#: Seconds after which a run counts as hanging.
LIMIT = 110.0


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one run. `report` is the JSON on stdout, empty when there is none."""

    code: int
    out: str
    err: str
    report: dict[str, Any]

    @property
    def files(self) -> dict[str, int]:
        """Counts of files: total, ok, failed, skipped."""
        counts: dict[str, int] = self.report["files"]
        return counts

    @property
    def errors(self) -> dict[str, int]:
        """Counts of final failures by class name."""
        counts: dict[str, int] = self.report["errors"]
        return counts

    def told(self, *words: str) -> bool:
        """Tell whether one line on stderr has all the words: who reads that line knows what happened to what."""
        return any(all(word in line for word in words) for line in self.err.splitlines())


def upload(*arguments: str | Path, prefix: Sequence[str] = (), limit: float = LIMIT, code: str = "") -> Run:
    """Run `fastpost upload` with JSON on stdout and each failure named on stderr.

    Args:
        arguments: sources and options.
        prefix: a command that runs the command line, to take rights from it.
        limit: seconds before the run counts as hanging: subprocess.TimeoutExpired.
        code: Python that runs in place of the module, such as `SPREAD`.
    """
    return run("upload", "-v", "--output-format", "json", *arguments, prefix=prefix, limit=limit, code=code)


def run(*arguments: str | Path, prefix: Sequence[str] = (), limit: float = LIMIT, code: str = "") -> Run:
    """Run `python -m fastpost` with the arguments, or `code` in its place. No run may ever show a traceback."""
    done = subprocess.run(
        [*prefix, sys.executable, *(("-c", code) if code else ("-m", "fastpost")), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        timeout=limit,
        check=False,
    )
    out, err = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
    print(f"--- fastpost {' '.join(map(str, arguments))}: exit {done.returncode} ---\n{out[-4000:]}\n{err[-4000:]}")
    assert "Traceback" not in err
    return Run(done.returncode, out, err, json.loads(out) if out.startswith('{"schema"') else {})


def environment() -> dict[str, str]:
    """Return what a command of its own needs to run the package under test."""
    return {**os.environ, "PYTHONPATH": python_path(_package_folder())}


def python_path(folder: str | Path) -> str:
    """Return PYTHONPATH with a folder put first."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def _package_folder() -> str:
    """Return the folder that holds the package under test, so that the command runs the same one."""
    found = importlib.util.find_spec("fastpost")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent.parent)
