"""Variances and intervals against published formulas, written out here by loops, or known by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import t

from site_agent.classifier.by_woman import Measured, Part, Roster, Scored, Trials, measure, roster, variance_of
from site_agent.classifier.intervals import (
    AREA,
    DIFFERENCE,
    SHARE,
    TOO_FEW_MOVERS,
    Scatter,
    Women,
    detectable,
    estimate,
    p_value,
    why_not_shown,
)

MANY = Women.of_one_part(1000, 1000)


def drawn(seed: int, cases: int, controls: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (n,) and the scores of two starts (2, n), rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([True, False], [cases, controls])[rng.permutation(cases + controls)]
    return labels, np.round(rng.normal(size=(2, cases + controls)) + labels, 1)


def kernel(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return (cases, controls): 1 where the case is higher, 1/2 where they are equal."""
    return np.array([[float(x > y) + (x == y) / 2 for y in scores[~labels]] for x in scores[labels]])


def by_distinct_pairs(pairs: np.ndarray) -> float:
    """The unbiased variance of the mean of pairs (m, n): its square, less the mean product of pairs that share nobody.

    Sen 1960; Bamber 1975, appendix. The mean product is an unbiased estimate of the squared AUC.
    """
    cases, controls = map(range, pairs.shape)
    products = [
        pairs[i, j] * pairs[k, h]
        for (i, k), (j, h) in itertools.product(itertools.permutations(cases, 2), itertools.permutations(controls, 2))
    ]
    return float(pairs.mean() ** 2 - np.mean(products))


def trials_of(labels: np.ndarray, scores: np.ndarray) -> Trials:
    return {Part(0): Scored.of(labels, scores, [f"{place:03d}" for place in range(len(labels))])}


def measured(labels: np.ndarray, scores: np.ndarray) -> tuple[list[Measured], Roster]:
    starts = [trials_of(labels, row) for row in scores]
    women = roster(starts)
    return [measure(trials, women)["auc"] for trials in starts], women


@pytest.mark.parametrize("seed", range(4))
def test_the_variance_of_an_auc_and_of_a_difference_is_unbiased(seed: int) -> None:
    labels, scores = drawn(seed, 6, 8)
    (one, two), women = measured(labels, scores)
    pairs = [kernel(labels, row) for row in scores]
    assert float(one.scatter(women).women) == pytest.approx(by_distinct_pairs(pairs[0]), abs=1e-7)
    assert float((one - two).scatter(women).women) == pytest.approx(by_distinct_pairs(pairs[0] - pairs[1]), abs=1e-7)


def test_an_unbiased_variance_a_reader_can_check() -> None:
    """Cases .9 .5, controls .6 .1: AUC 3/4. Pairs that share nobody: 1 x 1 and 1 x 0; 9/16 - 1/2 = 1/16."""
    (one,), women = measured(np.array([True, True, False, False]), np.array([[0.9, 0.5, 0.6, 0.1]]))
    assert one.value == 0.75
    assert float(one.scatter(women).women) == pytest.approx(1 / 16)


def test_in_folds_of_five_women_delongs_variance_is_too_large_and_ours_is_not() -> None:
    """Chance scores of 25 + 25 women in five folds: the AUC's true variance is (5 + 5 + 1) / (12 x 5 x 5) / 5."""
    rng = np.random.default_rng(0)
    labels, delong, ours = np.repeat([True, False], 5), [], []
    for _ in range(150):
        trials = {
            Part(0, 0, fold): Scored.of(labels, rng.normal(size=10), [f"{fold}-{place}" for place in range(10)])
            for fold in range(5)
        }
        women = roster([trials])
        found = measure(trials, women)["auc"]
        delong.append(float(variance_of(found.shares[0], women).variance))
        ours.append(float(found.scatter(women).women))
    true = 11 / 300 / 5
    assert np.mean(ours) == pytest.approx(true, rel=0.05)
    assert np.mean(delong) == pytest.approx(true * 12.5 / 11, rel=0.05)


def test_the_same_pictures_twice_make_no_difference_to_the_unbiased_variance() -> None:
    labels, scores = drawn(3, 12, 15)
    names = [f"{place:03d}" for place in range(len(labels))]
    found = []
    for times in (1, 2):
        trials = {Part(0): Scored.of(np.tile(labels, times), np.tile(scores[0], times), names * times)}
        women = roster([trials])
        found.append(float(measure(trials, women)["auc"].scatter(women).women))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_an_auc_that_few_women_move_has_few_degrees_of_freedom() -> None:
    """AUC .9, standard error .03, eight women move it: 16 degrees, odds of 9 times exp(+-2.120 x .03 / .09)."""
    own = Scatter(np.asarray(0.03**2), np.asarray(38.0), np.asarray(0.0), 0, movers=8.0)
    odds = 9 * np.exp(np.array([-1, 1]) * t.ppf(0.975, 16) * 0.03 / 0.09)
    assert estimate(0.9, own, MANY, AREA).interval == pytest.approx(tuple(odds / (1 + odds)), abs=1e-12)
    difference = estimate(0.1, own, MANY, DIFFERENCE)
    assert difference.high == pytest.approx(0.1 + t.ppf(0.975, 38) * 0.03)


@pytest.mark.parametrize(("movers", "why"), [(4.99, TOO_FEW_MOVERS), (5.0, "")])
def test_a_difference_that_fewer_than_five_women_decide_is_not_tested(movers: float, why: str) -> None:
    """Of four women alike, all for one start: p is 2 / 16. An AUC and a share of so few are still numbers."""
    own = Scatter(np.asarray(0.01**2), np.asarray(38.0), np.asarray(0.0), 0, movers=movers)
    found = estimate(0.1, own, MANY, DIFFERENCE)
    assert (found.why, why_not_shown(found, 1.0 if why else 0.0)) == (why, why)
    assert [one is None for one in (p_value(found, own), detectable(found, own, 1))] == [bool(why)] * 2
    assert {estimate(0.9, own, MANY, scale).why for scale in (AREA, SHARE)} == {""}


def test_how_many_women_decide_a_difference() -> None:
    """Three of twenty cases are found by one start only, all controls called alike: three women decide, about."""
    calls = np.where(np.arange(50) < 20, 0.9, 0.1)
    other = np.where(np.arange(50) < 3, 0.1, calls)
    women = [f"{place:02d}" for place in range(50)]
    labels = np.arange(50) < 20
    starts = [{Part(0): Scored.of(labels, one, women)} for one in (calls, other)]
    tested = roster(starts)
    gain = measure(starts[0], tested)["recall"] - measure(starts[1], tested)["recall"]
    assert float(gain.scatter(tested).movers) == pytest.approx(0.1275**2 * 20 / (0.15 * 0.85**4 + 0.85 * 0.15**4))
    assert gain.estimate(tested, DIFFERENCE).why == TOO_FEW_MOVERS
