"""A classifier head with differential privacy: logistic regression on the features of a frozen encoder.

Rules
1. One unit is one woman with all her images: her gradient is the mean over her images, cut to the length `clip`. So a
   woman with 50 images moves a sum no further than a woman with one.
2. A step takes each woman by herself with the public rate, adds noise to the sum, and divides by the public lot size.
   Nothing else looks at labels or images: no class weights, no epoch chosen on validation women, no threshold.
3. The result is the mean of the later half of the steps: it is made of what was noisy already, and costs nothing.
4. The encoder stays as it is, in eval mode. What it tells of the women that *it* was trained on is not covered.

Source: Abadi et al., Deep learning with differential privacy, CCS 2016; by user, McMahan et al., ICLR 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from site_agent.classifier.privacy_accounting import Privacy
from site_agent.classifier.secret_draws import SecretDraws

Floats = NDArray[np.float64]

RATE = 0.5
"""of learning. Public, like all that does not depend on the women"""

OnHeadStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class WomensFeatures:
    """The features of labelled images, woman by woman."""

    features: Floats
    """(n, F)"""
    labels: Floats
    """(n,), 1 case, 0 control"""
    place: NDArray[np.int64]
    """(n,): which woman it is, from 0"""

    @classmethod
    def of(cls, features: NDArray[np.float32], labels: NDArray[np.int64], women: Sequence[str]) -> WomensFeatures:
        """Return the images in the order of their women."""
        _, place = np.unique(np.asarray(women), return_inverse=True)
        order = np.argsort(place, kind="stable")
        return cls(features[order].astype(np.float64), labels[order].astype(np.float64), place[order])

    @property
    def count(self) -> int:
        """Women."""
        return int(self.place[-1]) + 1


def clipped_sum(women: WomensFeatures, head: Floats, taken: NDArray[np.bool_], clip: float) -> Floats:
    """Return the sum of the clipped gradients of the women who are `taken`: (F + 1,), of a head (F + 1,).

    The last number is the bias. One woman more or less moves the sum by `clip` at most, however many images she has.
    """
    chosen = taken[women.place]
    if not chosen.any():
        return np.zeros(len(head))
    inputs = np.column_stack([women.features[chosen], np.ones(np.count_nonzero(chosen))])
    errors = expit(inputs @ head) - women.labels[chosen]  # the gradient of the cross-entropy, by the logit
    first = np.flatnonzero(np.diff(women.place[chosen], prepend=-1))  # of each woman's images
    images = np.diff(first, append=len(inputs))
    gradients = np.add.reduceat(errors[:, None] * inputs, first) / images[:, None]
    lengths = np.linalg.norm(gradients, axis=1)
    return np.asarray((clip / np.maximum(lengths, clip)) @ gradients)


def fit(women: WomensFeatures, privacy: Privacy, draws: SecretDraws, on_step: OnHeadStep = lambda *_: None) -> Floats:
    """Return a head: (F + 1,), the bias last."""
    width = women.features.shape[1] + 1
    head, total = np.zeros(width), np.zeros(width)
    kept = privacy.steps // 2
    for step in range(1, privacy.steps + 1):
        taken = draws.uniform(women.count) < privacy.rate
        found = clipped_sum(women, head, taken, privacy.clip)
        noise = privacy.clip * privacy.noise * draws.normal(width)
        head = head - RATE * (found + noise) / privacy.lot_women
        if step > kept:
            total += head
        on_step(step, privacy.steps)
    return total / (privacy.steps - kept)
