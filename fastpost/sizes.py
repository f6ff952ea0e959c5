"""How large the uploads of a load are: one size, a range, or sizes with weights (`bench --size`)."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from fastpost.errors import UsageError

_UNITS: Final = {
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30,
    "t": 1 << 40, "tib": 1 << 40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_OCTETS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_LARGEST: Final = 1 << 40
_FORMS: Final = "write 4KiB, a range like 1KiB..1MiB, or sizes with weights like 4KiB:80,1MiB:20"


class Range(NamedTuple):
    """From `low` to `high` octets, each factor of two equally often; one size when they are equal."""

    low: int
    high: int

    def draw(self, rng: random.Random, count: int) -> list[int]:
        """Return so many sizes."""
        if self.low == self.high:
            return [self.low] * count
        # One more, and less again: the logarithm takes no 0.
        low, high = math.log(self.low + 1), math.log(self.high + 2)
        return [min(int(math.exp(rng.uniform(low, high))) - 1, self.high) for _ in range(count)]


class Weighted(NamedTuple):
    """Some sizes, each as often as its weight says; `cumulated` are the sums of the weights so far."""

    sizes: tuple[int, ...]
    cumulated: tuple[float, ...]

    def draw(self, rng: random.Random, count: int) -> list[int]:
        """Return so many sizes."""
        return rng.choices(self.sizes, cum_weights=self.cumulated, k=count)


Sizes = Range | Weighted


def octets(text: str, largest: int = _LARGEST) -> int:
    """Return the octets of a size like 4096, 4KiB, 1.5MB or 10M (of 1024, as curl has it).

    Raises UsageError, for more than the `largest` as well.
    """
    found = _OCTETS.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is None or unit is None:
        raise UsageError(f"{text!r} is no size: write octets as 4096, 4KiB, 10MiB or 1GB")
    size = float(found[1]) * unit
    if size > largest:
        raise UsageError(f"{text!r} is more than {largest >> 40:,} TiB: write a smaller size")
    return round(size)


def parse(text: str) -> Sizes:
    """Read the value of --size. Raises UsageError."""
    try:
        if ":" in text:
            return _weighted(text.split(","))
        low, dots, high = text.partition("..")
        if not dots:
            return Range(octets(text), octets(text))
        both = Range(octets(low), octets(high))
    except UsageError as error:
        raise UsageError(f"--size {text!r}: {error}; {_FORMS}") from None
    if both.low > both.high:
        raise UsageError(f"--size {text!r}: the range begins above its end: {_FORMS}")
    return both


def _weighted(parts: Sequence[str]) -> Weighted:
    sizes, weights = [], []
    for part in parts:
        size, _, weight = part.partition(":")
        if re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", weight) is None:
            raise UsageError(f"{part.strip()!r} has no weight, a number like 80")
        sizes.append(octets(size))
        weights.append(float(weight))
    if not sum(weights):
        raise UsageError("every weight is 0")
    if math.isinf(sum(weights)):
        raise UsageError("the weights are too large: write numbers like 80")
    return Weighted(tuple(sizes), tuple(itertools.accumulate(weights)))
