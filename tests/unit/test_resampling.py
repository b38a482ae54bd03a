"""Draws of women and seeds: the same numbers as a plain loop gives, strata kept, pairs kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cervix_study.evidence.paper import TABLE_TWO
from fedcervix.errors import DataError
from site_agent.classifier.intervals import DIFFERENCE, LONE_WOMAN, RATE, Estimate, Women
from site_agent.classifier.resampling import (
    Draws,
    Part,
    Scored,
    draw,
    rates,
    roster,
    sample,
)
from site_agent.metrics import Confusion, auc

RATES = ("accuracy", "recall", "precision", "f1", "specificity", "npv")
LABELS = [1, 1, 1, 1, 0, 0, 0, 0]
SCORES = [0.9, 0.8, 0.6, 0.3, 0.7, 0.4, 0.2, 0.1]
WOMEN = ["a", "a", "b", "b", "c", "c", "d", "d"]
EIGHT = Scored.of(LABELS, SCORES, WOMEN)


def crowd(seed: int, women: int = 30, gap: float = 1.0, levels: int = 12) -> Scored:
    """One to three images of each woman, every third woman a case; scores with ties."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(women), rng.integers(1, 4, women))
    labels = owner % 3 == 0
    scores = np.round(1 / (1 + np.exp(-rng.normal(gap * labels - gap / 2))) * levels) / levels
    return Scored.of(labels, scores, [f"W{place:03d}" for place in owner])


def each_her_own(labels, scores) -> Scored:
    return Scored.of(labels, scores, [f"{place:03d}" for place in range(len(labels))])


def by_hand(scored: Scored, drawn: Draws, number: int) -> dict[str, float]:
    """Score a draw by laying out every copied image, with the library's own measures.

    Of n women n - 1 are drawn, each counting n / (n - 1) times: copies are whole numbers after multiplication.
    """
    whole = np.prod([len(stratum) - 1 for stratum in drawn.roster.strata if len(stratum) > 1])
    copies = np.rint(drawn.copies[number] * whole).astype(int)
    np.testing.assert_allclose(copies, drawn.copies[number] * whole, atol=1e-6)
    times = dict(zip(drawn.roster.women, copies.tolist(), strict=True))
    rows = [row for row, woman in enumerate(scored.women) for _ in range(times[woman])]
    labels, scores = scored.labels[rows], scored.scores[rows]
    counts = Confusion.at(labels, scores, 0.5)
    return {**{name: getattr(counts, name) for name in RATES}, "auc": auc(labels, scores)}


def test_the_value_is_that_of_the_images_as_they_are():
    """At .5: 3 of 4 cases found, 1 of 4 controls alarmed; 13 of 16 pairs ranked right."""
    found = sample({Part(1, 0, 0): EIGHT}, draw(roster([{Part(1, 0, 0): EIGHT}]), seed=0, draws=3))
    assert {name: values[0] for name, values in found.items()} == {**dict.fromkeys(RATES, 0.75), "auc": 13 / 16}


@pytest.mark.parametrize("seed", range(3))
def test_every_draw_is_what_copying_the_images_gives(seed):
    scored = crowd(seed)
    drawn = draw(roster([{Part(1, 0, 0): scored}]), seed=seed, draws=25)
    found = sample({Part(1, 0, 0): scored}, drawn)
    for number in range(26):
        expected = by_hand(scored, drawn, number)
        for name in (*RATES, "auc"):
            assert found[name][number] == pytest.approx(expected[name], abs=1e-12), (name, number)


def test_a_woman_with_images_of_both_classes_is_drawn_with_all_of_them():
    scored = Scored.of([1, 0, 1, 0, 0], [0.9, 0.8, 0.4, 0.5, 0.2], ["a", "a", "b", "c", "c"])
    drawn = draw(roster([{Part(1, 0, 0): scored}]), seed=4, draws=40)
    found = sample({Part(1, 0, 0): scored}, drawn)
    for number in range(41):
        expected = by_hand(scored, drawn, number)
        assert found["auc"][number] == pytest.approx(expected["auc"], abs=1e-12)


@pytest.mark.parametrize("row", sorted(TABLE_TWO))
@pytest.mark.parametrize("site", ["NHS", "ALTS"])
def test_the_papers_table_is_the_value_of_its_counts(row, site):
    """Table II: rates of counts, one row each."""
    counts = TABLE_TWO[row][site]
    found = rates(np.array([[counts.tp, counts.fn, counts.fp, counts.tn]], np.float64))
    for name in ("accuracy", "recall", "precision", "f1"):
        assert found[name][0] == pytest.approx(getattr(counts, name), abs=1e-15)


