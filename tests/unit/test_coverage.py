"""Intervals hold the truth as often as they say, by simulation; and of nothing, nothing is shown.

A few hundred crowds each, seeded. `benchmarks/coverage.py` has the whole grid.
"""

from __future__ import annotations

import pytest

from benchmarks.coverage import Crowd, false_verdicts, measure

SIMS = 300
DRAWS = 300


@pytest.mark.parametrize(
    "crowd",
    [
        Crowd(8, 8, images_max=4, alike=0.6, auc=0.75, recall=0.7),
        Crowd(8, 20, images_max=4, alike=0.6, auc=0.85, recall=0.8),
        Crowd(20, 60, images_max=4, alike=0.6, auc=0.75, recall=0.7),
        Crowd(20, 60, images_max=4, alike=0.6, auc=0.75, recall=0.7, folds=10),
    ],
    ids=str,
)
def test_intervals_hold_the_truth(crowd: Crowd) -> None:
    """Nominal 95 %. Of 300 crowds the standard error is 1.3 %: 91 % and 99 % are three of them away."""
    for name, tally in measure(crowd, SIMS, draws=DRAWS, seed=1).items():
        assert 0.91 <= tally.coverage <= 0.99, (name, tally.coverage)
        assert tally.none <= 0.1 * SIMS, name


def test_intervals_of_several_trainings_hold_the_truth() -> None:
    """Three seeds that are not equally good. Such intervals are too wide rather than too narrow."""
    crowd = Crowd(20, 60, images_max=2, alike=0.6, auc=0.75, recall=0.7, seeds=3, apart=0.3)
    for name, tally in measure(crowd, 100, draws=DRAWS, seed=1).items():
        assert tally.coverage >= 0.9, (name, tally.coverage)


@pytest.mark.parametrize("women", [(1, 1), (1, 3), (2, 10), (7, 60)])
def test_few_women_never_show_a_difference(women: tuple[int, int]) -> None:
    assert false_verdicts(*women, 100, draws=50, seed=1) == 0


@pytest.mark.parametrize(("cases", "controls", "folds"), [(10, 10, 10), (10, 40, 10), (8, 40, 5), (15, 60, 10)])
def test_a_fold_with_one_woman_of_a_class_shows_no_difference(cases: int, controls: int, folds: int) -> None:
    """She is in every draw and adds no variance: of nothing, a difference was shown in up to 24 of 100 crowds."""
    assert false_verdicts(cases, controls, 50, draws=50, seed=1, folds=folds) == 0


@pytest.mark.parametrize(("cases", "controls", "folds"), [(10, 40, 5), (20, 60, 10)])
def test_folds_with_two_women_of_each_class_show_a_difference_five_times_in_a_hundred(
    cases: int, controls: int, folds: int
) -> None:
    assert false_verdicts(cases, controls, 400, draws=DRAWS, seed=1, folds=folds) <= 0.08


def test_of_eight_women_five_in_a_hundred_show_one_at_most() -> None:
    """Of 400 the standard error is 1.1 %."""
    assert false_verdicts(8, 8, 400, draws=DRAWS, seed=1) <= 0.08
