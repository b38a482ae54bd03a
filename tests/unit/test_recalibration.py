"""Intercept and slope of a logistic recalibration, beside scikit-learn without a penalty and beside what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from site_agent.classifier.intervals import TOO_FEW_WOMEN, Women
from site_agent.classifier.recalibration import SEPARATED, newton, recalibration

MANY = Women.of_one_part(500, 500)


def drawn(intercept: float, slope: float, women: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities that are off by intercept and slope."""
    draws = np.random.default_rng(7)
    logits = draws.normal(0, 1.5, women)
    labels = draws.random(women) < 1 / (1 + np.exp(-(intercept + slope * logits)))
    return labels.astype(int), 1 / (1 + np.exp(-logits))


def test_the_coefficients_are_those_of_scikit_learn():
    labels, p = drawn(0.4, 0.6, 300)
    logits = np.log(p / (1 - p))
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    found, errors = newton(np.stack([np.ones(300), logits], axis=1), np.zeros(300), labels.astype(float))
    assert found == pytest.approx([reference.intercept_[0], reference.coef_[0, 0]], abs=1e-5)
    assert (errors > 0).all()


def test_right_probabilities_have_a_slope_of_one_and_no_intercept():
    found = recalibration(*drawn(0.0, 1.0, 1000), MANY)
    assert found.slope.low < 1 < found.slope.high
    assert found.intercept.low < 0 < found.intercept.high


def test_the_intercept_says_that_cases_are_more_common():
    found = recalibration(*drawn(1.0, 1.0, 1000), MANY)
    assert found.intercept.low < 1.0 < found.intercept.high
    assert found.intercept.low > 0.5


def test_few_women_and_separated_women_have_no_interval():
    labels, p = drawn(0.0, 1.0, 30)
    assert recalibration(labels, p, Women.of_one_part(10, 20)).slope.why == TOO_FEW_WOMEN
    assert recalibration([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], MANY).slope.why == SEPARATED
