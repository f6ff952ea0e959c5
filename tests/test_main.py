"""The process of the command line: what it loads, what its collector does, and that its quick end loses nothing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

#: A command line of its own, and what tells that the interpreter's own end took place.
SCRIPT = """
import atexit, gc, os, sys, threading
import fastpost.cli, fastpost.__main__ as process

class Left:
    def __del__(self):
        os.write(1, b"taken down ")

left = Left()

def work():
{work}

{before}
fastpost.cli.main = work
process.main()
"""


def run(work: str, before: str = "", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the process with `work` for its command line, and `before` before it."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("env", {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")})
    lines = "".join(f"    {line}\n" for line in work.splitlines())
    script = SCRIPT.format(work=lines, before=before)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=False, timeout=60, stderr=subprocess.PIPE, **options)


def test_the_end_is_quick_and_has_the_exit_code() -> None:
    done = run("sys.exit(7)")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")


def test_what_is_written_registered_or_still_at_work_at_the_end_is_not_lost() -> None:
    done = run(
        "reading, writing = os.pipe()\n"
        "def late():\n"
        "    os.read(reading, 1)\n"
        "    print('a thread')\n"
        "atexit.register(print, 'the first')\n"
        "atexit.register(print, 'the second')\n"
        "threading.Thread(target=late).start()\n"
        "threading._register_atexit(os.write, writing, b'.')\n"  # as executors end their threads
        "print('a message')\n"
        "sys.exit(3)"
    )
    assert done.stdout.decode().splitlines() == ["a message", "a thread", "the second", "the first"]
    assert (done.returncode, done.stderr) == (3, b"")


def test_what_was_registered_before_is_called_too() -> None:
    done = run("sys.exit(3)", before="atexit.register(print, 'the earliest')")
    assert b"the earliest" in done.stdout
    assert done.returncode == 3


def test_who_looks_after_memory_has_the_interpreter_take_itself_down() -> None:
    done = run("sys.exit(3)", env=os.environ | {"PYTHONMALLOC": "malloc"})
    assert (done.returncode, done.stdout) == (3, b"taken down ")


@pytest.mark.parametrize("work", ["print('a message')\nsys.exit(0)", "print('a message')\nsys.exit(1)"])
def test_what_can_not_be_flushed_is_told_by_the_interpreter(work: str) -> None:
    with pathlib.Path("/dev/full").open("wb") as full:
        done = run(work, stdout=full)
    assert done.returncode == 120
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("closing", ["sys.stdout.close()", "sys.stdout = None", "sys.stderr = None"])
def test_streams_that_are_gone_are_no_failure(closing: str) -> None:
    done = run(f"{closing}\nsys.exit(3)")
    assert (done.returncode, done.stderr) == (3, b"")


def test_what_nobody_caught_is_told_by_the_interpreter() -> None:
    done = run("raise BaseException('nobody foresaw this')")
    assert done.returncode == 1
    assert b"nobody foresaw this" in done.stderr


def test_loading_leaves_the_collector_and_the_end_of_a_program_alone() -> None:
    script = (
        "import atexit, gc\n"
        "before = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), atexit._ncallbacks()\n"
        "import fastpost.__main__, fastpost.cli\n"
        "after = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), atexit._ncallbacks()\n"
        "assert before == after, (before, after)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_nothing_is_collected_while_modules_are_loaded(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    script = (
        "import atexit, gc, sys\n"
        "def collected(): return sum(one['collections'] for one in gc.get_stats())\n"
        "import fastpost.__main__\n"
        "before = collected()\n"
        "atexit.register(lambda: print(collected() - before))\n"
        "fastpost.__main__.main()"
    )
    # A port where nobody listens: all has been loaded by then.
    arguments = ["upload", os.fspath(tmp_path), "--to", "http://127.0.0.1:1/", "--retries", "0"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (4, b"0\n")
