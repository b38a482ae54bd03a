"""Small random tests, put through site report and study: no number, interval or verdict that may not be there."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cervix_study.analysis.comparing import HypothesisTest, compare, corrected
from cervix_study.analysis.hypotheses import Question
from cervix_study.analysis.result_rows import ResultRow, SiteRows
from cervix_study.evidence.calibration import calibration
from site_agent.classifier import evaluate as site
from site_agent.classifier.by_woman import Part, Scored, Trials, measure, roster
from site_agent.classifier.intervals import (
    AREA,
    CORRECTED,
    FOLD_WOMEN_MIN,
    LEVEL,
    SHARE,
    TRAININGS_MIN,
    WOMEN_MIN,
    Estimate,
)

BENCH = SiteRows("paper", "nhs", ())
QUESTIONS = [Question("better", "better", "", lambda _: []), Question("close", "close", "", lambda _: [])]
STARTS = ("a", "b", "c")


@dataclass(frozen=True)
class Design:
    """Test women and how three starts score them."""

    seed: int
    cases: int
    controls: int
    images: int
    """of a woman, one to so many"""
    gap: float
    """how much higher cases score"""
    steps: int
    """different scores; few make ties"""
    mixed: bool
    """one case woman sent a control image as well"""

    def drawn(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return labels (n,), scores (3, n), women."""
        rng = np.random.default_rng(self.seed)
        owner = np.repeat(np.arange(self.cases + self.controls), rng.integers(1, self.images + 1, self.women))
        labels = owner < self.cases
        latent = rng.normal(size=(1, self.women)) + 0.7 * rng.normal(size=(len(STARTS), self.women))
        latent = latent[:, owner] + self.gap * labels + 0.5 * rng.normal(size=(len(STARTS), len(owner)))
        scores = np.round(self.steps / (1 + np.exp(-latent + self.gap / 2))) / self.steps
        if self.mixed and labels.sum() > 1:
            labels[np.flatnonzero(labels)[0]] = False
        return labels, scores, [f"W{place}" for place in owner]

    @property
    def women(self) -> int:
        return self.cases + self.controls


designs = st.builds(
    Design,
    seed=st.integers(0, 2**20),
    cases=st.integers(2, 30),
    controls=st.integers(2, 40),
    images=st.integers(1, 4),
    gap=st.sampled_from([0.0, 1.0, 3.0, 8.0, -2.0]),
    steps=st.sampled_from([1, 3, 20, 10_000]),
    mixed=st.booleans(),
)


def estimates(found: object) -> Iterator[Estimate]:
    """Yield every estimate within a result."""
    if isinstance(found, Estimate):
        yield found
    elif dataclasses.is_dataclass(found):
        for field in dataclasses.fields(found):
            yield from estimates(getattr(found, field.name))
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from estimates(value)
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for value in found:
            yield from estimates(value)


def check(found: Estimate, low: float, *, few: bool) -> None:
    """An estimate is finite; its interval lies on its scale, about its number; there is none of few women."""
    assert math.isfinite(found.value)
    assert found.interval is None or not few
    if found.interval is not None:
        assert low <= found.interval[0] <= found.value <= found.interval[1] <= 1


def agree(verdict: str, why: str, difference: Estimate, p: float) -> None:
    """There is one inference: verdict, interval and reason say the same."""
    if difference.interval is None:
        assert verdict == "not shown" or difference.tested
        return
    leaves_zero_out = not difference.interval[0] <= 0 <= difference.interval[1]
    if verdict != "not shown":
        assert leaves_zero_out
        assert (verdict == "better") == (difference.value > 0)
    elif leaves_zero_out:
        assert p >= 1 - LEVEL
        assert why == CORRECTED


# --- a site's report ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(designs)
def test_a_sites_report_says_nothing_that_it_may_not(design: Design) -> None:
    labels, scores, women = design.drawn()
    few = min(design.cases, design.controls) < WOMEN_MIN
    for name, own in zip(STARTS, scores, strict=True):
        found = site.evaluate(name, labels, own, women, threshold_validation=0.4)
        json.dumps(found.to_json(), allow_nan=False)
        for one in estimates(found):
            check(one, 0.0, few=few)
    for found in site.compare("a", labels, dict(zip(STARTS, scores, strict=True)), women):
        check(found.difference, -1.0, few=few)
        agree(found.verdict, found.why, found.difference, found.corrected)
        assert (found.verdict == "not shown") == bool(found.why)
        assert not (few and found.verdict != "not shown")


