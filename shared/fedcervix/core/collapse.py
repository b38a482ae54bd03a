"""The loss of a collapsed model: what a contrastive loss comes to where it tells no image from another."""

from __future__ import annotations

import math

from fedcervix.core.plan import Loss


def collapse_loss(n: int, loss: Loss = "nt-xent") -> float:
    """Return the loss of N images whose representations are all alike: the log of the number of terms in the sum."""
    terms = 2 * n - 1 if loss == "nt-xent" else 2 * n - 2
    return math.log(terms)
