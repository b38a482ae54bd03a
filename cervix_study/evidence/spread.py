"""How far single trainings scatter: mean, standard deviation and t interval over seeds or folds.

Seeds are independent repetitions, given the split: the textbook interval. Folds are not: their training parts overlap,
so the variance of their mean is larger than s^2 / k, and no unbiased estimate of it exists (Bengio and Grandvalet, JMLR
5:1089, 2004). The correction of Nadeau and Bengio (Mach Learn 52:239, 2003) is used: s^2 (1/k + test women / training
women).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from fedcervix.plan import check
from site_agent.intervals import LEVEL, Estimate


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement. `estimate` is None for a single one: nothing is known of its scatter."""

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    """standard deviation, divided by k - 1"""
    estimate: Estimate | None


def over_seeds(values: Sequence[float]) -> Spread:
    """Return the spread of independent repetitions."""
    return _spread(values, 1 / max(1, len(values)))


def over_folds(values: Sequence[float], *, test_to_train: float) -> Spread:
    """Return the spread of the folds of one cross-validation; of k like folds, `test_to_train` is 1 / (k - 1)."""
    check(test_to_train > 0, f"test_to_train is above 0; found {test_to_train}")
    return _spread(values, 1 / max(1, len(values)) + test_to_train)


def _spread(values: Sequence[float], share: float) -> Spread:
    """`share` times the variance of one value is the variance of the mean."""
    check(len(values) >= 1, "a spread needs a value")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Spread(tuple(values), mean, None, None)
    deviation = float(np.std(values, ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation * share**0.5
    return Spread(tuple(values), mean, deviation, Estimate(mean, mean - half, mean + half))
