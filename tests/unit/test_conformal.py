"""The indeterminate zone: it is the definition's, it keeps its promise, and it says what it lacks."""

from __future__ import annotations

import numpy as np
import pytest

from fedcervix.errors import DataError
from site_agent.classifier.conformal import calibrate, judge
from site_agent.classifier.zone import Zone, women_min


def drawn(rng: np.random.Generator, cases: int, controls: int, images: int = 1, gap: float = 1.0):
    """Labels, scores and women; the scores of a woman's images are alike, and now and then equal to another's."""
    labels = np.repeat(np.arange(cases + controls) < cases, images)
    level = np.repeat(rng.normal(size=cases + controls), images) + 0.3 * rng.normal(size=len(labels))
    women = np.repeat([f"w{k}" for k in range(cases + controls)], images)
    return labels.astype(int), np.round(1 / (1 + np.exp(-(level + gap * labels))), 2), women.tolist()


def by_definition(labels, scores, women, error: float, asked: float) -> str:
    """The p value of each class, counted woman by woman (Vovk 2012); case is strange where low, control where high."""
    highest, case = {}, {}
    for label, score, woman in zip(labels, scores, women, strict=True):
        highest[woman] = max(score, highest.get(woman, 0.0))
        case[woman] = bool(label) or case.get(woman, False)
    possible = []
    for kind in (True, False):
        own = [highest[woman] for woman in highest if case[woman] == kind]
        as_strange = sum(score <= asked if kind else score >= asked for score in own)
        if (as_strange + 1) / (len(own) + 1) > error + 1e-12:
            possible.append("case" if kind else "control")
    return possible[0] if len(possible) == 1 else "indeterminate"


@pytest.mark.parametrize("error", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize(("cases", "controls"), [(2, 30), (9, 9), (19, 40), (29, 3), (4, 4), (0, 12)])
def test_a_call_is_what_the_definition_says(cases, controls, error):
    rng = np.random.default_rng(cases)
    for gap in (0.0, 1.0, 4.0):
        given = drawn(rng, cases, controls, images=2, gap=gap)
        zone = calibrate(*given, error)
        for asked in np.unique(np.concatenate([given[1], [0.0, 0.005, 0.5, 1.0]])):
            assert zone.call(asked) == by_definition(*given, error, asked)


@pytest.mark.parametrize(("cases", "controls", "error"), [(20, 60, 0.1), (12, 12, 0.2), (9, 100, 0.1)])
def test_of_new_women_of_either_class_no_more_than_permitted_are_called_wrongly(cases, controls, error):
    """500 calibrations with 20 new women of each class: the standard error of a share is about .005."""
    rng = np.random.default_rng(1)
    wrong = {"case": [], "control": []}
    for _ in range(500):
        labels = np.arange(cases + controls) < cases
        zone = calibrate(
            labels, rng.normal(size=len(labels)) + 1.0 * labels, [str(k) for k in range(len(labels))], error
        )
        wrong["case"].append(np.mean([zone.call(score) == "control" for score in rng.normal(size=20) + 1.0]))
        wrong["control"].append(np.mean([zone.call(score) == "case" for score in rng.normal(size=20)]))
    for shares in wrong.values():
        assert np.mean(shares) <= error + 3 * np.std(shares) / len(shares) ** 0.5
        assert np.mean(shares) > error / 3, "and not by calling nobody"


def test_with_two_cases_nobody_is_called_control_and_it_says_so():
    zone = calibrate(*drawn(np.random.default_rng(0), 2, 30), 0.1)
    assert zone.clear_below is None
    assert {zone.call(score) for score in np.linspace(0, 1, 50)} <= {"case", "indeterminate"}
    assert zone.lacking == (
        "Nobody is called control: with an error of 0.1, each class needs 9 validation women, and there are 2 cases."
    )


def test_with_enough_women_of_either_class_nothing_is_lacking():
    assert calibrate(*drawn(np.random.default_rng(0), 9, 9), 0.1).lacking == ""
    short = calibrate(*drawn(np.random.default_rng(0), 8, 1), 0.1)
    assert short.lacking.startswith("Nobody is called control or case")
    assert short.lacking.endswith("8 cases and 1 control.")


@pytest.mark.parametrize(("error", "least"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3), (0.15, 6), (0.01, 99)])
def test_the_least_number_of_women_is_the_first_with_which_a_class_can_be_given_up(error, least):
    assert women_min(error) == least
    given = np.linspace(0.2, 0.8, least)
    women = [str(k) for k in range(least)]
    assert calibrate(np.ones(least), given, women, error).clear_below is not None
    assert calibrate(np.ones(least - 1), given[1:], women[1:], error).clear_below is None


def test_a_judgement_counts_women_not_images():
    zone = Zone(error=0.1, clear_below=0.3, case_above=0.6, case_women=20, control_women=20)
    labels = [1, 0, 0, 0, 1, 0, 0]
    scores = [0.1, 0.9, 0.2, 0.7, 0.2, 0.5, 0.1]
    women = ["a", "a", "b", "c", "d", "e", "b"]
    found = judge(zone, labels, scores, women)
    assert found.women == 5
    assert found.calls == {
        "case": {"case": 1, "control": 1, "indeterminate": 0},
        "control": {"case": 1, "control": 1, "indeterminate": 1},
    }
    assert (found.indeterminate.value, found.wrong.value) == (1 / 5, 2 / 4)
    assert (found.missed.value, found.false_alarms.value) == (1 / 2, 1 / 3)
    assert found.wrong.why, "five women decide nothing"


def test_a_judgement_of_many_women_has_intervals():
    rng = np.random.default_rng(3)
    found = judge(calibrate(*drawn(rng, 60, 60), 0.1), *drawn(rng, 60, 60, images=3))
    for share in (found.indeterminate, found.wrong, found.missed, found.false_alarms):
        assert share.low is not None
        assert share.low < share.value < share.high


def test_a_judgement_without_cases_is_refused():
    zone = Zone(error=0.1, clear_below=0.3, case_above=0.6, case_women=20, control_women=20)
    with pytest.raises(DataError, match="all of one class"):
        judge(zone, [0, 0], [0.1, 0.2], ["a", "b"])
