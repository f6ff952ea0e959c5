"""The chunker: cutting a file, mapped or read; opening and closing one, beside Python's own means."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastpost._chunker import Source

SIZE = 1 << 23


def mapped(file: bytes, length: int) -> None:
    source = Source.from_path(file)
    for _ in range(SIZE // length):
        source.map_octets(length)
    source.shut()


def read(file: bytes, length: int) -> None:
    source = Source.from_path(file)
    for _ in range(SIZE // length):
        source.read_octets(length)
    source.shut()


@pytest.mark.parametrize("way", [mapped, read])
@pytest.mark.parametrize("length", [16384, 65536])
def test_cuts(
    benchmark: BenchmarkFixture, tmp_path: pathlib.Path, way: Callable[[bytes, int], None], length: int
) -> None:
    """Octets for Python are copies, one of what is mapped and two of what is read: compare each with itself."""
    benchmark.group = f"chunker: 8 MiB in slices of {length}"
    file = tmp_path / "file"
    file.write_bytes(bytes(SIZE))
    benchmark(way, bytes(file), length)


@pytest.mark.benchmark(group="chunker: open and close")
def test_open(benchmark: BenchmarkFixture, tmp_path: pathlib.Path) -> None:
    file = bytes(tmp_path / "file")
    pathlib.Path(os.fsdecode(file)).write_bytes(bytes(4096))
    benchmark(lambda: Source.from_path(file).shut())


@pytest.mark.benchmark(group="chunker: open and close")
def test_open_with_python(benchmark: BenchmarkFixture, tmp_path: pathlib.Path) -> None:
    """What it takes at least: open, fstat, close."""
    file = bytes(tmp_path / "file")
    pathlib.Path(os.fsdecode(file)).write_bytes(bytes(4096))

    def open_and_close() -> None:
        fd = os.open(file, os.O_RDONLY)
        os.fstat(fd)
        os.close(fd)

    benchmark(open_and_close)
