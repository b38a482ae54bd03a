"""How far single trainings scatter: mean and standard deviation over seeds, or over folds.

No interval is made of it: that of a number holds women and seeds together (`site_agent.classifier.by_woman`). Folds
share training women, so their mean is less certain than s^2 / k says (Bengio and Grandvalet, JMLR 5:1089, 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcervix.core.plan import check


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement. `deviation` is None for a single one: nothing is known of its scatter."""

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    """standard deviation, divided by k - 1"""


def spread(values: Sequence[float]) -> Spread:
    """Return mean and scatter of repetitions. Raises ValueError without any."""
    check(len(values) >= 1, "a spread needs at least one value")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(tuple(values), float(np.mean(values)), deviation)
