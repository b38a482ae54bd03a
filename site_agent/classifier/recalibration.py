"""Whether probabilities are too high, or too extreme: the intercept and slope of a logistic recalibration.

logit P(case) = intercept + slope x logit(probability). Right probabilities have 0 and 1. An intercept above 0 (with the
slope held at 1) says that the disease is more common than the probabilities say; a slope below 1 that they are too
extreme. Each woman counts once.

    Cox, Two further applications of a model for binary regression, Biometrika 45:562 (1958)
    Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Med 17:230 (2019)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from site_agent.classifier.intervals import LEVEL, Estimate, Women

Floats = NDArray[np.float64]

STEPS_MAX = 50
SEPARATED = "cases and controls are separated: any slope would do"
TINY = 1e-6
"""a probability is held so far from 0 and 1"""


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What probabilities are off by."""

    intercept: Estimate
    """calibration in the large: with the slope held at 1"""
    slope: Estimate


def recalibration(labels: ArrayLike, probabilities: ArrayLike, tested: Women) -> Recalibration:
    """Return intercept and slope of women: labels (n,) of 0 and 1, probabilities (n,)."""
    case = np.asarray(labels, np.float64)
    p = np.clip(np.asarray(probabilities, np.float64), TINY, 1 - TINY)
    logits = np.log(p / (1 - p))
    alone, both = np.ones((len(case), 1)), np.stack([np.ones(len(case)), logits], axis=1)
    return Recalibration(
        _estimate(newton(alone, logits, case), 0, tested), _estimate(newton(both, np.zeros(len(case)), case), 1, tested)
    )


def newton(columns: Floats, offset: Floats, case: Floats) -> tuple[Floats, Floats] | None:
    """Return coefficients (k,) of most likelihood and their standard errors, of columns (n, k).

    None where there is no such coefficient: a column that separates cases from controls.
    """
    found = np.zeros(columns.shape[1])
    for _ in range(STEPS_MAX):
        p = 1 / (1 + np.exp(-np.clip(offset + columns @ found, -30, 30)))
        information = columns.T @ (columns * (p * (1 - p))[:, None])
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, columns.T @ (case - p))
        found = found + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-10:
            return found, np.sqrt(np.diag(np.linalg.inv(information)))
    return None


def _estimate(fitted: tuple[Floats, Floats] | None, place: int, tested: Women) -> Estimate:
    from scipy.special import ndtri

    if fitted is None:
        return Estimate.alone(math.nan, SEPARATED)
    value, error = float(fitted[0][place]), float(fitted[1][place])
    if tested.undecided:
        return Estimate.alone(value, tested.undecided)
    reach = float(ndtri((1 + LEVEL) / 2)) * error
    return Estimate(value, value - reach, value + reach)
