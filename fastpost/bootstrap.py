"""By how much two samples differ, with a confidence interval: the symmetric bootstrap-t on logarithms.

docs/decisions/0009 says why this one: with the five runs that people make, the plain percentile bootstrap calls three
times as many differences as it should.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESAMPLES: Final = 2000
#: Values on either side below which nothing is said.
LEAST: Final = 3


class Change(NamedTuple):
    """A relative change, 0.05 for 5 % more, and the ends of its confidence interval."""

    change: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """True when the interval holds no "no change"."""
        return self.low > 0 or self.high < 0


def change(before: Sequence[float], after: Sequence[float], level: float = 0.95, seed: int = 1) -> Change | None:
    """Return how the mean changed; the same for the same values. None with fewer than 3 positive values on a side.

    Args:
        before: independent values, as of several runs; only ratios matter.
        after: the same of the other side.
        level: of confidence.
        seed: of the resampling.
    """
    old = [math.log(value) for value in before if value > 0]
    new = [math.log(value) for value in after if value > 0]
    if min(len(old), len(new)) < LEAST:
        return None
    difference = _mean(new) - _mean(old)
    error = _error(old, new)
    if error == 0.0:
        return Change(math.expm1(difference), math.expm1(difference), math.expm1(difference))
    rng = random.Random(seed)
    resamples = ((rng.choices(old, k=len(old)), rng.choices(new, k=len(new))) for _ in range(_RESAMPLES))
    ratios = sorted(_ratio(*both, difference) for both in resamples)
    reach = ratios[min(math.ceil((_RESAMPLES + 1) * level), _RESAMPLES) - 1] * error
    return Change(math.expm1(difference), _expm1(difference - reach), _expm1(difference + reach))


def _ratio(old: Sequence[float], new: Sequence[float], difference: float) -> float:
    """Return how far a resample lies from the truth that it was drawn from, in its own standard errors."""
    away = abs(_mean(new) - _mean(old) - difference)
    error = _error(old, new)
    return away / error if error else math.inf if away else 0.0


def _error(old: Sequence[float], new: Sequence[float]) -> float:
    return math.sqrt(_variance(old) / len(old) + _variance(new) / len(new))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _expm1(value: float) -> float:
    return math.inf if value > 700 else math.expm1(value)
