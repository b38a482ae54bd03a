"""Whether a second picture says the same: two pictures of one woman, of one visit and one stage, under one classifier.

Rules
1. Each woman counts once, with one pair of pictures: the first two of her first visit and stage that has two. So pairs
   are independent, and intervals hold the choice of women. No label is needed.
2. Both pictures show the same cervix on the same day. What differs between their scores is noise to a clinic.
3. With fewer than `WOMEN_MIN` women there are numbers, but no interval.

Which of the two was taken first says little, so the mean difference should be about 0.

    Bland and Altman, Measuring agreement in method comparison studies, Stat Methods Med Res 8:135 (1999): limits of
    agreement, mean difference +- 1.96 standard deviations, and the standard error of a limit
    Shrout and Fleiss, Intraclass correlations: uses in assessing rater reliability, Psychol Bull 86:420 (1979): here
    ICC(1,1), one-way random, a single picture, with the interval from F: the two pictures are interchangeable
    Cohen, Weighted kappa, Psychol Bull 70:213 (1968); Fleiss, Cohen and Everitt, Large sample standard errors of kappa
    and weighted kappa, Psychol Bull 72:323 (1969)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcervix.errors import DataError
from site_agent.classifier.intervals import LEVEL, WOMEN_ALIKE, WOMEN_MIN, Estimate

Floats = NDArray[np.float64]

PAIRS_MIN = 2
TOO_FEW_PAIRS = f"fewer than {WOMEN_MIN} women with two such pictures"
ONE_CALL = "all pictures are called alike"
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class LimitsOfAgreement:
    """How far the second picture's score lies from the first one's."""

    mean: Estimate
    """of the differences, second less first"""
    low: Estimate
    """95 of 100 differences lie above"""
    high: Estimate
    """95 of 100 differences lie below"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The pairs of one classifier."""

    women: int
    limits: LimitsOfAgreement
    icc: Estimate
    """ICC(1,1)"""
    kappa: Estimate
    """quadratic weighted, of the calls"""
    changed: Estimate
    """share of women whose call changes"""


def agreement(first: ArrayLike, second: ArrayLike, cuts: Sequence[float]) -> Agreement:
    """Return how scores (n,) of first and second pictures agree; calls are the ranges between the cuts, ascending.

    Raises DataError with fewer than two pairs.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != two.shape or one.ndim != 1 or len(one) < PAIRS_MIN:
        raise DataError(f"agreement needs two pairs or more; found {one.shape} and {two.shape}")
    calls = [np.searchsorted(np.asarray(cuts), scores, side="right") for scores in (one, two)]
    return Agreement(
        women=len(one),
        limits=limits(two - one),
        icc=icc(np.stack([one, two], axis=1)),
        kappa=weighted_kappa(calls[0], calls[1], len(cuts) + 1),
        changed=_share(int(np.sum(calls[0] != calls[1])), len(one)),
    )


def limits(differences: Floats) -> LimitsOfAgreement:
    """Return the limits of agreement of differences (n,), one of each woman."""
    n, mean, deviation = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    z = _normal()
    of_mean = deviation / math.sqrt(n)
    of_limit = deviation * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
    return LimitsOfAgreement(
        _around(mean, of_mean, n),
        _around(mean - z * deviation, of_limit, n),
        _around(mean + z * deviation, of_limit, n),
    )


def _around(value: float, error: float, n: int) -> Estimate:
    """Return a number with Student's interval."""
    from scipy.special import stdtrit  # scipy is loaded where there is something to compute

    why = _why(n) or ("" if error > TINY else WOMEN_ALIKE)
    if why:
        return Estimate.alone(value, why)
    reach = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    return Estimate(value, value - reach, value + reach)


def icc(pictures: Floats) -> Estimate:
    """Return ICC(1,1) of scores (women, pictures of each) with its interval, from the mean squares of the women."""
    between, within = mean_squares(pictures)
    each = pictures.shape[1]
    if max(between, within) <= TINY:
        return Estimate.alone(1.0, WOMEN_ALIKE)
    value = (between - within) / (between + (each - 1) * within)
    why = _why(len(pictures)) or ("" if min(between, within) > TINY else WOMEN_ALIKE)
    if why:
        return Estimate.alone(value, why)
    low, high = icc_ends(between / within, len(pictures), each)
    return Estimate(value, low, high)


def mean_squares(pictures: Floats) -> tuple[float, float]:
    """Return the mean squares between and within women of scores (women, pictures of each)."""
    women, each = pictures.shape
    own = pictures.mean(axis=1)
    between = each * float(np.sum((own - own.mean()) ** 2)) / (women - 1)
    return between, float(np.sum((pictures - own[:, None]) ** 2)) / (women * (each - 1))


def icc_ends(ratio: float, women: int, each: int) -> tuple[float, float]:
    """Return both ends of the interval of ICC(1,1), from the ratio of the mean squares."""
    from scipy.stats import f as fisher

    tail, free = (1 + LEVEL) / 2, (women - 1, women * (each - 1))
    low, high = ratio / fisher.ppf(tail, *free), ratio * fisher.ppf(tail, *reversed(free))
    return float((low - 1) / (low + each - 1)), float((high - 1) / (high + each - 1))


def weighted_kappa(first: NDArray[np.intp], second: NDArray[np.intp], classes: int) -> Estimate:
    """Return the kappa of calls 0 to classes - 1, a disagreement weighing as the square of its distance."""
    table = np.zeros((classes, classes))
    np.add.at(table, (first, second), 1 / len(first))
    if kappa_expected(table) >= 1 - TINY:
        return Estimate.alone(1.0, ONE_CALL)
    value, error = kappa_of(table)
    error /= math.sqrt(len(first))
    why = _why(len(first)) or ("" if error > TINY else WOMEN_ALIKE)
    if why:
        return Estimate.alone(value, why)
    reach = _normal() * error
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach))


def kappa_expected(table: Floats) -> float:
    """Return the weighted agreement of a table of shares by chance."""
    return float(table.sum(axis=1) @ _agreed(len(table)) @ table.sum(axis=0))


def kappa_of(table: Floats) -> tuple[float, float]:
    """Return the quadratic weighted kappa of a table of shares, and its standard error times the root of n."""
    agreed = _agreed(len(table))
    observed, expected = float(np.sum(agreed * table)), kappa_expected(table)
    by_row, by_column = agreed @ table.sum(axis=0), table.sum(axis=1) @ agreed
    moved = agreed * (1 - expected) - (by_row[:, None] + by_column[None, :]) * (1 - observed)
    variance = float(np.sum(table * moved**2)) - (observed * expected - 2 * expected + observed) ** 2
    return (observed - expected) / (1 - expected), math.sqrt(max(0.0, variance)) / (1 - expected) ** 2


def _agreed(classes: int) -> Floats:
    places = np.arange(classes)
    return np.asarray(1 - (places[:, None] - places[None, :]) ** 2 / max(1, classes - 1) ** 2)


def _share(part: int, whole: int) -> Estimate:
    """Return a share of women with Wilson's interval, which a share of 0 has as well."""
    from scipy.stats import binomtest

    if why := _why(whole):
        return Estimate.alone(part / whole, why)
    found = binomtest(part, whole).proportion_ci(LEVEL, "wilson")
    return Estimate(part / whole, float(found.low), float(found.high))


def _why(women: int) -> str:
    return TOO_FEW_PAIRS if women < WOMEN_MIN else ""


def _normal() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))