def test_a_draw_takes_as_many_cases_and_controls_as_there_are():
    scored = crowd(1)
    drawn = draw(roster([{Part(1, 0, 0): scored}]), seed=0, draws=200)
    cases = sorted({woman for woman, case in zip(scored.women, scored.labels, strict=True) if case})
    places = [drawn.roster.women.index(woman) for woman in cases]
    np.testing.assert_allclose(drawn.copies[:, places].sum(axis=1), len(cases))
    np.testing.assert_allclose(drawn.copies.sum(axis=1), len(drawn.roster.women))
    assert drawn.copies[1:].max() > 2


def test_folds_are_strata_their_counts_are_added_and_their_areas_averaged():
    one = Scored.of([1, 0, 0], [0.9, 0.6, 0.1], ["a", "b", "c"])  # TP, FP, TN; AUC 1
    two = Scored.of([1, 0], [0.2, 0.3], ["d", "e"])  # FN, TN; AUC 0
    trials = {Part(1, 0, 0): one, Part(1, 0, 1): two}
    drawn = draw(roster([trials]), seed=0, draws=50)
    found = sample(trials, drawn)
    assert (found["accuracy"][0], found["recall"][0], found["precision"][0]) == (3 / 5, 1 / 2, 1 / 2)
    assert found["auc"][0] == 0.5
    alone = [drawn.roster.women.index(woman) for woman in ("a", "d", "e")]
    assert (drawn.copies[:, alone] == 1).all(), "who is alone in her stratum is in every draw"
    assert len(drawn.roster.strata) == 4


def test_seeds_are_averaged_and_all_but_one_are_drawn():
    worse = Scored.of(LABELS, [0.1, *SCORES[1:]], WOMEN)
    trials = {Part(1, 0, 0): EIGHT, Part(2, 0, 0): worse, Part(3, 0, 0): EIGHT}
    drawn = draw(roster([trials]), seed=0, draws=300)
    assert set(np.unique(drawn.shares[1:])) == {0.0, 0.5, 1.0}, "two of three, with replacement"
    np.testing.assert_allclose(drawn.shares.sum(axis=1), 1)
    assert sample(trials, drawn)["accuracy"][0] == pytest.approx((6 + 5 + 6) / 24)


