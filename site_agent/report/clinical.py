"""The values of the clinical page: one classifier, counted in women, beside the floor and beside chance.

Rules
1. One score for each woman: the highest probability of her images (see `predictions`).
2. Nothing is chosen on test women. Thresholds come from validation women; what is read from the test women's own curve
   says so.
3. How common the disease is comes from the site (`prevalence` in site.toml). Where it is not stated, nothing that
   depends on it is computed.
4. What rests on fewer than twenty women of a class is counted, and has no interval and no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from site_agent.classifier import operating
from site_agent.classifier.by_woman import Measured, Roster, Scored, measure, roster
from site_agent.classifier.conformal import Judgement, judge
from site_agent.classifier.evaluate import ONLY, Comparison, Evaluation, compare, evaluate
from site_agent.classifier.intervals import AREA, SHARE, Estimate
from site_agent.classifier.operating import BENEFIT, TARGETS
from site_agent.classifier.permutation import ByChance, by_chance, is_small
from site_agent.classifier.zone import Zone
from site_agent.manifest.details import ImageDetails
from site_agent.metrics import THRESHOLD_FIXED, Confusion
from site_agent.report.groups import Calibrated, GroupedColumn, calibrated, columns
from site_agent.report.predictions import Predictions, ScoredImage, ScoredWoman, women
from site_agent.report.repeatability import Repeats
from site_agent.starts import FLOOR, title

Floats = NDArray[np.float64]

DECISIONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""threshold probabilities of the decision curve"""
LEARNED_BY_FLOOR = 0.5
"""the share of cases that the floor learns: both classes count the same in its fit"""

Goal = Literal["published", "validation", "recall", "specificity"]
"""how a threshold came about: .5; the best balance; for a wanted share of cases, or of controls"""


@dataclass(frozen=True, slots=True, eq=False)
class FloorScores:
    """What the floor gives."""

    valid: Floats
    """(v,), of each labelled validation image"""
    test: Floats
    """(n,), of each labelled test image"""
    threshold: float
    """chosen on validation images"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """What the page is made of."""

    start: str
    """the classifier in question"""
    learned: float
    """the share of cases that it has learned"""
    valid_images: tuple[ScoredImage, ...]
    valid: Floats
    """(v,), its probability of each of them"""
    predictions: Predictions
    floor: FloorScores
    prevalence: float
    """0: not stated"""
    details: Mapping[str, ImageDetails]
    """of each labelled test image, by its path"""
    repeats: Repeats
    zone: Zone | None
    """in which the classifier does not decide; None where it has none"""


@dataclass(frozen=True, slots=True)
class Beside:
    """One row of the table of AUCs: a start or the floor, by woman."""

    name: str
    auc: Estimate
    chance: ByChance | None
    """None where there are so many women that an AUC is not mistaken for chance"""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What calling a woman a case from one threshold on gives."""

    goal: Goal
    wanted: float
    """the share that was wanted; 0 where none was"""
    threshold: float
    counts: Confusion
    """of women"""
    recall: Estimate
    specificity: Estimate
    ppv: Estimate | None
    """at the stated prevalence"""
    npv: Estimate | None
    on_curve: float | None
    """what the test women's own curve has at the wanted share"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Net benefit where one would treat from one probability of disease on."""

    threshold: float
    classifier: Estimate
    floor: Estimate
    treat_all: float


@dataclass(frozen=True, slots=True)
class Clinical:
    """Everything that the clinical page says of the whole group."""

    start: str
    case_women: int
    control_women: int
    valid_case_women: int
    valid_control_women: int
    beside: tuple[Beside, ...]
    """every start, then the floor"""
    above_floor: Comparison
    """the classifier in question less the floor, AUC of women"""
    points: tuple[OperatingPoint, ...]
    prevalence: float
    learned: float
    """the share of cases that the classifier has learned; its probabilities are moved from there"""
    decisions: tuple[Decision, ...]
    columns: tuple[GroupedColumn, ...]
    calibrated: tuple[Calibrated, ...]
    """of all women, and by device; probabilities as if the share of cases were that of these women"""
    repeats: Repeats
    zone: Zone | None
    judgement: Judgement | None
    """of the zone on the test women"""


def clinical(sheet: Sheet) -> Clinical:
    """Return what the page says. Raises DataError where the women of a part are all of one class."""
    valid, test = women(sheet.valid_images, sheet.valid), _test(sheet, _scores(sheet))
    labels, names = [woman.label for woman in test], [woman.name for woman in test]
    given = {one.start: [w.score for w in _test(sheet, one.scores)] for one in sheet.predictions.classifiers}
    scores = {**given, title(FLOOR): [woman.score for woman in _test(sheet, sheet.floor.test)]}
    share = sum(labels) / len(labels)
    (above,) = compare(sheet.start, labels, {name: scores[name] for name in (sheet.start, title(FLOOR))}, names)
    return Clinical(
        start=sheet.start,
        case_women=sum(labels),
        control_women=len(labels) - sum(labels),
        valid_case_women=sum(woman.label for woman in valid),
        valid_control_women=sum(1 - woman.label for woman in valid),
        beside=tuple(_beside(name, Scored.of(labels, own, names)) for name, own in scores.items()),
        above_floor=above,
        points=tuple(_points(sheet, valid, test)),
        prevalence=sheet.prevalence,
        learned=sheet.learned,
        decisions=tuple(_decisions(sheet, test)) if sheet.prevalence else (),
        columns=columns(test, sheet.details, sheet.predictions.of(sheet.start).threshold),
        calibrated=calibrated(
            test, operating.moved(np.array(scores[sheet.start]), sheet.learned, share), sheet.details
        ),
        repeats=sheet.repeats,
        zone=sheet.zone,
        judgement=judge(sheet.zone, labels, scores[sheet.start], names) if sheet.zone else None,
    )


