"""What contrastive training and fine-tuning have in common: the record of an epoch, the best one, when to stop.

Section III-D: "The learning stops when the validation loss is not decreasing for 5 epochs".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch of training gave. Losses are means: over steps (contrastive) or over images, in nats (classifier).

    A classifier's training loss weighs the classes, its validation loss does not.
    """

    epoch: int
    """counted from 1"""
    train_loss: float
    """taken during the epoch, while the weights move"""
    valid_loss: float
    """taken after the epoch, in eval mode"""
    seconds: float


def best_epoch(losses: Sequence[float]) -> int:
    """Return the 1-based number of the lowest loss, the first of equals: a loss that stands still has not fallen.

    Raises ValueError where there is none.
    """
    return 1 + losses.index(min(losses))


def is_patience_over(losses: Sequence[float], patience_epochs: int) -> bool:
    """Return whether the validation loss has not fallen for so many epochs; `losses` are those of the epochs so far."""
    return bool(losses) and len(losses) - best_epoch(losses) >= patience_epochs
