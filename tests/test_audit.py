"""The audit of dependencies, with pages made up."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "audit.py"

if not SCRIPT.exists():
    pytest.skip("not in a checkout", allow_module_level=True)

spec = importlib.util.spec_from_file_location("audit", SCRIPT)
assert spec is not None
assert spec.loader is not None
audit: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

FLAW = {"id": "PYSEC-2026-1", "fixed_in": ["1.1"], "withdrawn": None}


def page(version: str, *flaws: dict[str, Any]) -> dict[str, Any]:
    return {"info": {"version": version}, "vulnerabilities": list(flaws)}


def test_a_known_vulnerability_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.audit([("a", "1.0"), ("b", "2.0")], {"a/1.0": page("1.0", FLAW), "b/2.0": page("2.0")}.get) == 1
    assert capsys.readouterr().out == "a 1.0: PYSEC-2026-1: fixed in 1.1\nb 2.0: nothing known\n"


def test_nothing_known_and_what_was_withdrawn_pass() -> None:
    assert audit.audit([("a", "1.0")], {"a/1.0": page("1.0", {**FLAW, "withdrawn": "2026-01-01"})}.get) == 0


def test_the_page_of_the_project_tells_about_its_latest_release(capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"a": page("1.0", FLAW), "b": page("2.1", FLAW), "c": page("3.0")}
    assert audit.audit([("a", "1.0")], pages.get) == 1
    assert audit.audit([("c", "3.0")], pages.get) == 0
    assert audit.audit([("b", "2.0"), ("c", "3.0")], pages.get) == 1, "an older release of b may have any flaw"
    assert "b 2.0: not audited" in capsys.readouterr().out


def test_an_audit_of_nothing_fails() -> None:
    assert audit.audit([("a", "1.0")], {}.get) == 1


def test_all_that_is_loaded_is_asked_for() -> None:
    found = audit.loaded("fastpost")
    assert {"click", "h2", "hpack", "hyperframe", "h2corn", "rich", "trustme", "cryptography", "uvloop"} <= found
    assert not {"pytest", "fastpost", "cython"} & found
