"""Metrics: numbers by hand, and agreement with scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.errors import DataError
from site_agent.metrics import Confusion, auc, best_threshold, roc

# Few distinct scores, so that ties are common.
IMAGES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=30).filter(
    lambda images: {label for label, _ in images} == {0, 1}
)


def arrays(images):
    labels, sixths = map(np.array, zip(*images, strict=True))
    return labels, sixths / 6


def test_rates_by_hand():
    found = Confusion(tp=3, fn=1, fp=2, tn=4)
    assert (found.accuracy, found.recall, found.precision) == (0.7, 0.75, 0.6)
    assert (found.specificity, found.npv) == (pytest.approx(4 / 6), 0.8)
    assert found.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


def test_a_rate_with_nothing_to_divide_by_is_zero():
    empty = Confusion(tp=0, fn=0, fp=0, tn=0)
    assert (empty.accuracy, empty.recall, empty.precision, empty.f1, empty.specificity, empty.npv) == (0,) * 6


def test_counts_are_not_negative():
    with pytest.raises(ValueError, match="fp is 0 or more"):
        Confusion(tp=0, fn=0, fp=-1, tn=0)


def test_a_score_that_equals_the_threshold_is_called_case():
    assert Confusion.at([1, 1, 0, 0], [0.5, 0.4, 0.5, 0.4], 0.5) == Confusion(tp=1, fn=1, fp=1, tn=1)


def test_auc_by_hand():
    # pairs (case, control): .8>.5, .8>.3, .3<.5, .3=.3 -> (1 + 1 + 0 + 1/2) / 4
    assert auc([1, 1, 0, 0], [0.8, 0.3, 0.5, 0.3]) == 0.625
    assert auc([0, 1], [0.1, 0.9]) == 1
    assert auc([0, 1], [0.9, 0.1]) == 0


def test_roc_by_hand():
    false_rate, true_rate, thresholds = roc([1, 1, 0, 0], [0.8, 0.3, 0.5, 0.3])
    np.testing.assert_array_equal(false_rate, [0, 0, 0.5, 1])
    np.testing.assert_array_equal(true_rate, [0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(thresholds, [np.inf, 0.8, 0.5, 0.3])


@given(images=IMAGES, threshold=st.integers(0, 7))
def test_confusion_agrees_with_scikit_learn(images, threshold):
    labels, scores = arrays(images)
    found = Confusion.at(labels, scores, threshold / 6)
    called = (scores >= threshold / 6).astype(int)
    tn, fp, fn, tp = sklearn.metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel()
    assert found == Confusion(tp=tp, fn=fn, fp=fp, tn=tn)
    assert found.accuracy == pytest.approx(sklearn.metrics.accuracy_score(labels, called))
    for rate in ("recall", "precision", "f1"):
        theirs = getattr(sklearn.metrics, f"{rate}_score")(labels, called, zero_division=0)
        assert getattr(found, rate) == pytest.approx(theirs)


@given(images=IMAGES)
def test_auc_and_roc_agree_with_scikit_learn(images):
    labels, scores = arrays(images)
    assert auc(labels, scores) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    for ours, theirs in zip(
        roc(labels, scores), sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.4, 0.9], (0.2 + 0.4) / 2),
        # both gaps find one class in full and half of the other: the one nearer to .5 is taken
        ([0, 1, 0, 1], [0.05, 0.2, 0.3, 0.9], 0.6),
        ([0, 1, 0, 1], [0.1, 0.6, 0.7, 0.9], 0.35),
        # nothing separates: all case, or all control, whichever is nearer
        ([1, 0], [0.2, 0.9], 0.2),
        ([1, 0], [0.2, 0.6], np.nextafter(0.6, 1)),
        ([0, 1], [0.5, np.nextafter(0.5, 1)], np.nextafter(0.5, 1)),
    ],
)
def test_best_threshold_by_hand(labels, scores, expected):
    assert best_threshold(labels, scores) == pytest.approx(expected, abs=1e-15)


def balanced_accuracy(labels, scores, threshold):
    found = Confusion.at(labels, scores, threshold)
    return (found.recall + found.tn / (found.tn + found.fp)) / 2


@given(images=IMAGES)
def test_no_threshold_is_better_than_the_best(images):
    labels, scores = arrays(images)
    best = balanced_accuracy(labels, scores, best_threshold(labels, scores))
    assert best == pytest.approx(max(balanced_accuracy(labels, scores, each / 12) for each in range(14)))


def test_one_class_alone_has_no_auc():
    for score in (auc, roc, best_threshold):
        with pytest.raises(DataError, match="found 2 case and 0 control"):
            score([1, 1], [0.1, 0.2])


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "no images"),
        ([0, 1], [0.5], "do not match"),
        ([[0, 1]], [[0.5, 0.5]], "do not match"),
        ([0, 2], [0.5, 0.5], "neither 0"),
        ([0, 1], [0.5, np.nan], "not a finite"),
    ],
)
def test_images_that_cannot_be_scored_are_refused(labels, scores, message):
    with pytest.raises(DataError, match=message):
        Confusion.at(labels, scores, 0.5)
