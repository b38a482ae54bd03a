"""A number's variance by woman: against the U-statistic written out, other programs' numbers, and plain resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cervix_study.evidence.paper import TABLE_TWO
from fedcervix.errors import DataError
from site_agent.classifier.by_woman import (
    NOISE_MAX,
    Measured,
    Part,
    Scored,
    area,
    measure,
    placements,
    rates,
    roster,
    variance_of,
)
from site_agent.classifier.intervals import DIFFERENCE, SHARE, TOO_FEW_IMAGES, TOO_FEW_IN_FOLD, Women
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


def of(trials) -> dict[str, Measured]:
    return measure(trials, roster([trials]))


def variance(found: Measured, trials) -> float:
    """Return DeLong's, or a ratio's: of women's shares alone."""
    return float(variance_of(found.shares[0], roster([trials])).variance)


def unbiased(found: Measured, trials) -> float:
    return float(found.scatter(roster([trials])).women)


# --- the numbers themselves ----------------------------------------------------------------------------------------


def test_the_value_is_that_of_the_images_as_they_are():
    """At .5: 3 of 4 cases found, 1 of 4 controls alarmed; 13 of 16 pairs ranked right."""
    found = of({Part(1): EIGHT})
    assert {name: one.value for name, one in found.items()} == {**dict.fromkeys(RATES, 0.75), "auc": 13 / 16}


@pytest.mark.parametrize("seed", range(3))
def test_every_measure_is_the_librarys_own(seed):
    scored = crowd(seed)
    counts = Confusion.at(scored.labels, scored.scores, 0.5)
    expected = {**{name: getattr(counts, name) for name in RATES}, "auc": auc(scored.labels, scored.scores)}
    assert {name: one.value for name, one in of({Part(1): scored}).items()} == pytest.approx(expected)


@pytest.mark.parametrize("row", sorted(TABLE_TWO))
@pytest.mark.parametrize("site", ["NHS", "ALTS"])
def test_the_papers_table_is_the_value_of_its_counts(row, site):
    """Table II: rates of counts, one row each."""
    counts = TABLE_TWO[row][site]
    found = rates(*(np.array([float(n)]) for n in (counts.tp, counts.fn, counts.fp, counts.tn)))
    for name in ("accuracy", "recall", "precision", "f1"):
        assert found[name].value == pytest.approx(getattr(counts, name), abs=1e-15)


def test_a_rate_with_nothing_to_divide_by_is_zero_and_no_woman_moves_it():
    found = of({Part(1): each_her_own([1, 0, 0], [0.4, 0.3, 0.1])})["precision"]
    assert (found.value, found.shares.any()) == (0.0, False)


def test_folds_are_strata_their_counts_are_added_and_their_areas_averaged():
    one = Scored.of([1, 0, 0], [0.9, 0.6, 0.1], ["a", "b", "c"])  # TP, FP, TN; AUC 1
    two = Scored.of([1, 0], [0.2, 0.3], ["d", "e"])  # FN, TN; AUC 0
    trials = {Part(1, 0, 0): one, Part(1, 0, 1): two}
    found = of(trials)
    assert (found["accuracy"].value, found["recall"].value, found["precision"].value) == (3 / 5, 1 / 2, 1 / 2)
    assert found["auc"].value == 0.5
    assert len(roster([trials]).strata) == 4


def test_seeds_and_classifiers_on_one_encoder_are_averaged():
    """Two encoders, two classifiers each; one of the four gets 5 of 8 right, the others 6."""
    worse = Scored.of(LABELS, [0.1, *SCORES[1:]], WOMEN)
    found = of({Part(1, 0): EIGHT, Part(1, 1): worse, Part(2, 0): EIGHT, Part(2, 1): EIGHT})["accuracy"]
    assert found.values.tolist() == [pytest.approx(5.5 / 8), 0.75]
    assert found.value == pytest.approx(((6 + 5) / 2 + 6) / 2 / 8)


def test_each_training_has_its_own_threshold():
    assert of({Part(1): Scored.of(LABELS, SCORES, WOMEN, threshold=0.25)})["recall"].value == 1.0


