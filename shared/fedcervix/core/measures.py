"""What is measured of the updates of a round, and what a plan may do with it: values, no tensors.

The *step* of an update is by how much it differs from the model that it was trained from. It is measured over what
is trained: weights and biases. Running statistics and counters of batch normalisation are observed, not trained, and
do not count; nor does any tensor of batch normalisation that stays at the sites (`batch_norm = "local"`).

Two options keep one update from moving the average as far as it likes:
    clip            a step longer than `clip` times the round's median step is shortened to that length, as the norm
                    bound of Sun et al. 2019, "Can You Really Backdoor Federated Learning?", does to a fixed length.
                    Relative to the median, as steps grow shorter in the course of a run
    trimmed mean    of each number, the lowest and the highest values are left out, and the others averaged: Yin et al.
                    2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates"
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fedcervix.core.plan import CLIPPED_SITES_MIN, Terms, check

SCALE_BITS = 20
"""of the factor that a step is shortened by: it then does not depend on the last digits of a sum"""


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of one update's step. The mean of the others is the plain one, whatever the weights are.

    In a ring, "the others" is the step of the hop before.
    """

    norm: float
    """Euclidean length of the step"""
    relative: float | None = None
    """the same as a share of the length of the model that the step begins from; None where that is 0"""
    cosine: float | None = None
    """of the angle between the step and the mean of the others' steps; None where there is no other, or one is 0"""
    distance: float | None = None
    """length of the difference between the step and the mean of the others' steps; None where there is no other"""

    def __post_init__(self) -> None:
        for name in ("norm", "relative", "distance"):
            value = getattr(self, name)
            check(value is None or 0 <= value < math.inf, f"{name} is a finite number, 0 or more; found {value}")
        check(self.cosine is None or -1 <= self.cosine <= 1, f"cosine is -1 to 1; found {self.cosine}")


def clip_scales(norms: Sequence[float], clip: float) -> list[float]:
    """Return the factor that each step of a round is multiplied by.

    It is empty where no step is shortened: without `clip`, and in a round of fewer than three updates.
    """
    if clip == 0 or len(norms) < CLIPPED_SITES_MIN:
        return []
    longest = clip * statistics.median(norms)
    return [1.0 if norm <= longest else _rounded_down(longest / norm) for norm in norms]


def _rounded_down(factor: float) -> float:
    fraction, exponent = math.frexp(factor)
    return math.ldexp(math.floor(math.ldexp(fraction, SCALE_BITS)), exponent - SCALE_BITS)


def trimmed_per_side(terms: Terms, updates: int) -> int:
    """Return how many values of each number the average leaves out at either end.

    The plan's share of the updates, at least one; but in a round of few updates no more than leaves one value. So three
    or four updates give a result that no single one of them can move beyond the others, and two their mean.
    """
    if terms.aggregation == "mean":
        return 0
    share = math.floor(terms.trim * updates + 1e-9)  # .3 of 10 is 3, though .3 * 10 may fall short of it
    return min(max(1, share), (updates - 1) // 2)
