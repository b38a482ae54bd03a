"""Intervals hold the truth as often as they say, by simulation; and of nothing, nothing is shown.

A few hundred crowds each, seeded. `benchmarks/coverage.py` has the whole grid.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import Crowd, coverage, crowds, false_verdicts, held, power, rate_coverage, start
from site_agent.classifier.by_woman import Part, Scored, measure, roster
from site_agent.classifier.intervals import AREA

SIMS = 500
"""Of so many the standard error of 95 % is 1 %."""


@pytest.mark.parametrize(
    "crowd",
    [Crowd(20, 60, 0.75, 0.5), Crowd(20, 60, 0.9, 0.9), Crowd(60, 120, 0.75, 0.5, folds=10)],
    ids=["women", "good classifiers", "folds"],
)
def test_intervals_hold_the_truth(crowd: Crowd) -> None:
    found = coverage(crowd, SIMS, seed=1)
    assert crowd.printed()
    assert 0.93 <= found.area <= 0.97
    assert 0.93 <= found.difference <= 0.98


@pytest.mark.parametrize(
    "crowd",
    [Crowd(20, 20, 0.9, 0.0, images=1), Crowd(25, 25, 0.6, 0.0, folds=5, images=1, common=0.9)],
    ids=["good classifiers", "folds of five"],
)
def test_the_interval_of_a_difference_is_no_wider_than_it_says(crowd: Crowd) -> None:
    """With DeLong's variance, and differences that three women decide, it was 98.3 and 97.8 % of these crowds."""
    found = coverage(crowd, 1000, seed=1)
    assert crowd.printed()
    assert 0.93 <= found.difference <= 0.975


def test_of_two_nearly_perfect_classifiers_no_difference_is_printed_if_few_women_decide_it() -> None:
    assert coverage(Crowd(20, 20, 0.98, 0.0, images=1), 200, seed=1).printed < 0.4


@pytest.mark.parametrize("apart", [0.0, 0.05])
def test_intervals_of_several_trainings_hold_the_truth(apart: float) -> None:
    """Five seeds that are equally good but for noise, and five that are not."""
    crowd = Crowd(20, 60, 0.75, 0.5, seeds=5, apart=apart)
    found = coverage(crowd, SIMS, seed=1)
    assert crowd.printed()
    assert 0.93 <= found.area <= 0.98
    assert 0.93 <= found.difference <= 0.98


def test_of_few_trainings_no_interval_is_printed_but_there_is_a_verdict() -> None:
    crowds_ = [Crowd(20, 60, 0.75, 0.5, seeds=seeds) for seeds in (2, 3, 4)]
    assert [(crowd.printed(), crowd.decided()) for crowd in crowds_] == [(False, True)] * 3


def test_intervals_of_rates_hold_the_truth() -> None:
    for name, found in rate_coverage(Crowd(20, 60, 0.75, 0.5), 0.7, SIMS, seed=1).items():
        assert 0.93 <= found.area <= 0.98, name


@pytest.mark.parametrize("women", [(4, 8), (8, 8), (8, 20), (19, 60)])
def test_of_few_women_nothing_is_printed(women: tuple[int, int]) -> None:
    assert not Crowd(*women, 0.75, 0.5).printed()
    assert not Crowd(20, 60, 0.75, 0.5, folds=5).printed()


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_starts_are_rarely_called_different(seeds: int) -> None:
    """Six comparisons: one false verdict or more in 5 % of such pages at most."""
    assert false_verdicts(Crowd(20, 60, 0.75, 0.5, seeds), 6, 250, seed=1) <= 0.06


def test_the_detectable_difference_is_found_in_four_of_five_studies() -> None:
    assert 0.75 <= power(Crowd(20, 60, 0.75, 0.5), 5, 200, seed=1).found <= 0.88


def test_the_simulation_does_what_a_report_does() -> None:
    """One simulated crowd of two folds and five seeds, put through the functions of the reports."""
    crowd = Crowd(20, 22, 0.75, 0.5, seeds=5, folds=2)
    [found] = crowds(crowd, [0.75], 1, seed=0)
    rng = np.random.default_rng(7)
    scores = crowd.scores(rng, [0.75], 1)
    found = start(crowd.areas(scores), 0)
    names = [f"{place // 2:04d}" for place in range(84)]
    fold = np.array([place // 2 % 2 if place < 40 else (place // 2 - 20) % 2 for place in range(84)])
    trials = {
        Part(seed, 0, part): Scored.of(
            crowd.labels[fold == part], scores[0, 0, seed, fold == part], np.array(names)[fold == part].tolist()
        )
        for seed in range(5)
        for part in range(2)
    }
    women = roster([trials])
    assert (women.seeds, set(women.strata)) == (crowd.roster().seeds, set(crowd.roster().strata))
    expected = measure(trials, women)["auc"]
    np.testing.assert_allclose(found.values[0], expected.values)
    np.testing.assert_allclose(found.shares[0], expected.shares, atol=1e-15)
    low, high = expected.estimate(women, AREA).interval or (0.0, 0.0)
    inside = [held(found, women, AREA, truth)[0] for truth in (low - 1e-6, low + 1e-6)]
    assert (inside, high > low) == ([False, True], True)
