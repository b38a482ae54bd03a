"""Test women by device and by what else the manifest says of them: whether it does as well in every group.

Rules
1. A woman is in one group of a column; where her images disagree, in the group `several`.
2. Numbers, such as an age, make two groups, divided at the median of the women. Words are groups as they are.
3. A group with fewer than twenty women of a class is named and counted, and nothing more.
4. A column with more than 24 values is shown as its 23 largest groups and one of all further values.
5. One test for each column: are its groups' AUCs alike (Cochran's Q, Biometrics 10:101, 1954)? The p values are
   corrected for the number of columns (Holm). Groups that are not shown to differ are not shown to be alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.grouped import grouped
from site_agent.classifier.by_woman import Measured, Roster, Scored, measure, roster
from site_agent.classifier.evaluate import ONLY
from site_agent.classifier.intervals import AREA, SHARE, Estimate, Women, holm
from site_agent.classifier.recalibration import Recalibration, recalibration
from site_agent.manifest.details import ImageDetails
from site_agent.metrics import Confusion
from site_agent.report.predictions import ScoredWoman

Floats = NDArray[np.float64]

DEVICE = "device"
SEVERAL = "several"
UNKNOWN = "not stated"
WORDS_MAX = 6
"""A column of numbers with more different values than this is divided at its median."""
VALUES_MAX = 24
"""groups of one column, without those of women of whom nothing or several things are said"""


@dataclass(frozen=True, slots=True)
class WomenGroup:
    """The women of one value of one column."""

    value: str
    case_women: int
    control_women: int
    auc: Estimate | None
    """None: too few women of a class for any number"""
    counts: Confusion | None
    """of women, at the threshold that validation images chose"""
    recall: Estimate | None
    specificity: Estimate | None


@dataclass(frozen=True, slots=True)
class GroupedColumn:
    """One column of the manifest."""

    name: str
    groups: tuple[WomenGroup, ...]
    alike: float | None
    """corrected p of equal AUCs; None where fewer than two groups have enough women, or one AUC has no variance"""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What the probabilities of one group of women mean."""

    value: str
    """of the column `device`; empty: all women"""
    case_women: int
    control_women: int
    mean: float | None
    """mean probability; None: too few women of a class"""
    found: Recalibration | None


def columns(
    women: Sequence[ScoredWoman], details: Mapping[str, ImageDetails], threshold: float
) -> tuple[GroupedColumn, ...]:
    """Return the groups of every column that says something: `details` of each image, by its path."""
    said = {name: _said(name, women, details) for name in _names(details)}
    made = {name: _pooled(_divided(words)) for name, words in said.items() if any(word != UNKNOWN for word in words)}
    built = {name: _groups(women, words, threshold) for name, words in made.items()}
    tests = {name: _alike(aucs) for name, (_, aucs) in built.items()}
    asked = [name for name, p in tests.items() if p is not None]
    corrected = dict(zip(asked, holm([tests[name] for name in asked]), strict=True))
    return tuple(GroupedColumn(name, groups, corrected.get(name)) for name, (groups, _) in built.items())


def _names(details: Mapping[str, ImageDetails]) -> list[str]:
    further = dict.fromkeys(name for one in details.values() for name in one.covariates)
    return [DEVICE, *further]


def _said(name: str, women: Sequence[ScoredWoman], details: Mapping[str, ImageDetails]) -> list[str]:
    """Return what a column says of each woman (rule 1)."""

    def of(image: str) -> str:
        own = details[image]
        return own.device if name == DEVICE else own.covariates.get(name, "")

    words = [list(dict.fromkeys(word for image in woman.images if (word := of(image)))) for woman in women]
    return [UNKNOWN if not own else own[0] if len(own) == 1 else SEVERAL for own in words]


def _divided(words: Sequence[str]) -> list[str]:
    """Return words as they are, and numbers as one of two halves (rule 2)."""
    numbers = [_number(word) for word in words if word not in (UNKNOWN, SEVERAL)]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(set(known)) <= WORDS_MAX:
        return list(words)
    middle = float(np.median(known))
    names = (f"below {middle:g}", f"{middle:g} or more")
    return [names[number >= middle] if (number := _number(word)) is not None else word for word in words]


