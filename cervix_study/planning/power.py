"""Before a study: how many women a difference in AUC needs, and what a number of women can show.

Two starts are tested on the same women, one score of each woman and start. The variance of an AUC is Hanley and
McNeil's (Radiology 143:29, 1982), that of the difference takes their correlation into account (Radiology 148:839,
1983): v1 + v2 - 2 r sqrt(v1 v2). A difference is found in `POWER` of the studies if it is as large as two quantiles of
its standard error: that of the test, at Holm's first step where several comparisons are made, and that of `POWER`.

r is the correlation of the two AUCs over samples of women. It is lower than expected where each start is trained once,
because the noise of a training counts: .5 to .7. Scores averaged over three to five trainings have .8 to .9. Beside a
start that has learned nothing it is near 0.

The report's own test (`site_agent.classifier.by_woman`) has Student's t for the normal quantile and no model of the
scores. `tests/unit/test_power.py` puts both together in a simulation.

Pure: values in, values out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fedcervix.core.plan import check
from site_agent.classifier.intervals import LEVEL, POWER, WOMEN_MIN

WOMEN_MAX = 10_000_000
"""a difference that needs more is not to be shown"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Two starts, to be compared on the same women."""

    auc: float = 0.70
    """of the start that is worse"""
    correlation: float = 0.7
    """of the two AUCs"""
    case_share: float = 0.5
    """of the women who are cases"""
    comparisons: int = 1
    """counted by Holm's correction; a first hypothesis in a fixed sequence is one"""

    def __post_init__(self) -> None:
        check(0.5 <= self.auc < 1, f"an AUC to start from is .5 or more, and below 1; found {self.auc:g}")
        check(0 <= self.correlation < 1, f"a correlation is 0 or more, and below 1; found {self.correlation:g}")
        check(0 < self.case_share < 1, f"a share of cases is above 0 and below 1; found {self.case_share:g}")
        check(self.comparisons >= 1, f"comparisons are 1 or more; found {self.comparisons}")

    @property
    def women_min(self) -> int:
        """The women without whom reports decide nothing: `WOMEN_MIN` of each class."""
        return math.ceil(WOMEN_MIN / min(self.case_share, 1 - self.case_share))

    def deviation(self, difference: float, women: float) -> float:
        """Return the standard error of a difference in AUC among so many women."""
        first, second = (self._variance(auc, women) for auc in (self.auc, self.auc + difference))
        return math.sqrt(first + second - 2 * self.correlation * math.sqrt(first * second))

    def _variance(self, auc: float, women: float) -> float:
        cases, controls = women * self.case_share, women * (1 - self.case_share)
        of_cases, of_controls = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
        return (auc * (1 - auc) + (cases - 1) * of_cases + (controls - 1) * of_controls) / (cases * controls)

    def power(self, difference: float, women: int) -> float:
        """Return the probability that a difference is shown, in its direction."""
        from scipy.stats import norm  # scipy is loaded where there is something to compute

        return float(norm.cdf(difference / self.deviation(difference, women) - self._of_the_test()))

    def women(self, difference: float) -> int | None:
        """Return how many women a difference needs; None where the AUC would be 1 or more.

        Raises ValueError for a difference that is not positive.
        """
        check(difference > 0, f"a difference is above 0; found {difference:g}")
        if self.auc + difference >= 1:
            return None
        return _first(lambda women: self._found(difference, women), 2, WOMEN_MAX)

    def detectable(self, women: int) -> float | None:
        """Return the difference that so many women show in `POWER` of the studies, to .001; None where none does."""
        above = math.ceil(1000 * (1 - self.auc))
        found = _first(lambda step: self._found(step / 1000, women), 1, above - 1)
        return None if found is None else found / 1000

    def _found(self, difference: float, women: float) -> bool:
        from scipy.stats import norm

        quantiles = self._of_the_test() + float(norm.ppf(POWER))
        return difference >= quantiles * self.deviation(difference, women)

    def _of_the_test(self) -> float:
        from scipy.stats import norm

        return float(norm.isf((1 - LEVEL) / self.comparisons / 2))


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the first number for which something holds that then holds for every larger one; None above `high`."""
    if high < low or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
