"""McNemar's test: of the images that two classifiers call differently, how many each calls right.

McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12:153 (1947). The
exact form is used: under no difference the better calls of either side are a fair coin's.

By image the test takes every image for an independent witness. Two images of one woman are not: its p value is then too
small. By woman, she votes once, for the classifier that calls more of her images right (a sign test); a woman
for whom both are equally right does not vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fedcervix.errors import DataError

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Discordant:
    """Who was right where the other was wrong, and the exact two-sided p value."""

    first: int
    second: int

    @property
    def p(self) -> float:
        """1 where nothing was called differently."""
        differing = self.first + self.second
        return float(binomtest(min(self.first, self.second), differing).pvalue) if differing else 1.0

    def __add__(self, other: Discordant) -> Discordant:
        """Add another fold, whose women are others."""
        return Discordant(self.first + other.first, self.second + other.second)


def by_image(right_first: Bools, right_second: Bools) -> Discordant:
    """Count over images (n,): True where a classifier was right."""
    return Discordant(int(np.sum(right_first & ~right_second)), int(np.sum(right_second & ~right_first)))


def by_woman(right_first: Bools, right_second: Bools, women: Sequence[str]) -> Discordant:
    """Count over women: each votes for the classifier that called more of her images right. Raises DataError."""
    if not len(women) == len(right_first) == len(right_second):
        raise DataError(f"{len(women)} women, {len(right_first)} and {len(right_second)} images differ in number")
    _, row = np.unique(np.asarray(women), return_inverse=True)
    lead = np.bincount(row, weights=right_first.astype(np.int64) - right_second)
    return Discordant(int(np.sum(lead > 0)), int(np.sum(lead < 0)))


def of_seeds(p_values: Sequence[float]) -> float:
    """Return one p value for the same test made once per seed: twice the median, at most 1; one alone is itself.

    The trainings are tested on the same women, so their p values depend on one another, and nobody knows how. Twice the
    median holds for every dependence (Rüschendorf 1982; Meinshausen, Meier and Bühlmann, JASA 104:1671, 2009).
    """
    if len(p_values) == 1:
        return p_values[0]
    return min(1.0, 2 * float(np.median(p_values)))
