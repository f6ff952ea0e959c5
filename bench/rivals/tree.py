"""What every rival shares: which files, to which URL, and what it prints at the end."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path


def arguments(description: str) -> argparse.Namespace:
    """Parse the command line that the rivals have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("dir", help="folder whose files are uploaded")
    parser.add_argument("url", help="ends in / (the relative path is appended), or holds {path}")
    parser.add_argument("--concurrency", type=int, default=50, help="uploads in flight (default: 50)")
    parser.add_argument("--cacert", type=Path, help="certificate authority to trust, PEM")
    return parser.parse_args()


def files(folder: str) -> Iterator[tuple[str, str]]:
    """Yield (path to open, relative path percent-encoded) of every regular file below `folder`, lazily."""
    pending = [(folder, "")]
    while pending:
        path, prefix = pending.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                name = prefix + urllib.parse.quote(os.fsencode(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, name + "/"))
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path, name


def template(url: str) -> str:
    """Return `url` as a template with `{path}`. Raises ValueError when every file would get the same URL."""
    if "{path}" in url:
        return url
    if not url.endswith("/"):
        raise ValueError(f"{url}: end it with / or put {{path}} where the relative path belongs")
    return url + "{path}"


@dataclasses.dataclass(slots=True)
class Count:
    """What a rival did; `octets` are those of complete, successful uploads."""

    files: int = 0
    ok: int = 0
    octets: int = 0
    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)

    def add(self, status: int, size: int) -> None:
        """Count one finished upload; status 0 means that there was no response."""
        self.files += 1
        self.statuses[status] += 1
        if 200 <= status < 300:
            self.ok += 1
            self.octets += size

    def print(self, **versions: str) -> None:
        """Print the result as JSON on stdout."""
        result = {"files": self.files, "ok": self.ok, "statuses": self.statuses, "octets": self.octets}
        print(json.dumps(result | {"versions": versions}))
