"""What would go where."""

from __future__ import annotations

import io
import json
import os
import pathlib
from typing import Any

import pytest

from fastpost.config import Settings
from fastpost.dry_run import list_uploads
from fastpost.errors import Exit
from fastpost.outlet import Outlet
from fastpost.sources import walk

STORE = "https://store.example/dav/"


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.txt").write_bytes(b"12345")
    (tmp_path / "sub" / "c.tar.gz").write_bytes(b"")
    return tmp_path


def listed(*sources: pathlib.Path, as_json: bool = False, to: str = STORE, **values: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = list_uploads(
        walk(sources, sizes=True),
        Settings(to=to, **values),
        Outlet(out, "standard output"),
        Outlet(err, "standard error"),
        as_json=as_json,
    )
    return code, out.getvalue(), err.getvalue()


def test_a_line_a_file_tells_method_url_file_and_type(tree: pathlib.Path) -> None:
    code, out, err = listed(tree)
    assert code == Exit.OK
    assert sorted(out.splitlines()) == [
        f"PUT\t{STORE}a%20b.txt\t{tree}/a b.txt\ttext/plain",
        f"PUT\t{STORE}sub/c.tar.gz\t{tree}/sub/c.tar.gz\tapplication/x-tar\tgzip",
    ]
    assert err == "fastpost: dry run: 2 files, 5 B; nothing was sent\n"


def test_options_are_taken_into_account(tree: pathlib.Path) -> None:
    _, out, _ = listed(tree / "a b.txt", to="https://store.example/take", method="PATCH", content_type="x/y")
    assert out == f"PATCH\thttps://store.example/take\t{tree}/a b.txt\tx/y\n"


def test_json_lines_hold_the_same(tree: pathlib.Path) -> None:
    _, out, _ = listed(tree, as_json=True)
    records = sorted((json.loads(line) for line in out.splitlines()), key=lambda record: str(record["file"]))
    assert records[0] == {
        "method": "PUT",
        "url": f"{STORE}a%20b.txt",
        "file": f"{tree}/a b.txt",
        "content-type": "text/plain",
        "size": 5,
        "duplicate": False,
    }
    assert records[1]["content-encoding"] == "gzip"


def test_two_files_with_one_url_are_told(tree: pathlib.Path) -> None:
    (tree / "sub" / "a b.txt").write_bytes(b"")
    code, out, err = listed(tree, to="https://store.example/{name}")
    assert code == Exit.SOME_FAILED
    assert out.count("DUPLICATE") == 1
    assert "1 of them to a URL already taken" in err


def test_one_url_for_all_on_purpose_is_no_duplicate(tree: pathlib.Path) -> None:
    code, out, _ = listed(tree, to="https://store.example/take")
    assert code == Exit.OK
    assert "DUPLICATE" not in out


def test_what_cannot_be_uploaded_is_named(tree: pathlib.Path) -> None:
    os.mkfifo(tree / "pipe\x1b")
    code, out, err = listed(tree)
    assert code == Exit.SOME_FAILED
    assert len(out.splitlines()) == 2
    assert "pipe\\x1b" in err
    assert "1 can't be uploaded" in err


def test_names_cannot_forge_lines(tmp_path: pathlib.Path) -> None:
    pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\nPUT\t\x1b[2J\xff")).write_bytes(b"")
    _, out, _ = listed(tmp_path)
    assert len(out.splitlines()) == 1
    assert "a\\nPUT\\t\\x1b[2J\\xff" in out


def test_nothing_to_list_is_told_by_the_exit_code(tmp_path: pathlib.Path) -> None:
    code, out, _ = listed(tmp_path)
    assert (code, out) == (Exit.NOTHING_MATCHED, "")
