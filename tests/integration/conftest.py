"""What is made once for all runs: the big tree and the certificates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import servers, trees


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[trees.Tree]:
    """The folder for the real servers; tests only read it."""
    root = tmp_path_factory.mktemp("tree")
    yield trees.make(root)
    shutil.rmtree(root)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A folder for one server, gone after the test: pytest would keep 360 MB of each of its last runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> servers.Certificates:
    """A certificate for the loopback address, and the authority that vouches for it."""
    return servers.certificates(tmp_path_factory.mktemp("certificates"))
