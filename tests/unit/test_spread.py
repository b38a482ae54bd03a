"""Mean and standard deviation over seeds and folds."""

from __future__ import annotations

import pytest

from cervix_study.evidence.spread import spread


def test_three_seeds_by_hand():
    found = spread([0.7, 0.8, 0.9])
    assert (found.mean, found.deviation) == (pytest.approx(0.8), pytest.approx(0.1))


def test_of_one_training_nothing_is_known():
    found = spread([0.7])
    assert (found.mean, found.deviation) == (0.7, None)


def test_nothing_has_no_spread():
    with pytest.raises(ValueError, match="needs at least one value"):
        spread([])
