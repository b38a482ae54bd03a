"""Two pictures of one woman: limits, ICC and kappa beside published examples, scikit-learn and derivatives by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fedcervix.errors import DataError
from site_agent.classifier.agreement import (
    ONE_CALL,
    TOO_FEW_PAIRS,
    agreement,
    icc,
    icc_ends,
    kappa_of,
    limits,
    mean_squares,
    weighted_kappa,
)

LARGE = (494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427)
MINI = (512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451)
"""Bland and Altman, Lancet i:307 (1986): peak flow of 17 people by two meters"""

JUDGES = ((9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7))
"""Shrout and Fleiss (1979), Table 2: six targets, four judges"""


def test_limits_of_agreement_are_those_of_bland_and_altman():
    found = limits(np.subtract(LARGE, MINI).astype(float))
    assert found.mean.value == pytest.approx(-2.1, abs=0.05)
    assert found.high.value - found.mean.value == pytest.approx(1.96 * 38.8, abs=0.1)
    assert found.mean.value - found.low.value == pytest.approx(1.96 * 38.8, abs=0.1)
    assert found.low.why == TOO_FEW_PAIRS


def test_the_interval_of_a_limit_holds_it_in_95_of_100_samples():
    draws = np.random.default_rng(1).normal(0.1, 0.2, (2000, 40))
    true = 0.1 + 1.959964 * 0.2
    held = [found.low <= true <= found.high for found in (limits(sample).high for sample in draws)]
    assert 0.935 < np.mean(held) < 0.97


def test_icc_is_that_of_shrout_and_fleiss():
    """Their Table 4: ICC(1,1) = .17, mean squares 11.24 and 6.26."""
    scores = np.array(JUDGES, float)
    between, within = mean_squares(scores)
    assert (between, within) == pytest.approx((11.24, 6.26), abs=0.01)
    assert icc(scores).value == pytest.approx(0.17, abs=0.005)
    assert icc_ends(between / within, 6, 4) == pytest.approx((-0.13, 0.72), abs=0.005)


def test_the_interval_of_the_icc_holds_it_in_95_of_100_samples():
    draws = np.random.default_rng(2)
    women, noise = draws.normal(0, np.sqrt(0.8), (2000, 30, 1)), draws.normal(0, np.sqrt(0.2), (2000, 30, 2))
    held = [found.low <= 0.8 <= found.high for found in map(icc, women + noise)]
    assert 0.935 < np.mean(held) < 0.965


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_kappa_is_that_of_scikit_learn(classes):
    draws = np.random.default_rng(classes)
    first = draws.integers(0, classes, 60)
    second = np.clip(first + draws.integers(-1, 2, 60), 0, classes - 1)
    found = weighted_kappa(first, second, classes)
    assert found.value == pytest.approx(cohen_kappa_score(first, second, weights="quadratic", labels=range(classes)))
    assert found.low < found.value < found.high


def test_the_error_of_kappa_is_that_of_its_derivative():
    """The delta method for a multinomial table, with derivatives taken by small steps."""
    table = np.array([[0.2, 0.05, 0.02], [0.1, 0.25, 0.08], [0.01, 0.04, 0.25]])
    slopes = np.zeros_like(table)
    for place in np.ndindex(table.shape):
        ends = []
        for side in (-1, 1):
            near = table.copy()
            near[place] += side * 1e-6
            ends.append(kappa_of(near / near.sum())[0])
        slopes[place] = (ends[1] - ends[0]) / 2e-6
    by_hand = np.sqrt(np.sum(table * slopes**2) - np.sum(table * slopes) ** 2)
    assert kappa_of(table)[1] == pytest.approx(by_hand, rel=1e-4)


def test_a_call_changes_between_the_cuts():
    first = [0.1, 0.2, 0.45, 0.7, 0.9] * 5
    second = [0.2, 0.35, 0.45, 0.75, 0.3] * 5
    found = agreement(first, second, (0.3, 0.6))
    assert found.women == 25
    assert found.changed.value == pytest.approx(0.4)  # .2 to .35, .9 to .3
    assert found.changed.low < 0.4 < found.changed.high
    assert found.limits.mean.value == pytest.approx(np.mean(np.subtract(second, first)))


def test_few_women_have_numbers_and_no_interval():
    found = agreement([0.1, 0.8, 0.4], [0.2, 0.7, 0.6], (0.5,))
    assert {one.why for one in (found.icc, found.kappa, found.changed, found.limits.low)} == {TOO_FEW_PAIRS}
    assert agreement([0.1] * 30, [0.2] * 30, (0.5,)).kappa.why == ONE_CALL
    with pytest.raises(DataError):
        agreement([0.1], [0.2], (0.5,))
