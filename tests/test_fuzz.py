"""The fuzzers themselves: each runs, replays its corpus and finds nothing; and what a finding would look like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"


def run(script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FUZZ), *sys.path])}
    command = [sys.executable, str(script), "--seconds", "300", *options]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=100)


@pytest.mark.parametrize("script", sorted(FUZZ.glob("fuzz_*.py")), ids=lambda script: script.stem)
def test_nothing_is_found(script: Path) -> None:
    done = run(script, "--seed", "1", "--cases", "600")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("600 inputs, ")


PLANTED = """
import sys
from harness import main

def check(octets):
    assert octets != b"42", "found it"

sys.exit(main("planted", lambda rng: b"%d" % rng.randrange(100), check, mutated=False))
"""


def test_a_finding_is_told_and_can_be_had_again(tmp_path: Path) -> None:
    script = tmp_path / "fuzz_planted.py"
    script.write_text(PLANTED)
    done = run(script, "--seed", "1", "--cases", "10000")
    assert done.returncode == 1
    assert "found; again with --input 3432\n" in done.stdout
    assert "found it" in done.stderr
    assert run(script, "--input", "3432").returncode == 1
    assert run(script, "--input", "3433").returncode == 0
