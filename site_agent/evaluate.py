"""Scores on the test images, with the uncertainty that belongs to them.

Rules
1. Nothing is chosen here. The classifier and `threshold_validation` were chosen on validation images; test labels
   only score.
2. Scored per image, as in the paper (its Table II follows from per-image counts), but every interval is drawn by
   *woman*: two images of one woman are not two independent witnesses.
3. Two initialisations are compared on the same women, in the same draws: the interval of the difference, not the
   overlap of two intervals, says whether a difference was shown.

An interval tells how far other women would move a number. It does not hold what another seed of training would do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcervix.errors import DataError
from fedcervix.metrics import Confusion, auc, bootstrap, roc
from fedcervix.seeds import derive
from site_agent.intervals import DRAWS_AGREE, LEVEL, TOO_FEW_WOMEN, Estimate, Verdict, Women, verdict, why_not_shown

THRESHOLD_FIXED = 0.5
"""The paper's threshold: an image is called a case when its probability of case reaches it."""

DRAWS = 2000

Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]
Statistic = Callable[[Labels, Floats], float]

MEASURES = ("accuracy", "recall", "precision", "f1")
"""Properties of a Confusion, in the order of the paper's Table II."""
RATES = (*MEASURES, "specificity", "npv")
"""Every rate at a threshold; the paper does not print the last two."""


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

    def to_json(self) -> dict[str, Any]:
        """Return values JSON can hold."""
        counts = {name: int(getattr(self.confusion, name)) for name in ("tp", "fn", "fp", "tn")}
        estimates = {name: getattr(self, name).to_json() for name in RATES}
        return {"threshold": self.threshold, "confusion": counts, **estimates}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Undo `to_json`."""
        estimates = {name: Estimate.from_json(raw[name]) for name in RATES}
        return cls(threshold=float(raw["threshold"]), confusion=Confusion(**raw["confusion"]), **estimates)


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

    def to_json(self) -> dict[str, Any]:
        """Return values JSON can hold."""
        plain = {name: getattr(self, name) for name in ("name", "images", "women", "case_women", "cases")}
        return {
            **plain,
            "auc": self.auc.to_json(),
            "fixed": self.fixed.to_json(),
            "chosen": self.chosen.to_json(),
            "roc": [list(point) for point in self.roc],
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Undo `to_json`. Raises DataError on anything else."""
        try:
            return cls(
                **{name: raw[name] for name in ("name", "images", "women", "case_women", "cases")},
                auc=Estimate.from_json(raw["auc"]),
                fixed=AtThreshold.from_json(raw["fixed"]),
                chosen=AtThreshold.from_json(raw["chosen"]),
                roc=tuple((float(x), float(y)) for x, y in raw["roc"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not an evaluation: {error!r}", cause="the results file was changed by hand") from error


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two initialisations on the same test women: AUC of `name` minus AUC of `versus`."""

    name: str
    versus: str
    difference: Estimate

    @property
    def verdict(self) -> Verdict:
        """What the difference shows: `better` means that `name` does better than `versus`."""
        return verdict(self.difference)

    @property
    def why(self) -> str:
        """Why nothing is shown; empty where something is."""
        return why_not_shown(self.difference)

    def to_json(self) -> dict[str, Any]:
        """Return values JSON can hold; verdict and reason are there for readers and not read back."""
        own = {"name": self.name, "versus": self.versus, "difference": self.difference.to_json()}
        return {**own, "verdict": self.verdict, "why": self.why}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Undo `to_json`. Raises DataError on anything else."""
        try:
            return cls(str(raw["name"]), str(raw["versus"]), Estimate.from_json(raw["difference"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a comparison: {error!r}", cause="the results file was changed by hand") from error


def evaluate(
    name: str,
    labels: ArrayLike,
    scores: ArrayLike,
    patients: Sequence[str],
    *,
    threshold_validation: float,
    seed: int,
    draws: int = DRAWS,
) -> Evaluation:
    """Score one classifier on test images: labels (n,) of 0 and 1, scores (n,), the woman of each image.

    `threshold_validation` comes from `fedcervix.metrics.best_threshold` on *validation* scores. The intervals draw
    the same women for every name, given one seed. Raises DataError unless both classes are there.
    """
    interval = functools.partial(
        _estimate, labels, scores, patients, draws=draws, seed=derive(seed, "evaluation-bootstrap")
    )
    false_rate, true_rate, _ = roc(labels, scores)
    women = women_tested(labels, patients)
    return Evaluation(
        name=name,
        images=len(patients),
        women=women.case + women.control,
        case_women=women.case,
        cases=int(np.count_nonzero(labels)),
        auc=interval(auc),
        fixed=_at(THRESHOLD_FIXED, Confusion.at(labels, scores, THRESHOLD_FIXED), interval),
        chosen=_at(threshold_validation, Confusion.at(labels, scores, threshold_validation), interval),
        roc=tuple(zip(false_rate.tolist(), true_rate.tolist(), strict=True)),
    )


def women_tested(labels: ArrayLike, patients: Sequence[str]) -> Women:
    """Count the women of each class: labels (n,) of 0 and 1, the woman of each image."""
    cases = {woman for woman, case in zip(patients, np.asarray(labels).tolist(), strict=True) if case}
    return Women(len(cases), len(set(patients) - cases))


def paired_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    patients: Sequence[str],
    *,
    seed: int,
    draws: int = DRAWS,
) -> Estimate:
    """Return AUC(a) - AUC(b) on the same images; each draw of women scores both classifiers."""
    a, b = np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)
    if a.shape != b.shape:
        raise DataError(f"two classifiers scored {len(a)} and {len(b)} images", cause="they scored different splits")

    def difference(case: Labels, rows: Floats) -> float:
        chosen = rows.astype(np.intp)
        return auc(case, a[chosen]) - auc(case, b[chosen])

    # What is drawn here is row numbers: both classifiers are then scored on the images of the same women.
    rows = np.arange(len(a), dtype=np.float64)
    return _estimate(labels, rows, patients, difference, draws=draws, seed=derive(seed, "comparison-bootstrap"))


def compare(
    name: str,
    versus: str,
    labels: ArrayLike,
    scores: Mapping[str, ArrayLike],
    patients: Sequence[str],
    *,
    seed: int,
    draws: int = DRAWS,
) -> Comparison:
    """Compare two of the initialisations in `scores` (name -> scores on the same test images)."""
    difference = paired_difference(labels, scores[name], scores[versus], patients, seed=seed, draws=draws)
    return Comparison(name, versus, difference)


def _estimate(
    labels: ArrayLike, scores: ArrayLike, patients: Sequence[str], statistic: Statistic, *, draws: int, seed: int
) -> Estimate:
    """Return the statistic on all images, and its interval by resampling women."""
    value = float(statistic(np.asarray(labels).astype(np.bool_), np.asarray(scores, np.float64)))
    if women_tested(labels, patients).too_few:
        return Estimate.alone(value, TOO_FEW_WOMEN)
    found = bootstrap(labels, scores, patients, statistic, draws=draws, seed=seed, level=LEVEL)
    return Estimate.alone(value, DRAWS_AGREE) if found.low == found.high else Estimate(value, found.low, found.high)


def _at(threshold: float, confusion: Confusion, interval: Callable[[Statistic], Estimate]) -> AtThreshold:
    """Return every measure at one threshold."""
    estimates = {measure: interval(_measure(measure, threshold)) for measure in RATES}
    return AtThreshold(threshold=float(threshold), confusion=confusion, **estimates)


def _measure(measure: str, threshold: float) -> Statistic:
    """Return the statistic that calls images at `threshold` and reads one property of the counts."""
    return lambda case, score: float(getattr(Confusion.at(case, score, threshold), measure))
