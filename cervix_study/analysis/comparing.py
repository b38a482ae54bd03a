"""Two starts on the same women: the difference, its uncertainty, and the verdict.

Rules
1. The verdict follows from one test: how far the difference moves with other women and seeds
   (`site_agent.classifier.by_woman`), judged by the p value that goes with its interval
   (`site_agent.classifier.intervals`), corrected by Holm over all comparisons of one profile, measure and kind of
   question. McNemar's and DeLong's tests by image are additional information, and decide nothing.
2. `better`: corrected p below .05, in the direction of the question. `worse`: the same against it. Everything
   else is `not shown`, which is never `no difference`.
3. That two starts are `close` is shown only where a difference as large as a margin, fixed here, is as improbable:
   the corrected p of the nearer end of the margin is below .05 (two one-sided tests: Schuirmann, J Pharmacokinet
   Biopharm 15:657, 1987).
4. The detectable difference is given as well: the one that would be found in four of five studies, with the same
   correction.
5. Where there is no interval (`site_agent.classifier.intervals`: too few women, women who are all alike) there is no p
   value and no detectable difference either, and the verdict is `not shown`. In the correction it counts as one
   comparison. With two to four trainings there is a p value, and so a verdict, but nothing else of these.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from scipy.stats import norm

from cervix_study.analysis.hypotheses import Question
from cervix_study.analysis.result_rows import ResultRow, SiteRows
from cervix_study.evidence import mcnemar
from cervix_study.evidence.paper import Kind
from fedcervix.errors import DataError
from site_agent.classifier.by_woman import Measured, Part, Roster, Scored, Trials, measure, roster, variance_of
from site_agent.classifier.intervals import (
    DIFFERENCE,
    Estimate,
    Verdict,
    detectable,
    holm,
    p_apart,
    p_value,
    verdict,
)

MARGIN = 0.05
"""Two starts are called close when the whole interval of their difference lies within this, either way."""

TABLE = ("auc", "accuracy", "recall", "precision", "f1")
"""the measures of the study's tables: the paper's, and the AUC"""

TESTED = ("auc", "accuracy")
"""the measures that are tested: the one that needs no threshold, and the paper's"""


@dataclass(frozen=True, slots=True)
class Effect:
    """The difference of one measure: first minus second."""

    first: float
    second: float
    difference: Estimate
    p: float | None
    """of no difference, by woman and seed, not corrected; None where nothing is decided"""
    apart: float | None
    """of a difference as large as the margin; None as `p` is, and where the question is not for closeness"""
    corrected: float | None = None
    """by Holm, of what the question asks for; None where nothing is decided, and before the correction"""
    detectable: float | None = None
    """a difference of this size would have been found with probability .8, corrected as this one; None as `p` is, and
    where the question is for closeness"""
    verdict: Verdict = "not shown"


@dataclass(frozen=True, slots=True)
class HypothesisTest:
    """One question put to one pair of rows at one site."""

    profile: str
    site: str
    question: str
    kind: Kind
    first: str
    second: str
    effects: Mapping[str, Effect]
    """measure -> effect, of `TESTED`"""
    others: Mapping[str, Estimate]
    """measure -> difference, of the rest: shown, not tested"""
    mcnemar_images: float | None = None
    """p of accuracy; images taken for independent. Over seeds: twice the median. None where the women decide nothing"""
    mcnemar_women: float | None = None
    delong_images: float | None = None
    """p of AUC; images taken for independent, seeds taken as given. None as well where no variance can be told"""


def compare(
    bench: SiteRows,
    question: Question,
    first: ResultRow,
    second: ResultRow,
    measured: Mapping[str, Mapping[str, Measured]],
    women: Roster,
    comparisons: int,
) -> HypothesisTest:
    """Return one of so many comparisons, not yet corrected; `measured` holds every row by label."""
    one, two = measured[first.label], measured[second.label]
    return HypothesisTest(
        profile=bench.profile,
        site=bench.site,
        question=question.name,
        kind=question.kind,
        first=first.label,
        second=second.label,
        effects={name: effect(one[name], two[name], question.kind, women, comparisons) for name in TESTED},
        others={name: (one[name] - two[name]).estimate(women, DIFFERENCE) for name in TABLE if name not in TESTED},
        **({} if women.tested.undecided else _classical(aligned(first.trials, second.trials))),
    )


