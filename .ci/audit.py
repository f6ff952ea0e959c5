"""Asks PyPI whether what fastpost loads has known vulnerabilities. Exits with 1 when it has, or nothing could be asked.

pip-audit does this better where it can: but it asks for single releases only, and where PyPI is reached through a
mirror that has none of those pages it audits nothing and exits with 0. So a release that is not to be had by itself is
looked up on its project's page, which tells about the latest one; another one is reported as not audited.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip._internal.models.index import PyPI

#: Path below /pypi/ → the page, None when there is none.
Fetch = Callable[[str], dict[str, Any] | None]


def fetch(path: str) -> dict[str, Any] | None:
    """Return a page of PyPI's JSON API, at the address that pip has for it."""
    try:
        with urllib.request.urlopen(f"{PyPI.pypi_url}/{path}/json", timeout=30) as answer:
            page: dict[str, Any] = json.load(answer)
            return page
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def loaded(name: str) -> set[str]:
    """Return the distributions that one needs at run time, itself not included, as they are installed here."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in importlib.metadata.requires(waiting.pop()) or ():
            requirement = Requirement(line)
            needed = canonicalize_name(requirement.name)
            if needed not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(needed)
                waiting.append(needed)
    return found


def vulnerabilities(name: str, version: str, fetched: Fetch) -> list[str] | None:
    """Return what is known of a release, a line each; None when it can't be told."""
    page = fetched(f"{name}/{version}")
    if page is None:
        page = fetched(name)
        if page is None or page["info"]["version"] != version:
            return None
    known = [entry for entry in page["vulnerabilities"] if not entry.get("withdrawn")]
    return [f"{entry['id']}: fixed in {', '.join(entry['fixed_in']) or 'no release'}" for entry in known]


def audit(releases: Iterable[tuple[str, str]], fetched: Fetch = fetch) -> int:
    """Print what is known of all releases; returns the exit code: 1 when one is vulnerable, or could not be audited."""
    bad = False
    for name, version in releases:
        known = vulnerabilities(name, version, fetched)
        bad = bad or known is None or bool(known)
        print(f"{name} {version}: {'not audited' if known is None else '; '.join(known) or 'nothing known'}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(audit((name, importlib.metadata.version(name)) for name in sorted(loaded("fastpost"))))
