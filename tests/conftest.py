"""What tests of every kind share."""

from __future__ import annotations

import gc
import os
import pathlib
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest
from integration.servers import Certificates, certificates

INTEGRATION = pathlib.Path(__file__).parent / "integration"

# A shell ignores SIGINT for what it starts in the background, and ignoring is inherited: also by what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No timed assertions: a busy machine is no failure.
hypothesis.settings.register_profile("fastpost", deadline=None)
hypothesis.settings.load_profile("fastpost")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in tests/integration."""
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True)
def _no_options_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own options out of the tests."""
    for name in [name for name in os.environ if name.startswith("FASTPOST_") and name != "FASTPOST_REQUIRE_SERVERS"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _nothing_stays_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves an open file, a mapping, an attempt (and with it a stream) or a socket behind."""
    before, failed = live(), request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return  # the report holds the frames of the failed test, and they hold what it opened
    if more(live(), before):
        gc.collect()  # an exception that a test caught holds its frames in a cycle
    assert not more(live(), before), "sources, mappings, attempts, sockets"


def more(now: tuple[int, ...], before: tuple[int, ...]) -> bool:
    return any(count > then for count, then in zip(now, before, strict=True))


def live() -> tuple[int, ...]:
    """Return how many sources, mappings, attempts and sockets exist, of the modules that are loaded so far."""
    chunker, table = sys.modules.get("fastpost._chunker"), sys.modules.get("fastpost._table")
    connection = sys.modules.get("fastpost.connection")
    return (
        *(chunker.live_objects() if chunker else (0, 0)),
        table.live_attempts() if table else 0,
        connection.live_sockets() if connection else 0,
    )


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates for 127.0.0.1."""
    return certificates(tmp_path_factory.mktemp("certificates"))
