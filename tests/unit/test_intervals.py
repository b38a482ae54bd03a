"""Intervals and verdicts: by hand, at their ends, and where there are none."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t, ttest_1samp

from fedcervix.runtime.typed_json import from_json
from site_agent.classifier.intervals import (
    AREA,
    AT_THE_END,
    CORRECTED,
    DIFFERENCE,
    FOLD_WOMEN_MIN,
    HOLDS_ZERO,
    LEVEL,
    SHARE,
    TOO_FEW_IMAGES,
    TOO_FEW_IN_FOLD,
    TOO_FEW_TRAININGS,
    TOO_FEW_WOMEN,
    WOMEN_ALIKE,
    WOMEN_MIN,
    Estimate,
    Scatter,
    Women,
    detectable,
    estimate,
    p_apart,
    p_value,
    verdict,
    why_not_shown,
)

MANY = Women.of_one_part(1000, 1000)


def scatter(women: float, freedom: float = 1e9, trainings: float = 0.0, many: int = 1) -> Scatter:
    return Scatter(np.asarray(women), np.asarray(freedom), np.asarray(trainings), many - 1)


@pytest.mark.parametrize(("part", "whole"), [(1, 8), (7, 8), (30, 40), (99, 100)])
def test_a_share_of_independent_votes_has_wilsons_interval(part, whole):
    """Of n votes the share p scatters by p (1 - p) / n; scipy has the interval."""
    share = part / whole
    found = estimate(share, scatter(share * (1 - share) / whole), MANY, SHARE)
    expected = binomtest(part, whole).proportion_ci(LEVEL, "wilson")
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_an_auc_has_its_interval_on_the_logit_scale():
    """AUC .9, standard error .03: odds of 9, divided and multiplied by exp(1.96 * .03 / .09) = 1.922."""
    found = estimate(0.9, scatter(0.03**2), MANY, AREA)
    low, high = 9 / 1.922, 9 * 1.922
    assert found.interval == pytest.approx((low / (1 + low), high / (1 + high)), abs=1e-4)


def test_few_women_widen_a_difference_by_students_t():
    found = estimate(0.0, scatter(0.01**2, 5), MANY, DIFFERENCE)
    assert found.high == pytest.approx(t.ppf(0.975, 5) * 0.01)
    assert found.low == pytest.approx(-found.high)


def test_women_and_trainings_each_have_their_own_students_t():
    """Howe 1974: 2.0003 * .03 and 2.7764 * .02, squared and added."""
    found = estimate(0.0, scatter(0.03**2, 60, 0.02**2, many=5), MANY, DIFFERENCE)
    assert found.high == pytest.approx(((t.ppf(0.975, 60) * 0.03) ** 2 + (t.ppf(0.975, 4) * 0.02) ** 2) ** 0.5)


@pytest.mark.parametrize(("many", "printed"), [(1, True), (2, False), (4, False), (5, True)])
@pytest.mark.parametrize(("value", "scale"), [(0.01, DIFFERENCE), (0.8, AREA), (0.8, SHARE)])
def test_two_to_four_trainings_have_no_interval(many, printed, value, scale):
    found = estimate(value, scatter(0.01**2, 60, 0.01**2 * (many > 1), many), MANY, scale)
    assert (found.interval is not None, found.why) == (printed, "" if printed else TOO_FEW_TRAININGS)


def test_of_few_trainings_a_difference_has_a_verdict_without_an_interval():
    """A difference of ten standard errors of the women; three trainings that differ by .02 or by .05."""
    for of_seeds, said, why in ((0.02, "better", ""), (0.05, "not shown", "with fewer than 5 trainings")):
        own = scatter(0.01**2, 60, of_seeds**2 / 3, many=3)
        found = estimate(0.1, own, MANY, DIFFERENCE)
        p = p_value(found, own)
        assert found == Estimate.alone(0.1, TOO_FEW_TRAININGS)
        assert p is not None
        assert verdict(found, p) == said
        assert why_not_shown(found, p).startswith(why)
        assert detectable(found, own, 12) is None
        assert p_apart(found, own, 0.2) is not None


@pytest.mark.parametrize(("images", "why"), [(39, TOO_FEW_IMAGES), (40, "")])
def test_a_share_of_fewer_than_forty_images_has_no_interval(images, why):
    own = dataclasses.replace(scatter(0.05**2), votes=float(images))
    assert estimate(0.8, own, MANY, SHARE).why == why


def test_three_seeds_need_students_t_with_two_degrees_of_freedom():
    """Differences of +.01, +.02 and +.06, and women who hardly matter: p = .188, not .0002."""
    seeds = np.array([0.01, 0.02, 0.06])
    found = scatter(1e-12, 60, float(np.var(seeds, ddof=1)) / 3, many=3)
    assert p_value(estimate(0.03, found, MANY, DIFFERENCE), found) == pytest.approx(
        ttest_1samp(seeds, 0).pvalue, abs=1e-6
    )


@pytest.mark.parametrize("tested", [(1, 1), (1, 3), (2, 10), (8, 8), (19, 500), (500, 19), (0, 0)])
def test_fewer_than_twenty_women_of_a_class_decide_nothing(tested):
    found = estimate(0.25, scatter(1e-6), Women.of_one_part(*tested), DIFFERENCE)
    assert found == Estimate.alone(0.25, TOO_FEW_WOMEN)
    assert (verdict(found, 0.0), why_not_shown(found, 0.0)) == ("not shown", "fewer than 20 test women of a class")
    assert p_value(found, scatter(1e-6)) is None
    assert detectable(found, scatter(1e-6), 1) is None
    assert p_apart(found, scatter(1e-6), 0.5) is None
    assert WOMEN_MIN == 20


def test_fewer_than_five_women_of_a_class_in_a_fold_decide_nothing():
    assert estimate(0.25, scatter(1e-6), Women(40, 40, 4), DIFFERENCE) == Estimate.alone(0.25, TOO_FEW_IN_FOLD)
    assert estimate(0.25, scatter(1e-6), Women(40, 40, 5), DIFFERENCE).interval is not None
    assert FOLD_WOMEN_MIN == 5


def test_where_all_women_are_alike_there_is_no_interval():
    found = estimate(0.25, scatter(0.0), MANY, DIFFERENCE)
    assert found == Estimate.alone(0.25, WOMEN_ALIKE)
    assert verdict(found, 0.0) == "not shown"


@pytest.mark.parametrize(
    ("value", "scale"), [(0.0, SHARE), (1.0, SHARE), (1.0, AREA), (0.0, AREA), (1.0, DIFFERENCE), (-1.0, DIFFERENCE)]
)
def test_at_the_end_of_a_scale_there_is_no_interval(value, scale):
    assert estimate(value, scatter(0.01), MANY, scale) == Estimate.alone(value, AT_THE_END)


@pytest.mark.parametrize(
    ("value", "corrected", "said", "why"),
    [
        (0.1, 0.04, "better", ""),
        (-0.1, 0.04, "worse", ""),
        (0.1, 0.051, "not shown", CORRECTED),
        (0.01, 0.4, "not shown", HOLDS_ZERO),
    ],
)
def test_a_verdict_needs_a_small_corrected_p(value, corrected, said, why):
    found = Estimate(value, value - 0.05, value + 0.05)
    assert (verdict(found, corrected), why_not_shown(found, corrected)) == (said, why)


@given(st.floats(-0.6, 0.6), st.floats(1e-3, 0.1), st.floats(1, 200), st.floats(0, 0.1), st.sampled_from([1, 5, 9]))
def test_the_p_value_agrees_with_the_interval(value, deviation, freedom, of_seeds, many):
    own = scatter(deviation**2, freedom, of_seeds**2 * (many > 1), many)
    found = estimate(value, own, MANY, DIFFERENCE)
    p = p_value(found, own)
    assert p is not None
    if abs(p - (1 - LEVEL)) > 1e-9:
        assert (p < 1 - LEVEL) == (not found.low <= 0 <= found.high)


def test_closeness_is_two_one_sided_tests():
    """.01 beside a margin of .05, standard error .02: p of .04 / .02 = 2; outside the margin it is 1."""
    own = scatter(0.02**2)
    assert p_apart(estimate(0.01, own, MANY, DIFFERENCE), own, 0.05) == pytest.approx(0.0455, abs=5e-5)
    assert p_apart(estimate(-0.06, own, MANY, DIFFERENCE), own, 0.05) == 1.0


@given(st.floats(0.001, 0.999), st.floats(1e-4, 0.5), st.floats(1, 200), st.sampled_from([SHARE, AREA]))
def test_an_interval_lies_on_its_scale_and_holds_its_number(value, deviation, freedom, scale):
    found = estimate(value, scatter(deviation**2, freedom), Women.of_one_part(20, 60), scale)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < value < found.high <= 1


def test_an_estimate_survives_json():
    for found in (Estimate(0.5, 0.4, 0.6), Estimate.alone(0.5, WOMEN_ALIKE)):
        assert from_json(Estimate, json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))) == found


@pytest.mark.parametrize(
    "parts",
    [
        (0.5, None, 0.6, ""),
        (0.5, None, None, ""),
        (0.5, 0.4, 0.6, WOMEN_ALIKE),
        (0.5, 0.4, None, WOMEN_ALIKE),
        (0.25, 0.25, 0.25, ""),
    ],
)
def test_half_an_interval_or_one_without_width_or_reason_is_impossible(parts):
    with pytest.raises(ValueError, match="interval"):
        Estimate(*parts)


@pytest.mark.parametrize("comparisons", [1, 12])
def test_the_detectable_difference_is_found_four_times_in_five(comparisons):
    """Differences of that size, 5,000 times over, judged at Holm's first step: p times the number of comparisons."""
    own = scatter(0.02**2)
    size = detectable(Estimate(0.0, -0.1, 0.1), own, comparisons)
    assert size is not None
    drawn = size + 0.02 * np.random.default_rng(0).normal(size=5_000)
    many = scatter(np.full(5_000, 0.02**2), np.full(5_000, 1e9), np.zeros(5_000))
    assert np.mean(many.p(drawn) * comparisons < 1 - LEVEL) == pytest.approx(0.8, abs=0.02)
