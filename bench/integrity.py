"""Proof that what is measured arrives: every client uploads a tree, and the server's SHA-256s are compared.

    python -m bench.integrity [--client NAME ...]

A tree of many sizes and awkward names goes to h2corn with an application that hashes (cleartext and TLS), and to the
raw sink. Exits with 1 when an octet is missing. Run it before believing a figure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from bench import clients, servers
from bench.measure import Contender, RunFailed, check, run
from bench.rivals import tree

_CLIENTS = {
    "fastpost": clients.fastpost,
    "plain_h2": clients.plain_h2,
    "curl_multi": clients.curl_multi,
    "curl_parallel": clients.curl_parallel,
    "go": clients.go,
    "node": clients.node,
}
#: Clients that not every machine has, or that speak HTTP/2 over TLS only.
_OPTIONAL = ("curl_parallel", "go", "node")
_SIZES = (0, 1, 4096, 16384, 65535, 65536, 65537, 1 << 20, (9 << 20) + 7)
_NAMES = ("plain.bin", "two words.txt", "hash#mark?.bin", "100%.bin", "plus+quote'\".bin", "žlutý.bin")


def make_tree(folder: Path) -> None:
    """Fill `folder` with files of every size in question, and 300 small ones with nested and awkward names."""
    content = random.Random("integrity")
    for size in _SIZES:
        (folder / f"size-{size}.bin").write_bytes(content.randbytes(size))
    for index in range(300):
        place = folder / f"{index % 7}" / f"{index % 5}"
        place.mkdir(parents=True, exist_ok=True)
        name = f"{index} {_NAMES[index % len(_NAMES)]}"
        (place / name).write_bytes(content.randbytes(content.randrange(9000)))


def expected_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its decoded path on the server."""
    return {
        "/" + urllib.parse.unquote(name): hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path, name in tree.files(str(folder))
    }


def by_server(contender: Contender, folder: Path, server: servers.Server) -> None:
    """Run a client against the hashing server and compare. Raises RunFailed."""
    expected = expected_digests(folder)
    check(contender, run(contender).outcome, len(expected), _octets(folder))
    context = ssl.create_default_context(cafile=server.cafile) if server.cafile else None
    with urllib.request.urlopen(server.url, context=context) as response:
        arrived = {urllib.parse.unquote(path): digest for path, digest in json.load(response).items()}
    if arrived != expected:
        wrong = sorted(path for path in expected.keys() | arrived.keys() if expected.get(path) != arrived.get(path))
        raise RunFailed(f"{contender.name}: {len(wrong)} files did not arrive intact, first {wrong[:3]}")


def by_raw_sink(contender: Contender, folder: Path) -> None:
    """Run the yardstick and compare the SHA-256 of the whole stream. Raises RunFailed."""
    whole = hashlib.sha256()
    for path, _ in tree.files(str(folder)):
        whole.update(Path(path).read_bytes())
    process = subprocess.run(contender.argv, cwd=servers.ROOT, capture_output=True, timeout=60)
    if process.returncode or json.loads(process.stdout)["versions"]["digest"] != whole.hexdigest():
        raise RunFailed(f"{contender.name}: {process.stdout.decode()} {process.stderr.decode()[-500:]}")


def _octets(folder: Path) -> int:
    return sum(os.stat(path).st_size for path, _ in tree.files(str(folder)))


def prove(name: str, folder: Path, tls: bool) -> None:
    """Prove one client on one way. Raises RunFailed, or Absent without the server."""
    with servers.start("raw" if name == "raw_limit" else "h2corn", tls=tls, digests=True) as server:
        if name == "raw_limit":
            by_raw_sink(clients.raw_limit(folder, server), folder)
        else:
            by_server(_CLIENTS[name](folder, server), folder, server)


def main() -> int:
    """Prove every client asked for; return the exit code."""
    names = [*_CLIENTS, "raw_limit"]
    parser = argparse.ArgumentParser(description="Check that every client's octets arrive.")
    parser.add_argument("--client", action="append", choices=names, help="only this one (may be repeated)")
    chosen = parser.parse_args().client or names
    with tempfile.TemporaryDirectory(prefix="fastpost-bench-") as scratch:
        folder = Path(scratch)
        make_tree(folder)
        proofs = [_report(name, folder, tls) for name in chosen for tls in (False, True)]
    return 0 if all(proofs) else 1


def _report(name: str, folder: Path, tls: bool) -> bool:
    way = f"{name}, {'TLS' if tls else 'cleartext'}"
    try:
        prove(name, folder, tls)
    except (RunFailed, servers.Absent) as error:
        optional = isinstance(error, servers.Absent) and name in _OPTIONAL
        print(f"{way}: {'not proved' if optional else 'FAILED'}: {error}")
        return optional
    print(f"{way}: every octet arrived")
    return True


if __name__ == "__main__":
    sys.exit(main())
