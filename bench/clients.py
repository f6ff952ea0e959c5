"""The clients that are measured: how each is called, and how its report is read.

Each function returns the contender, or raises Absent with the reason why it can't take part.
"""

from __future__ import annotations

import collections
import collections.abc
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.measure import ROOT, Contender, Outcome, RunFailed
from bench.rivals import tree
from bench.servers import Absent, Server

CONCURRENCY = 50

_RIVALS = ROOT / "bench" / "rivals"
#: Where the Go client is compiled to.
_BUILD = ROOT / "build" / "bench"


def fastpost(folder: Path, server: Server, *options: str, name: str = "fastpost") -> Contender:
    """Return fastpost's own upload of `folder`, one connection, without progress unless `options` say --progress."""
    progress = () if "--progress" in options else ("--no-progress",)
    argv = [
        *(sys.executable, "-m", "fastpost", "upload", str(folder), "--to", server.url),
        *("--concurrency", str(CONCURRENCY), "--connections", "1", *progress, "--output-format", "json", *options),
    ]
    loads = [sys.executable, "-c", "import fastpost.cli, fastpost.upload_run"]
    return Contender(name, argv + _trust(server), _read_fastpost, loads)


def plain_h2(folder: Path, server: Server) -> Contender:
    """Return the plain client on h2 and uvloop."""
    return _rival("plain h2", [sys.executable, "-m", "bench.rivals.plain_h2"], folder, server)


def curl_multi(folder: Path, server: Server) -> Contender:
    """Return libcurl's multi interface by pycurl."""
    if importlib.util.find_spec("pycurl") is None:
        raise Absent("pycurl is not installed (make .venv/.bench)")
    return _rival("libcurl", [sys.executable, "-m", "bench.rivals.curl_multi"], folder, server)


def raw_limit(folder: Path, server: Server) -> Contender:
    """Return the yardstick without HTTP/2; it needs the server called raw."""
    rival = _rival("raw limit", [sys.executable, "-m", "bench.rivals.raw_limit"], folder, server)
    return rival._replace(read=_read_raw)


def node(folder: Path, server: Server) -> Contender:
    """Return Node's built-in http2."""
    program = _program("node", "nodejs")
    rival = _rival("Node http2", [program, str(_RIVALS / "node_client.mjs")], folder, server)
    return rival._replace(loads=[program, "-e", "import('node:http2')"])


def go(folder: Path, server: Server) -> Contender:
    """Return Go's net/http, compiled first if it isn't yet."""
    if server.cafile is None:
        raise Absent("net/http speaks HTTP/2 over TLS only")
    argv = [str(_compiled()), "-concurrency", str(CONCURRENCY), "-cacert", str(server.cafile), str(folder), server.url]
    return Contender("Go net/http", argv, _read_rival, [argv[0], "-help"])


def curl_parallel(folder: Path, server: Server) -> Contender:
    """Return `curl -Z`, which gets its files and URLs by a file of options that is written here, unmeasured."""
    if server.cafile is None:
        raise Absent("without TLS, curl -Z of Debian 12 fails all uploads but the first (HTTP/2 framing layer)")
    program = _program("curl", "curl")
    options = server.work / "curl.conf"
    with options.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for path, name in tree.files(str(folder)):
            # An answer's body would go to stdout, among the -w lines.
            file.write(f"url = {_quoted(_url(server, name))}\nupload-file = {_quoted(path)}\noutput = /dev/null\n")
    argv = [
        *(program, "--disable", "--globoff", "--no-progress-meter", "--config", str(options)),
        *("--parallel", "--parallel-max", str(CONCURRENCY), "--http2", "--header", _OCTETS),
        *("--write-out", r"%{http_code} %{http_version} %{num_connects} %{size_upload}\n"),
    ]
    return Contender("curl -Z", argv + _trust(server), read_curl, [program, "--version"])