# --- DeLong and Obuchowski -----------------------------------------------------------------------------------------


def psi(case: float, control: float) -> float:
    return 1.0 if case > control else 0.5 if case == control else 0.0


def written_out(labels: np.ndarray, one: np.ndarray, two: np.ndarray) -> float:
    """The variance of AUC(one) - AUC(two): DeLong et al. 1988, equations 3 to 6, by loops over every pair."""
    cases, controls = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n = len(cases), len(controls)
    v10 = np.array([[sum(psi(s[i], s[j]) for j in controls) / n for i in cases] for s in (one, two)])
    v01 = np.array([[sum(psi(s[i], s[j]) for i in cases) / m for j in controls] for s in (one, two)])
    return float(np.var(v10[0] - v10[1], ddof=1) / m + np.var(v01[0] - v01[1], ddof=1) / n)


def some(seed: int, cases: int = 9, controls: int = 13, k: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [cases, controls])[rng.permutation(cases + controls)]
    return labels, np.round(rng.normal(size=(k, cases + controls)) + labels, 1)  # rounded: there are ties


def starts(labels, scores, women=None):
    own = women or [f"{place:03d}" for place in range(len(labels))]
    return [{Part(0): Scored.of(labels, row, own)} for row in scores]


def gain(trials) -> tuple[Measured, float]:
    """Return the difference of two starts' AUCs, and DeLong's variance of it."""
    women = roster(trials)
    found = measure(trials[0], women)["auc"] - measure(trials[1], women)["auc"]
    return found, float(variance_of(found.shares[0], women).variance)


@pytest.mark.parametrize("seed", range(4))
def test_women_of_one_image_each_give_delongs_variance(seed):
    labels, scores = some(seed)
    found, of_gain = gain(starts(labels, scores))
    assert of_gain == pytest.approx(written_out(labels, *scores), abs=1e-14)
    assert found.value == pytest.approx(auc(labels, scores[0]) - auc(labels, scores[1]))