def test_drawing_seeds_gives_the_variance_of_their_mean():
    """Of k seeds k - 1: the variance over draws is s^2 / k. Drawing k would give (k - 1) / k of that."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=4)
    trials = {Part(seed, 0, 0): EIGHT for seed in range(4)}
    shares = draw(roster([trials]), seed=3, draws=40_000).shares[1:]
    assert np.var(shares @ values) == pytest.approx(np.var(values, ddof=1) / 4, rel=0.03)


def test_classifiers_on_one_encoder_are_averaged_and_not_drawn():
    """Two encoders, two classifiers each: the draws take encoders."""
    worse = Scored.of(LABELS, [0.1, *SCORES[1:]], WOMEN)
    trials = {Part(1, 0): EIGHT, Part(1, 1): worse, Part(2, 0): EIGHT, Part(2, 1): EIGHT}
    drawn = draw(roster([trials]), seed=0, draws=300)
    assert drawn.roster.seeds == (1, 2)
    assert set(np.unique(drawn.shares[1:])) == {0.0, 1.0}
    assert sample(trials, drawn)["accuracy"][0] == pytest.approx(((6 + 5) / 2 + 6) / 2 / 8)


def test_each_training_has_its_own_threshold():
    low = Scored.of(LABELS, SCORES, WOMEN, threshold=0.25)
    drawn = draw(roster([{Part(1): low}]), seed=0, draws=3)
    assert sample({Part(1): low}, drawn)["recall"][0] == 1.0


def test_a_fold_with_one_woman_of_a_class_has_no_interval_and_says_why():
    folds = {Part(1, 0, fold): each_her_own([1, 0, 0], [0.8, 0.3, 0.2]) for fold in range(8)}
    own = {
        part: Scored.of(found.labels, found.scores + part.fold / 100, [f"{part.fold}-{name}" for name in found.women])
        for part, found in folds.items()
    }
    drawn = draw(roster([own]), seed=0, draws=10)
    assert drawn.roster.tested == Women(8, 16, lone=8)
    found = drawn.estimate(np.linspace(0.4, 0.6, 11), RATE)
    assert found == Estimate.alone(0.4, LONE_WOMAN)
    pooled = Scored.of([1] * 8 + [0] * 16, np.linspace(0, 1, 24), [f"{place:02d}" for place in range(24)])
    assert roster([{Part(1): pooled}]).tested == Women(8, 16)


def test_one_seed_is_taken_as_given():
    drawn = draw(roster([{Part(5, 0, 0): EIGHT}]), seed=0, draws=10)
    assert (drawn.shares == 1).all()


def test_a_start_that_lacks_a_seed_is_refused():
    drawn = draw(roster([{Part(1, 0, 0): EIGHT, Part(2, 0, 0): EIGHT}]), seed=0, draws=5)
    with pytest.raises(DataError, match=r"seeds \[1\], others \[1, 2\]"):
        sample({Part(1, 0, 0): EIGHT}, drawn)


def test_a_woman_who_changes_class_is_refused():
    other = Scored.of([0, 1], [0.1, 0.9], ["a", "c"])
    with pytest.raises(DataError, match="case in one test part and a control in another"):
        roster([{Part(1, 0, 0): EIGHT}, {Part(1, 0, 0): other}])


@pytest.mark.parametrize(
    ("labels", "scores", "women"), [([1, 1], [0.1, 0.2], ["a", "b"]), ([1, 0], [0.1], ["a", "b"]), ([], [], [])]
)
def test_what_cannot_be_scored_is_refused(labels, scores, women):
    with pytest.raises(DataError):
        Scored.of(labels, scores, women)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="not a finite number"):
        Scored.of([1, 0], [0.1, float("nan")], ["a", "b"])


def test_two_starts_are_compared_in_the_same_draws():
    """A steady gain on every image: the difference is the same in every draw, whatever the women."""
    labels = [1, 1, 1, 0, 0, 0]
    women = list("abcdef")
    less, more = Scored.of(labels, [0.4] * 6, women), Scored.of(labels, [0.6] * 3 + [0.4] * 3, women)
    drawn = draw(roster([{Part(1, 0, 0): less}, {Part(1, 0, 0): more}]), seed=0, draws=100)
    difference = sample({Part(1, 0, 0): more}, drawn)["recall"] - sample({Part(1, 0, 0): less}, drawn)["recall"]
    assert (difference == 1).all()


def test_the_scatter_is_what_theory_says():
    """Women of one image each: the share of right calls of a class of m has variance p (1 - p) / (m - 1), unbiased."""
    labels = np.arange(20) % 2 == 0
    scores = np.where(np.arange(20) % 10 < 8, 0.9, 0.1)  # 8 of 10 cases found
    scored = each_her_own(labels, scores)
    drawn = draw(roster([{Part(1, 0, 0): scored}]), seed=0, draws=40_000)
    found = drawn.scatter(sample({Part(1, 0, 0): scored}, drawn)["recall"])
    assert found.variance == pytest.approx(0.8 * 0.2 / 9, rel=0.03)
    assert found.freedom == math.inf, "one training"


def test_three_seeds_that_differ_leave_two_degrees_of_freedom():
    """All women alike, so that only the training matters: one of three seeds finds no case."""
    labels, women = [1] * 8 + [0] * 8, [f"{place:02d}" for place in range(16)]
    right, wrong = Scored.of(labels, [0.9] * 8 + [0.1] * 8, women), Scored.of(labels, [0.1] * 16, women)
    trials = {Part(1): right, Part(2): right, Part(3): wrong}
    drawn = draw(roster([trials]), seed=0, draws=40_000)
    found = drawn.scatter(sample(trials, drawn)["recall"])
    assert found.variance == pytest.approx(np.var([1, 1, 0], ddof=1) / 3, rel=0.03)
    assert found.freedom == pytest.approx(2, rel=0.02)


def test_seeds_that_matter_little_leave_many_degrees_of_freedom():
    """Two seeds, one image called differently, among women who differ much."""
    scored = crowd(3)
    again = Scored.of(scored.labels, np.where(np.arange(len(scored.labels)) == 0, 0.99, scored.scores), scored.women)
    trials = {Part(1): scored, Part(2): again}
    drawn = draw(roster([trials]), seed=0, draws=2000)
    assert drawn.scatter(sample(trials, drawn)["accuracy"]).freedom > 100


def test_draws_that_agree_scatter_by_nothing():
    drawn = draw(roster([{Part(1, 0, 0): EIGHT}]), seed=0, draws=10)
    assert drawn.scatter(np.full(11, 0.3)).variance == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 12), st.integers(1, 3))
def test_any_start_minus_itself_is_nothing(seed, women, seeds):
    trials = {Part(number, 0, 0): crowd(seed, women + 2) for number in range(seeds)}
    drawn: Draws = draw(roster([trials]), seed=seed, draws=20)
    first, again = sample(trials, drawn), sample(trials, drawn)
    for name in (*RATES, "auc"):
        assert drawn.estimate(first[name] - again[name], DIFFERENCE).interval is None
        assert ((first[name] >= -1e-12) & (first[name] <= 1 + 1e-12)).all()
