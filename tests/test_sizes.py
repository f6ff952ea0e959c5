"""Sizes of a load: forms, units, distributions."""

from __future__ import annotations

import math
import random

import pytest

from fastpost import sizes
from fastpost.errors import UsageError


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4KiB", 4096),
        ("4k", 4096),
        ("1.5MB", 1_500_000),
        ("10 MiB", 10 << 20),
        ("1gib", 1 << 30),
    ],
)
def test_units(text: str, octets: int) -> None:
    assert sizes.octets(text) == octets
    assert sizes.parse(text).draw(random.Random(1), 3) == [octets] * 3


def test_a_range_is_even_on_a_logarithmic_scale() -> None:
    drawn = sizes.parse("1KiB..1MiB").draw(random.Random(1), 20_000)
    assert min(drawn) >= 1024
    assert max(drawn) <= 1 << 20
    below = sum(size < 32 * 1024 for size in drawn) / len(drawn)
    assert below == pytest.approx(0.5, abs=0.02)
    assert math.log2(sorted(drawn)[5000]) == pytest.approx(12.5, abs=0.1)


def test_a_range_from_nothing() -> None:
    assert set(sizes.parse("0..2").draw(random.Random(1), 1000)) == {0, 1, 2}


def test_weights() -> None:
    drawn = sizes.parse("4KiB:80, 1MiB:19, 100MiB:1").draw(random.Random(1), 50_000)
    shares = [drawn.count(size) / len(drawn) for size in (4096, 1 << 20, 100 << 20)]
    assert shares == pytest.approx([0.8, 0.19, 0.01], abs=0.01)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no size"), ("x", "no size"), ("4XB", "no size"), ("-1", "no size"),
        ("1MiB..1KiB", "begins above its end"), ("1..", "no size"), ("4KiB:", "no weight"),
        ("4KiB:1,2KiB", "no weight"), ("4KiB:0", "every weight is 0"),
        ("2000GiB", "more than 1 TiB"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_names_the_forms(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        sizes.parse(text)
    assert "write" in str(raised.value)