def h2load(folder: Path, server: Server) -> Contender:
    """Return h2load, which sends the octets of one file as often as `folder` has files, and opens none of the others.

    Every request has the same URL; for a server that stores each has its own, or it would store a single file.
    """
    program = _program("h2load", "nghttp2-client")
    files, size, body = _uniform(folder)
    argv = [program, "-n", str(files), "-c", "1", "-m", str(CONCURRENCY), "-t", "1", "-d", body]
    argv += ["-H", ":method: PUT", "-H", _OCTETS]
    if server.store is None:
        argv.append(_url(server, "file"))
    else:
        urls = server.work / "h2load.urls"
        with urls.open("w") as file:
            file.writelines(_url(server, name) + "\n" for _, name in tree.files(str(folder)))
        argv += ["-i", str(urls)]
    return Contender("h2load", argv, functools.partial(read_h2load, size=size), [program, "--version"])


def read_curl(report: str) -> Outcome:
    """Read the --write-out lines of curl: status, HTTP version, connections made, octets sent."""
    statuses: collections.Counter[str] = collections.Counter()
    octets = connections = 0
    for line in report.splitlines():
        status, version, made, sent = line.split()
        if status != "000" and version != "2":
            raise RunFailed(f"curl -Z: an upload went by HTTP/{version}")
        statuses[status] += 1
        connections += int(made)
        octets += int(sent) if _good(status) else 0
    return Outcome(statuses.total(), _ok(statuses), octets, statuses, connections)


def read_h2load(report: str, size: int) -> Outcome:
    """Read the text that h2load prints; `size` is that of the one body."""
    requests = re.search(r"^requests: (\d+) total, .* (\d+) succeeded,", report, re.M)
    codes = re.search(r"^status codes: (.*)$", report, re.M)
    if not requests or not codes:
        raise ValueError("no summary of requests and status codes")
    statuses = {status: int(count) for count, status in re.findall(r"(\d+) (\dxx)", codes[1]) if int(count)}
    total, succeeded = map(int, requests.groups())
    good = min(succeeded, _ok(statuses))
    return Outcome(total, good, good * size, statuses)


def _rival(name: str, command: list[str], folder: Path, server: Server) -> Contender:
    argv = [*command, str(folder), server.url, "--concurrency", str(CONCURRENCY)]
    return Contender(name, argv + _trust(server), _read_rival, [*command, "--help"])


_OCTETS = "content-type: application/octet-stream"


def _trust(server: Server) -> list[str]:
    return ["--cacert", str(server.cafile)] if server.cafile else []


def _program(name: str, package: str) -> str:
    """Return the path of a program, or raise Absent with Debian's name of its package."""
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not installed (Debian: {package})")
    return found


def _url(server: Server, name: str) -> str:
    return tree.template(server.url).replace("{path}", name)


def _quoted(value: str) -> str:
    """Return a value for a file of curl's options."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _uniform(folder: Path) -> tuple[int, int, str]:
    """Return number and size of the files in `folder`, and one of them. Raises Absent when sizes differ."""
    files, size, body = 0, -1, ""
    for body, _ in tree.files(str(folder)):
        this = os.stat(body).st_size
        if files and this != size:
            raise Absent("h2load sends one body: it can't send files of different sizes")
        files, size = files + 1, this
    return files, size, body


def _compiled() -> Path:
    """Return the Go client's program, compiled when its source is newer. No module but the standard library's."""
    program, source = _BUILD / "go_client", _RIVALS / "go_client" / "main.go"
    compiler = _program("go", "golang-go")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        _BUILD.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": ""}
        command = [compiler, "build", "-o", str(program), str(source)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"the Go client can't be compiled: {done.stderr.strip()[-500:]}")
    return program


def _good(status: str) -> bool:
    return status.startswith("2")


def _ok(statuses: collections.abc.Mapping[str, int]) -> int:
    return sum(count for status, count in statuses.items() if _good(status))


def _read_fastpost(report: str) -> Outcome:
    told: dict[str, Any] = json.loads(report)
    files = told["files"]
    return Outcome(files["total"], files["ok"], told["bytes"]["payload"], told["status"], told["connections"])


def _read_raw(report: str) -> Outcome:
    """Read the yardstick's report. It has no statuses: it ends well only when the sink has confirmed every octet."""
    told = _read_rival(report)
    return told._replace(statuses={"2xx": told.ok})


def _read_rival(report: str) -> Outcome:
    told: dict[str, Any] = json.loads(report)
    return Outcome(told["files"], told["ok"], told["octets"], told["statuses"], told.get("connections"))
