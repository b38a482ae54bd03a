"""The tag of a sum: it shows whether the vectors of all sites were added up, unchanged.

    r         one number for each of a vector's numbers, from a key that the sites share and the coordinator lacks
    tag       sum of r_i q_i modulo p = 2^61 - 1, over the statistics and then the steps of a vector

A site sends the tag of its vector as one more masked number. What the coordinator opens is then the sum of the tags,
and the tag of the sum is the same number. One wrong coordinate passes with a chance of about 1 / p, whatever the other
ones are: r is not known to whoever changed it, and the only answer to a try is the end of the round.

It holds against a coordinator that colludes with no site. A site that gives its key away empties it, and a site that
sends a false vector with its true tag is not found: that is a vector as any other.

The arithmetic is exact. A number of r is cut into three limbs of 21, 21 and 19 bits; a limb times a number of 32 bits
is below 2^53, and 1,024 of those products fit into 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedcervix.trust.mask_streams import PART_BYTES, Lane, MaskSecret, MaskStream, derived

MODULUS = 2**61 - 1
LABEL = b"fedcervix sum tag 1"
RHO_BYTES = 32
LIMB_BITS = 21
ROW = 1024
"""products that are added up before they are folded into the sum"""
PIECE = PART_BYTES // 8
"""numbers that are looked at together"""
HALF_BITS = 31
"""A number of 64 bits is counted as two: its low bits, and the signed rest."""

Int64 = NDArray[np.int64]
_WEIGHT = np.dtype("<u8")


def tag_secret(rhos: Sequence[bytes], context: bytes) -> MaskSecret:
    """Return the secret of a round's r: from the 32 secret bytes of every site, in the roster's order.

    Raises ValueError where one has another length.
    """
    if not rhos or any(len(rho) != RHO_BYTES for rho in rhos):
        raise ValueError(f"every site has {RHO_BYTES} secret bytes")
    return MaskSecret(derived(b"".join(rhos), LABEL), context)


class SumTag:
    """The tag of a vector whose numbers come block by block, in its order."""

    def __init__(self, secret: MaskSecret) -> None:
        self._weights = MaskStream(secret.key(Lane.TAG_WEIGHTS))
        self._sum = 0

    def add(self, numbers: NDArray[np.int32] | Int64) -> None:
        """Count the next numbers, signed, of 32 or 64 bits."""
        for start in range(0, numbers.size, PIECE):
            part = numbers[start : start + PIECE].astype(np.int64, copy=False)
            self._sum += _weighed(self._weights.words(part.size, _WEIGHT), part, wide=numbers.itemsize == 8)

    @property
    def value(self) -> int:
        """The tag of the numbers so far, 0 to p - 1."""
        return self._sum % MODULUS


def _weighed(weights: NDArray[np.uint64], numbers: Int64, *, wide: bool) -> int:
    if not wide:
        return inner_product(weights, numbers)
    low, high = numbers & (2**HALF_BITS - 1), numbers >> HALF_BITS
    # The high half has up to 33 bits with its sign, and goes once more.
    lower, higher = high & (2**HALF_BITS - 1), high >> HALF_BITS
    halves = (inner_product(weights, half) << (place * HALF_BITS) for place, half in enumerate((low, lower, higher)))
    return sum(halves)


def inner_product(weights: NDArray[np.uint64], numbers: Int64) -> int:
    """Return the sum of (weight modulo 2^61) times number, exactly; numbers lie within -2^31 and 2^31 - 1."""
    found, low = 0, np.int64(2**LIMB_BITS - 1)
    bits = weights.view(np.int64) & np.int64(MODULUS)
    limbs: tuple[Int64, ...] = (bits & low, (bits >> LIMB_BITS) & low, bits >> (2 * LIMB_BITS))
    whole = numbers.size // ROW * ROW
    for place, limb in enumerate(limbs):
        rows = np.einsum("ij,ij->i", limb[:whole].reshape(-1, ROW), numbers[:whole].reshape(-1, ROW))
        rest = np.einsum("i,i->", limb[whole:], numbers[whole:])
        found += (sum(rows.tolist()) + int(rest)) << (place * LIMB_BITS)
    return found


def mask_number(secret: MaskSecret) -> int:
    """Return the mask of the tag's lane: 128 bits of its stream modulo p, which is uniform but for 2^-67."""
    return int.from_bytes(MaskStream(secret.key(Lane.TAG)).words(16, np.dtype(np.uint8)).tobytes(), "little") % MODULUS


def check_tag(value: int) -> int:
    """Return a tag that came from elsewhere. Raises ValueError unless it is 0 to p - 1."""
    if not 0 <= value < MODULUS:
        raise ValueError("a tag is a number below 2^61 - 1")
    return value
