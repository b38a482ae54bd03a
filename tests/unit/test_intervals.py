"""Intervals and verdicts: by hand, at their ends, and where there are none."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from fedcervix.runtime.typed_json import from_json
from site_agent.classifier.intervals import (
    AT_THE_END,
    DIFFERENCE,
    DISTANCE,
    DRAWS_AGREE,
    LEVEL,
    RATE,
    TOO_FEW_WOMEN,
    WOMEN_MIN,
    Estimate,
    Scatter,
    Women,
    detectable,
    estimate,
    is_close,
    p_value,
    verdict,
    why_not_shown,
)

MANY = Women(1000, 1000)


@pytest.mark.parametrize(("part", "whole"), [(1, 8), (7, 8), (30, 40), (99, 100)])
def test_a_share_of_independent_votes_has_wilsons_interval(part, whole):
    """Of n votes the share p scatters by p (1 - p) / n; scipy has the interval."""
    share = part / whole
    found = estimate(share, Scatter(share * (1 - share) / whole), MANY, DISTANCE)
    expected = binomtest(part, whole).proportion_ci(LEVEL, "wilson")
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_variance_of_a_rate_is_averaged_with_one_vote_per_woman():
    """Share .9 of 8 + 20 women: its own variance weighs 7, that of eight votes, .9 * .1 / 8, a half."""
    mean = (7 * 0.001 + 0.5 * 0.09 / 8) / 7.5
    alike = estimate(0.9, Scatter(mean), MANY, DISTANCE)
    assert estimate(0.9, Scatter(0.001), Women(8, 20), RATE).interval == pytest.approx(alike.interval)


def test_few_seeds_widen_the_interval_by_students_t():
    """A difference near the middle of its scale: half width t s, but for what Wilson's form takes away."""
    found = estimate(0.0, Scatter(0.01**2, 5), MANY, DIFFERENCE)
    assert found.high == pytest.approx(t.ppf(0.975, 5) * 0.01, rel=0.001)
    assert found.low == pytest.approx(-found.high)


@pytest.mark.parametrize("tested", [Women(1, 1), Women(1, 3), Women(2, 10), Women(7, 500), Women(500, 7), Women(0, 0)])
def test_fewer_than_eight_women_of_a_class_decide_nothing(tested):
    found = estimate(0.25, Scatter(1e-6), tested, DIFFERENCE)
    assert found == Estimate.alone(0.25, TOO_FEW_WOMEN)
    assert (verdict(found), why_not_shown(found)) == ("not shown", "fewer than 8 test women of a class")
    assert p_value(found, Scatter(1e-6)) is None
    assert detectable(found, Scatter(1e-6)) is None
    assert not is_close(Estimate.alone(0.0, TOO_FEW_WOMEN), 0.05)
    assert WOMEN_MIN == 8


def test_where_draws_agree_there_is_no_interval():
    assert estimate(0.25, Scatter(0.0), MANY, DIFFERENCE) == Estimate.alone(0.25, DRAWS_AGREE)
    assert verdict(estimate(0.25, Scatter(0.0), MANY, DIFFERENCE)) == "not shown"


@pytest.mark.parametrize(("value", "scale"), [(0.0, RATE), (1.0, RATE), (1.0, DIFFERENCE), (-1.0, DIFFERENCE)])
def test_at_the_end_of_a_scale_there_is_no_interval(value, scale):
    """Precision 1.0 where some draws call nobody a case, and so give 0."""
    assert estimate(value, Scatter(0.01), MANY, scale) == Estimate.alone(value, AT_THE_END)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.01, 0.2, "better"), (-0.01, 0.2, "not shown"), (-0.2, -0.01, "worse")]
)
def test_a_verdict_needs_an_interval_without_zero(low, high, said):
    found = Estimate((low + high) / 2, low, high)
    assert verdict(found) == said
    assert bool(why_not_shown(found)) == (said == "not shown")


@given(st.floats(-0.99, 0.99), st.floats(1e-6, 0.3), st.floats(1, 200))
def test_the_p_value_agrees_with_the_interval(value, deviation, freedom):
    scatter = Scatter(deviation**2, freedom)
    found = estimate(value, scatter, MANY, DIFFERENCE)
    p = p_value(found, scatter)
    assert p is not None
    if abs(p - (1 - LEVEL)) > 1e-9:
        assert (p < 1 - LEVEL) == (verdict(found) != "not shown")


@given(st.floats(0.001, 0.999), st.floats(1e-4, 0.5), st.floats(1, 200), st.sampled_from([RATE, DISTANCE]))
def test_an_interval_lies_on_its_scale_and_holds_its_number(value, deviation, freedom, scale):
    found = estimate(value, Scatter(deviation**2, freedom), Women(8, 20), scale)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < value < found.high <= 1


def test_an_estimate_survives_json():
    for found in (Estimate(0.5, 0.4, 0.6), Estimate.alone(0.5, DRAWS_AGREE)):
        assert from_json(Estimate, json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))) == found


@pytest.mark.parametrize(
    "parts",
    [
        (0.5, None, 0.6, ""),
        (0.5, None, None, ""),
        (0.5, 0.4, 0.6, DRAWS_AGREE),
        (0.5, 0.4, None, DRAWS_AGREE),
        (0.25, 0.25, 0.25, ""),
    ],
)
def test_half_an_interval_or_one_without_width_or_reason_is_impossible(parts):
    with pytest.raises(ValueError, match="interval"):
        Estimate(*parts)


def test_the_detectable_difference_is_found_four_times_in_five():
    """Differences of that size, 20,000 times over: the share with p below .05."""
    scatter = Scatter(0.02**2)
    size = detectable(Estimate(0.0, -0.1, 0.1), scatter)
    assert size is not None
    drawn = size + 0.02 * np.random.default_rng(0).normal(size=20_000)
    found = [verdict(estimate(value, scatter, MANY, DIFFERENCE)) for value in drawn]
    assert found.count("better") / 20_000 == pytest.approx(0.8, abs=0.01)
