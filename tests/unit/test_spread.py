"""Mean and interval over seeds and folds, against Student's table."""

from __future__ import annotations

import numpy as np
import pytest

from cervix_study.evidence.spread import over_folds, over_seeds


def test_three_seeds_by_hand():
    """.7 .8 .9: mean .8, deviation .1; t(.975, 2) = 4.303; half width 4.303 * .1 / sqrt(3) = .248."""
    found = over_seeds([0.7, 0.8, 0.9])
    assert (found.mean, found.deviation) == (pytest.approx(0.8), pytest.approx(0.1))
    assert found.estimate is not None
    assert (found.estimate.low, found.estimate.high) == pytest.approx((0.8 - 0.2484, 0.8 + 0.2484), abs=1e-4)


def test_of_one_training_nothing_is_known():
    found = over_seeds([0.7])
    assert (found.mean, found.deviation, found.estimate) == (0.7, None, None)


def test_five_folds_are_worth_less_than_five_seeds():
    """Nadeau and Bengio: 1/5 becomes 1/5 + 1/4, the half width grows by 1.5."""
    values = [0.71, 0.78, 0.8, 0.83, 0.74]
    seeds, folds = over_seeds(values).estimate, over_folds(values, test_to_train=1 / 4).estimate
    assert seeds is not None
    assert folds is not None
    assert (folds.high - folds.value) / (seeds.high - seeds.value) == pytest.approx(1.5)


def test_of_a_hundred_intervals_ninety_five_hold_the_mean():
    rng = np.random.default_rng(3)
    found = [over_seeds(rng.normal(0.8, 0.05, size=4).tolist()).estimate for _ in range(1000)]
    assert 930 <= sum(e is not None and e.low <= 0.8 <= e.high for e in found) <= 970


def test_nothing_has_no_spread():
    with pytest.raises(ValueError, match="needs a value"):
        over_seeds([])
