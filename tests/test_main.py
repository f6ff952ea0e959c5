"""The process of the command line: what it loads, what its collector does, and that its quick end loses nothing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from in_process import Server

#: What a plain upload is made of.
UPLOAD = {
    *(
        "_blocked",
        "_chunker",
        "_connection_window",
        "_control_frames",
        "_delivery",
        "_field_validity",
        "_folder",
        "_frames",
        "_gather",
        "_hpack_decoder",
        "_hpack_encoder",
        "_hpack_tables",
        "_labels",
        "_line",
        "_listing",
        "_meter",
        "_open_streams",
        "_patience",
        "_envelope",
        "_payload",
        "_rate_limit",
        "_readahead",
        "_request_content",
        "_request_headers",
        "_scheduler",
        "_sending",
    ),
    *("_streams", "_table", "_wire", "causes", "cli", "cli_network", "cli_process", "cli_selection", "cli_types"),
    *("config", "connection", "endpoint", "errors", "feed", "growth"),
    *(
        "collector",
        "media_types",
        "open_files",
        "outlet",
        "cores",
        "pool",
        "report",
        "repeats",
        "retry",
        "run",
        "session",
        "signals",
        "sources",
        "sums",
    ),
    *("tally", "target", "tcp", "tls", "upload_run", "uploader", "waiting"),
}
#: What comes with the libraries that it stands upon, and with click's first message.
LIBRARIES = "import click, gettext, h2.connection, locale, runpy, uvloop"

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
    options.setdefault("env", without("PYTHONUNBUFFERED"))
    lines = "".join(f"    {line}\n" for line in work.splitlines())
    script = SCRIPT.format(work=lines, before=before)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=False, timeout=60, stderr=subprocess.PIPE, **options)


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}


def test_the_end_is_quick_and_has_the_exit_code() -> None:
    done = run("sys.exit(7)", env=without("PYTHONMALLOC"))
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
        "sys.exit(3)",
        env=without("PYTHONMALLOC", "PYTHONUNBUFFERED"),
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


def test_a_plain_upload_loads_only_what_it_needs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    told = "import atexit, sys; atexit.register(lambda: print(*sys.modules))"
    ours = f"{told}; import fastpost.__main__ as process; process.main()"
    with Server() as server:
        loaded = modules(ours, "upload", os.fspath(tmp_path), "--to", server.url, "--quiet")
    own = {name for name in loaded if name.partition(".")[0] == "fastpost"}
    assert own == {"fastpost", "fastpost.__main__", *(f"fastpost.{name}" for name in UPLOAD)}
    beside = {name for name in loaded - own - modules(f"{told}; {LIBRARIES}") if not name.startswith("_cython_")}
    assert beside == {"resource"}


def modules(script: str, *arguments: str) -> set[str]:
    """Return the modules that a process has loaded at its end, as its last line tells."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_an_address_is_reached_without_the_threads_of_a_resolver(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    script = (
        "import atexit, pathlib\n"
        "names = lambda: [one.read_text() for one in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "atexit.register(lambda: print(*names()))\n"
        "import fastpost.__main__ as process\n"
        "process.main()"
    )
    with Server() as server:
        arguments = ["upload", os.fspath(tmp_path), "--to", server.url, "--quiet"]
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout
    assert "libuv-worker" not in done.stdout
