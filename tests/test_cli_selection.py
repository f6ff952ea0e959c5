"""cli_selection: which files a command line sends, in which order, against a server that keeps what arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result
from hostile import HostileServer

from fastpost import cli
from fastpost.listed import listed

TREE = {
    "a.jpg": 10,
    "b.txt": 20,
    "photos/c.jpg": 3_000,
    "photos/raw/d.raw": 70_000,
    "photos/raw/e.jpg": 5,
    "cache/x/f.jpg": 1,
    "cache/g.tmp": 0,
}
NAMES = frozenset(TREE)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name, size in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    return folder


def sent(tree: Path, *options: str, code: int = 0, given: bytes | None = None) -> list[str]:
    """Upload with these options; returns the names in the order in which their requests came."""
    with HostileServer(lambda line: line.greet()) as server:
        result = run(tree, *server.options, "--connections", "1", *options, given=given)
    assert result.exit_code == code, result.output
    for name, octets in server.taken().items():
        assert octets == (tree / unquote(name)).read_bytes()
    return [stream.path[1:] for stream in server.streams()]


def run(tree: Path, *options: str, given: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli.main, ["upload", str(tree), *options], input=given)
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--include", "*.jpg"], {"b.txt", "photos/raw/d.raw", "cache/g.tmp"}),
        (["--include", "/*.jpg", "--include", "raw/"], NAMES - {"a.jpg", "photos/raw/d.raw", "photos/raw/e.jpg"}),
        (["--exclude", "cache/"], {"cache/x/f.jpg", "cache/g.tmp"}),
        (["--exclude", "*.{jpg,tmp}"], {name for name in NAMES if name.endswith(("jpg", "tmp"))}),
        (["--include", "/photos/**", "--exclude", "*.raw"], {name for name in NAMES if name[:7] != "photos/"}),
        (["--min-size", "10"], {"photos/raw/e.jpg", "cache/x/f.jpg", "cache/g.tmp"}),
        (["--max-size", "3k"], {"photos/raw/d.raw"}),
        (["--min-size", "1", "--max-size", "9", "--exclude", "/cache/"], NAMES - {"photos/raw/e.jpg"}),
    ],
)
def test_what_is_left_out(tree: Path, options: Sequence[str], left: set[str]) -> None:
    assert set(sent(tree, *options)) == NAMES - left


def test_rules_of_a_file_in_their_order(tree: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("# all photographs but those in the cache\n- /cache/\n+ *.jpg\n- *\n")
    assert set(sent(tree, "--filter-from", str(rules))) == {"a.jpg", "photos/c.jpg", "photos/raw/e.jpg"}
    assert set(sent(tree, "--filter-from", "-", given=b"- *.jpg")) == {
        name for name in NAMES if not name.endswith("jpg")
    }


def test_patterns_of_the_environment_come_a_line_each(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "two words").write_bytes(b"!")
    monkeypatch.setenv("FASTPOST_UPLOAD_INCLUDE", "b.*\ntwo words")
    assert set(sent(tree)) == {"b.txt", "two%20words"}


def test_files_that_a_list_names(tree: Path, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("b.txt\n\n./photos/raw/e.jpg\n/a.jpg\nb.txt\n")
    assert set(sent(tree, "--files-from", str(names))) == {"b.txt", "photos/raw/e.jpg", "a.jpg"}
    assert set(sent(tree, "--files-from", str(names), "--include", "*.jpg")) == {"photos/raw/e.jpg", "a.jpg"}


@pytest.mark.parametrize("follow", [False, True])
def test_what_find_prints(tree: Path, follow: bool) -> None:
    (tree / "new\nline").write_bytes(b"!")
    (tree / "link").symlink_to("a.jpg")
    found = subprocess.run(["find", ".", "-not", "-type", "d", "-print0"], cwd=tree, capture_output=True, check=True)
    names = sent(tree, "--files-from0", "-", *["--follow-symlinks"] * follow, given=found.stdout)
    assert set(names) == NAMES | {"new%0Aline"} | ({"link"} if follow else set())


def test_names_in_a_list_that_can_not_be_sent(tree: Path) -> None:
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    (tree / "linked").symlink_to("photos")
    (tree / "photos" / "deep").symlink_to("raw")
    given = b"a.jpg\nphotos\n../tree/b.txt\nnowhere\ndangling\nfifo\na.jpg\nb.txt/x\nlinked/c.jpg\nphotos/deep/e.jpg"
    with HostileServer(lambda line: line.greet()) as server:
        result = run(tree, *server.options, "-v", "--files-from", "-", given=given)
    assert result.exit_code == 1
    assert list(server.taken()) == ["a.jpg"]
    for name, why in {
        "photos": "a folder, of which a list names the files",
        "../tree/b.txt": "holds '..'",
        "nowhere": "there is no such file; names in a list are relative to SOURCE",
        "dangling": "a symbolic link to nowhere",
        "fifo": "FIFO",
        "linked/c.jpg": "behind a symbolic link to a folder",
        "photos/deep/e.jpg": "behind a symbolic link to a folder",
        "b.txt/x": "there is no such file",
    }.items():
        assert any(line.startswith(f"fastpost: {name}: ") and why in line for line in result.stderr.splitlines()), name


def test_a_name_with_a_thousand_folders(tree: Path) -> None:
    with HostileServer(lambda line: line.greet()) as server:
        given = b"a/" * 1200 + b"f\n" + b"b/" * 30_000 + b"f\na.jpg\n"
        result = run(tree, *server.options, "-v", "--files-from", "-", "--exclude", "**x**y*z", given=given)
    assert result.exit_code == 1
    assert list(server.taken()) == ["a.jpg"]
    assert "there is no such file" in result.stderr
    assert "longer than the 4095 octets" in result.stderr


def test_names_behind_links_where_links_are_followed(tree: Path) -> None:
    (tree / "linked").symlink_to("photos")
    assert sent(tree, "--files-from", "-", "--follow-symlinks", given=b"linked/c.jpg\n") == ["linked/c.jpg"]


def test_names_that_are_left_out_are_not_looked_at(tree: Path) -> None:
    given = b"nowhere\nphotos\n../x\na.jpg/x\na.jpg\n"
    assert sent(tree, "--files-from", "-", "--include", "a.jpg", given=given) == ["a.jpg"]


def test_a_list_that_ends_in_its_midst_costs_no_result(tree: Path, tmp_path: Path) -> None:
    """What was named before goes up, and the rest is a failure by name."""
    log = tmp_path / "log"
    with HostileServer(lambda line: line.greet()) as server:
        result = run(tree, *server.options, "--log", str(log), "--files-from", "-", given=b"a.jpg\nb.txt\n" + b"x\0y\n")
    assert result.exit_code == 2  # all of it came at once: nothing had begun
    reading, writing = os.pipe()
    with HostileServer(lambda line: line.greet()) as server, os.fdopen(reading, "rb") as stream:
        arguments = [sys.executable, "-m", "fastpost", "upload", str(tree), *server.options, "--log", str(log)]
        process = subprocess.Popen(
            [*arguments, "--files-from", "-"],
            stdin=stream,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with os.fdopen(writing, "wb", buffering=0) as out:
            out.write(b"a.jpg\nb.txt\n")
            until(lambda: len(server.taken()) == 2)
            out.write(b"x\0y\n")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the rest of the list" in log.read_text()
    assert [json.loads(line)["error"] for line in log.read_text().splitlines()] == [None, None, "FileUnreadable"]
    assert "Traceback" not in err


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_file_that_is_listed_does_not_become_a_link_unseen(tree: Path) -> None:
    (batch,) = listed(tree, [[b"a.jpg"]])
    assert [upload.follow for upload in batch.uploads] == [False]
    (batch,) = listed(tree, [[b"a.jpg"]], follow_symlinks=True)
    assert [upload.follow for upload in batch.uploads] == [True]


@pytest.mark.parametrize("option", ["--files-from", "--filter-from"])
def test_standard_input_that_is_closed(tree: Path, option: str) -> None:
    command = [sys.executable, "-m", "fastpost", "upload", str(tree), "--to", "http://127.0.0.1:1/", option, "-"]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True)
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("name", "a.jpg", "photos/raw/e.jpg"),
        ("name,desc", "photos/raw/e.jpg", "a.jpg"),
        ("size", "cache/g.tmp", "photos/raw/d.raw"),
        ("size,desc", "photos/raw/d.raw", "cache/g.tmp"),
    ],
)
def test_the_order_in_which_they_go(tree: Path, order: str, first: str, last: str) -> None:
    names = sent(tree, "--order-by", order)
    assert set(names) == NAMES
    assert (names[0], names[-1]) == (first, last)


def test_a_dry_run_lists_what_would_go(tree: Path) -> None:
    result = run(tree, "--to", "http://127.0.0.1:1/", "--dry-run", "--include", "*.raw", "--order-by", "name")
    assert result.exit_code == 0
    assert "photos/raw/d.raw" in result.stdout
    assert "a.jpg" not in result.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--include", "*.gif"], "passes the filters"),
        (["--min-size", "1G"], "passes the filters"),
        (["--files-from", "/dev/null"], "is named and taken"),
    ],
)
def test_nothing_is_left(tree: Path, options: Sequence[str], told: str) -> None:
    result = run(tree, "--to", "http://127.0.0.1:1/", *options)
    assert result.exit_code == 3
    assert told in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--include", "a[b"], "the pattern 'a[b' can't be meant"),
        (["--exclude", ""], "a pattern is empty"),
        (["--min-size", "2k", "--max-size", "1k"], "no file is both"),
        (["--min-size", "big"], "is no size"),
        (["--order-by", "age"], "write walk, size or name"),
        (["--filter-from", "/nowhere"], "No such file"),
        (["--filter-from", "/proc/version"], "is no rule"),
        (["--files-from", "/dev/zero"], "without a line's end"),
        (["--files-from", "/dev/null", "/etc"], "a single SOURCE"),
        (["--files-from", "-", "--filter-from", "-"], "can be read once"),
        (["--files-from", "-", "--files-from0", "-"], "can be read once"),
        (["--files-from", "-", "--files-from0", "/dev/stdin"], "can be read once"),
    ],
)
def test_mistakes(tree: Path, options: Sequence[str], told: str) -> None:
    result = run(tree, "--to", "http://127.0.0.1:1/", *options)
    assert result.exit_code == 2, result.output
    assert told in result.stderr


def test_a_list_of_files_needs_a_folder(tree: Path) -> None:
    result = run(tree / "a.jpg", "--to", "http://127.0.0.1:1/", "--files-from", "/dev/null")
    assert result.exit_code == 2
    assert "is no folder" in result.stderr


def test_nothing_of_it_is_loaded_for_who_chooses_nothing(tree: Path) -> None:
    code = (
        "import sys; from fastpost import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('fastpost.') and name[9:] in\n"
        "       ('selection', 'globs', 'name_lists', 'ordering', 'sizes', 'record_file')])"
    )
    command = [sys.executable, "-c", code, "upload", str(tree), "--to", "http://127.0.0.1:1/", "--dry-run"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1] == "[]"
