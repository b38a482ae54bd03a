"""DeLong's test of the difference of AUCs on the same images.

    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach, Biometrics 44:837 (1988)
    Sun and Xu, Fast implementation of DeLong's algorithm ..., IEEE Signal Process Lett 21:1389 (2014): by ranks
    Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53:567 (1997): by woman

An AUC is the mean of V10, the share of controls that a case beats, over the cases; and the mean of V01, the share of
cases that beat a control, over the controls. DeLong's covariance is that of these two means, image by image. Obuchowski
first adds up each woman's images: a covariance for women who send several. Where every woman sends one, both are the
same.

A contrast is a weighting of AUCs: (1, -1) for two classifiers, (1/3, 1/3, 1/3, -1/3, -1/3, -1/3) for two starts of
three seeds each. It covers the choice of women only, not the choice of seeds: those are taken as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from fedcervix.errors import DataError

Floats = NDArray[np.float64]

ROUNDING = 1e-15
"""a variance below this is rounding: AUCs are of order 1"""


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """AUCs (k,) of k classifiers on the same images, and their covariance (k, k)."""

    aucs: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum of AUCs, as a rule a difference; normal theory."""

    value: float
    variance: float

    @property
    def p(self) -> float | None:
        """Two-sided p value of zero; None where the variance is zero and the difference is not: no test exists."""
        if self.variance > ROUNDING:
            return float(2 * norm.sf(abs(self.value) / self.variance**0.5))
        return 1.0 if abs(self.value) < ROUNDING**0.5 else None


def delong(labels: ArrayLike, scores: ArrayLike) -> Areas:
    """Return AUCs and covariance taking images for independent: labels (n,), scores (k, n). Raises DataError."""
    won_by_case, lost_by_control = placements(labels, scores)
    covariance = _mean_covariance(won_by_case) + _mean_covariance(lost_by_control)
    return Areas(won_by_case.mean(axis=1), covariance)


def _mean_covariance(components: Floats) -> Floats:
    """Return the covariance (k, k) of the row means of (k, m)."""
    return np.asarray(np.atleast_2d(np.cov(components)) / components.shape[1], np.float64)


def clustered(labels: ArrayLike, scores: ArrayLike, women: Sequence[str]) -> Areas:
    """Return AUCs and covariance with women, not images, as witnesses (Obuchowski 1997). Raises DataError.

    A woman may have images of both classes: the cross term S11 is hers.
    """
    case = np.asarray(labels, np.bool_)
    won_by_case, lost_by_control = placements(labels, scores)
    aucs = won_by_case.mean(axis=1)
    _, row = np.unique(np.asarray(women), return_inverse=True)
    cases, controls = int(case.sum()), int((~case).sum())
    ten = _by_woman(won_by_case - aucs[:, None], row[case], row.max() + 1) / cases
    one = _by_woman(lost_by_control - aucs[:, None], row[~case], row.max() + 1) / controls
    both = ten @ one.T
    covariance = (
        ten @ ten.T * _unbiased(row[case]) + one @ one.T * _unbiased(row[~case]) + (both + both.T) * _unbiased(row)
    )
    return Areas(aucs, covariance)


def _by_woman(deviations: Floats, row: NDArray[np.intp], women: int) -> Floats:
    """Add up (k, images) to (k, women)."""
    total = np.zeros((women, len(deviations)))
    np.add.at(total, row, deviations.T)
    return total.T


def _unbiased(row: NDArray[np.intp]) -> float:
    """Return I / (I - 1) of the I women who own these images."""
    witnesses = len(np.unique(row))
    if witnesses < 2:
        raise DataError(
            "all images of a class are of one woman: the variance between women cannot be estimated",
            cause="the test part is too small",
            next_step="give the test part more women",
        )
    return witnesses / (witnesses - 1)


def placements(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return V10 (k, cases) and V01 (k, controls) of scores (k, n), by ranks, ties counting half.

    Raises DataError unless there are two images of each class: a variance needs two.
    """
    case, score = np.asarray(labels, np.bool_), np.atleast_2d(np.asarray(scores, np.float64))
    cases, controls = int(case.sum()), int((~case).sum())
    if score.shape[1] != len(case):
        raise DataError(f"{len(case)} labels and {score.shape[1]} scores differ in number")
    if min(cases, controls) < 2:
        raise DataError(
            f"{cases} case and {controls} control images: an AUC's variance needs two of each",
            cause="the test part is too small",
            next_step="give the test part more women",
        )
    among_all = rankdata(score, axis=1)
    won = (among_all[:, case] - rankdata(score[:, case], axis=1)) / controls
    lost = 1 - (among_all[:, ~case] - rankdata(score[:, ~case], axis=1)) / cases
    return won, lost


def contrast(areas: Areas, weights: ArrayLike) -> Contrast:
    """Return the weighted sum of AUCs and its variance."""
    weight = np.asarray(weights, np.float64)
    return Contrast(float(weight @ areas.aucs), float(weight @ areas.covariance @ weight))


def mean_of_folds(folds: Sequence[Contrast]) -> Contrast:
    """Return the mean over folds, whose women are others and therefore independent."""
    many = len(folds)
    return Contrast(sum(fold.value for fold in folds) / many, sum(fold.variance for fold in folds) / many**2)
