"""Closing an attempt at a round: holders sign that they will never release their masks for it.

One honest holder that has closed an attempt keeps its sum closed for ever. So when c + 1 holders have closed it, one of
which is honest, the round can be done again: with those holders, a new attempt in every context and in the seeds of the
training, and so with other masks and other vectors. With c + 2 holders in the plan, one of them may be lost for good.

The holders of an attempt are always some of those of the attempt before it. A holder that comes in afterwards has
promised nothing for the attempt before; then one sum could be released in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcervix.trust.contexts import RoundContext
from fedcervix.trust.statements import PrivateKey, PublicKey, holds, sign
from fedcervix.trust.sum_roster import Pins

CLOSE = "fedcervix sum close 1"


@dataclass(frozen=True, slots=True)
class SignedClose:
    """A holder's word: it released nothing in this attempt, and never will."""

    holder: str
    remaining: tuple[str, ...]
    """the holders of the next attempt, in alphabetical order"""
    signature: bytes

    def holds(self, key: PublicKey, context: RoundContext) -> bool:
        """Say whether the owner of a key signed it for this context."""
        return holds(key, self.signature, CLOSE, context.digest, self.holder, *self.remaining)


def signed_close(identity: PrivateKey, holder: str, context: RoundContext, remaining: tuple[str, ...]) -> SignedClose:
    """Return this holder's signed close."""
    return SignedClose(holder, remaining, sign(identity, CLOSE, context.digest, holder, *remaining))


@dataclass(frozen=True, slots=True)
class ClosedAttempt:
    """An attempt, and what its holders signed to close it."""

    context: RoundContext
    closes: tuple[SignedClose, ...]

    def next_context(self, pins: Pins) -> RoundContext | None:
        """Return the context of the attempt after it; None unless enough holders have closed it."""
        remaining = self.closes[0].remaining if self.closes else ()
        by_holder = {close.holder: close for close in self.closes if close.remaining == remaining}
        if not may_go_on(self.context, remaining) or set(by_holder) != set(remaining):
            return None
        signed = all(holder in pins and by_holder[holder].holds(pins[holder], self.context) for holder in remaining)
        return self.context.after_close(remaining) if signed else None


def may_go_on(context: RoundContext, remaining: Sequence[str]) -> bool:
    """Say whether a round can be done again with these holders: c + 1 or more of the attempt's own, in order."""
    in_order = tuple(sorted(set(remaining))) == tuple(remaining)
    return in_order and len(remaining) > context.colluders and set(remaining) <= set(context.holders)
