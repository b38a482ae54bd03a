"""The study's own hypotheses, tested one after the other in the order in which they were named.

Rules
1. A hypothesis is tested at 5 % only if the one before it was shown. So the chance that any of them is shown and false
   is 5 %, and none is corrected (fixed sequence: Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen, J Stat Plan
   Inference 99:25, 2001). After the first one that is not shown none is tested: it has a difference, and no verdict.
2. It is about the classifier that a start gives when its trainings are averaged: one score of each woman, the mean
   over her images and over the trainings (seeds, classifiers). Folds are kept apart; over repeats of the
   cross-validation AUCs are averaged.
3. The measure is the AUC, the test that of all reports (`site_agent.classifier.by_woman`), two-sided. A difference
   against the direction of the hypothesis does not show it.
4. What was changed after a test part was open is not confirmed, whatever its p: `planning.registration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cervix_study.analysis.comparing import Effect, aligned, effect
from cervix_study.analysis.result_rows import ResultRow, SiteRows
from cervix_study.records import Axes, Hypothesis, Registered
from fedcervix.core.grouped import grouped
from site_agent.classifier.by_woman import Part, Scored, Trials, measure, roster
from site_agent.classifier.intervals import LEVEL

Outcome = Literal["shown", "not shown", "not tested", "not finished"]


@dataclass(frozen=True, slots=True)
class SequenceTest:
    """One hypothesis, and what became of it."""

    hypothesis: Hypothesis
    outcome: Outcome
    women: int = 0
    """tested"""
    case_women: int = 0
    trainings: int = 0
    """averaged, of each start and fold"""
    effect: Effect | None = None
    """of the AUC; None where the study is not finished"""


def in_sequence(registered: Registered | None, tables: Iterable[SiteRows], axes: Axes) -> list[SequenceTest]:
    """Return the study's hypotheses, tested in their order. Raises DataError where two starts do not fit together."""
    by_place = {(bench.profile, bench.site): bench for bench in tables}
    found: list[SequenceTest] = []
    for hypothesis in registered.hypotheses if registered else ():
        bench = by_place[hypothesis.profile or axes.profiles[0], hypothesis.site]
        rows = [_row(bench, start, hypothesis.label_fraction) for start in (hypothesis.first, hypothesis.second)]
        reached = all(before.outcome == "shown" for before in found)
        found.append(
            _tested(hypothesis, [row for row in rows if row], axes.parts // axes.fold_repeats, reached=reached)
        )
    return found


def _row(bench: SiteRows, start: str, label_fraction: float) -> ResultRow | None:
    if label_fraction == 1:
        return bench.chosen(start)
    wanted = (start, label_fraction, "none")
    return next((f.row for f in bench.followers if (f.start, f.label_fraction, f.control) == wanted), None)


def _tested(hypothesis: Hypothesis, rows: Sequence[ResultRow], folds: int, *, reached: bool) -> SequenceTest:
    if len(rows) < 2:
        return SequenceTest(hypothesis, "not finished")
    aligned(rows[0].trials, rows[1].trials)
    first, second = (averaged(row.trials, folds) for row in rows)
    women = roster([first, second])
    gain = effect(measure(first, women)["auc"], measure(second, women)["auc"], "better", women)
    trainings = sum(part.fold == 0 for part in rows[0].trials)
    tested = women.tested
    outcome = outcome_of(gain) if reached else "not tested"
    return SequenceTest(hypothesis, outcome, tested.case + tested.control, tested.case, trainings, gain)


def outcome_of(found: Effect) -> Outcome:
    """Return what a hypothesis that is tested comes to (rule 3)."""
    shown = found.p is not None and found.p < 1 - LEVEL and found.difference.value > 0
    return "shown" if shown else "not shown"


def averaged(trials: Trials, folds: int) -> Trials:
    """Return one score of each woman and fold: the mean over her images and over the trainings (rule 2).

    `folds` of each repeat of the cross-validation; 1 without one.
    """
    by_fold = grouped((part.fold, scored) for part, scored in sorted(trials.items()))
    return {Part(0, fold // folds, fold): _by_woman(found) for fold, found in by_fold.items()}


def _by_woman(trainings: Sequence[Scored]) -> Scored:
    first, scores = trainings[0], np.mean([scored.scores for scored in trainings], axis=0)
    women = sorted(set(first.women))
    places = np.array([women.index(woman) for woman in first.women])
    images = np.bincount(places)
    cases = np.bincount(places, weights=first.labels) > 0
    return Scored.of(cases, np.bincount(places, weights=scores) / images, women)
