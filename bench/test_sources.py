"""What Python costs for each file before the data plane has it: walk, request path, fields.

Each round handles all files of a set; divide by FILES. `os_walk` is what the standard library takes to name the same
files, `scandir` what only reading the folders takes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from fastpost import sources, target

FILES = 10_000
FOLDERS = 100


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = tmp_path_factory.mktemp("tree")
    for folder in range(FOLDERS):
        (root / f"album{folder:03}").mkdir()
        for file in range(FILES // FOLDERS):
            (root / f"album{folder:03}" / f"IMG_{file:05}.jpg").touch()
    return os.fsencode(root)


def folders(root: bytes) -> Iterator[bytes]:
    with os.scandir(root) as entries:
        yield from [entry.path for entry in entries]


def scandir(root: bytes) -> int:
    count = 0
    for folder in folders(root):
        with os.scandir(folder) as entries:
            count += sum(1 for _ in entries)
    return count


def os_walk(root: bytes) -> int:
    return sum(1 for folder, _, files in os.walk(root) for file in files if os.path.join(folder, file))


def walk(root: bytes) -> int:
    return sum(len(batch.uploads) for batch in sources.walk([root]))


def walk_following(root: bytes) -> int:
    return sum(len(batch.uploads) for batch in sources.walk([root], follow_symlinks=True))


def walk_with_sizes(root: bytes) -> int:
    return sum(len(batch.uploads) for batch in sources.walk([root], sizes=True))


@pytest.mark.parametrize("way", [scandir, os_walk, walk, walk_following, walk_with_sizes])
def test_walk(benchmark: Any, tree: bytes, way: Any) -> None:
    assert benchmark(way, tree) == FILES


NAMES = {
    "plain": b"album%03d/IMG_%05d.jpg",
    "spaces": b"album %03d/IMG %05d.jpg",
    "hidden": b".album%03d/.IMG_%05d.jpg",
    "non-ascii": "альбом%03d/фото_%05d.jpg".encode(),
    "no-extension": b"album%03d/IMG_%05d",
    "compressed": b"album%03d/IMG_%05d.tar.gz",
}


def uploads(kind: str) -> list[bytes]:
    return [NAMES[kind] % divmod(number, FILES // FOLDERS) for number in range(FILES)]


@pytest.mark.parametrize("kind", ["plain", "spaces", "hidden", "non-ascii"])
@pytest.mark.parametrize("to", ["https://store.example/dav/", "https://store.example/{stem}.{ext}?from={path}"])
def test_request_path(benchmark: Any, to: str, kind: str) -> None:
    names, request_path = uploads(kind), target.parse(to).request_path
    benchmark(lambda: [request_path(name) for name in names])


@pytest.mark.parametrize("kind", ["plain", "no-extension", "compressed"])
def test_fields(benchmark: Any, kind: str) -> None:
    names, fields = uploads(kind), target.parse("https://store.example/").fields
    assert len(benchmark(lambda: [fields(name, None) for name in names])) == FILES


def test_upload_objects(benchmark: Any) -> None:
    """What a batch of Upload costs at least."""
    names = uploads("plain")
    benchmark(lambda: [sources.Upload(name, name) for name in names])


def test_paths_are_those_of_files(tree: bytes) -> None:
    """The set is what it is said to be."""
    batches = list(sources.walk([tree]))
    assert pathlib.Path(os.fsdecode(batches[0].uploads[0].file)).is_file()
