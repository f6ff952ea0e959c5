"""What `bench.processes` says of its measurements."""

from __future__ import annotations

import pytest

from bench.measure import Outcome, Run
from bench.processes import Row


def run(wall: float) -> Run:
    return Run(wall=wall, user=wall, system=0.0, peak_rss=1, outcome=Outcome(1, 0, 1, {"201": 1}))


@pytest.mark.parametrize(
    ("files", "cores", "ratio", "verdict"),
    [
        ("4 KiB", 0.5, 1.04, "does not lose"),
        ("4 KiB", 0.5, 1.06, "**LOSES**"),
        ("256 MiB, TLS", 0.2, 0.8, "gains"),
        ("256 MiB, TLS", 0.2, 0.99, "**GAINS NOTHING**"),
        ("256 MiB, TLS", 0.4, 0.99, "does not lose"),
        ("256 MiB, TLS", 0.7, 1.0, "does not lose"),
        ("256 MiB, TLS", 0.7, 2.0, "**LOSES**"),
    ],
)
def test_verdicts(files: str, cores: float, ratio: float, verdict: str) -> None:
    assert Row("nghttpd", files, "2", {1: [run(1.0)] * 3, 2: [run(ratio)] * 3}, cores).verdict == verdict