def _pooled(words: Sequence[str]) -> list[str]:
    """Return words, the rarest of too many as one (rule 4)."""
    counts = Counter(word for word in words if word not in (UNKNOWN, SEVERAL))
    if len(counts) <= VALUES_MAX:
        return list(words)
    rare = {word for word, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[VALUES_MAX - 1 :]}
    return [f"{len(rare)} further values" if word in rare else word for word in words]


def _number(word: str) -> float | None:
    try:
        found = float(word.replace(",", "."))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _groups(
    women: Sequence[ScoredWoman], words: Sequence[str], threshold: float
) -> tuple[tuple[WomenGroup, ...], list[tuple[float, float]]]:
    """Return the groups, largest first, and (AUC, variance) of those with enough women."""
    own = grouped(zip(words, women, strict=True))
    order = sorted(own, key=lambda word: (word in (UNKNOWN, SEVERAL), -len(own[word]), word))
    found = [_group(word, own[word], threshold) for word in order]
    return tuple(group for group, _ in found), [auc for _, auc in found if auc]


def _group(value: str, women: Sequence[ScoredWoman], threshold: float) -> tuple[WomenGroup, tuple[float, float] | None]:
    counted = _counted(women)
    if counted.undecided:
        return WomenGroup(value, counted.case, counted.control, None, None, None, None), None
    measured, tested = _measured(women, threshold)
    auc = measured["auc"]
    group = WomenGroup(
        value,
        counted.case,
        counted.control,
        auc.estimate(tested, AREA),
        Confusion.at([w.label for w in women], [w.score for w in women], threshold),
        measured["recall"].estimate(tested, SHARE),
        measured["specificity"].estimate(tested, SHARE),
    )
    return group, (auc.value, float(auc.scatter(tested).women))


def _counted(women: Sequence[ScoredWoman]) -> Women:
    cases = sum(woman.label for woman in women)
    return Women.of_one_part(cases, len(women) - cases)


def _measured(women: Sequence[ScoredWoman], threshold: float) -> tuple[dict[str, Measured], Roster]:
    scored = Scored.of([w.label for w in women], [w.score for w in women], [w.name for w in women], threshold)
    tested = roster([{ONLY: scored}])
    return measure({ONLY: scored}, tested), tested


def _alike(aucs: Sequence[tuple[float, float]]) -> float | None:
    """Return p of equal AUCs, from (AUC, variance) of each group; None of fewer than two, or without a variance."""
    from scipy.stats import chi2  # scipy is loaded where there is something to compute

    if len(aucs) < 2 or min(variance for _, variance in aucs) <= 0:
        return None
    values, weights = np.array([value for value, _ in aucs]), np.array([1 / variance for _, variance in aucs])
    middle = np.sum(weights * values) / np.sum(weights)
    return float(chi2.sf(np.sum(weights * (values - middle) ** 2), len(aucs) - 1))


def calibrated(
    women: Sequence[ScoredWoman], probabilities: Floats, details: Mapping[str, ImageDetails]
) -> tuple[Calibrated, ...]:
    """Return what probabilities (n,) of women mean: of all, and of each device where there are several."""
    devices = _said(DEVICE, women, details)
    own = grouped((device, place) for place, device in enumerate(devices))
    named = [(device, places) for device, places in own.items() if device != UNKNOWN] if len(own) > 1 else []
    parts: Iterable[tuple[str, Sequence[int]]] = [("", range(len(women))), *sorted(named)]
    return tuple(_calibrated(value, [women[k] for k in places], probabilities[list(places)]) for value, places in parts)


def _calibrated(value: str, women: Sequence[ScoredWoman], probabilities: Floats) -> Calibrated:
    counted = _counted(women)
    if counted.undecided:
        return Calibrated(value, counted.case, counted.control, None, None)
    found = recalibration([woman.label for woman in women], probabilities, counted)
    return Calibrated(value, counted.case, counted.control, float(probabilities.mean()), found)
