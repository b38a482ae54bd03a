"""The tag of a sum: it shows whether the vectors of all sites were added up, unchanged.

    t, s      secret numbers below 2^61, from a key that the sites share and the coordinator lacks: t for the columns of
              a vector that is cut into rows of 1,024 numbers, s for its rows
    tag       sum of s_row t_column q_i modulo p = 2^61 - 1, over the statistics and then the steps of a vector

A site sends the tag of its vector as one more masked number. What the coordinator opens is then the sum of the tags,
and the tag of the sum is the same number. A sum that differs anywhere passes with a chance of about 2 / p: a row that
differs has another sum weighed by t, but for one value in p of a t; and then all rows together have another sum, but
for one value in p of that row's s. Whoever changed it knows neither, and a try is answered by the end of the round.

It holds against a coordinator that colludes with no site. A site that gives its key away empties it, and a site that
sends a false vector with its true tag is not found: that is a vector as any other.

The arithmetic is exact. A number of t is cut into six limbs of 11 bits (the last has 6); a limb times a number of 32
bits is below 2^42, and the 1,024 products of a row add up to less than 2^53: float64 holds every sum on the way, in any
order, so that the linear algebra library may make them. A sum of statistics within its range (below 2^60) cannot be
wrong by p.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.trust.mask_streams import Lane, MaskSecret, MaskStream, derived

MODULUS = 2**61 - 1
LABEL = b"fedcervix sum tag 1"
RHO_BYTES = 32
LIMB_BITS = 11
LIMBS = tuple((shift, MODULUS >> shift & 2**LIMB_BITS - 1) for shift in range(0, 61, LIMB_BITS))
"""shift and mask of each limb of a number of t"""
ROW = 1024
PIECE = 2**15
"""numbers that are looked at together; more would be a product for which the linear algebra library takes threads"""
HALF_BITS = 31
HALF = 2**HALF_BITS - 1
"""A number of 64 bits is counted as three of at most so many bits."""

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
_WORD = np.dtype("<u8")


def tag_secret(rhos: Sequence[bytes], context: bytes) -> MaskSecret:
    """Return the secret of an attempt's tag: from the 32 secret bytes of every site, in the roster's order.

    Raises ValueError where one has another length.
    """
    if not rhos or any(len(rho) != RHO_BYTES for rho in rhos):
        raise ValueError(f"every site has {RHO_BYTES} secret bytes")
    return MaskSecret(derived(b"".join(rhos), LABEL), context)


class SumTag:
    """The tag of a vector whose numbers come block by block, in its order."""

    def __init__(self, secret: MaskSecret) -> None:
        self._stream = MaskStream(secret.key(Lane.TAG_WEIGHTS))
        columns = self._stream.words(ROW, _WORD).view(np.int64)
        self._limbs: Float64 = np.array([(columns >> shift) & kept for shift, kept in LIMBS], np.float64)
        self._column, self._row_weight, self._sum = 0, 0, 0

    def add(self, numbers: NDArray[np.int32] | Int64) -> None:
        """Count the next numbers, signed, of 32 or 64 bits."""
        for start in range(0, numbers.size, PIECE):
            part = numbers[start : start + PIECE]
            self._count([half.astype(np.float64) for half in (_halves(part) if part.itemsize == 8 else [part])])

    @property
    def value(self) -> int:
        """The tag of the numbers so far, 0 to p - 1."""
        return self._sum % MODULUS

    def _count(self, halves: list[Float64]) -> None:
        at, size = 0, halves[0].size
        while at < size:
            rows = 1 if self._column else (size - at) // ROW or 1
            count = min(rows * ROW - self._column, size - at)
            limbs = self._limbs[:, self._column : self._column + count]
            sums = [row_sums(half[at : at + count].reshape(rows, -1), limbs) for half in halves]
            weights = self._weights(rows)
            for place, found in enumerate(sums):
                self._sum += sum(map(operator.mul, weights, found)) << (place * HALF_BITS)
            self._column = (self._column + count) % ROW
            at += count

    def _weights(self, rows: int) -> list[int]:
        """Return the weights of the next rows, or that of the row that has begun."""
        if self._column:
            return [self._row_weight]
        weights = [int(word) & MODULUS for word in self._stream.words(rows, _WORD)]
        self._row_weight = weights[-1]
        return weights


def _halves(numbers: NDArray[Any]) -> list[Int64]:
    """Return numbers of 64 bits as their low 31 bits, the next 31, and the signed rest."""
    low, high = numbers & HALF, numbers >> HALF_BITS
    return [low, high & HALF, high >> HALF_BITS]


def row_sums(rows: Float64, limbs: Float64) -> list[int]:
    """Return the sum of each row's numbers, each times that of its column, exactly.

    Numbers are whole, within -2^31 and 2^31 - 1; `limbs` are those of the at most ROW columns, from the lowest.
    """
    found = np.matmul(rows, limbs.T).astype(np.int64)
    pairs = found[:, ::2] + (found[:, 1::2] << LIMB_BITS)  # below 2^63
    return [low + (middle << 2 * LIMB_BITS) + (high << 4 * LIMB_BITS) for low, middle, high in pairs.tolist()]


def mask_number(secret: MaskSecret) -> int:
    """Return the mask of the tag's lane: 128 bits of its stream modulo p, which is uniform but for 2^-67."""
    return int.from_bytes(MaskStream(secret.key(Lane.TAG)).words(16, np.dtype(np.uint8)).tobytes(), "little") % MODULUS


def check_tag(value: int) -> int:
    """Return a tag that came from elsewhere. Raises ValueError unless it is 0 to p - 1."""
    if not 0 <= value < MODULUS:
        raise ValueError("a tag is a number below 2^61 - 1")
    return value
