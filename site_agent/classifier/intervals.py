"""A number from test women, its 95 % interval where one can be told, and what may be said of a difference.

Site report, printed table, results.json, study and model card all use this module. It knows no page and no file.

Rules
1. Fewer than twenty test women of a class decide nothing: no interval, no verdict other than `not shown`. The same
   holds where a test part (a fold) has fewer than five women of a class. A single training is taken as given, which
   the reports say. Two to four are too few for an interval, but not for a verdict, which is then all the stricter.
2. Where all test women give the same number, or the number lies at an end of its scale, there is no interval: these
   women cannot tell how far it would move. The same holds for a recall of fewer than forty images of cases, and for
   a specificity of controls: it can take too few values.
3. A number without an interval says why it has none (`Estimate.why`). It is printed with these words.
4. A verdict follows from the p value of the difference, corrected by Holm for the comparisons made beside it, and from
   nothing else. Alone, its p is below .05 exactly where its interval does not hold zero.

`benchmarks/coverage.py` chose forms and minimums: up to an AUC of .9, 93 to 97 % of the printed intervals hold the
truth (nearer to 1, those of a difference more), and 5 % of the families of equal starts at most have a verdict.

Holm, A simple sequentially rejective multiple test procedure, Scand J Stat 6:65 (1979): valid however the tests depend
on one another, which matters here: every comparison is made on the same women. Howe, Approximate confidence limits on
the mean of X + Y where X and Y are two tabled independent random variables, JASA 69:789 (1974).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import check

Floats = NDArray[np.float64]

LEVEL = 0.95
"""of every interval; a verdict has 1 - LEVEL risk of being chance"""

WOMEN_MIN = 20
"""Test women of each class below which nothing is decided. With 8 to 16, intervals of good classifiers and of their
difference miss 93 to 97 % (`benchmarks/coverage.py`)."""
FOLD_WOMEN_MIN = 5
"""test women of each class in each test part"""

TRAININGS_MIN = 5
"""Trainings of a start from which on there is an interval; one is taken as given. With two to four, intervals hold the
truth in up to 98.5 %: they know too little of how trainings differ."""
IMAGES_MIN = 40
"""images whose number is fixed, of which a share has an interval: of twenty, recall's holds the truth in 97.8 %"""

MOVERS_MIN = 5
"""Women who decide a difference (`Scatter.movers`). Of two good classifiers it is often three or four who are ranked
differently at all, whatever the number of women: an interval around that holds the truth in 98 to 100 %."""

TOO_FEW_WOMEN = f"fewer than {WOMEN_MIN} test women of a class"
TOO_FEW_IN_FOLD = f"a test part has fewer than {FOLD_WOMEN_MIN} women of a class"
WOMEN_ALIKE = "all test women give the same number"
AT_THE_END = "the number is at the end of its scale"
TOO_FEW_IMAGES = f"fewer than {IMAGES_MIN} test images of the class"
TOO_FEW_MOVERS = f"fewer than {MOVERS_MIN} women decide the difference"
TOO_FEW_TRAININGS = f"fewer than {TRAININGS_MIN} trainings"
HOLDS_ZERO = "the interval of the difference includes zero"
TRAININGS_DIFFER = f"with {TOO_FEW_TRAININGS} the difference may be chance"
CORRECTED = "the difference does not pass the correction for the number of comparisons"

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
    fewest: int
    """of a class in a test part"""

    @classmethod
    def of_one_part(cls, case: int, control: int) -> Self:
        """Return the women of a test without folds."""
        return cls(case, control, min(case, control))

    @property
    def undecided(self) -> str:
        """Why they decide nothing (rule 1); empty where they may."""
        if min(self.case, self.control) < WOMEN_MIN:
            return TOO_FEW_WOMEN
        return TOO_FEW_IN_FOLD if self.fewest < FOLD_WOMEN_MIN else ""


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

    @property
    def tested(self) -> bool:
        """Whether there is a p value: too few trainings have one, but no interval."""
        return self.why in ("", TOO_FEW_TRAININGS)


@dataclass(frozen=True, slots=True, eq=False)
class Scatter:
    """How far numbers move with other women, and with other trainings: variances, and how well they are known.

    Arrays of any shape, all the same; `benchmarks/coverage.py` has thousands at once, a report has one.
    """

    women: Floats
    women_freedom: Floats
    """degrees of freedom; anything where the variance is 0"""
    trainings: Floats
    """0 with one training"""
    trainings_freedom: int
    """trainings less one; 0: the training is taken as given"""
    votes: float = math.inf
    """images, if their number is fixed, that the numbers are shares of"""
    movers: Floats | float = math.inf
    """women who would move the numbers as unevenly if they all moved them alike; anything where the variance is 0"""

    @property
    def deviation(self) -> Floats:
        """The standard errors."""
        return np.sqrt(self.women + self.trainings)

    @property
    def wary(self) -> Self:
        """The same, with no more degrees of freedom than two for each woman who moves the numbers.

        A few women with large shares make a variance that is known less well than Satterthwaite's degrees say, which
        hold for normal shares: its own variance is the sum of their fourth powers at most.
        """
        return dataclasses.replace(self, women_freedom=np.minimum(self.women_freedom, 2 * self.movers))

    def reach(self, p: float | Floats) -> Floats:
        """Return how far from the truth a number lies with probability p at most, either way.

        Student's t for each of the two variances, squared and added (Howe 1974). Satterthwaite's degrees of freedom
        would make of few trainings that happen to agree a small variance that is taken for certain.
        """
        from scipy.special import stdtrit  # scipy is loaded where there is something to compute

        squared = stdtrit(self.women_freedom, np.asarray(p) / 2) ** 2 * self.women
        if self.trainings_freedom:
            squared = squared + stdtrit(self.trainings_freedom, np.asarray(p) / 2) ** 2 * self.trainings
        return np.asarray(np.sqrt(squared))

    def p(self, distance: float | Floats) -> Floats:
        """Return the two-sided p values of a distance from the truth: `reach` backwards, by bisection."""
        low, high = np.zeros_like(self.women), np.ones_like(self.women)
        for _ in range(60):
            middle = (low + high) / 2
            too_far = self.reach(middle) > np.abs(distance)
            low, high = np.where(too_far, middle, low), np.where(too_far, high, middle)
        return high


