"""What a secret or a signature of a secure sum is bound to: the run, and the attempt at one round of it.

Rules
1. Two different contexts have different bytes: each text stands with its length before it, after a tag.
2. A context names everything that may not be exchanged afterwards: run, plan, roster (names, keys, numbers of images),
   round, base, ledger, holders, layout, width. Whoever sees one of them otherwise makes other masks, and they do not
   cancel.
3. The attempts at one round are a chain: each context names the one that was closed before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from fedcervix.core.plan import Plan, check
from fedcervix.trust.statements import digest_of, tagged

PROTOCOL = "fedcervix secure sum 1"
WIDTHS = (16, 32)
"""bits of a masked number"""
DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(name: str, text: str) -> None:
    """Raise ValueError unless `text` is a SHA-256 in lower-case hexadecimal."""
    check(DIGEST.fullmatch(text) is not None, f"{name} is a SHA-256 in lower-case hexadecimal")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """A run of a federation under a plan."""

    federation: str
    run: str
    plan: str
    """digest"""

    def __post_init__(self) -> None:
        check(bool(self.federation and self.run), "a run has a federation and a name")
        check_digest("the plan", self.plan)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is hashed and signed of it."""
        return (PROTOCOL, self.federation, self.run, self.plan)


@dataclass(frozen=True, kw_only=True)
class RoundContext:
    """One attempt at a round of a run. It is the same for all sites and holders that take part in it."""

    run: RunContext
    sites: int
    """K: of the plan, however many of them are left"""
    colluders: int
    """c: sites that may collude with the coordinator"""
    roster: str
    """digest of all openings (`fedcervix.trust.sum_roster`)"""
    round: int
    base: str
    """digest of the model that the round begins with"""
    head: str
    """hash of the ledger's last head"""
    layout: str
    """digest of the names, shapes and order of the tensors"""
    width: int
    holders: tuple[str, ...]
    """that must release their masks in this attempt"""
    attempt: int = 1
    follows: str = ""
    """digest of the context of the attempt before; empty for the first"""

    def __post_init__(self) -> None:
        for name in ("roster", "base", "head", "layout"):
            check_digest(name, getattr(self, name))
        check(self.width in WIDTHS, f"a masked number has {WIDTHS} bits; found {self.width}")
        check(self.round >= 1 and self.attempt >= 1, "rounds and attempts are counted from 1")
        check(0 <= self.colluders < self.sites, "fewer sites collude than there are")
        check(tuple(sorted(set(self.holders))) == self.holders, "holders stand in alphabetical order, each once")
        check(len(self.holders) > self.colluders, "there are c + 1 holders or more, so that one does not collude")
        check((self.attempt == 1) == (not self.follows), "every attempt but the first follows another")

    @property
    def texts(self) -> tuple[str, ...]:
        """What is hashed and signed of it. The number of texts fixes the number of holders, which come last."""
        counts = (self.sites, self.colluders, self.round, self.attempt, self.width)
        digests = (self.roster, self.base, self.head, self.layout, self.follows)
        return (*self.run.texts, *map(str, counts), *digests, *self.holders)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the context."""
        return digest_of("fedcervix sum context 1", *self.texts)

    def after_close(self, remaining: tuple[str, ...]) -> RoundContext:
        """Return the context of the next attempt, with the holders that closed this one."""
        return replace(self, attempt=self.attempt + 1, follows=self.digest, holders=tuple(sorted(remaining)))


WIDTH = 32
"""of the numbers that are summed today"""


def first_attempt(
    run: RunContext, plan: Plan, roster: str, *, round_: int, base: str, head: str, layout: str
) -> RoundContext:
    """Return the context of the first attempt at a round, as every site computes it for itself.

    `head`: hash of the ledger's head of the round before. `layout`: `VectorForm.digest` of the run's first model.
    """
    return RoundContext(
        run=run,
        sites=len(plan.sites),
        colluders=plan.terms.colluders,
        roster=roster,
        round=round_,
        base=base,
        head=head,
        layout=layout,
        width=WIDTH,
        holders=tuple(sorted(plan.terms.holders)),
    )


def mask_context(context: RoundContext, site: str, holder: str, commit: str) -> bytes:
    """Return what the stream between a site and a holder is bound to.

    `commit` fixes the vector under the mask: another vector has another mask.
    """
    return tagged("fedcervix mask context 1", context.digest, site, holder, commit)