def _classical(pairs: Mapping[Part, Pair]) -> dict[str, float | None]:
    """Return the p values that stand beside the verdict."""
    return {
        "mcnemar_images": mcnemar_of(pairs, women=False),
        "mcnemar_women": mcnemar_of(pairs, women=True),
        "delong_images": delong_of(pairs),
    }


def effect(first: Measured, second: Measured, kind: Kind, women: Roster, comparisons: int = 1) -> Effect:
    """Return the effect of one measure in one of so many comparisons; its verdict waits for the correction."""
    gain = first - second
    scatter, difference = gain.scatter(women), gain.estimate(women, DIFFERENCE)
    return Effect(
        first=first.value,
        second=second.value,
        difference=difference,
        p=p_value(difference, scatter),
        apart=p_apart(difference, scatter, MARGIN) if kind == "close" else None,
        detectable=detectable(difference, scatter, comparisons) if kind == "better" else None,
    )


def corrected(comparisons: Sequence[HypothesisTest]) -> tuple[HypothesisTest, ...]:
    """Correct the comparisons of one profile, by measure and kind of question, and pass the verdicts."""
    done = list(comparisons)
    for measured, kind in itertools.product(TESTED, get_args(Kind)):
        family = [place for place, found in enumerate(done) if found.kind == kind]
        effects = [done[place].effects[measured] for place in family]
        p_values = holm([found.apart if kind == "close" else found.p for found in effects])
        for place, found, p in zip(family, effects, p_values, strict=True):
            judged = _judged(found, kind, p)
            done[place] = dataclasses.replace(done[place], effects={**done[place].effects, measured: judged})
    return tuple(done)


def _judged(found: Effect, kind: Kind, p: float) -> Effect:
    if found.p is None:
        return found
    shown = verdict(found.difference, p)
    if kind == "close" and shown != "not shown":
        shown = "close"
    return dataclasses.replace(found, corrected=p, verdict=shown)


Pair = tuple[Scored, Scored]


def aligned(first: Trials, second: Trials) -> dict[Part, Pair]:
    """Return both starts' trainings part by part. Raises DataError unless they were tested on the same images."""
    if set(first) != set(second):
        raise DataError("two starts have different seeds or folds", cause="the study is not finished")
    for part, one in first.items():
        two = second[part]
        if one.women != two.women or not np.array_equal(one.labels, two.labels):
            raise DataError(
                "two starts were tested on different images",
                cause="cells of different data in one study folder",
                next_step="cervix-study run STUDY.toml --out FOLDER, with a new folder",
            )
    return {part: (first[part], second[part]) for part in sorted(first)}


def mcnemar_of(pairs: Mapping[Part, Pair], *, women: bool) -> float:
    """Return McNemar's p of accuracy: folds added, seeds combined."""
    by_training: dict[tuple[int, int], mcnemar.Discordant] = {}
    for part, (one, two) in pairs.items():
        right_one, right_two = ((found.scores >= found.threshold) == found.labels for found in (one, two))
        found = (
            mcnemar.by_woman(right_one, right_two, one.women) if women else mcnemar.by_image(right_one, right_two)
        )  # fmt: skip
        training = (part.seed, part.repetition)
        by_training[training] = by_training.get(training, mcnemar.Discordant(0, 0)) + found
    return mcnemar.of_seeds([found.p for found in by_training.values()])


def delong_of(pairs: Mapping[Part, Pair]) -> float | None:
    """Return the p value of DeLong's test as published: images taken for independent, the mean AUC over seeds.

    Folds are independent of one another; of a repeated cross-validation the first deal counts, for in the others the
    same images come again. None where no variance can be told.
    """
    dealt = min(part.repetition for part in pairs)
    folds = {part.fold for part in pairs if part.repetition == dealt}
    pairs = {part: pair for part, pair in pairs.items() if part.fold in folds}
    ones, twos = ({part: _each_her_own(pair[which], part) for part, pair in pairs.items()} for which in (0, 1))
    images = roster([ones, twos])
    gain = measure(ones, images)["auc"] - measure(twos, images)["auc"]
    variance = float(variance_of(gain.shares.mean(axis=0), images).variance)
    return float(2 * norm.sf(abs(gain.value) / variance**0.5)) if variance > 0 else None


def _each_her_own(scored: Scored, part: Part) -> Scored:
    """Return the images as if every one were of another woman."""
    return dataclasses.replace(scored, women=tuple(f"{part.fold} {row}" for row in range(len(scored.women))))
