"""DeLong's covariance against the U-statistic written out, against jackknife, and against other programs' numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cervix_study.evidence.delong import Contrast, clustered, contrast, delong, mean_of_folds, placements
from fedcervix.errors import DataError
from site_agent.classifier.resampling import Part, Scored, draw, roster, sample
from site_agent.metrics import auc


def psi(case: float, control: float) -> float:
    return 1.0 if case > control else 0.5 if case == control else 0.0


def written_out(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong et al. 1988, equations 3 to 6, by loops over every pair of images."""
    cases, controls = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n, k = len(cases), len(controls), len(scores)
    v10 = np.array([[sum(psi(row[i], row[j]) for j in controls) / n for i in cases] for row in scores])
    v01 = np.array([[sum(psi(row[i], row[j]) for i in cases) / m for j in controls] for row in scores])
    theta = v10.mean(axis=1)
    s10, s01 = np.zeros((k, k)), np.zeros((k, k))
    for r, s in itertools.product(range(k), repeat=2):
        s10[r, s] = sum((v10[r, i] - theta[r]) * (v10[s, i] - theta[s]) for i in range(m)) / (m - 1)
        s01[r, s] = sum((v01[r, j] - theta[r]) * (v01[s, j] - theta[s]) for j in range(n)) / (n - 1)
    return theta, s10 / m + s01 / n


def some(seed: int, cases: int = 9, controls: int = 13, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [cases, controls])[rng.permutation(cases + controls)]
    return labels, np.round(rng.normal(size=(k, cases + controls)) + labels, 1)  # rounded: there are ties


@pytest.mark.parametrize("seed", range(4))
def test_ranks_give_what_all_pairs_give(seed):
    labels, scores = some(seed)
    theta, covariance = written_out(labels, scores)
    found = delong(labels, scores)
    np.testing.assert_allclose(found.aucs, theta, atol=1e-14)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-14)
    np.testing.assert_allclose(found.aucs, [auc(labels, row) for row in scores], atol=1e-14)


def test_a_variance_a_reader_can_check():
    """Cases .9 .5, controls .6 .1: V10 = (1, 1/2), V01 = (1/2, 1), AUC 3/4; variance 1/8 / 2 + 1/8 / 2 = 1/8."""
    won, lost = placements([1, 1, 0, 0], [0.9, 0.5, 0.6, 0.1])
    assert (won.tolist(), lost.tolist()) == ([[1.0, 0.5]], [[0.5, 1.0]])
    found = delong([1, 1, 0, 0], [0.9, 0.5, 0.6, 0.1])
    assert found.aucs.tolist() == [0.75]
    assert found.covariance.tolist() == [[0.125]]


OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1   3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0   3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1   3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0   2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
"""Of each patient: albumin, total protein, K-G score (high is bad), whether surgery helped (DeLong et al. 1988)."""


def test_the_papers_own_patients():
    """As SAS reports them (PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves").

    Standard errors .0927, .1000, .1028; albumin and protein against the K-G score jointly: chi-square 2.5340.
    """
    table = np.array(OVARIAN.split(), float).reshape(-1, 4)
    found = delong(table[:, 3], [table[:, 0], table[:, 1], 10 - table[:, 2]])
    assert found.aucs == pytest.approx([0.7366, 0.6478, 0.7258], abs=5e-5)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx([0.0927, 0.1000, 0.1028], abs=5e-5)
    assert contrast(found, [0, 1, -1]).value == pytest.approx(-0.0780, abs=5e-5)
    both = np.array([[1, 0, -1], [0, 1, -1]])
    difference = both @ found.aucs
    joint = difference @ np.linalg.solve(both @ found.covariance @ both.T, difference)
    assert joint == pytest.approx(2.5340, abs=5e-5)


def test_the_variance_is_that_of_the_bootstrap():
    """An independent road to the same number: draw women of one image each, 20,000 times."""
    labels, scores = some(5, cases=40, controls=60, k=2)
    women = [f"{place:03d}" for place in range(100)]
    starts = [{Part(1, 0, 0): Scored.of(labels, row, women)} for row in scores]
    drawn = draw(roster(starts), seed=0, draws=20_000)
    difference = np.subtract(*(sample(start, drawn)["auc"][1:] for start in starts))
    assert contrast(delong(labels, scores), [1, -1]).variance == pytest.approx(np.var(difference), rel=0.06)


def test_women_of_one_image_each_give_the_same_as_images():
    labels, scores = some(2)
    women = [f"{place}" for place in range(len(labels))]
    np.testing.assert_allclose(clustered(labels, scores, women).covariance, delong(labels, scores).covariance)


def test_the_same_image_twice_is_no_second_witness():
    """Images take every copy for news and halve the variance; women do not."""
    labels, scores = some(3, cases=40, controls=60)
    women = [f"{place}" for place in range(100)]
    once = delong(labels, scores).covariance
    twice = [np.tile(labels, 2), np.tile(scores, (1, 2))]
    np.testing.assert_allclose(delong(*twice).covariance, once / 2, rtol=0.02)
    np.testing.assert_allclose(clustered(*twice, women * 2).covariance, once, rtol=1e-12)


