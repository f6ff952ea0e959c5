"""The clients that are measured: how each is called, and how its report is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.measure import Contender, Outcome
from bench.servers import Server

CONCURRENCY = 50


def fastpost(folder: Path, server: Server, *options: str, name: str = "fastpost") -> Contender:
    """Return fastpost's own upload of `folder`, one connection, without progress unless `options` say --progress."""
    progress = () if "--progress" in options else ("--no-progress",)
    argv = [
        *(sys.executable, "-m", "fastpost", "upload", str(folder), "--to", server.url),
        *("--concurrency", str(CONCURRENCY), "--connections", "1", *progress, "--output-format", "json", *options),
    ]
    return Contender(name, argv + _trust(server), _read_fastpost)


def plain_h2(folder: Path, server: Server) -> Contender:
    """Return the plain client on h2 and uvloop."""
    return _rival("plain h2", "plain_h2", folder, server)


def curl_multi(folder: Path, server: Server) -> Contender:
    """Return libcurl's multi interface by pycurl."""
    return _rival("libcurl", "curl_multi", folder, server)


def raw_limit(folder: Path, server: Server) -> Contender:
    """Return the yardstick without HTTP/2; it needs the server called raw."""
    return _rival("raw limit", "raw_limit", folder, server)


def _rival(name: str, module: str, folder: Path, server: Server) -> Contender:
    argv = [
        *(sys.executable, "-m", f"bench.rivals.{module}", str(folder), server.url),
        *("--concurrency", str(CONCURRENCY)),
    ]
    return Contender(name, argv + _trust(server), _read_rival)


def _trust(server: Server) -> list[str]:
    return ["--cacert", str(server.cafile)] if server.cafile else []


def _read_fastpost(report: dict[str, Any]) -> Outcome:
    files = report["files"]
    return Outcome(files["total"], files["ok"], report["bytes"]["payload"], report["status"])


def _read_rival(report: dict[str, Any]) -> Outcome:
    return Outcome(report["files"], report["ok"], report["octets"], report["statuses"])
