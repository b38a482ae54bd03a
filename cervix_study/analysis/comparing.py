"""Two starts on the same women: the difference, its uncertainty, and the verdict.

Rules
1. The verdict follows from one test: how far the difference scatters over draws of women and seeds
   (`site_agent.classifier.resampling`), judged by the p value that goes with its interval
   (`site_agent.classifier.intervals`), corrected by Holm over all comparisons of one profile and measure. McNemar's and
   DeLong's tests are additional information for readers who know them, and decide nothing.
2. `better`: corrected p below .05, in the direction of the question. `worse`: the same against it. Everything
   else is `not shown`, which is never `no difference`.
3. That two starts are `close` is shown only by an interval that lies within a margin fixed here.
4. The detectable difference is given as well: the one that would be found in four of five studies.
5. Where there is no interval (`site_agent.classifier.intervals`: too few women, draws that agree) there is no p value
   and no detectable difference either, and the verdict is `not shown`. In the correction it counts as one comparison.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cervix_study.analysis.hypotheses import Question
from cervix_study.analysis.result_rows import ResultRow, SiteRows
from cervix_study.evidence import mcnemar
from cervix_study.evidence.delong import Contrast, clustered, contrast, delong, mean_of_folds
from cervix_study.evidence.holm import holm
from cervix_study.evidence.paper import Kind
from fedcervix.errors import DataError
from site_agent.classifier.intervals import DIFFERENCE, LEVEL, Estimate, Verdict, detectable, is_close, p_value
from site_agent.classifier.resampling import Draws, Floats, Part, Sampled, Scored, Trials

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
    corrected: float | None
    """by Holm; None where nothing is decided, or where the question is whether two starts are close"""
    detectable: float | None
    """a difference of this size would have been found with probability .8 (uncorrected, 5 %); None as p is"""
    verdict: Verdict


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
    delong_women: float | None = None


def compare(
    bench: SiteRows,
    question: Question,
    first: ResultRow,
    second: ResultRow,
    sampled: Mapping[str, Sampled],
    drawn: Draws,
) -> HypothesisTest:
    """Return one comparison, not yet corrected; `sampled` holds every row by label."""
    one, two = sampled[first.label], sampled[second.label]
    pairs = aligned(first.trials, second.trials)
    return HypothesisTest(
        profile=bench.profile,
        site=bench.site,
        question=question.name,
        kind=question.kind,
        first=first.label,
        second=second.label,
        effects={name: effect(one[name], two[name], question.kind, drawn) for name in TESTED},
        others={name: drawn.estimate(one[name] - two[name], DIFFERENCE) for name in TABLE if name not in TESTED},
        **({} if drawn.roster.tested.undecided else _classical(pairs)),
    )


def _classical(pairs: Mapping[Part, Pair]) -> dict[str, float | None]:
    """Return the p values that stand beside the verdict."""
    by_image, by_woman = (_where_defined(pairs, women=women) for women in (False, True))
    return {
        "mcnemar_images": mcnemar_of(pairs, women=False),
        "mcnemar_women": mcnemar_of(pairs, women=True),
        "delong_images": by_image.p if by_image else None,
        "delong_women": by_woman.p if by_woman else None,
    }


def _where_defined(pairs: Mapping[Part, Pair], *, women: bool) -> Contrast | None:
    """Return DeLong's difference; None where a class has too few women or images to tell a variance."""
    try:
        return delong_of(pairs, women=women)
    except DataError:
        return None


def effect(first: Floats, second: Floats, kind: Kind, drawn: Draws) -> Effect:
    """Return the effect of one measure from its draws; the verdict on `better` waits for the correction."""
    scatter = drawn.scatter(first - second)
    difference = drawn.estimate(first - second, DIFFERENCE)
    return Effect(
        first=float(first[0]),
        second=float(second[0]),
        difference=difference,
        p=p_value(difference, scatter),
        corrected=None,
        detectable=detectable(difference, scatter),
        verdict="close" if kind == "close" and is_close(difference, MARGIN) else "not shown",
    )


def corrected(comparisons: Sequence[HypothesisTest]) -> tuple[HypothesisTest, ...]:
    """Correct the comparisons of one profile, measure by measure, and pass the verdicts on `better`."""
    done = list(comparisons)
    family = [place for place, found in enumerate(done) if found.kind == "better"]
    for measure in TESTED:
        found = [done[place].effects[measure].p for place in family]
        p_values = holm([1.0 if p is None else p for p in found])  # 1 where nothing is decided
        for place, p in zip(family, p_values, strict=True):
            judged = _judged(done[place].effects[measure], p)
            done[place] = dataclasses.replace(done[place], effects={**done[place].effects, measure: judged})
    return tuple(done)


def _judged(found: Effect, p: float) -> Effect:
    if found.p is None:
        return found
    verdict: Verdict = "not shown"
    if p < 1 - LEVEL:
        verdict = "better" if found.difference.value > 0 else "worse"
    return dataclasses.replace(found, corrected=p, verdict=verdict)


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


def delong_of(pairs: Mapping[Part, Pair], *, women: bool) -> Contrast:
    """Return DeLong's difference of the mean AUCs over seeds: fold by fold, then the mean of independent folds."""
    folds: dict[int, list[Pair]] = {}
    for part, pair in pairs.items():
        folds.setdefault(part.fold, []).append(pair)
    return mean_of_folds([_fold(trainings, women=women) for trainings in folds.values()])


def _fold(trainings: Sequence[Pair], *, women: bool) -> Contrast:
    sample = trainings[0][0]
    scores = np.stack([one.scores for one, _ in trainings] + [two.scores for _, two in trainings])
    areas = clustered(sample.labels, scores, sample.women) if women else delong(sample.labels, scores)
    share = np.full(len(trainings), 1 / len(trainings))
    return contrast(areas, np.concatenate([share, -share]))