def test_a_variance_a_reader_can_check():
    """Cases .9 .5, controls .6 .1: V10 = (1, 1/2), V01 = (1/2, 1), AUC 3/4; variance 1/8 / 2 + 1/8 / 2 = 1/8."""
    labels = np.array([True, True, False, False])
    won, lost = placements(labels, np.array([0.9, 0.5, 0.6, 0.1]))
    assert (won.tolist(), lost.tolist()) == ([1.0, 0.5], [0.5, 1.0])
    trials = {Part(0): each_her_own(labels, [0.9, 0.5, 0.6, 0.1])}
    assert variance(of(trials)["auc"], trials) == 0.125


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

    Standard errors .0927, .1000, .1028; protein against the K-G score: -.0780, chi-square .2907.
    """
    table = np.array(OVARIAN.split(), float).reshape(-1, 4)
    trials = starts(table[:, 3], [table[:, 0], table[:, 1], 10 - table[:, 2]])
    women = roster(trials)
    found = [measure(one, women)["auc"] for one in trials]
    assert [one.value for one in found] == pytest.approx([0.7366, 0.6478, 0.7258], abs=5e-5)
    errors = [float(variance_of(one.shares[0], women).variance) ** 0.5 for one in found]
    assert errors == pytest.approx([0.0927, 0.1000, 0.1028], abs=5e-5)
    difference = found[1] - found[2]
    assert difference.value == pytest.approx(-0.0780, abs=5e-5)


def test_the_same_image_twice_is_no_second_witness():
    """Every image twice: as much is known as before, for the women are the same."""
    labels, scores = some(3, cases=40, controls=60)
    women = [f"{place}" for place in range(100)]
    _, once = gain(starts(labels, scores, women))
    _, twice = gain(starts(np.tile(labels, 2), np.tile(scores, (1, 2)), women * 2))
    assert twice == pytest.approx(once, rel=1e-12)


def test_obuchowskis_clustered_variance_written_out():
    """Obuchowski 1997 for one classifier: S10 / M + S01 / N; three case women, three control women."""
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    scores = np.array([0.9, 0.7, 0.4, 0.8, 0.3, 0.5, 0.6, 0.2, 0.65])
    women = list("aabcddeef")
    won, lost = placements(labels == 1, scores)
    total: dict[str, list[float]] = {w: [] for w in women}
    for woman, value in zip(women, np.concatenate([won, lost]), strict=True):
        total[woman].append(value)
    theta, m, n = won.mean(), 4, 5
    s10 = 3 / (2 * m) * sum((sum(total[w]) - len(total[w]) * theta) ** 2 for w in "abc")
    s01 = 3 / (2 * n) * sum((sum(total[w]) - len(total[w]) * theta) ** 2 for w in "def")
    trials = {Part(0): Scored.of(labels, scores, women)}
    assert variance(of(trials)["auc"], trials) == pytest.approx(s10 / m + s01 / n, rel=1e-12)


def test_many_scores_at_once_are_each_alone():
    labels, scores = some(5, k=4)
    owners = np.eye(len(labels))
    together = area(labels == 1, scores, owners)
    for number, row in enumerate(scores):
        alone = area(labels == 1, row, owners)
        np.testing.assert_allclose(together.values[number], alone.values)
        np.testing.assert_allclose(together.shares[number], alone.shares)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 12), st.integers(2, 12))
def test_a_rising_transformation_of_the_scores_changes_nothing(seed, cases, controls):
    labels, scores = some(seed, cases, controls)
    _, before = gain(starts(labels, scores))
    _, after = gain(starts(labels, np.exp(3 * scores)))
    assert after == pytest.approx(before, abs=1e-12)


# --- against plain resampling --------------------------------------------------------------------------------------


def resampled(trials, draws: int, seed: int) -> dict[str, float]:
    """Return the variance of every measure over draws of women, n - 1 of the n in each stratum.

    An independent road to the same number (McCarthy and Snowden 1985): images are copied, and measured anew.
    """
    rng, women, found = np.random.default_rng(seed), roster([trials]), []
    for _ in range(draws):
        copies = np.zeros(len(women.women), int)
        for _, places in women.strata:
            np.add.at(copies, rng.choice(places, len(places) - 1), 1)
        times = dict(zip(women.women, copies.tolist(), strict=True))
        counts, areas = np.zeros(4, int), []
        for scored in trials.values():
            rows = [row for row, woman in enumerate(scored.women) for _ in range(times[woman])]
            labels, scores = scored.labels[rows], scored.scores[rows]
            at = Confusion.at(labels, scores, 0.5)
            counts += (at.tp, at.fn, at.fp, at.tn)
            areas.append(auc(labels, scores))
        whole = Confusion(*counts.tolist())
        found.append({**{name: getattr(whole, name) for name in RATES}, "auc": float(np.mean(areas))})
    return {name: float(np.var([one[name] for one in found])) for name in found[0]}


def test_every_variance_is_that_of_drawing_women():
    """120 women of one to three images, in one part, and in two folds: within what 500 draws can tell."""
    whole = crowd(9, women=120)
    halves = [np.array([int(woman[1:]) // 3 % 2 == fold for woman in whole.women]) for fold in (0, 1)]
    folds = {
        Part(0, 0, fold): Scored.of(whole.labels[own], whole.scores[own], np.array(whole.women)[own].tolist())
        for fold, own in enumerate(halves)
    }
    for trials in ({Part(0): whole}, folds):
        expected = resampled(trials, 500, seed=1)
        for name, one in of(trials).items():
            assert variance(one, trials) == pytest.approx(expected[name], rel=0.2), name


def test_the_scatter_of_a_recall_is_what_theory_says():
    """Women of one image each: the share of a class of m has variance p (1 - p) / (m - 1), and m - 1 degrees."""
    trials = {Part(1): each_her_own(np.arange(20) % 2 == 0, np.where(np.arange(20) % 10 < 8, 0.9, 0.1))}
    found = of(trials)["recall"].scatter(roster([trials]))
    assert found.women == pytest.approx(0.8 * 0.2 / 9)
    assert found.women_freedom == pytest.approx(9)
    assert found.trainings_freedom == 0, "one training is taken as given"


def test_a_recall_of_few_images_has_no_interval_whatever_the_number_of_women():
    """Twenty cases of one image each are too few for a recall; two images of each are enough. Precision has one."""
    for images, why in ((1, TOO_FEW_IMAGES), (2, "")):
        calls = np.repeat(np.where(np.arange(80) % 10 < 7, 0.9, 0.1), images)
        women = [str(place // images) for place in range(80 * images)]
        trials = {Part(0): Scored.of(np.arange(80 * images) < 20 * images, calls, women)}
        found, tested = of(trials), roster([trials])
        assert found["recall"].estimate(tested, SHARE).why == why
        assert {found[name].estimate(tested, SHARE).why for name in ("specificity", "precision", "accuracy")} == {""}


def test_degrees_of_freedom_are_satterthwaites_of_both_classes():
    """Shares of 3 cases and 5 controls: variances 3 and 5, so 8^2 / (9 / 2 + 25 / 4)."""
    women = roster([{Part(0): each_her_own([1] * 3 + [0] * 5, np.linspace(0, 1, 8))}])
    shares = np.array([1.0, 0.0, -1.0, *(np.array([2.0, 1.0, 0.0, -1.0, -2.0]) * 0.4**0.5)])
    found, freedom, movers = variance_of(shares, women)
    assert found == pytest.approx(3 + 5)
    assert freedom == pytest.approx(64 / (9 / 2 + 25 / 4))
    squares = [1.5, 0, 1.5, *(np.array([4, 1, 0, 1, 4]) * 0.5)]
    assert movers == pytest.approx(64 / sum(one**2 for one in squares))


def test_each_stratum_costs_one_woman():
    """Two folds of five women a class: eight degrees of freedom each, and n / (n - 1) of the squares."""
    folds = {
        Part(0, 0, fold): Scored.of([1] * 5 + [0] * 5, np.linspace(0, 1, 10) + fold, [f"{fold} {k}" for k in range(10)])
        for fold in (0, 1)
    }
    women = roster([folds])
    rng = np.random.default_rng(0)
    assert np.mean(variance_of(rng.normal(size=(4000, 20)), women).variance) == pytest.approx(20, rel=0.02)
    assert women.tested == Women(10, 10, fewest=5)


# --- trainings -----------------------------------------------------------------------------------------------------


def with_seeds(values, shares=None) -> Measured:
    return Measured(np.array(values), np.zeros((len(values), 8)) if shares is None else shares)


PAIRS = roster([{Part(0): EIGHT, Part(1): EIGHT, Part(2): EIGHT}])


def test_the_variance_over_seeds_is_that_of_their_mean():
    values = [0.61, 0.72, 0.66]
    found = with_seeds(values, np.zeros((3, 4))).scatter(PAIRS)
    assert (float(found.trainings), found.trainings_freedom) == (pytest.approx(np.var(values, ddof=1) / 3), 2)


def test_what_seeds_differ_by_because_of_these_women_is_counted_once():
    """Two seeds whose shares differ by noise of variance v each: v is taken from the variance over seeds."""
    noise = np.array([[0.02, -0.02, 0.02, -0.02], [-0.02, 0.02, -0.02, 0.02]])
    own = sum(variance_of(noise, PAIRS).variance)  # of both deviations, over k - 1 = 1
    found = with_seeds([0.5, 0.7], noise).scatter(PAIRS)
    assert found.trainings == pytest.approx((0.02 - own) / 2)


def test_seeds_that_happen_to_agree_still_count_unless_there_are_five():
    noise = np.array([[0.2, -0.2, 0.2, -0.2], [-0.2, 0.2, -0.2, 0.2]])
    found = with_seeds([0.5, 0.7], noise).scatter(PAIRS)
    assert found.trainings == pytest.approx((1 - NOISE_MAX) * 0.02 / 2)
    of_five = with_seeds([0.5, 0.7, 0.5, 0.7, 0.6], np.vstack([noise, noise, 0 * noise[:1]])).scatter(PAIRS)
    assert of_five.trainings == 0


# --- who was tested ------------------------------------------------------------------------------------------------


def test_the_fewest_women_of_a_fold_decide_whether_there_is_an_interval():
    folds = {
        Part(1, 0, fold): Scored.of([1] * 4 + [0] * 6, np.linspace(0, 1, 10), [f"{fold}-{k}" for k in range(10)])
        for fold in range(6)
    }
    women = roster([folds])
    assert women.tested == Women(24, 36, fewest=4)
    assert measure(folds, women)["accuracy"].estimate(women, SHARE).why == TOO_FEW_IN_FOLD


def test_a_woman_with_images_of_both_classes_is_a_case():
    scored = Scored.of([1, 0, 1, 0, 0], [0.9, 0.8, 0.4, 0.5, 0.2], ["a", "a", "b", "c", "c"])
    assert roster([{Part(0): scored}]).tested == Women.of_one_part(2, 1)


def test_where_every_control_image_is_of_a_case_woman_every_number_is_finite():
    """Then no control woman was tested: no interval, and no NaN."""
    scored = Scored.of([1, 0] * 25, np.linspace(0, 1, 50), [f"{place // 2}" for place in range(50)])
    trials = {Part(0): scored}
    women = roster([trials])
    for found in measure(trials, women).values():
        estimate = found.estimate(women, SHARE)
        assert np.isfinite(found.shares).all()
        assert (np.isfinite(estimate.value), estimate.interval) == (True, None)


def test_a_start_that_lacks_a_seed_is_refused():
    with pytest.raises(DataError, match=r"seeds \[1\], others \[1, 2\]"):
        measure({Part(1): EIGHT}, roster([{Part(1): EIGHT, Part(2): EIGHT}]))


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


def test_two_starts_are_compared_on_the_same_women():
    """A steady gain on every image: no woman moves the difference."""
    labels, women = [1, 1, 1, 0, 0, 0], list("abcdef")
    trials = [
        {Part(1): Scored.of(labels, [0.6] * 3 + [0.4] * 3, women)},
        {Part(1): Scored.of(labels, [0.4] * 6, women)},
    ]
    both = roster(trials)
    found = measure(trials[0], both)["recall"] - measure(trials[1], both)["recall"]
    assert (found.value, float(found.scatter(both).women)) == (1.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 12), st.integers(1, 3))
def test_any_start_minus_itself_is_nothing(seed, women, seeds):
    trials = {Part(number, 0, 0): crowd(seed, women + 2) for number in range(seeds)}
    found, own = of(trials), roster([trials])
    for name in (*RATES, "auc"):
        assert (found[name] - found[name]).estimate(own, DIFFERENCE).interval is None
        assert 0 <= found[name].value <= 1


def repeated(rng: np.random.Generator, women: int, folds: int, repeats: int) -> tuple[float, float]:
    """Return the AUC and its variance of a cross-validation that knows nothing, dealt several times."""
    labels, scores = np.arange(women) % 2 == 0, rng.standard_normal(women)
    names = np.array([f"{place:03d}" for place in range(women)])
    trials = {}
    for repeat in range(repeats):
        order = np.concatenate([rng.permutation(np.flatnonzero(labels == case)) for case in (True, False)])
        for fold in range(folds):
            own = order[fold::folds]
            noisy = scores[own] + 0.5 * rng.standard_normal(len(own))
            trials[Part(0, repeat, repeat * folds + fold)] = Scored.of(labels[own], noisy, names[own].tolist())
    known = roster([trials])
    assert len(known.strata) == 2 * folds
    found = measure(trials, known)["auc"]
    return found.value, float(found.scatter(known).women)


def test_a_repeated_cross_validation_knows_its_variance():
    rng = np.random.default_rng(5)
    values, variances = np.transpose([repeated(rng, 60, 5, 3) for _ in range(150)])
    assert 0.8 < np.mean(variances) / np.var(values) < 1.5
