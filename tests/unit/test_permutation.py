"""Shuffled women: beside all shuffles there are, and beside the exact test of ranks."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from site_agent.classifier.by_woman import Part, Scored
from site_agent.classifier.permutation import by_chance, is_small
from site_agent.metrics import auc


def test_p_is_that_of_the_exact_test_of_ranks():
    draws = np.random.default_rng(4)
    labels = np.array([1] * 8 + [0] * 10)
    scores = draws.normal(labels * 0.9)
    found = by_chance({Part(0): Scored.of(labels, scores, [str(n) for n in range(18)])}, shuffles=20_000)
    exact = mannwhitneyu(scores[:8], scores[8:], alternative="greater", method="exact").pvalue
    assert found.p == pytest.approx(exact, abs=0.006)
    assert found.middle == pytest.approx(0.5, abs=0.005)


def test_all_images_of_a_woman_get_her_class():
    """Five women with one to three images: every way to make two of them cases, counted one by one."""
    women = ["a", "a", "b", "c", "c", "c", "d", "e", "e"]
    scores = np.array([0.3, 0.8, 0.5, 0.1, 0.2, 0.9, 0.6, 0.4, 0.7])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0])
    ways = [auc(np.isin(women, list(cases)).astype(int), scores) for cases in itertools.combinations("abcde", 2)]
    found = by_chance({Part(0): Scored.of(labels, scores, women)}, shuffles=20_000)
    assert found.middle == pytest.approx(np.mean(ways), abs=0.005)
    assert found.p == pytest.approx(np.mean(np.array(ways) >= auc(labels, scores) - 1e-9), abs=0.01)
    assert (found.low, found.high) == pytest.approx((min(ways), max(ways)), abs=1e-9)


def test_the_images_of_a_woman_of_both_classes_are_shuffled_among_these():
    """Before and after acetic acid, each woman her own control: every way to swap her two pictures, one by one."""
    women, labels = ["a", "a", "b", "b", "c", "c"], np.array([0, 1, 0, 1, 0, 1])
    scores = np.array([0.2, 0.5, 0.4, 0.3, 0.6, 0.9])
    ways = [
        auc(np.array([swap, 1 - swap]).T.ravel(), scores) for swap in map(np.array, itertools.product((0, 1), repeat=3))
    ]
    found = by_chance({Part(seed): Scored.of(labels, scores, women) for seed in (0, 1)}, shuffles=20_000)
    assert found.middle == pytest.approx(0.5, abs=0.005)
    assert found.p == pytest.approx(np.mean(np.array(ways) >= auc(labels, scores) - 1e-9), abs=0.01)
    beside = by_chance({Part(0): Scored.of([*labels, 1, 0], [*scores, 0.1, 0.7], [*women, "d", "e"])})
    assert 0 < beside.low < beside.high < 1


def test_a_woman_has_one_class_in_all_trainings():
    """Ten folds scatter as one tenth of the variance of one; two equal trainings, or women dealt anew, as one."""
    draws = np.random.default_rng(5)
    labels = np.array([1] * 6 + [0] * 6)
    folds = {
        Part(0, 0, fold): Scored.of(labels, draws.random(12), [f"{fold}-{n}" for n in range(12)]) for fold in range(10)
    }
    one = by_chance({Part(0): next(iter(folds.values()))}, shuffles=8000)
    ten = by_chance(folds)
    assert (ten.high - ten.low) ** 2 == pytest.approx((one.high - one.low) ** 2 / 10, rel=0.25)
    twice = {Part(seed, 0, part.fold): scored for seed in (0, 1) for part, scored in folds.items()}
    assert dataclasses.astuple(by_chance(twice)) == pytest.approx(dataclasses.astuple(ten))


def test_a_shuffle_is_repeated_to_the_bit():
    labels, scores = [1, 0, 1, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5]
    trials = {Part(0): Scored.of(labels, scores, list("abcde"))}
    assert by_chance(trials) == by_chance(trials)
    assert by_chance(trials) != by_chance(trials, seed=1)


def test_an_auc_of_a_hundred_of_both_classes_stands_alone():
    assert is_small(99, 1000)
    assert is_small(1000, 99)
    assert not is_small(100, 100)
