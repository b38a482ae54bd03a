"""Fixed point: the numbers of an update as whole numbers, whose sum does not depend on any order.

    trained     q = round(a (x - base) / scale), 32 bits. scale = B / 2^30; B is the least power of two that is at
                least max(8 max|base|, 1), in round 1 max(8 max|base|, 16), one for each tensor
    statistic   q = round(a v 2^32), 64 bits: running means and variances, as they are and not as steps. With
                `pooled-variance` v is var + mean^2 in place of the variance

a is the site's share in the average. It follows from the roster alone, never from who takes part in a round. All sums
are taken modulo 2^32 or 2^64; masks are added and subtracted in the same arithmetic (`mask_streams`).

Rules
1. Nothing is clipped. A step beyond B, a statistic of 2^28 or more, and a number that is not finite are out of range.
2. Every machine comes to the same bits: differences, products and quotients are single float64 operations, rounded to
   nearest, in the order written here. Scales are powers of two, so they round nothing.
3. The sum over the sites U of a round has |X| <= 2^30 + |U| (32 bits) and |X| < 2^60 (64 bits): shares sum to at most
   one, and each rounding adds at most a half. A sum beyond that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP_BITS = 30
"""A step of B is 2^30; the word has another bit for the sign, and one by which a sum may leave its range unwrapped."""
BOUND_BASES = 8
"""A step may be so many times the largest number of its base."""
BOUND_LEAST = 1.0
BOUND_LEAST_FIRST = 16.0
"""In round 1. From random weights a tensor can move by many times its largest number: 1.35, where that was .096. It
costs four bits, once; from round 2 on the base itself says how large the numbers are."""
BOUND_MAX = 2.0**20
FRACTION_BITS = 32
"""of a statistic"""
STATISTIC_BITS = 28
"""A statistic is below 2^28, and so its sum below 2^60."""
WHOLE_MAX = 2**53
"""Numbers up to it are whole as float64, too."""

Float64 = NDArray[np.float64]


class OutOfRangeError(ValueError):
    """A number of an update, or of a sum, is too large for fixed point, or is none."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one site, or of all sites of a sum, in the average: `part` of `whole`.

    By images: the site's images of those of all sites of the plan. Equal: 1 of the number of sites.
    """

    part: int
    whole: int

    def __post_init__(self) -> None:
        if not 0 < self.part <= self.whole <= WHOLE_MAX:
            raise ValueError(f"a share is 1 or more of at most 2^53; found {self.part} of {self.whole}")

    @property
    def factor(self) -> float:
        """The share as float64, rounded once."""
        return self.part / self.whole

    @property
    def inverse(self) -> float:
        """One divided by the share, rounded once."""
        return self.whole / self.part


def together(shares: Iterable[Share]) -> Share:
    """Return the share of several sites together. Raises ValueError where they are not parts of the same whole."""
    found = list(shares)
    if len({share.whole for share in found}) != 1:
        raise ValueError("these are not shares of one whole")
    return Share(sum(share.part for share in found), found[0].whole)


def bound(largest: float, round_: int) -> float:
    """Return B, how far a number of a tensor may move in a round, from the largest magnitude in the tensor's base.

    Raises OutOfRangeError where that is not finite, or B would be above 2^20.
    """
    if not largest <= BOUND_MAX / BOUND_BASES:
        raise OutOfRangeError(f"a base of {largest:.3g}; at most {BOUND_MAX / BOUND_BASES:g}")
    least = BOUND_LEAST_FIRST if round_ == 1 else BOUND_LEAST
    mantissa, exponent = math.frexp(max(BOUND_BASES * largest, least))
    return math.ldexp(1.0, exponent - (mantissa == 0.5))


def largest(values: NDArray[Any]) -> float:
    """Return the largest magnitude; NaN where one of them is NaN, 0 where there is none."""
    return float(np.maximum(values.max(), -values.min())) if values.size else 0.0


# ------------------------------------------------------------------------------------------------ one site's numbers


def steps_of(values: NDArray[Any], base: NDArray[Any], within: float) -> Float64:
    """Return the steps of one block of a trained tensor. `within`: its B.

    Raises OutOfRangeError where a number moved further, or is not finite.
    """
    moved: Float64 = np.subtract(values, base, dtype=np.float64)
    if not (found := largest(moved)) <= within:
        raise OutOfRangeError(f"a step of {found:.3g}; at most {within:g}")
    return moved


def quantised_steps(moved: Float64, share: Share, within: float) -> NDArray[np.int32]:
    """Return steps of `steps_of` in fixed point; `moved` is overwritten."""
    moved *= share.factor * math.ldexp(1 / within, STEP_BITS)
    return np.rint(moved, out=moved).astype(np.int32)


def quantised_statistics(values: NDArray[Any], share: Share) -> NDArray[np.int64]:
    """Return one block of a running statistic.

    Raises OutOfRangeError where one is 2^28 or larger, or is not finite.
    """
    wide = values.astype(np.float64)
    if not (found := largest(wide)) < 2.0**STATISTIC_BITS:
        raise OutOfRangeError(f"a running statistic of {found:.3g}; below {2**STATISTIC_BITS:,}")
    wide *= math.ldexp(share.factor, FRACTION_BITS)
    return np.rint(wide, out=wide).astype(np.int64)


def second_moments(variances: NDArray[Any], means: NDArray[Any]) -> Float64:
    """Return var + mean^2 of one site, which `pooled-variance` adds up. A variance below zero counts as zero."""
    found: Float64 = np.square(means, dtype=np.float64)
    found += np.maximum(variances, 0)
    return found


# ------------------------------------------------------------------------------------------------ the sum


def check_steps(total: NDArray[np.int32], sites: int) -> None:
    """Raise OutOfRangeError unless a sum over so many sites is one that honest sites can have."""
    found = max(int(total.max()), -int(total.min())) if total.size else 0
    if found > 2**STEP_BITS + sites:
        raise OutOfRangeError("a sum of steps is outside of what the sites can send together")


def check_statistics(total: NDArray[np.int64]) -> None:
    """Raise OutOfRangeError unless a sum of statistics is one that honest sites can have."""
    found = max(int(total.max()), -int(total.min())) if total.size else 0
    if found >= 2 ** (STATISTIC_BITS + FRACTION_BITS):
        raise OutOfRangeError("a sum of running statistics is outside of what the sites can send together")


def averaged_steps(total: NDArray[np.int32], base: NDArray[Any], within: float, of: Share) -> Float64:
    """Return base + X scale / (sum of the shares): the average of a trained tensor. `of`: the sites of the sum."""
    found: Float64 = np.multiply(total, of.inverse * math.ldexp(within, -STEP_BITS), dtype=np.float64)
    found += base
    return found


def averaged_statistics(total: NDArray[np.int64], of: Share) -> Float64:
    """Return the average of a running statistic. `of`: the sites of the sum."""
    found: Float64 = np.multiply(total, math.ldexp(of.inverse, -FRACTION_BITS), dtype=np.float64)
    return found


def pooled_variances(moments: Float64, means: Float64, sites: int, of: Share) -> Float64:
    """Return E[var + mean^2] - E[mean]^2, both averaged by `averaged_statistics`.

    What rounding can have left below zero counts as zero. Raises OutOfRangeError for what is below that.
    """
    found = moments - np.square(means)
    rounding = math.ldexp(sites * of.inverse, -FRACTION_BITS) * (1 + np.abs(means)) + 2.0**-50 * np.abs(moments)
    if not (found >= -rounding).all():
        raise OutOfRangeError("a pooled variance is negative")
    return np.maximum(found, 0, out=found)
