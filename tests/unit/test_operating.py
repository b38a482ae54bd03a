"""Thresholds for a wanted share, predictive values and net benefit, beside counting by hand and published rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from site_agent.classifier.by_woman import Measured, Part, Scored, measure, roster
from site_agent.classifier.intervals import AREA
from site_agent.classifier.operating import (
    BENEFIT,
    moved,
    net_benefit,
    predictive_values,
    recall_at_specificity,
    specificity_at_recall,
    threshold_for_recall,
    threshold_for_specificity,
    treat_all,
    unmoved,
)


def women(seed: int, cases: int, controls: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    labels = np.array([1] * cases + [0] * controls)
    return labels, np.round(draws.random(cases + controls) * 0.7 + 0.3 * labels, 2)  # rounded: there are ties


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 1.0])
def test_the_threshold_is_the_last_that_reaches_the_wanted_share(seed, wanted):
    labels, scores = women(seed, 13, 17)
    candidates = sorted({*scores.tolist(), *(scores + 0.005).tolist(), -1.0, 2.0})
    recall = {t: float(np.mean(scores[labels == 1] >= t)) for t in candidates}
    cleared = {t: float(np.mean(scores[labels == 0] < t)) for t in candidates}

    found = threshold_for_recall(labels, scores, wanted)
    assert np.mean(scores[labels == 1] >= found) == min(share for share in recall.values() if share >= wanted)
    assert np.mean(scores[labels == 0] < found) == max(cleared[t] for t in candidates if recall[t] >= wanted)

    found = threshold_for_specificity(labels, scores, wanted)
    assert np.mean(scores[labels == 0] < found) == min(share for share in cleared.values() if share >= wanted)
    assert np.mean(scores[labels == 1] >= found) == max(recall[t] for t in candidates if cleared[t] >= wanted)


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_is_read_where_no_other_threshold_does_better(seed):
    labels, scores = women(seed, 11, 9)
    pairs = [
        (np.mean(scores[labels == 1] >= t), np.mean(scores[labels == 0] < t)) for t in (*scores.tolist(), -1.0, 2.0)
    ]
    assert recall_at_specificity(labels, scores, 0.8) == max(r for r, s in pairs if s >= 0.8)
    assert specificity_at_recall(labels, scores, 0.8) == pytest.approx(max(s for r, s in pairs if r >= 0.8))


def rates(labels: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[Measured, Measured, object]:
    trials = {Part(0): Scored.of(labels, scores, [f"w{n}" for n in range(len(labels))], threshold)}
    tested = roster([trials])
    found = measure(trials, tested)
    return found["recall"], found["specificity"], tested


def test_predictive_values_have_mercaldos_logit_interval():
    """Of 418 cases 240 are called, of 375 controls 87: the example of the paper's authors, at a prevalence of 3 %."""
    labels = np.array([1] * 418 + [0] * 375)
    called = np.array([1.0] * 240 + [0.0] * 178 + [1.0] * 87 + [0.0] * 288)
    recall, specificity, tested = rates(labels, called, 0.5)
    ppv, npv = (one.estimate(tested, AREA) for one in predictive_values(recall, specificity, 0.03))
    sens, spec = 240 / 418, 288 / 375
    assert ppv.value == pytest.approx(0.03 * sens / (0.03 * sens + 0.97 * (1 - spec)))
    assert npv.value == pytest.approx(0.97 * spec / (0.97 * spec + 0.03 * (1 - sens)))
    z = norm.ppf(0.975)
    for found, middle, error in (
        (ppv, 0.03 * sens / (0.97 * (1 - spec)), math.sqrt((1 - sens) / sens / 418 + spec / (1 - spec) / 375)),
        (npv, 0.97 * spec / (0.03 * (1 - sens)), math.sqrt(sens / (1 - sens) / 418 + (1 - spec) / spec / 375)),
    ):
        ends = [1 / (1 + math.exp(-math.log(middle) - side * z * error)) for side in (-1, 1)]
        assert found.interval == pytest.approx(ends, rel=2e-3)  # Student's t and n / (n - 1) in place of z and n


def test_where_nobody_is_called_predictive_values_have_no_interval():
    labels, scores = women(1, 30, 30)
    recall, specificity, tested = rates(labels, scores, 2.0)
    ppv, npv = (one.estimate(tested, AREA) for one in predictive_values(recall, specificity, 0.1))
    assert (ppv.value, ppv.interval) == (0.0, None)
    assert npv.value == pytest.approx(0.9)
    assert npv.interval is None


def test_net_benefit_counts_women():
    """Vickers and Elkin: (true positives - false positives x odds) / women, where the sample has the prevalence."""
    labels, scores = women(3, 40, 60)
    threshold = 0.3
    recall, specificity, tested = rates(labels, scores, threshold)
    found = net_benefit(recall, specificity, 0.4, threshold)
    called = scores >= threshold
    by_hand = (np.sum(called & (labels == 1)) - np.sum(called & (labels == 0)) * 0.3 / 0.7) / 100
    assert found.value == pytest.approx(by_hand)
    everybody = net_benefit(*rates(labels, scores, -1.0)[:2], 0.4, threshold)
    assert everybody.value == pytest.approx(treat_all(0.4, threshold)) == pytest.approx(0.4 - 0.6 * 3 / 7)
    low, high = found.estimate(tested, BENEFIT).interval
    assert low < by_hand < high


def test_the_interval_of_net_benefit_is_that_of_two_independent_shares():
    labels, scores = women(4, 400, 600)
    recall, specificity, tested = rates(labels, scores, 0.5)
    estimate = net_benefit(recall, specificity, 0.1, 0.2).estimate(tested, BENEFIT)
    sens, spec, weight = recall.value, specificity.value, 0.9 * 0.25
    error = math.sqrt(0.01 * sens * (1 - sens) / 400 + weight**2 * spec * (1 - spec) / 600)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=5e-3)


def test_probabilities_move_to_another_share_of_cases_and_back():
    """Bayes: scores of two normal classes, learned at one half and at one tenth."""
    x = np.linspace(-2, 3, 11)
    likely = norm.pdf(x, 1), norm.pdf(x, 0)
    half, tenth = (share * likely[0] / (share * likely[0] + (1 - share) * likely[1]) for share in (0.5, 0.1))
    assert moved(half, 0.5, 0.1) == pytest.approx(tenth)
    assert [unmoved(p, 0.5, 0.1) for p in tenth] == pytest.approx(half.tolist())
