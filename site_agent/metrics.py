"""How good a classifier is (section III-F): counts, rates, ROC curve, threshold.

Rules
1. Label 1 is *case*, label 0 is *control*; a score is the probability of case; an image is called case if its score
   reaches the threshold.
2. A threshold is chosen on validation images and then applied to test images, never chosen on these.
3. A rate with nothing to divide by is 0, as in scikit-learn with `zero_division=0`; no result is NaN. An AUC of only
   one class is not defined: it raises DataError.

Labels and scores are flat arrays of the same length, one entry per image.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcervix.core.plan import check
from fedcervix.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]

THRESHOLD_FIXED = 0.5
"""The paper's threshold: an image is called a case when its probability of case reaches it."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images were called what. Rates are fractions, 0 to 1."""

    tp: int
    """cases called case"""
    fn: int
    """cases missed"""
    fp: int
    """controls called case"""
    tn: int
    """controls called control"""

    def __post_init__(self) -> None:
        for field in fields(self):
            check(getattr(self, field.name) >= 0, f"{field.name} is 0 or more; found {getattr(self, field.name)}")

    @classmethod
    def at(cls, labels: ArrayLike, scores: ArrayLike, threshold: float) -> Confusion:
        """Count at a threshold: `score >= threshold` is called case. Raises DataError."""
        case, score = _images(labels, scores)
        called = score >= threshold
        tp, positives = int(np.sum(case & called)), int(np.sum(case))
        fp = int(np.sum(called)) - tp
        return cls(tp=tp, fn=positives - tp, fp=fp, tn=len(case) - positives - fp)

    @property
    def accuracy(self) -> float:
        """Share of images called right."""
        return _ratio(self.tp + self.tn, self.tp + self.fn + self.fp + self.tn)

    @property
    def recall(self) -> float:
        """Share of cases that were found (sensitivity)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the images called case that are cases."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def specificity(self) -> float:
        """Share of controls that were cleared."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def npv(self) -> float:
        """Share of the images not called case that are controls (negative predictive value)."""
        return _ratio(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a case scores higher than a control, ties counting half.

    By ranks (Mann and Whitney). Raises DataError if there are not images of both classes.
    """
    case, score = _images(labels, scores)
    cases, controls = _class_sizes(case)
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank_of_value = np.cumsum(counts) - (counts - 1) / 2  # tied images share the mean of their ranks, from 1
    rank_sum = float(rank_of_value[inverse][case].sum())
    return (rank_sum - cases * (cases + 1) / 2) / (cases * controls)


def roc(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return the ROC curve: (false positive rate, true positive rate, threshold), one entry per distinct score.

    Thresholds fall from infinity, where nothing is called case: the curve runs from (0, 0) to (1, 1). Raises DataError
    if there are not images of both classes.
    """
    case, score = _images(labels, scores)
    cases, controls = _class_sizes(case)
    thresholds, false_positives, true_positives = _steps(case, score)
    return false_positives / controls, true_positives / cases, thresholds


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the threshold of the highest balanced accuracy, (recall + specificity) / 2: Youden's choice.

    Candidates lie midway between neighbouring scores, so that unseen images close to either fall on its side; calling
    all images case, or none, is a candidate as well. Of equally good ones the nearest to .5 is taken. For validation
    images (rule 2). Raises DataError if there are not images of both classes.
    """
    false_rate, true_rate, thresholds = roc(labels, scores)
    higher, lower = thresholds[1:-1], thresholds[2:]
    midway = higher / 2 + lower / 2  # halved first: the sum of two large scores could overflow
    midway = np.where(midway > lower, midway, higher)  # between neighbouring floats there is no middle
    all_control = np.nextafter(thresholds[1], np.inf)
    candidates = np.concatenate([[all_control], midway, [thresholds[-1]]])
    youden = np.round(true_rate - false_rate, 12)  # equal fractions differ in their last bits
    best = candidates[youden == youden.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _steps(case: Labels, score: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Count (threshold, false positives, true positives) from infinity down through every distinct score."""
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    true_positives = np.cumsum(case[order])[last_of_tie]
    false_positives = last_of_tie + 1 - true_positives
    thresholds = np.append(np.inf, falling[last_of_tie])
    return thresholds, np.append(0, false_positives), np.append(0, true_positives)


def _images(labels: ArrayLike, scores: ArrayLike) -> tuple[Labels, Floats]:
    """Check labels and scores; return (is case, score). Raises DataError."""
    label, score = np.asarray(labels), np.asarray(scores, np.float64)
    _insist(
        label.ndim == 1 and label.shape == score.shape, f"labels {label.shape} and scores {score.shape} do not match"
    )
    _insist(len(label) > 0, "there are no images to score")
    _insist(bool(np.isin(label, (0, 1)).all()), "a label is neither 0 (control) nor 1 (case)")
    _insist(bool(np.isfinite(score).all()), "a score is not a finite number")
    return label.astype(np.bool_), score


def _class_sizes(case: Labels) -> tuple[int, int]:
    cases = int(case.sum())
    controls = len(case) - cases
    _insist(cases > 0 and controls > 0, f"both classes are needed; found {cases} case and {controls} control images")
    return cases, controls


def _insist(ok: bool, what: str) -> None:
    if not ok:
        raise DataError(
            what,
            cause="the split or the file of predictions is wrong",
            next_step="check labels and split of the images that were scored",
        )
