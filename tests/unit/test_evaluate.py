"""Scores on test images, their intervals by woman, and the comparison of two starts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fedcervix.errors import DataError
from fedcervix.runtime.typed_json import from_json
from site_agent.classifier.evaluate import Comparison, Evaluation, compare, evaluate
from site_agent.classifier.intervals import CORRECTED, TOO_FEW_WOMEN, WOMEN_ALIKE, Estimate
from site_agent.metrics import Confusion

LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0])
SCORES = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.4, 0.2, 0.1])
WOMEN = ("a", "a", "b", "b", "c", "c", "d", "d")


def crowd(women: int, gap: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Two images of each woman, every other woman a case; the scores of cases are higher by `gap`."""
    rng = np.random.default_rng(seed)
    patients = tuple(f"P{i // 2}" for i in range(2 * women))
    labels = np.array([(i // 2) % 2 for i in range(2 * women)])
    return labels, rng.normal(size=2 * women) + gap * labels, patients


def test_scores_a_reader_can_check():
    """At .5: 3 of 4 cases found, 1 of 4 controls alarmed. Of 16 pairs case/control 13 are ranked right."""
    found = evaluate("SSL", LABELS, SCORES, WOMEN, threshold_validation=0.35)
    assert (found.images, found.women, found.cases) == (8, 4, 4)
    assert found.fixed.confusion == Confusion(tp=3, fn=1, fp=1, tn=3)
    assert (found.fixed.accuracy.value, found.fixed.recall.value, found.fixed.precision.value) == (0.75, 0.75, 0.75)
    assert found.fixed.f1.value == 0.75
    assert found.auc.value == pytest.approx(13 / 16)


def test_the_threshold_is_the_one_that_was_handed_in():
    """Test labels choose nothing: .35 is used although another threshold scores better here."""
    found = evaluate("SSL", LABELS, SCORES, WOMEN, threshold_validation=0.35)
    assert found.chosen.threshold == 0.35
    assert found.chosen.confusion == Confusion(tp=3, fn=1, fp=2, tn=2)
    assert found.fixed.threshold == 0.5


def test_the_roc_curve_runs_from_corner_to_corner_through_the_point_at_one_half():
    found = evaluate("SSL", LABELS, SCORES, WOMEN, threshold_validation=0.5)
    assert found.roc[0] == (0.0, 0.0)
    assert found.roc[-1] == (1.0, 1.0)
    assert (0.25, 0.75) in found.roc


def test_every_interval_holds_its_value():
    labels, scores, women = crowd(40, 1.0)
    first = evaluate("SSL", labels, scores, women, threshold_validation=0.4)
    for estimate in (first.auc, first.fixed.recall, first.fixed.accuracy, first.chosen.f1, first.chosen.precision):
        assert estimate.low < estimate.value < estimate.high


def test_intervals_are_by_woman_not_by_image():
    """Two equal images of every woman say no more than one: the interval must not shrink by the root of two."""
    labels, scores, women = crowd(60, 1.0)
    once = evaluate("x", labels[::2], scores[::2], women[::2], threshold_validation=0.5)
    twice = evaluate(
        "x",
        np.repeat(labels[::2], 2),
        np.repeat(scores[::2], 2),
        [woman for woman in women[::2] for _ in range(2)],
        threshold_validation=0.5,
    )
    assert twice.auc.low == pytest.approx(once.auc.low, abs=1e-12)
    assert twice.auc.high == pytest.approx(once.auc.high, abs=1e-12)


def test_one_class_alone_is_refused():
    with pytest.raises(DataError, match="both classes"):
        evaluate("x", np.ones(4), SCORES[:4], WOMEN[:4], threshold_validation=0.5)


def difference(labels, one, other, women) -> Estimate:
    [found] = compare("one", labels, {"one": one, "other": other}, women)
    return found.difference


def test_the_difference_of_a_classifier_with_itself_is_exactly_zero():
    labels, scores, women = crowd(40, 0.5)
    assert difference(labels, scores, scores, women) == Estimate.alone(0.0, WOMEN_ALIKE)


def test_the_difference_is_that_of_the_two_aucs_and_changes_sign_with_the_order():
    labels, scores, women = crowd(40, 0.5)
    better = scores + 0.7 * labels
    one = difference(labels, better, scores, women)
    other = difference(labels, scores, better, women)
    direct = [evaluate("x", labels, s, women, threshold_validation=0.5).auc.value for s in (better, scores)]
    assert one.value == pytest.approx(direct[0] - direct[1])
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))


def test_pairing_shows_what_two_separate_intervals_hide():
    """Scores that agree but for a small, steady gain: the two intervals overlap, that of the difference is above 0."""
    labels, scores, women = crowd(60, 1.0)
    better = scores + 0.4 * labels
    a, b = (evaluate("x", labels, s, women, threshold_validation=0.5) for s in (better, scores))
    assert a.auc.low < b.auc.high
    assert difference(labels, better, scores, women).low > 0


def test_classifiers_that_scored_different_images_cannot_be_compared():
    with pytest.raises(DataError, match=r"differ in number: .*7.*8"):
        difference(LABELS, SCORES, SCORES[:7], WOMEN)


def test_the_verdict_follows_from_the_corrected_p_value():
    """An interval without zero is not enough where several comparisons stand side by side."""
    found = Comparison("CSFSSL", "SSL", Estimate(0.1, 0.01, 0.2), corrected=0.06)
    assert (found.verdict, found.why) == ("not shown", CORRECTED)
    assert dataclasses.replace(found, corrected=0.04).verdict == "better"
    assert Comparison("CSFSSL", "SSL", Estimate(-0.1, -0.2, -0.01), corrected=0.04).verdict == "worse"


def test_one_start_is_compared_with_every_other_one():
    labels, scores, women = crowd(40, 0.5)
    found = compare("CSFSSL", labels, {"Random": scores - labels, "SSL": scores, "CSFSSL": scores + labels}, women)
    assert [(one.name, one.versus, one.verdict) for one in found] == [
        ("CSFSSL", "Random", "better"),
        ("CSFSSL", "SSL", "better"),
    ]


def test_comparisons_are_corrected_for_their_number():
    """The same difference, alone and beside eight others that show nothing."""
    labels, scores, women = crowd(60, 1.0)
    better = scores + 0.25 * labels
    rng = np.random.default_rng(3)
    others = {f"other {k}": rng.normal(size=len(labels)) * 0.01 + better for k in range(8)}
    [alone] = compare("one", labels, {"one": better, "two": scores}, women)
    beside = next(
        c for c in compare("one", labels, {"one": better, "two": scores, **others}, women) if c.versus == "two"
    )
    assert beside.difference == alone.difference
    assert beside.corrected == pytest.approx(9 * alone.corrected)


def test_an_evaluation_survives_json():
    found = evaluate("SSL", LABELS, SCORES, WOMEN, threshold_validation=0.35)
    assert from_json(Evaluation, json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_a_comparison_survives_json():
    found = Comparison("CSFSSL", "SSL", Estimate(0.05, -0.01, 0.11))
    assert from_json(Comparison, json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_one_test_woman_of_each_class_shows_nothing_whatever_the_scores():
    """The case that was found in the field: +1.00 (+1.00 to +1.00) was called `helped`."""
    [found] = compare("A", [1, 0], {"A": [0.9, 0.1], "B": [0.1, 0.9]}, ["x", "y"])
    assert (found.difference, found.verdict, found.why) == (
        Estimate.alone(1.0, TOO_FEW_WOMEN),
        "not shown",
        "fewer than 20 test women of a class",
    )
    assert from_json(Comparison, json.loads(json.dumps(dataclasses.asdict(found)))) == found


@pytest.mark.parametrize("change", [{"auc": [1, 2]}, {"fixed": {}}, {"roc": 3}, {"chosen": None}])
def test_a_changed_evaluation_is_refused(change):
    found = evaluate("SSL", LABELS, SCORES, WOMEN, threshold_validation=0.35)
    [key] = change
    with pytest.raises(ValueError, match=f"^Evaluation.{key}"):
        from_json(Evaluation, {**found.to_json(), **change})
