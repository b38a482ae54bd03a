"""Verdicts: what is shown, what is not, and never more than the women can carry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from cervix_study.analysis.comparing import (
    MARGIN,
    Effect,
    HypothesisTest,
    aligned,
    compare,
    corrected,
    delong_of,
    effect,
    mcnemar_of,
)
from cervix_study.analysis.hypotheses import Question
from cervix_study.analysis.result_rows import ResultRow, SiteRows
from cervix_study.evidence.mcnemar import Discordant
from fedcervix.errors import DataError
from site_agent.classifier.by_woman import Measured, Part, Roster, Scored, measure, placements, roster
from site_agent.classifier.intervals import TOO_FEW_WOMEN, WOMEN_ALIKE, Estimate

BENCH = SiteRows("paper", "nhs", ())
BETTER = Question("q", "better", "", lambda _: [])


LABELS = np.arange(400) % 2 == 0


def many() -> Roster:
    """Four hundred women of one image each."""
    return roster([{Part(0): Scored.of(LABELS, 0.5 + 0.1 * LABELS, [f"{place:03d}" for place in range(400)])}])


def moved(value: float, deviation: float) -> tuple[Measured, Measured]:
    """Two starts that differ by a value, each woman moving the difference alike."""
    shares = np.where(np.arange(400) % 4 < 2, 1.0, -1.0) * deviation / 400**0.5 * (199 / 200) ** 0.5
    return Measured(np.array([value]), shares[None, :]), Measured(np.zeros(1), np.zeros((1, 400)))


def judged(value: float, p: float, kind: str = "better") -> HypothesisTest:
    found = Effect(0.8, 0.8 - value, Estimate(value, value - 0.1, value + 0.1), p, p if kind == "close" else None)
    effects = {"auc": found, "accuracy": dataclasses.replace(found, p=1.0, apart=1.0)}
    return HypothesisTest("paper", "nhs", "q", kind, "a", "b", effects, {}, 1, 1, 1)  # type: ignore[arg-type]


def row(label: str, *trials: Scored) -> ResultRow:
    return ResultRow(label, label, None, True, {Part(seed): scored for seed, scored in enumerate(trials)}, {})


def crowd(seed: int, gap: float, women: int = 40) -> Scored:
    """Two images of each woman, half of them cases; what makes a woman easy or hard is the same for every seed."""
    ease = np.random.default_rng(99).normal(size=women)
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(women), 2)
    labels = owner % 2 == 0
    logit = ease[owner] + gap * (labels - 0.5) + 0.5 * rng.normal(size=2 * women)
    return Scored.of(labels, 1 / (1 + np.exp(-logit)), [f"{place:02d}" for place in owner])


def test_the_correction_counts_the_questions_of_one_kind():
    """.01, .02, .04 of three; the two questions for closeness are a family of their own."""
    asked = [judged(0.1, 0.01), judged(0.1, 0.04), judged(-0.1, 0.02)]
    found = corrected([*asked, judged(0.0, 0.9, "close"), judged(0.0, 0.02, "close")])
    auc = [c.effects["auc"] for c in found]
    assert [e.corrected for e in auc] == pytest.approx([0.03, 0.04, 0.04, 0.9, 0.04])
    assert [e.verdict for e in auc] == ["better", "better", "worse", "not shown", "close"]
    assert [c.effects["accuracy"].verdict for c in found] == ["not shown"] * 5


def test_a_p_value_that_correction_lifts_above_five_in_a_hundred_shows_nothing():
    found = corrected([judged(0.1, 0.03), judged(0.1, 0.5), judged(0.0, 0.03, "close"), judged(0.0, 0.5, "close")])
    assert [c.effects["auc"].verdict for c in found] == ["not shown"] * 4


@pytest.mark.parametrize(
    ("value", "deviation", "verdict"),
    [(0.0, 0.01, "close"), (0.0, 0.04, "not shown"), (0.04, 0.01, "not shown"), (-0.1, 0.01, "not shown")],
)
def test_closeness_needs_a_difference_that_is_surely_within_the_margin(value, deviation, verdict):
    """A difference that is merely not significant shows nothing: the second interval is wide and holds zero."""
    found = effect(*moved(value, deviation), "close", many())
    asked = dataclasses.replace(judged(0.0, 1.0, "close"), effects={"auc": found, "accuracy": found})
    assert corrected([asked])[0].effects["auc"].verdict == verdict
    assert (MARGIN, found.detectable) == (0.05, None)


def test_what_could_have_been_found():
    """(1.97 + .84) standard errors; one of twelve comparisons needs (2.88 + .84)."""
    assert effect(*moved(0.0, 0.05), "better", many()).detectable == pytest.approx(2.81 * 0.05, rel=0.003)
    assert effect(*moved(0.0, 0.05), "better", many(), 12).detectable == pytest.approx(3.72 * 0.05, rel=0.003)


def test_two_starts_that_score_alike_are_not_called_close_without_an_interval():
    """The same classifier twice: no woman moves the difference. Nothing can be told of how far it would move."""
    first = row("a", crowd(1, 2.0))
    women = roster([first.trials])
    same = measure(first.trials, women)["auc"]
    found = effect(same, same, "close", women)
    assert (found.difference, found.verdict, found.p) == (Estimate.alone(0.0, WOMEN_ALIKE), "not shown", None)


def compared(first: ResultRow, second: ResultRow) -> HypothesisTest:
    women = roster([first.trials, second.trials])
    measured = {one.label: measure(one.trials, women) for one in (first, second)}
    return corrected([compare(BENCH, BETTER, first, second, measured, women, 1)])[0]


def test_with_nineteen_women_of_a_class_nothing_is_shown_however_large_the_difference():
    labels, women = [1] * 19 + [0] * 30, [f"{place:02d}" for place in range(49)]
    good, bad = Scored.of(labels, [0.9] * 19 + [0.1] * 30, women), Scored.of(labels, [0.1] * 19 + [0.9] * 30, women)
    found = compared(row("good", good), row("bad", bad))
    auc = found.effects["auc"]
    assert (auc.difference, auc.verdict) == (Estimate.alone(1.0, TOO_FEW_WOMEN), "not shown")
    assert (auc.p, auc.corrected, auc.detectable) == (None, None, None)
    assert (found.mcnemar_images, found.mcnemar_women, found.delong_images) == (None,) * 3
    assert all(other.interval is None for other in found.others.values())


def test_a_comparison_holds_the_classical_tests_beside_its_own():
    found = compared(row("a", crowd(1, 2.0)), row("b", crowd(3, 0.5)))
    auc = found.effects["auc"]
    assert auc.verdict == "better"
    assert auc.p is not None
    assert found.delong_images is not None
    assert found.delong_images < auc.p, "two images of one woman are not two witnesses"
    assert set(found.others) == {"recall", "precision", "f1"}
    assert found.mcnemar_images is not None
    assert 0 <= found.mcnemar_images <= 1


def test_mcnemar_adds_folds_and_combines_seeds():
    """Seed 0: five better in one fold, one in the other: 6 against 0. Seed 1: nothing differs. Twice the median: 1."""
    women = list("abcdef")
    labels = [1, 1, 1, 1, 1, 0]
    right, wrong = Scored.of(labels, [0.9] * 5 + [0.1], women), Scored.of(labels, [0.1] * 6, women)
    one, two = Scored.of([1, 0], [0.9, 0.1], ["g", "h"]), Scored.of([1, 0], [0.1, 0.1], ["g", "h"])
    pairs = {Part(0, 0, 0): (right, wrong), Part(0, 0, 1): (one, two)}
    assert mcnemar_of(pairs, women=False) == Discordant(6, 0).p == mcnemar_of(pairs, women=True)
    both = {**pairs, Part(1, 0, 0): (right, right), Part(1, 0, 1): (one, one)}
    assert mcnemar_of(both, women=False) == min(1.0, Discordant(6, 0).p + 1.0)


def test_delong_by_image_is_the_published_test_of_the_mean_over_seeds():
    """Placements of the mean, written out: variance over cases / cases + variance over controls / controls."""
    a, b = [crowd(1, 2.0), crowd(2, 2.0)], [crowd(3, 1.0), crowd(4, 1.0)]
    found = delong_of({Part(seed): pair for seed, pair in enumerate(zip(a, b, strict=True))})
    labels, signs = a[0].labels, [0.5, 0.5, -0.5, -0.5]
    both = [placements(labels, s.scores) for s in (*a, *b)]
    won, lost = (sum(sign * p[k] for sign, p in zip(signs, both, strict=True)) for k in (0, 1))
    variance = np.var(won, ddof=1) / len(won) + np.var(lost, ddof=1) / len(lost)
    assert found == pytest.approx(2 * norm.sf(abs(won.mean()) / variance**0.5))


def test_delong_by_image_takes_folds_as_independent():
    one, two = crowd(1, 2.0), crowd(2, 0.5)
    half = np.arange(80) < 40
    folds = {
        Part(0, 0, fold): tuple(
            Scored.of(s.labels[own], s.scores[own], np.array(s.women)[own].tolist()) for s in (one, two)
        )
        for fold, own in enumerate((half, ~half))
    }
    p = delong_of(folds)  # type: ignore[arg-type]
    assert p is not None
    assert 0 < p < 0.05


def test_starts_that_were_tested_on_different_images_are_not_compared():
    one = Scored.of([1, 0], [0.9, 0.1], ["a", "b"])
    other = Scored.of([1, 0], [0.9, 0.1], ["a", "c"])
    with pytest.raises(DataError, match="different images"):
        aligned({Part(0): one}, {Part(0): other})
    with pytest.raises(DataError, match="different seeds or folds"):
        aligned({Part(0): one}, {Part(1): one})


def test_images_that_come_again_in_another_repeat_are_no_further_witnesses():
    one, two = crowd(1, 1.0), crowd(2, 0.4)
    once = {Part(0, 0, 0): (one, two)}
    assert delong_of({**once, Part(0, 1, 1): (one, two)}) == delong_of(once)
