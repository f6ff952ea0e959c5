"""The big tree arrives complete at every real server, over cleartext and TLS."""

from __future__ import annotations

import collections
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from . import command, servers, trees

#: Seconds for one server; the tree has 360 MB, and some of the servers are slow.
pytestmark = pytest.mark.timeout(300)

ENCRYPTION = pytest.mark.parametrize("encrypted", [False, True], ids=["cleartext", "tls"])


@ENCRYPTION
@pytest.mark.parametrize("name", servers.STORING)
def test_stored_tree_equals_source(
    name: str, encrypted: bool, tree: trees.Tree, certificates: servers.Certificates, work: Path
) -> None:
    with servers.STORING[name](work, certificates if encrypted else None) as server:
        run = _upload_tree(tree, server)
    _assert_complete(run, tree)
    if name in servers.ENDING:
        assert run.report["connections"] >= 2
    assert server.store is not None
    _assert_stored(server.store, tree)


@ENCRYPTION
@pytest.mark.parametrize("name", servers.HASHING)
def test_digests_match(
    name: str, encrypted: bool, tree: trees.Tree, certificates: servers.Certificates, work: Path
) -> None:
    with servers.HASHING[name](work, certificates if encrypted else None) as server:
        run = _upload_tree(tree, server)
        received = server.received()
    _assert_complete(run, tree)
    if name in servers.ENDING:
        assert run.report["connections"] >= 2
    assert _differences(received, tree) == {}


@ENCRYPTION
def test_nghttpd_answers_every_file(
    encrypted: bool, tree: trees.Tree, certificates: servers.Certificates, work: Path
) -> None:
    """It stores nothing and hashes nothing, so every status is looked at.

    It answers 404 to every path with a backslash in it, decoded; those files must be reported, and no others.
    """
    refused = {name for name in tree.sizes if b"\\" in name}
    with servers.nghttpd(work, certificates if encrypted else None) as server:
        run = _upload_tree(tree, server)
    assert run.code == 1
    assert run.files == {
        "total": len(tree.sizes),
        "ok": len(tree.sizes) - len(refused),
        "failed": len(refused),
        "skipped": 0,
    }
    assert run.report["status"] == {"200": len(tree.sizes) - len(refused), "404": len(refused)}
    assert run.errors == {"HttpStatus": len(refused)}
    assert run.told("names/\\:", "404")
    assert run.told("folders/back\\slash/file:", "404")


def test_several_connections(tree: trees.Tree, work: Path) -> None:
    with servers.h2corn(work, None) as server:
        run = _upload_tree(tree, server, "--connections", "4")
        received = server.received()
    _assert_complete(run, tree)
    assert run.report["connections"] == 4
    assert _differences(received, tree) == {}


def test_several_connections_that_end(tree: trees.Tree, work: Path) -> None:
    with servers.nginx(work, None) as server:
        run = _upload_tree(tree, server, "--connections", "2")
    _assert_complete(run, tree)
    assert server.store is not None
    _assert_stored(server.store, tree)


def test_fifo(tree: trees.Tree, work: Path) -> None:
    with servers.granian(work, None) as server:
        run = _upload_tree(tree, server, "--schedule", "fifo")
        received = server.received()
    _assert_complete(run, tree)
    assert _differences(received, tree) == {}


def test_every_file_posted_to_one_url(tree: trees.Tree, work: Path) -> None:
    """No file may be sent twice or left out: the bodies as a bag are those of the tree."""
    with servers.h2corn(work, None) as server:
        run = command.upload(tree.root, "--to", server.url + "inbox", "--concurrency", "50")
        records = server.records()
    _assert_complete(run, tree)
    assert {(record["method"], record["path"]) for record in records} == {("POST", "/inbox")}
    expected = collections.Counter((size, tree.digests[name]) for name, size in tree.sizes.items())
    assert collections.Counter((record["size"], record["sha256"]) for record in records) == expected


def _upload_tree(tree: trees.Tree, server: servers.Server, *options: str) -> command.Run:
    trust = ("--cacert", str(server.cafile)) if server.cafile else ()
    return command.upload(tree.root, "--to", server.url, "--concurrency", "50", *trust, *options, limit=280)


def _assert_complete(run: command.Run, tree: trees.Tree) -> None:
    count = len(tree.sizes)
    assert count >= 2000
    assert run.files == {"total": count, "ok": count, "failed": 0, "skipped": 0}
    assert run.errors == {}
    assert run.report["bytes"]["payload"] == tree.octets
    assert sum(run.report["status"].values()) == count
    assert run.code == 0


def _assert_stored(store: Path, tree: trees.Tree) -> None:
    stored = dict(trees.read(store))
    assert stored.keys() == tree.sizes.keys()
    source = os.fsencode(tree.root)
    assert [name for name, path in stored.items() if not trees.same(path, source + b"/" + name)] == []


def _differences(received: dict[str, set[tuple[int, str]]], tree: trees.Tree) -> dict[str, object]:
    """Return what the application received otherwise than it should: path → (received, expected)."""
    expected = {"/" + quote(name): {(size, tree.digests[name])} for name, size in tree.sizes.items()}
    return {
        path: (received.get(path), expected.get(path))
        for path in received.keys() | expected.keys()
        if received.get(path) != expected.get(path)
    }
