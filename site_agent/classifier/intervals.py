"""A number from test women, its 95 % interval where one can be told, and what may be said of a difference.

Site report, printed table, results.json, study and model card all use this module. It knows no page and no file.

Rules
1. Fewer than eight test women of a class decide nothing: no interval, no verdict other than `not shown`. The same
   holds where a test part (a fold) holds only one woman of a class: no draw tells how far another woman would move it.
2. Where all draws of women give the same number, or the number lies at an end of its scale, there is no interval:
   these women cannot tell how far it would move.
3. A number without an interval says why it has none (`Estimate.why`). It is printed with these words.
4. A verdict follows from the interval of the difference and from nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from fedcervix.core.plan import check

LEVEL = 0.95
"""of every interval; a verdict has 1 - LEVEL risk of being chance"""

WOMEN_MIN = 8
"""Test women of each class below which nothing is decided. Of n women there are (2n - 1)! / n! (n - 1)! different
draws, 1716 of 7 and 6435 of 8; the simulation in `benchmarks/coverage.py` begins at 8."""

TOO_FEW_WOMEN = f"fewer than {WOMEN_MIN} test women of a class"
LONE_WOMAN = "a test part holds only one woman of a class"
DRAWS_AGREE = "every draw of test women gives the same number"
AT_THE_END = "the number is at the end of its scale"
HOLDS_ZERO = "the interval of the difference includes zero"

POWER = 0.8
"""of `detectable`"""

Verdict = Literal["better", "close", "worse", "not shown"]
"""What is said of a first start beside a second. `close`: the whole interval of the difference lies within a margin,
which only a question for closeness can find. `not shown` is everything else, and no proof of equality."""

Tone = Literal["helped", "not shown", "harmed", "unknown"]
"""What a report as a whole answers: whether the federation helped."""


@dataclass(frozen=True, slots=True)
class Women:
    """How many women of each class were tested. A woman with an image of a case is a case."""

    case: int
    control: int
    lone: int = 0
    """how many of them are the only woman of their class in their test part"""

    @property
    def undecided(self) -> str:
        """Why they decide nothing (rule 1); empty where they may."""
        if min(self.case, self.control) < WOMEN_MIN:
            return TOO_FEW_WOMEN
        return LONE_WOMAN if self.lone else ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval; where there is none, `low` and `high` are None and `why` says the reason."""

    value: float
    low: float | None
    high: float | None
    why: str = ""

    def __post_init__(self) -> None:
        check((self.low is None) == (self.high is None), "an interval has two ends or none")
        check((self.low is None) == bool(self.why), "an estimate without an interval, and no other, says why")
        check(self.interval is None or self.interval[0] < self.interval[1], "an interval has a width")

    @classmethod
    def alone(cls, value: float, why: str) -> Self:
        """Return a number without an interval."""
        return cls(value, None, None, why)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Scatter:
    """How far a number moves with other women, and with other trainings where several were made."""

    variance: float
    """0 where all draws agree"""
    freedom: float = math.inf
    """degrees of freedom; infinite where one training was made"""

    @property
    def deviation(self) -> float:
        """The standard error."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Scale:
    """Between which ends a number lies."""

    low: float
    high: float
    rate: bool = False
    """a share of images, or of pairs of images (see `_votes`)"""


RATE = Scale(0.0, 1.0, rate=True)
"""AUC, accuracy, recall, precision, F1, specificity, NPV"""
DISTANCE = Scale(0.0, 1.0)
"""Brier score, ECE"""
DIFFERENCE = Scale(-1.0, 1.0)
"""of two rates"""


def estimate(value: float, scatter: Scatter, tested: Women, scale: Scale) -> Estimate:
    """Return a number with its interval, or why it has none (rules 1 and 2).

    It is Wilson's interval (JASA 22:209, 1927) of a share of so many independent votes as would scatter like this
    number: Wilson's with a design effect (Kish 1965). It stays between the ends of the scale and holds the truth near
    them, where percentiles of few draws do not. With several trainings Student's t replaces the normal quantile.
    """
    share = (value - scale.low) / (scale.high - scale.low)
    why = _no_interval(share, scatter, tested)
    if why:
        return Estimate.alone(value, why)
    squared = quantile(scatter.freedom) ** 2 / _votes(share, scatter, tested, scale)
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    low, high = (scale.low + (scale.high - scale.low) * end for end in (middle - half, middle + half))
    return Estimate(value, low, high)


def _no_interval(share: float, scatter: Scatter, tested: Women) -> str:
    if tested.undecided:
        return tested.undecided
    if scatter.variance == 0:
        return DRAWS_AGREE
    return "" if 0 < share < 1 else AT_THE_END


def _votes(share: float, scatter: Scatter, tested: Women, scale: Scale) -> float:
    """Return how many independent votes would scatter like this number.

    Near an end of the scale few women decide the variance, and it comes out too small more often than not. For a rate
    it is therefore averaged with the variance that the m women of the smaller class would give if each voted once: its
    own weighs m - 1, that one a half. The weights were chosen by simulation.
    """
    own = (scatter.variance / (scale.high - scale.low) ** 2) / (share * (1 - share))
    if scale.rate:
        fewest = min(tested.case, tested.control)
        own = ((fewest - 1) * own + 0.5 / fewest) / (fewest - 0.5)
    return 1 / own


def quantile(freedom: float, level: float = (1 + LEVEL) / 2) -> float:
    """Return Student's t quantile."""
    from scipy.special import stdtrit  # scipy is loaded where there is something to compute

    return float(stdtrit(freedom, level))


def p_value(difference: Estimate, scatter: Scatter) -> float | None:
    """Return the two-sided p value of no difference: the level at which the interval just touches zero.

    None where there is no interval.
    """
    if difference.interval is None:
        return None
    statistic = abs(difference.value) * math.sqrt(1 - difference.value**2) / scatter.deviation
    from scipy.special import stdtr

    return float(2 * stdtr(scatter.freedom, -statistic))


def detectable(difference: Estimate, scatter: Scatter) -> float | None:
    """Return the difference that one such comparison would find with probability `POWER`; None without an interval."""
    if difference.interval is None:
        return None
    return (quantile(scatter.freedom) + quantile(scatter.freedom, POWER)) * scatter.deviation


def verdict(difference: Estimate) -> Verdict:
    """Return what a difference (first minus second) shows. `not shown` where its interval is absent or holds zero."""
    if difference.low is None or difference.high is None:
        return "not shown"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "not shown"


def is_close(difference: Estimate, margin: float) -> bool:
    """Return whether a whole interval lies within the margin, either way."""
    found = difference.interval
    return found is not None and found[0] > -margin and found[1] < margin


def why_not_shown(difference: Estimate) -> str:
    """Return the reason of the verdict `not shown`; empty for any other verdict."""
    return (difference.why or HOLDS_ZERO) if verdict(difference) == "not shown" else ""