Form = Literal["logit", "wilson", "difference"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Between which ends a number lies, and the form of its interval."""

    low: float
    high: float
    form: Form


AREA = Scale(0.0, 1.0, "logit")
"""AUC: Student's t on log(A / (1 - A)), which does not end at 1 (Pepe 2003, 5.2.4)"""
SHARE = Scale(0.0, 1.0, "wilson")
"""accuracy, recall, precision, F1, specificity, NPV; Brier score"""
DIFFERENCE = Scale(-1.0, 1.0, "difference")
"""of two of these"""


def estimate(value: float, scatter: Scatter, tested: Women, scale: Scale) -> Estimate:
    """Return a number with its interval, or why it has none (rules 1 and 2)."""
    why = _no_interval(value, scatter, tested, scale)
    if why:
        return Estimate.alone(value, why)
    low, high = ends(np.asarray(value), scatter, scale)
    return Estimate(value, max(scale.low, float(low)), min(scale.high, float(high)))


def _no_interval(value: float, scatter: Scatter, tested: Women, scale: Scale) -> str:
    reasons = {
        tested.undecided: bool(tested.undecided),
        WOMEN_ALIKE: not scatter.women > 0,
        AT_THE_END: not scale.low < value < scale.high,
        TOO_FEW_IMAGES: scatter.votes < IMAGES_MIN,
        TOO_FEW_MOVERS: scale.form == "difference" and bool(scatter.movers < MOVERS_MIN),
        TOO_FEW_TRAININGS: 0 < scatter.trainings_freedom < TRAININGS_MIN - 1,
    }
    return next((why for why, found in reasons.items() if found), "")


def ends(values: Floats, scatter: Scatter, scale: Scale) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of intervals, whether or not they may be printed."""
    if scale.form == "logit":
        from scipy.special import expit

        middle, half = np.log(values / (1 - values)), scatter.wary.reach(1 - LEVEL) / (values * (1 - values))
        return expit(middle - half), expit(middle + half)
    reach = scatter.reach(1 - LEVEL)
    return (values - reach, values + reach) if scale.form == "difference" else _wilson(values, reach)


def _wilson(shares: Floats, reach: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's interval (JASA 22:209, 1927) for as many independent votes as would scatter like this share.

    It is Wilson's with a design effect (Kish 1965). It stays within 0 and 1 and holds the truth near them.
    """
    squared = reach**2 / (shares * (1 - shares))
    middle = (shares + squared / 2) / (1 + squared)
    half = np.sqrt(squared * shares * (1 - shares) + squared**2 / 4) / (1 + squared)
    return middle - half, middle + half


def p_value(difference: Estimate, scatter: Scatter) -> float | None:
    """Return the two-sided p value of no difference: the level at which the interval just touches zero.

    None where nothing is tested.
    """
    return None if not difference.tested else float(scatter.p(difference.value))


def p_apart(difference: Estimate, scatter: Scatter, margin: float) -> float | None:
    """Return the p value of two starts that differ by the margin: below .05 where the interval lies within it.

    None where nothing is tested.
    """
    if not difference.tested:
        return None
    inside = margin - abs(difference.value)
    return float(scatter.p(inside)) if inside > 0 else 1.0


def holm(p_values: Sequence[float | None]) -> tuple[float, ...]:
    """Return the corrected p values, in the order given: of m, the smallest counts m times, the next m - 1 times.

    One that was not tested (None) counts as one comparison, with p = 1.
    """
    known = [1.0 if p is None else p for p in p_values]
    check(all(0 <= p <= 1 for p in known), f"a p value lies between 0 and 1; found {known}")
    order, many = np.argsort(known, kind="stable"), len(known)
    corrected = np.empty(many)
    counted = np.arange(many, 0, -1) * np.asarray(known, np.float64)[order]
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, counted))
    return tuple(corrected.tolist())


def detectable(difference: Estimate, scatter: Scatter, comparisons: int) -> float | None:
    """Return the difference that such a comparison, one of so many, would find with probability `POWER`.

    The level is that of Holm's first step. None without an interval: of two to four trainings, the power at this size
    would be 73 to 81 %.
    """
    if difference.interval is None:
        return None
    return float(scatter.reach((1 - LEVEL) / comparisons) + scatter.reach(2 * (1 - POWER)))


def verdict(difference: Estimate, corrected: float) -> Verdict:
    """Return what a difference (first minus second) shows, by its corrected p."""
    if not difference.tested or corrected >= 1 - LEVEL:
        return "not shown"
    return "better" if difference.value > 0 else "worse"


def why_not_shown(difference: Estimate, corrected: float) -> str:
    """Return the reason of the verdict `not shown`; empty for any other verdict."""
    if verdict(difference, corrected) != "not shown":
        return ""
    if difference.low is None or difference.high is None:
        return TRAININGS_DIFFER if difference.tested else difference.why
    return HOLDS_ZERO if difference.low <= 0 <= difference.high else CORRECTED
