"""Scores on the test images, with the uncertainty that belongs to them.

Rules
1. Nothing is chosen here. The classifier and `threshold_validation` were chosen on validation images; test labels
   only score.
2. Scored per image, as in the paper (its Table II follows from per-image counts), but every interval is drawn by
   *woman* (`site_agent.classifier.resampling`): two images of one woman are not independent.
3. Two initialisations are compared on the same women, in the same draws: the interval of the difference, not the
   overlap of two intervals, says whether a difference was shown.
4. Where there is no interval, nothing is shown, and the reason is said (`site_agent.classifier.intervals`).

An interval tells how far other women would move a number. It does not hold what another seed of training would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fedcervix.errors import DataError
from site_agent.classifier.intervals import DIFFERENCE, RATE, Estimate, Verdict, verdict, why_not_shown
from site_agent.classifier.resampling import DRAWS, Draws, Part, Sampled, Scored, draw, roster, sample
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

    `threshold_validation` comes from `site_agent.metrics.best_threshold` on *validation* scores. The intervals draw
    the same women for every name, given one seed. Raises DataError unless both classes are there.
    """
    false_rate, true_rate, _ = roc(labels, scores)
    trials = {t: {ONLY: Scored.of(labels, scores, patients, t)} for t in (THRESHOLD_FIXED, threshold_validation)}
    drawn = draw(roster(trials.values()), seed=seed, draws=draws)
    sampled = {threshold: sample(own, drawn) for threshold, own in trials.items()}
    women = drawn.roster.tested
    return Evaluation(
        name=name,
        images=len(patients),
        women=women.case + women.control,
        case_women=women.case,
        cases=int(np.count_nonzero(labels)),
        auc=drawn.estimate(sampled[THRESHOLD_FIXED]["auc"], RATE),
        fixed=_at(trials[THRESHOLD_FIXED][ONLY], sampled[THRESHOLD_FIXED], drawn),
        chosen=_at(trials[threshold_validation][ONLY], sampled[threshold_validation], drawn),
        roc=tuple(zip(false_rate.tolist(), true_rate.tolist(), strict=True)),
    )


def paired_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    patients: Sequence[str],
    *,
    seed: int,
    draws: int = DRAWS,
) -> Estimate:
    """Return AUC(a) - AUC(b) on the same images; each draw of women scores both classifiers. Raises DataError."""
    a, b = np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)
    if a.shape != b.shape:
        raise DataError(f"two classifiers scored {len(a)} and {len(b)} images", cause="they scored different splits")
    both = [{ONLY: Scored.of(labels, scores, patients)} for scores in (a, b)]
    drawn = draw(roster(both), seed=seed, draws=draws)
    one, two = (sample(trials, drawn)["auc"] for trials in both)
    return drawn.estimate(one - two, DIFFERENCE)


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


def _at(scored: Scored, sampled: Sampled, drawn: Draws) -> AtThreshold:
    """Return every rate at one threshold."""
    confusion = Confusion.at(scored.labels, scored.scores, scored.threshold)
    estimates = {rate: drawn.estimate(sampled[rate], RATE) for rate in RATES}
    return AtThreshold(threshold=float(scored.threshold), confusion=confusion, **estimates)