def test_the_variance_by_woman_is_that_of_drawing_women():
    """Two or three alike images each: Obuchowski's variance against 20,000 draws of women."""
    rng = np.random.default_rng(9)
    owner = np.repeat(np.arange(120), rng.integers(2, 4, 120))
    labels = (owner % 3 == 0).astype(int)
    skill = rng.normal(size=(2, 120))[:, owner]
    scores = skill + 0.3 * rng.normal(size=skill.shape) + labels
    women = [f"{place:03d}" for place in owner]
    starts = [{Part(1, 0, 0): Scored.of(labels, row, women)} for row in scores]
    drawn = draw(roster(starts), seed=0, draws=20_000)
    difference = np.subtract(*(sample(start, drawn)["auc"][1:] for start in starts))
    by_woman = contrast(clustered(labels, scores, women), [1, -1]).variance
    assert by_woman == pytest.approx(np.var(difference), rel=0.06)
    assert by_woman > 1.7 * contrast(delong(labels, scores), [1, -1]).variance


def test_a_woman_with_both_classes_has_a_cross_term():
    """Obuchowski 1997, written out for one classifier: S10 / M + S01 / N + 2 S11 / (M N)."""
    labels = np.array([1, 0, 1, 1, 0, 0, 1, 0, 0])
    scores = np.array([0.9, 0.7, 0.4, 0.8, 0.3, 0.5, 0.6, 0.2, 0.65])
    women = list("aabbccdde")
    won, lost = placements(labels, scores)
    theta = won.mean()
    total = {w: [0.0, 0, 0.0, 0] for w in women}
    for place, value in zip(np.flatnonzero(labels == 1), won[0], strict=True):
        total[women[place]][0] += value
        total[women[place]][1] += 1
    for place, value in zip(np.flatnonzero(labels == 0), lost[0], strict=True):
        total[women[place]][2] += value
        total[women[place]][3] += 1
    m, n, everyone = 4, 5, 5
    with_case, with_control = 3, 4  # a, b, d; a, c, d, e
    s10 = with_case / ((with_case - 1) * m) * sum((v - c * theta) ** 2 for v, c, _, _ in total.values())
    s01 = with_control / ((with_control - 1) * n) * sum((v - c * theta) ** 2 for _, _, v, c in total.values())
    s11 = everyone / (everyone - 1) * sum((v - c * theta) * (w - d * theta) for v, c, w, d in total.values())
    expected = s10 / m + s01 / n + 2 * s11 / (m * n)
    assert clustered(labels, scores, women).covariance[0, 0] == pytest.approx(expected, rel=1e-12)


def test_a_difference_has_its_p_value():
    """Difference .1, standard error .05: z = 2, p = .0455."""
    assert Contrast(0.1, 0.0025).p == pytest.approx(0.0455, abs=5e-5)


def test_where_there_is_no_variance_there_is_no_test():
    assert Contrast(0.0, 0.0).p == 1.0
    assert Contrast(0.5, 0.0).p is None


def test_two_starts_of_several_seeds_are_compared_by_their_means():
    labels, scores = some(6, k=4)
    found = contrast(delong(labels, scores), [0.5, 0.5, -0.5, -0.5])
    areas = [auc(labels, row) for row in scores]
    assert found.value == pytest.approx((areas[0] + areas[1] - areas[2] - areas[3]) / 2)


def test_folds_are_independent():
    assert mean_of_folds([Contrast(0.2, 0.04), Contrast(0.0, 0.12)]) == Contrast(0.1, pytest.approx(0.04))


@pytest.mark.parametrize(
    ("labels", "scores"), [([1, 0, 0], [0.1, 0.2, 0.3]), ([1, 1, 0, 0], [0.1, 0.2, 0.3]), ([1, 1], [0.1, 0.2])]
)
def test_what_has_no_variance_to_tell_is_refused(labels, scores):
    with pytest.raises(DataError):
        delong(labels, scores)


def test_a_class_of_one_woman_is_refused():
    with pytest.raises(DataError, match="of one woman"):
        clustered([1, 1, 0, 0], [0.9, 0.5, 0.6, 0.1], ["a", "a", "b", "c"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 12), st.integers(2, 12))
def test_a_covariance_is_one(seed, cases, controls):
    """Symmetric, no negative variance of any contrast; unchanged by any rising transformation of the scores."""
    labels, scores = some(seed, cases, controls)
    found = delong(labels, scores)
    np.testing.assert_allclose(found.covariance, found.covariance.T, atol=1e-15)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-12
    np.testing.assert_allclose(delong(labels, np.exp(3 * scores)).covariance, found.covariance, atol=1e-12)
