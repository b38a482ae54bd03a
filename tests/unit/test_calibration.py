"""Brier score, its parts, ECE and the reliability diagram, on numbers a reader can add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from cervix_study.evidence.calibration import BINS, Calibration, bin_of, calibration
from site_agent.classifier.by_woman import Part, Scored, roster
from site_agent.classifier.intervals import TOO_FEW_WOMEN


def measured(scored: Scored) -> Calibration:
    return calibration({Part(1, 0, 0): scored}, roster([{Part(1, 0, 0): scored}]))


def each_her_own(labels, scores) -> Scored:
    return Scored.of(labels, scores, [f"{place:04d}" for place in range(len(labels))])


def test_ten_images_by_hand():
    """Five say .2, one of them a case; five say .9, four of them cases.

    Brier (4 * .04 + .64 + 4 * .01 + .81) / 10 = .165; ECE (5 * |.2 - .2| + 5 * |.9 - .8|) / 10 = .05;
    reliability (0 + 5 * .01) / 10 = .005; share of cases .5; resolution .3^2 = .09; uncertainty .25.
    """
    found = measured(each_her_own([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], [0.2] * 5 + [0.9] * 5))
    assert found.brier.value == pytest.approx(0.165)
    assert found.ece == pytest.approx(0.05)
    assert (found.reliability, found.resolution, found.uncertainty) == pytest.approx((0.005, 0.09, 0.25))
    assert found.within == pytest.approx(0, abs=1e-15)
    assert [(b.images, b.mean_probability, b.share_of_cases.value) for b in found.bins] == [
        (5, pytest.approx(0.2), 0.2),
        (5, pytest.approx(0.9), 0.8),
    ]
    assert [(b.low, b.high) for b in found.bins] == [(0.2, 0.3), (0.9, 1.0)]


def test_a_bins_interval_holds_its_share():
    for found in measured(each_her_own([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], [0.2] * 5 + [0.9] * 5)).bins:
        share = found.share_of_cases
        low, high = share.interval or (share.value, share.value)
        assert low <= share.value <= high


def test_the_edges_of_the_bins():
    assert bin_of(np.array([0.0, 0.0999, 0.1, 0.3, 0.7, 0.9, 1.0])).tolist() == [0, 0, 1, 3, 7, 9, 9]


def test_a_prophet_scores_nothing_and_a_coin_a_quarter():
    assert measured(each_her_own([1, 0, 1, 0], [1.0, 0.0, 1.0, 0.0])).brier.value == 0
    coin = measured(each_her_own([1, 0, 1, 0], [0.5] * 4))
    assert (coin.brier.value, coin.ece, coin.resolution) == (0.25, 0, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_parts_add_up_and_the_whole_is_scikit_learns(images):
    """What bins leave over is Stephenson's: variance within the bins minus twice the covariance within them."""
    labels = np.array([True, False, *[label for label, _ in images]])
    scores = np.array([0.6, 0.4, *[score for _, score in images]])
    found = measured(each_her_own(labels, scores))
    assert found.brier.value == pytest.approx(brier_score_loss(labels, scores, pos_label=True))
    row = bin_of(scores)
    within = 0.0
    for number in range(BINS):
        p, y = scores[row == number], labels[row == number].astype(float)
        if len(p):
            within += np.sum((p - p.mean()) ** 2) - 2 * np.sum((y - y.mean()) * (p - p.mean()))
    assert found.within == pytest.approx(within / len(scores), abs=1e-12)
    assert found.brier.value == pytest.approx(found.reliability - found.resolution + found.uncertainty + found.within)


def test_the_images_of_all_seeds_are_taken_together():
    one, two = each_her_own([1, 0], [0.9, 0.1]), each_her_own([1, 0], [0.6, 0.4])
    trials = {Part(1, 0, 0): one, Part(2, 0, 0): two}
    found = calibration(trials, roster([trials]))
    assert found.images == 4
    assert found.brier.value == pytest.approx((0.01 + 0.01 + 0.16 + 0.16) / 4)


def test_the_interval_is_by_woman():
    """Two equal images of every woman give the interval of one."""
    rng = np.random.default_rng(0)
    labels, scores = np.arange(80) % 2 == 0, rng.uniform(size=80)
    once = measured(each_her_own(labels, scores)).brier
    women = [f"{place // 2:04d}" for place in range(160)]
    twice = measured(Scored.of(np.repeat(labels, 2), np.repeat(scores, 2), women)).brier
    assert once.low is not None
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_the_ece_of_a_calibrated_classifier_is_what_chance_gives():
    """300 times 100 women whose probabilities are right: above 0, and about as far above as is printed beside it."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        scores = rng.uniform(size=100)
        found.append(measured(each_her_own(rng.uniform(size=100) < scores, scores)))
    assert np.mean([one.ece for one in found]) > 0.08
    assert np.mean([one.ece for one in found]) == pytest.approx(np.mean([one.ece_by_chance for one in found]), rel=0.05)


def test_chance_counts_women_not_images():
    """Two equal images of every woman: the same ECE, and the same by chance."""
    labels, scores = [1, 0] * 30, np.linspace(0.05, 0.95, 60)
    once = measured(each_her_own(labels, scores))
    women = [f"{place // 2:04d}" for place in range(120)]
    twice = measured(Scored.of(np.repeat(labels, 2), np.repeat(scores, 2), women))
    assert (twice.ece, twice.ece_by_chance) == pytest.approx((once.ece, once.ece_by_chance))


def test_with_few_women_the_brier_score_has_no_interval():
    assert measured(each_her_own([1, 0] * 8, np.linspace(0, 1, 16))).brier.why == TOO_FEW_WOMEN
