"""Holm's correction: by hand, and its promise that one false alarm in twenty families is all there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_agent.classifier.intervals import holm


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Wikipedia's example and R's p.adjust
        ([0.5, 0.5], [1.0, 1.0]),
        ([0.02, 0.001, 0.02], [0.04, 0.003, 0.04]),
    ],
)
def test_by_hand(p_values, corrected):
    assert holm(p_values) == pytest.approx(corrected)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_never_smaller_than_given_never_larger_than_bonferroni_and_in_the_same_order(p_values):
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) or q == pytest.approx(p)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert all(corrected[a] <= corrected[b] for a, b in itertools.pairwise(order))


def test_in_families_of_nothing_one_in_twenty_raises_an_alarm():
    rng = np.random.default_rng(0)
    alarms = sum(min(holm(rng.uniform(size=10).tolist())) < 0.05 for _ in range(2000))
    assert 70 <= alarms <= 130


def test_no_probability_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])
