"""The indeterminate zone: scores at which a classifier does not say case or control. Class-conditional and by woman.

Rules
1. A woman has one score, the highest probability of her images, and is a case where one of her images is.
2. A class stays possible for a woman unless her score is stranger than those of nearly all validation women of that
   class: its conformal p value is at most the permitted error. She is called where exactly one class stays possible.
3. So of new women of either class, at most the permitted share is called wrongly, whatever the classifier and however
   rare cases are; on average over validation women, who must be like the new ones and must not have been chosen by it.
   They did choose epoch, penalty and threshold, a little: the true error may be a little higher.
4. A class with few validation women always stays possible: a p value cannot be smaller than 1 / (women + 1). Then
   nobody is called the other class, and `Zone.lacking` says so.
5. Test women take no part. They judge the zone (`judge`).

Pure: values in, values out.

Sources: Vovk, Gammerman, Shafer, Algorithmic learning in a random world, 2005 (Mondrian conformal prediction); Vovk,
Conditional validity of inductive conformal predictors, ACML 2012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from site_agent.classifier.by_woman import Roster, Scored, ratio, roster
from site_agent.classifier.evaluate import ONLY
from site_agent.classifier.intervals import SHARE, Estimate
from site_agent.classifier.zone import ROUNDING, Zone

Floats = NDArray[np.float64]


def womens_scores(
    labels: ArrayLike, scores: ArrayLike, women: Sequence[str]
) -> tuple[NDArray[np.bool_], Floats, tuple[str, ...]]:
    """Return whether each woman is a case, her highest score, and her name, of images: (n,) each to (women,) each."""
    names, place = np.unique(np.asarray(women), return_inverse=True)
    case, highest = np.zeros(len(names), np.bool_), np.full(len(names), -np.inf)
    np.logical_or.at(case, place, np.asarray(labels, np.bool_))
    np.maximum.at(highest, place, np.asarray(scores, np.float64))
    return case, highest, tuple(names.tolist())


def calibrate(labels: ArrayLike, scores: ArrayLike, women: Sequence[str], error: float) -> Zone:
    """Return the zone of validation images: labels (n,) of 0 and 1, scores (n,), the woman of each image."""
    case, highest, _ = womens_scores(labels, scores, women)
    cases, controls = np.sort(highest[case]), np.sort(highest[~case])
    lowest, most = (_rank(len(found), error) for found in (cases, controls))
    return Zone(
        error=error,
        clear_below=float(cases[lowest - 1]) if lowest else None,
        case_above=float(controls[-most]) if most else None,
        case_women=len(cases),
        control_women=len(controls),
    )


def _rank(women: int, error: float) -> int:
    """Return how many women of a class, the new one among them, may be at least as strange where it is given up."""
    return math.floor(error * (women + 1) + ROUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A zone on test women."""

    women: int
    calls: dict[str, dict[str, int]]
    """true class (case, control) -> call (case, control, indeterminate) -> women"""
    indeterminate: Estimate
    """share of the women in the zone"""
    wrong: Estimate
    """share of those called who are called wrongly; 0 where nobody is called"""
    missed: Estimate
    """share of the cases who are called control: permitted is `Zone.error`"""
    false_alarms: Estimate
    """share of the controls who are called case: permitted is `Zone.error`"""


def judge(zone: Zone, labels: ArrayLike, scores: ArrayLike, women: Sequence[str]) -> Judgement:
    """Return how a zone does on test images, by woman. Raises DataError unless women of both classes are there."""
    case, highest, names = womens_scores(labels, scores, women)
    tested = roster([{ONLY: Scored.of(case, highest, names)}])
    called = np.array([zone.call(score) for score in highest.tolist()])
    place = {name: number for number, name in enumerate(tested.women)}
    order = np.argsort([place[name] for name in names])
    case, called = case[order], called[order]
    kinds = {"case": case, "control": ~case}
    decided = called != "indeterminate"
    missed, alarms = case & (called == "control"), ~case & (called == "case")
    return Judgement(
        women=len(names),
        calls={
            kind: {call: int(np.sum(own & (called == call))) for call in ("case", "control", "indeterminate")}
            for kind, own in kinds.items()
        },
        indeterminate=_share(~decided, np.ones_like(case), tested),
        wrong=_share(missed | alarms, decided, tested),
        missed=_share(missed, case, tested),
        false_alarms=_share(alarms, ~case, tested),
    )


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_], tested: Roster) -> Estimate:
    return ratio(part.astype(np.float64), whole.astype(np.float64)).estimate(tested, SHARE)
