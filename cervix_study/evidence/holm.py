"""Holm's correction: many comparisons, and still at most 5 % risk that any of those called shown is chance.

Holm, A simple sequentially rejective multiple test procedure, Scand J Stat 6:65 (1979). Valid however the tests depend
on one another, which matters here: every comparison is made on the same women.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedcervix.core.plan import check


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the corrected p values, in the order given: of m, the smallest counts m times, the next m - 1 times."""
    check(all(0 <= p <= 1 for p in p_values), f"a p value lies between 0 and 1; found {list(p_values)}")
    order, many = np.argsort(p_values, kind="stable"), len(p_values)
    corrected = np.empty(many)
    counted = np.arange(many, 0, -1) * np.asarray(p_values, np.float64)[order]
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, counted))
    return tuple(corrected.tolist())