@settings(max_examples=30, deadline=None)
@given(designs, st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_nothing_and_swapped_starts_mirror(design: Design, random: object) -> None:
    labels, scores, women = design.drawn()
    order = np.random.default_rng(random.randrange(2**20)).permutation(len(labels))  # type: ignore[attr-defined]
    one, other = scores[0], scores[1]
    (given_,) = site.compare("a", labels, {"a": one, "b": other}, women)
    (shuffled,) = site.compare("a", labels[order], {"a": one[order], "b": other[order]}, [women[k] for k in order])
    (swapped,) = site.compare("b", labels, {"a": one, "b": other}, women)
    assert (shuffled.verdict, shuffled.why) == (given_.verdict, given_.why)
    assert ends(shuffled.difference) == pytest.approx(ends(given_.difference), abs=1e-9)
    mirrored = {"better": "worse", "worse": "better", "not shown": "not shown"}
    assert (swapped.verdict, swapped.why) == (mirrored[given_.verdict], given_.why)
    assert ends(swapped.difference) == pytest.approx([-end for end in reversed(ends(given_.difference))], abs=1e-9)


def ends(found: Estimate) -> list[float]:
    return [found.value] if found.interval is None else [found.interval[0], found.value, found.interval[1]]


# --- a study --------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(designs, st.sampled_from([1, 2, 5]), st.sampled_from([1, 2, 5]))
def test_a_study_says_nothing_that_it_may_not(design: Design, seeds: int, folds: int) -> None:
    trials = [_dealt(design, start, seeds, folds) for start in range(len(STARTS))]
    if not all(trials):
        return  # a fold without one of the classes cannot be scored
    women = roster(trials)
    rows = [ResultRow(name, name, None, True, own, {}) for name, own in zip(STARTS, trials, strict=True)]
    measured = {row.label: measure(row.trials, women) for row in rows}
    few = bool(women.tested.undecided) or 1 < seeds < TRAININGS_MIN
    assert women.tested.undecided or women.tested.fewest >= FOLD_WOMEN_MIN
    for row in rows:
        for name, one in measured[row.label].items():
            check(one.estimate(women, AREA if name == "auc" else SHARE), 0.0, few=few)
        for one in estimates(calibration(row.trials, women)):
            check(one, 0.0, few=few)
    asked = [compare(BENCH, question, rows[0], row, measured, women, 4) for question in QUESTIONS for row in rows[1:]]
    for found in corrected(asked):
        json.dumps(dataclasses.asdict(found), allow_nan=False)
        _check_study(found, few=few, undecided=bool(women.tested.undecided))


def _dealt(design: Design, start: int, seeds: int, folds: int) -> Trials:
    """Return every training of one start; empty where a fold has images of one class only."""
    labels, scores, women = design.drawn()
    fold_of = np.array([int(woman[1:]) % folds for woman in women])
    if any(len(set(labels[fold_of == fold])) < 2 for fold in range(folds)):
        return {}
    rng = np.random.default_rng([design.seed, start])
    found = {}
    for seed in range(seeds):
        noisy = np.clip(scores[start] + 0.1 * (seeds > 1) * rng.normal(size=len(labels)), 0, 1)
        for fold in range(folds):
            own = np.flatnonzero(fold_of == fold)
            found[Part(seed, 0, fold)] = Scored.of(labels[own], noisy[own], [women[place] for place in own])
    return found


def _check_study(found: HypothesisTest, *, few: bool, undecided: bool) -> None:
    for effect in found.effects.values():
        check(effect.difference, -1.0, few=few)
        assert (effect.detectable is None) or (effect.difference.interval is not None and effect.detectable > 0)
        assert not (undecided and (effect.p is not None or effect.verdict != "not shown"))
        if effect.verdict == "close":
            assert found.kind == "close"
            assert abs(effect.difference.value) < 0.05
        elif found.kind == "better" and effect.corrected is not None:
            agree(effect.verdict, CORRECTED, effect.difference, effect.corrected)
    for one in found.others.values():
        check(one, -1.0, few=few)
