"""How many files a run may have open, and what is left to all else."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Opens files as a run does until none can be opened any more; prints how many descriptors are left then.
_USE_ALL = """
import os, resource, sys
from fastpost._chunker import Source
from fastpost.open_files import raise_open_files
raise_open_files()
sources = []
try:
    while True:
        sources.append(Source.from_path(os.fsencode(sys.executable)))
except OSError:
    pass
opened = len(sources)
sources.pop().shut()  # for the folder that is listed now
print(opened, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.parametrize(("limit", "left"), [(30, 4), (22, 0), (64, 16), (400, 16)])
def test_files_leave_descriptors_to_all_else(limit: int, left: int) -> None:
    """What is loaded or connected to in the midst of a run would find none; where there are few, files need them."""
    shell = f'ulimit -n {limit}; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", _USE_ALL], check=True, capture_output=True, text=True
    )
    opened, spared = map(int, done.stdout.split())
    assert spared == left
    assert opened + spared <= limit - 3
    assert opened >= 14


def test_too_few_are_refused() -> None:
    shell = 'ulimit -n 15; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", _USE_ALL], check=False, capture_output=True, text=True
    )
    assert "UsageError" in done.stderr
    assert "ulimit -n 1024" in done.stderr
