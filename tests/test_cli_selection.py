"""cli_selection: which files a command line sends, in which order, against a server that keeps what arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result
from hostile import HostileServer

from fastpost import cli

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
    names.write_text("b.txt\n# a comment\n./photos/raw/e.jpg\n/a.jpg\n")
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
    listed = b"a.jpg\nphotos\n../tree/b.txt\nnowhere\ndangling\nfifo\na.jpg\nb.txt/x\n"
    with HostileServer(lambda line: line.greet()) as server:
        result = run(tree, *server.options, "-v", "--files-from", "-", given=listed)
    assert result.exit_code == 1
    assert list(server.taken()) == ["a.jpg"]
    for name, why in {
        "photos": "a folder, of which a list names the files",
        "../tree/b.txt": "holds '..'",
        "nowhere": "there is no such file; names in a list are relative to SOURCE",
        "dangling": "a symbolic link to nowhere",
        "fifo": "FIFO",
        "a.jpg": "another file of this run goes to",
        "b.txt/x": "there is no such file",
    }.items():
        assert any(line.startswith(f"fastpost: {name}: ") and why in line for line in result.stderr.splitlines()), name


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
        (["--files-from", "/dev/zero"], "without an end"),
        (["--files-from", "/dev/null", "/etc"], "a single SOURCE"),
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
