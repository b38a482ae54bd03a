"""What a clinic gets from a classifier: thresholds for a wanted sensitivity, predictive values, net benefit.

Rules
1. A threshold is found on validation women and applied to test women, as everywhere (`site_agent.metrics`). What one
   reads from the test women's own curve is chosen on them and therefore looks a little better than it is.
2. Predictive values and net benefit depend on how common the disease is. That number comes from people who know their
   clinic (`prevalence` in site.toml), never from a test that picked its cases.
3. Intervals are by woman, by the shares of `site_agent.classifier.by_woman`: these functions take and give `Measured`.

    Mercaldo, Lau and Zhou, Confidence intervals for predictive values with an emphasis to case-control studies, Stat
    Med 26:2170 (2007): on the logit scale
    Vickers and Elkin, Decision curve analysis: a novel method for evaluating prediction models, Med Decis Making
    26:565 (2006): true positives, less false positives at the odds of the threshold
    Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities, Neural
    Comput 14:21 (2002)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from site_agent.classifier.by_woman import Measured
from site_agent.classifier.intervals import Scale
from site_agent.metrics import roc

Floats = NDArray[np.float64]

TARGETS = (0.95, 0.9)
"""wanted sensitivity, and wanted specificity"""
BENEFIT = Scale(-math.inf, 1.0, "difference")
"""net benefit: cases found for each woman, less false alarms at the odds of the threshold"""


def threshold_for_recall(labels: ArrayLike, scores: ArrayLike, wanted: float) -> float:
    """Return the highest threshold at which at least this share of cases is found, midway to the next lower score.

    Raises DataError if there are not both classes.
    """
    _, true_rate, thresholds = roc(labels, scores)
    place = int(np.argmax(true_rate >= wanted - 1e-12))
    return _midway(thresholds, place)


def threshold_for_specificity(labels: ArrayLike, scores: ArrayLike, wanted: float) -> float:
    """Return the lowest threshold at which at least this share of controls is cleared, midway to the next lower score.

    Raises DataError if there are not both classes.
    """
    false_rate, _, thresholds = roc(labels, scores)
    place = int(np.flatnonzero(1 - false_rate >= wanted - 1e-12)[-1])
    return _midway(thresholds, place)


def _midway(thresholds: Floats, place: int) -> float:
    """Return the middle between the score at a place and the next lower one; scores unseen so far fall on its sides."""
    here = float(thresholds[place])
    if place + 1 == len(thresholds):
        return here
    below = float(thresholds[place + 1])
    if math.isinf(here):
        return math.nextafter(below, math.inf)
    middle = here / 2 + below / 2
    return middle if middle > below else here


def recall_at_specificity(labels: ArrayLike, scores: ArrayLike, wanted: float) -> float:
    """Return the highest sensitivity that the curve of these very images or women has at a specificity (rule 1)."""
    false_rate, true_rate, _ = roc(labels, scores)
    return float(true_rate[1 - false_rate >= wanted - 1e-12].max())


def specificity_at_recall(labels: ArrayLike, scores: ArrayLike, wanted: float) -> float:
    """Return the highest specificity that the curve of these very images or women has at a sensitivity (rule 1)."""
    false_rate, true_rate, _ = roc(labels, scores)
    return float(1 - false_rate[true_rate >= wanted - 1e-12].min())


def predictive_values(recall: Measured, specificity: Measured, prevalence: float) -> tuple[Measured, Measured]:
    """Return PPV and NPV where this share of women are cases.

    Their shares are those of the logit, logit(PPV) = logit(prevalence) + log(recall) - log(1 - specificity), times
    PPV (1 - PPV): on the scale `AREA` their interval is Mercaldo's logit interval. Where nobody is called, or everybody
    is, nothing moves them, and they have no interval.
    """
    alarms = Measured(1 - specificity.values, -specificity.shares)
    missed = Measured(1 - recall.values, -recall.shares)
    odds = prevalence / (1 - prevalence)
    return _odds_share(recall, alarms, odds), _odds_share(specificity, missed, 1 / odds)


def _odds_share(right: Measured, wrong: Measured, odds: float) -> Measured:
    """Return odds x right / (odds x right + wrong); with nothing to divide by, 0."""
    total = odds * right.values + wrong.values
    value = np.divide(odds * right.values, total, out=np.zeros_like(total), where=total > 0)
    moved = _relative(right) - _relative(wrong)
    return Measured(value, (value * (1 - value))[..., None] * moved)


def _relative(found: Measured) -> Floats:
    """Return by how much each woman moves the logarithm; 0 where there is none."""
    value = found.values[..., None]
    return np.divide(found.shares, value, out=np.zeros_like(found.shares), where=value > 0)


def net_benefit(recall: Measured, specificity: Measured, prevalence: float, threshold: float) -> Measured:
    """Return the net benefit of treating whom the classifier calls, where this share of women are cases.

    `threshold` is the probability of disease from which on one would treat: at .1, nine needless treatments are worth
    one found case.
    """
    weight = (1 - prevalence) * threshold / (1 - threshold)
    values = prevalence * recall.values - weight * (1 - specificity.values)
    return Measured(values, prevalence * recall.shares + weight * specificity.shares)


def treat_all(prevalence: float, threshold: float) -> float:
    """Return the net benefit of treating every woman; treating none has 0."""
    return prevalence - (1 - prevalence) * threshold / (1 - threshold)


def moved(probability: Floats, learned: float, prevalence: float) -> Floats:
    """Return probabilities as they would be if this share of women were cases, in place of the share `learned`.

    A classifier that was trained with both classes counting the same has learned .5.
    """
    odds = prevalence / (1 - prevalence) * (1 - learned) / learned
    return np.asarray(probability * odds / (probability * odds + 1 - probability))


def unmoved(probability: float, learned: float, prevalence: float) -> float:
    """Return the classifier's own probability that `moved` turns into this one."""
    return float(moved(np.asarray(probability), prevalence, learned))
