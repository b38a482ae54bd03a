"""Scores on the test images, with the uncertainty that belongs to them.

Rules
1. Nothing is chosen here. The classifier and `threshold_validation` were chosen on validation images; test labels
   only score.
2. Scored per image, as in the paper (its Table II follows from per-image counts), but every interval is by *woman*
   (`site_agent.classifier.by_woman`): two images of one woman are not independent.
3. Two initialisations are compared on the same women: the difference, not the overlap of two intervals, says whether
   one is better. The comparisons of one report are corrected for their number.
4. Where there is no interval, nothing is shown, and the reason is said (`site_agent.classifier.intervals`).

An interval tells how far other women would move a number. It does not hold what another seed of training would do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from site_agent.classifier.by_woman import Measured, Part, Roster, Scored, measure, roster
from site_agent.classifier.intervals import (
    AREA,
    DIFFERENCE,
    SHARE,
    Estimate,
    Verdict,
    holm,
    p_value,
    verdict,
    why_not_shown,
)
from site_agent.metrics import THRESHOLD_FIXED, Confusion, roc

MEASURES = ("accuracy", "recall", "precision", "f1")
"""Properties of a Confusion, in the order of the paper's Table II."""
RATES = (*MEASURES, "specificity", "npv")
"""Every rate at a threshold; the paper does not print the last two."""

ONLY = Part(0)
"""one training and one test part"""


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """What calling every image at or above `threshold` a case gives."""

    threshold: float
    confusion: Confusion
    accuracy: Estimate
    recall: Estimate
    precision: Estimate
    f1: Estimate
    specificity: Estimate
    npv: Estimate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One initialisation's classifier on the test images."""

    name: str
    images: int
    women: int
    case_women: int
    """women with an image of a case; the others are controls"""
    cases: int
    """images of the class case; the others are controls"""
    auc: Estimate
    fixed: AtThreshold
    """at .5, the paper's threshold"""
    chosen: AtThreshold
    """at the threshold chosen on validation images"""
    roc: tuple[tuple[float, float], ...]
    """(false positive rate, recall), from (0, 0) to (1, 1)"""

    def to_json(self) -> dict[str, object]:
        """Return values JSON can hold; `typed_json.from_json` undoes it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two initialisations on the same test women: AUC of `name` minus AUC of `versus`."""

    name: str
    versus: str
    difference: Estimate
    corrected: float = 1.0
    """p of no difference, corrected for the number of comparisons of the report; 1 where there is no interval"""

    @property
    def verdict(self) -> Verdict:
        """What the difference shows: `better` means that `name` does better than `versus`."""
        return verdict(self.difference, self.corrected)

    @property
    def why(self) -> str:
        """Why nothing is shown; empty where something is."""
        return why_not_shown(self.difference, self.corrected)


def evaluate(
    name: str,
    labels: ArrayLike,
    scores: ArrayLike,
    patients: Sequence[str],
    *,
    threshold_validation: float,
) -> Evaluation:
    """Score one classifier on test images: labels (n,) of 0 and 1, scores (n,), the woman of each image.

    `threshold_validation` comes from `site_agent.metrics.best_threshold` on *validation* scores. Raises DataError
    unless both classes are there.
    """
    false_rate, true_rate, _ = roc(labels, scores)
    trials = {t: {ONLY: Scored.of(labels, scores, patients, t)} for t in (THRESHOLD_FIXED, threshold_validation)}
    tested = roster(trials.values())
    measured = {threshold: measure(own, tested) for threshold, own in trials.items()}
    women = tested.tested
    return Evaluation(
        name=name,
        images=len(patients),
        women=women.case + women.control,
        case_women=women.case,
        cases=int(np.count_nonzero(labels)),
        auc=measured[THRESHOLD_FIXED]["auc"].estimate(tested, AREA),
        fixed=_at(trials[THRESHOLD_FIXED][ONLY], measured[THRESHOLD_FIXED], tested),
        chosen=_at(trials[threshold_validation][ONLY], measured[threshold_validation], tested),
        roc=tuple(zip(false_rate.tolist(), true_rate.tolist(), strict=True)),
    )


def compare(
    name: str, labels: ArrayLike, scores: Mapping[str, ArrayLike], patients: Sequence[str]
) -> tuple[Comparison, ...]:
    """Compare one of the initialisations in `scores` with every other one, on the same test images.

    Raises DataError where they scored different numbers of images.
    """
    starts = {start: {ONLY: Scored.of(labels, own, patients)} for start, own in scores.items()}
    women = roster(starts.values())
    areas = {start: measure(trials, women)["auc"] for start, trials in starts.items()}
    gains = {versus: areas[name] - area for versus, area in areas.items() if versus != name}
    differences = {versus: gain.estimate(women, DIFFERENCE) for versus, gain in gains.items()}
    corrected = holm([p_value(differences[versus], gain.scatter(women)) for versus, gain in gains.items()])
    return tuple(
        Comparison(name, versus, difference, p)
        for (versus, difference), p in zip(differences.items(), corrected, strict=True)
    )


def _at(scored: Scored, measured: Mapping[str, Measured], women: Roster) -> AtThreshold:
    """Return every rate at one threshold."""
    confusion = Confusion.at(scored.labels, scored.scores, scored.threshold)
    estimates = {rate: measured[rate].estimate(women, SHARE) for rate in RATES}
    return AtThreshold(threshold=float(scored.threshold), confusion=confusion, **estimates)
