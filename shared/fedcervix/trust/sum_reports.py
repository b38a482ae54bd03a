"""What a site says of its vector (S1, S2): the commitment, the digest of what it uploads, and rough figures.

    q        the site's step in fixed point, times its weight
    commit   SHA-256(nonce, q); nonce = HKDF(run secret, run, round, base, attempt, digest of the trained model)
    y        q plus one stream for each holder; the report holds its digest

Rules
1. Neither q nor the nonce ever leaves the site. Training can be repeated: the digest of a model, or its loss in full
   precision, would confirm a guess of the images that it was trained with. So losses and norms have three digits.
2. A report is signed over the whole context: it counts for one attempt at one round.
3. It says which sum over the same base the site knows of (`before`), so that a holder without that memory can refuse
   another one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcervix.core.plan import check
from fedcervix.trust.contexts import RoundContext, check_digest
from fedcervix.trust.statements import SIGNATURE_BYTES_MAX, PrivateKey, PublicKey, holds, sign, tagged

REPORT = "fedcervix sum report 1"
STEPS_MAX = 2**40


def three_digits(value: float) -> float:
    """Return a figure as it may leave the site."""
    return float(f"{value:.2e}")


def commit_nonce(run_secret: bytes, context: RoundContext, model: str) -> bytes:
    """Return the 32 bytes that hide a vector behind its commitment.

    `run_secret`: 32 random bytes of this run, which never leave the site. `model`: digest of the trained model.
    """
    info = tagged("fedcervix sum nonce 1", context.digest, model)
    return HKDF(SHA256(), 32, salt=None, info=info).derive(run_secret)


def commitment(nonce: bytes) -> hashlib._Hash:
    """Return what becomes the commitment to a vector (its hexdigest) when it has hashed the vector's bytes."""
    return hashlib.sha256(nonce)


@dataclass(frozen=True, slots=True, kw_only=True)
class SumReport:
    """A line of a round's list."""

    site: str
    commit: str
    upload: str
    """digest of y"""
    steps: int
    norm: float
    """of the step, three digits"""
    loss: float
    """three digits"""
    before: str = ""
    """digest of the sites and weights of another sum over this base that the site knows of; empty: of none"""
    signature: bytes = b""

    def __post_init__(self) -> None:
        check_digest("a commitment", self.commit)
        check_digest("an upload", self.upload)
        check(0 <= self.steps <= STEPS_MAX, f"steps is 0 to 2^40; found {self.steps}")
        for value in (self.norm, self.loss):
            check(math.isfinite(value) and three_digits(value) == value, "a figure of a report has three digits")
        if self.before:
            check_digest("the sum before", self.before)
        check(len(self.signature) <= SIGNATURE_BYTES_MAX, "a signature is too long")

    @property
    def texts(self) -> tuple[str, ...]:
        """What is hashed and signed of it."""
        figures = (str(self.steps), f"{self.norm:.2e}", f"{self.loss:.2e}")
        return (self.site, self.commit, self.upload, *figures, self.before)

    def signed(self, identity: PrivateKey, context: RoundContext) -> SumReport:
        """Return the report with the site's signature."""
        return replace(self, signature=sign(identity, REPORT, context.digest, *self.texts))

    def holds(self, key: PublicKey, context: RoundContext) -> bool:
        """Say whether the owner of a key signed it for this context."""
        return holds(key, self.signature, REPORT, context.digest, *self.texts)
