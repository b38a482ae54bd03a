"""Verdicts: what is shown, what is not, and never more than the women can carry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

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
from cervix_study.evidence.delong import contrast, delong
from cervix_study.evidence.mcnemar import Discordant
from fedcervix.errors import DataError
from site_agent.classifier.intervals import DRAWS_AGREE, TOO_FEW_WOMEN, Estimate, Women
from site_agent.classifier.resampling import Draws, Part, Scored, draw, roster, sample

BENCH = SiteRows("paper", "nhs", ())
BETTER = Question("q", "better", "", lambda _: [])

MANY = Women(100, 100)


LABELS = np.arange(400) % 2 == 0


def many(spread: float = 1.0) -> Draws:
    """Four hundred women of one image each."""
    scored = Scored.of(LABELS, 0.5 + 0.1 * spread * LABELS, [f"{place:03d}" for place in range(400)])
    return draw(roster([{Part(0): scored}]), seed=0, draws=2000)


def moved(drawn: Draws, value: float, deviation: float) -> np.ndarray:
    """A difference that scatters with the women: the mean of something of theirs."""
    own = np.random.default_rng(0).normal(size=400)
    mean = (drawn.copies - 1) @ own / 400
    return value + deviation * mean / np.std(mean[1:])


def judged(value: float, p: float, kind: str = "better") -> HypothesisTest:
    found = Effect(0.8, 0.8 - value, Estimate(value, value - 0.1, value + 0.1), p, None, 0.1, "not shown")
    effects = {"auc": found, "accuracy": dataclasses.replace(found, p=1.0)}
    return HypothesisTest("paper", "nhs", "q", kind, "a", "b", effects, {}, 1, 1, 1, 1)  # type: ignore[arg-type]


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


def test_the_correction_counts_the_questions_of_better_and_no_others():
    """.01, .02, .04 of three; the question of closeness is no member of the family."""
    found = corrected([judged(0.1, 0.01), judged(0.1, 0.04), judged(-0.1, 0.02), judged(0.0, 0.9, "close")])
    auc = [c.effects["auc"] for c in found]
    assert [e.corrected for e in auc] == [pytest.approx(0.03), pytest.approx(0.04), pytest.approx(0.04), None]
    assert [e.verdict for e in auc] == ["better", "better", "worse", "not shown"]
    assert [c.effects["accuracy"].verdict for c in found] == ["not shown"] * 4


def test_a_p_value_that_correction_lifts_above_five_in_a_hundred_shows_nothing():
    found = corrected([judged(0.1, 0.03), judged(0.1, 0.5)])
    assert [c.effects["auc"].verdict for c in found] == ["not shown", "not shown"]


@pytest.mark.parametrize(
    ("value", "spread", "verdict"),
    [(0.0, 0.01, "close"), (0.0, 0.04, "not shown"), (0.04, 0.01, "not shown"), (-0.1, 0.01, "not shown")],
)
def test_closeness_needs_a_whole_interval_within_the_margin(value, spread, verdict):
    """A difference that is merely not significant shows nothing: the second interval is wide and holds zero."""
    drawn = many()
    found = effect(moved(drawn, value, spread), np.zeros(2001), "close", drawn)
    assert found.verdict == verdict
    assert MARGIN == 0.05


def test_what_could_have_been_found():
    """(1.96 + .84) standard errors, a little more for Student's t."""
    drawn = many()
    found = effect(moved(drawn, 0.0, 0.05), np.zeros(2001), "better", drawn)
    assert found.detectable == pytest.approx(2.8016 * 0.05, rel=0.01)


def test_two_starts_that_score_alike_are_not_called_close_without_an_interval():
    """The same classifier twice: every draw gives 0. Nothing can be told of how far the difference would move."""
    first = row("a", crowd(1, 2.0))
    drawn = draw(roster([first.trials]), seed=0, draws=100)
    sampled = sample(first.trials, drawn)
    found = effect(sampled["auc"], sampled["auc"], "close", drawn)
    assert (found.difference, found.verdict, found.p) == (Estimate.alone(0.0, DRAWS_AGREE), "not shown", None)


def test_with_seven_women_of_a_class_nothing_is_shown_however_large_the_difference():
    labels, women = [1] * 7 + [0] * 9, [f"{place:02d}" for place in range(16)]
    good, bad = Scored.of(labels, [0.9] * 7 + [0.1] * 9, women), Scored.of(labels, [0.1] * 7 + [0.9] * 9, women)
    first, second = row("good", good), row("bad", bad)
    drawn = draw(roster([first.trials, second.trials]), seed=0, draws=200)
    sampled = {r.label: sample(r.trials, drawn) for r in (first, second)}
    found = corrected([compare(BENCH, BETTER, first, second, sampled, drawn)])[0]
    auc = found.effects["auc"]
    assert (auc.difference, auc.verdict) == (Estimate.alone(1.0, TOO_FEW_WOMEN), "not shown")
    assert (auc.p, auc.corrected, auc.detectable) == (None, None, None)
    assert (found.mcnemar_images, found.mcnemar_women, found.delong_images, found.delong_women) == (None,) * 4
    assert all(other.interval is None for other in found.others.values())


def test_a_comparison_holds_the_classical_tests_beside_the_bootstrap():
    first, second = row("a", crowd(1, 2.0), crowd(2, 2.0)), row("b", crowd(3, 0.5), crowd(4, 0.5))
    drawn = draw(roster([first.trials, second.trials]), seed=0, draws=4000)
    sampled = {r.label: sample(r.trials, drawn) for r in (first, second)}
    found = corrected([compare(BENCH, BETTER, first, second, sampled, drawn)])[0]
    auc = found.effects["auc"]
    assert auc.verdict == "better"
    assert found.delong_images is not None
    assert found.delong_women is not None
    assert found.delong_women > found.delong_images, "two images of one woman are not two witnesses"
    by_woman = delong_of(aligned(first.trials, second.trials), women=True)
    assert by_woman.value == pytest.approx(auc.difference.value)
    assert set(found.others) == {"recall", "precision", "f1"}
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


def test_delong_takes_the_mean_over_seeds():
    a, b = [crowd(1, 2.0), crowd(2, 2.0)], [crowd(3, 1.0), crowd(4, 1.0)]
    found = delong_of({Part(seed): pair for seed, pair in enumerate(zip(a, b, strict=True))}, women=False)
    areas = delong(a[0].labels, np.stack([s.scores for s in (*a, *b)]))
    expected = contrast(areas, [0.5, 0.5, -0.5, -0.5])
    assert (found.value, found.variance) == (pytest.approx(expected.value), pytest.approx(expected.variance))


def test_starts_that_were_tested_on_different_images_are_not_compared():
    one = Scored.of([1, 0], [0.9, 0.1], ["a", "b"])
    other = Scored.of([1, 0], [0.9, 0.1], ["a", "c"])
    with pytest.raises(DataError, match="different images"):
        aligned({Part(0): one}, {Part(0): other})
    with pytest.raises(DataError, match="different seeds or folds"):
        aligned({Part(0): one}, {Part(1): one})