def floor_evaluations(predictions: Predictions, floor: FloorScores) -> tuple[Evaluation, Evaluation]:
    """Return the floor's evaluation on images, and on women."""
    images = predictions.images
    own = women(images, floor.test)
    of_images = ([i.label for i in images], floor.test, [i.woman for i in images])
    of_women = ([w.label for w in own], [w.score for w in own], [w.name for w in own])
    by_image, by_woman = (
        evaluate(title(FLOOR), labels, scores, names, threshold_validation=floor.threshold)
        for labels, scores, names in (of_images, of_women)
    )
    return by_image, by_woman


def _scores(sheet: Sheet) -> Floats:
    return sheet.predictions.of(sheet.start).scores


def _test(sheet: Sheet, scores: Floats) -> tuple[ScoredWoman, ...]:
    return women(sheet.predictions.images, scores)


def _beside(name: str, scored: Scored) -> Beside:
    tested = roster([{ONLY: scored}])
    auc = measure({ONLY: scored}, tested)["auc"].estimate(tested, AREA)
    small = is_small(tested.tested.case, tested.tested.control)
    return Beside(name, auc, by_chance({ONLY: scored}) if small else None)


# --- thresholds -----------------------------------------------------------------------------------------------------


def _points(sheet: Sheet, valid: Sequence[ScoredWoman], test: Sequence[ScoredWoman]) -> list[OperatingPoint]:
    labels, scores = [w.label for w in valid], [w.score for w in valid]
    chosen = sheet.predictions.of(sheet.start).threshold
    asked: list[tuple[Goal, float, float]] = [("published", 0.0, THRESHOLD_FIXED), ("validation", 0.0, chosen)]
    if len(set(labels)) > 1:
        asked += [("recall", wanted, operating.threshold_for_recall(labels, scores, wanted)) for wanted in TARGETS]
        asked += [
            ("specificity", wanted, operating.threshold_for_specificity(labels, scores, wanted)) for wanted in TARGETS
        ]
    return [_point(test, sheet.prevalence, *one) for one in asked]


_ON_CURVE: Mapping[Goal, Callable[[Sequence[int], Sequence[float], float], float]] = {
    "recall": operating.specificity_at_recall,
    "specificity": operating.recall_at_specificity,
}


def _point(
    test: Sequence[ScoredWoman], prevalence: float, goal: Goal, wanted: float, threshold: float
) -> OperatingPoint:
    labels, scores = [w.label for w in test], [w.score for w in test]
    recall, specificity, tested = _rates(test, threshold)
    ppv, npv = _predictive(recall, specificity, prevalence, tested)
    on_curve = _ON_CURVE.get(goal)
    return OperatingPoint(
        goal=goal,
        wanted=wanted,
        threshold=threshold,
        counts=Confusion.at(labels, scores, threshold),
        recall=recall.estimate(tested, SHARE),
        specificity=specificity.estimate(tested, SHARE),
        ppv=ppv,
        npv=npv,
        on_curve=on_curve(labels, scores, wanted) if on_curve else None,
    )


def _rates(test: Sequence[ScoredWoman], threshold: float) -> tuple[Measured, Measured, Roster]:
    """Return sensitivity and specificity of women at a threshold."""
    scored = Scored.of([w.label for w in test], [w.score for w in test], [w.name for w in test], threshold)
    tested = roster([{ONLY: scored}])
    found = measure({ONLY: scored}, tested)
    return found["recall"], found["specificity"], tested


def _predictive(
    recall: Measured, specificity: Measured, prevalence: float, tested: Roster
) -> tuple[Estimate | None, Estimate | None]:
    if not prevalence:
        return None, None
    ppv, npv = operating.predictive_values(recall, specificity, prevalence)
    return ppv.estimate(tested, AREA), npv.estimate(tested, AREA)


# --- decision curve -------------------------------------------------------------------------------------------------


def _decisions(sheet: Sheet, test: Sequence[ScoredWoman]) -> list[Decision]:
    floor = _test(sheet, sheet.floor.test)
    return [
        Decision(
            threshold,
            _benefit(sheet, test, threshold, sheet.learned),
            _benefit(sheet, floor, threshold, LEARNED_BY_FLOOR),
            operating.treat_all(sheet.prevalence, threshold),
        )
        for threshold in DECISIONS
    ]


def _benefit(sheet: Sheet, test: Sequence[ScoredWoman], threshold: float, learned: float) -> Estimate:
    recall, specificity, tested = _rates(test, operating.unmoved(threshold, learned, sheet.prevalence))
    return operating.net_benefit(recall, specificity, sheet.prevalence, threshold).estimate(tested, BENEFIT)
