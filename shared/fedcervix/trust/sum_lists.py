"""The list of a round (S3): whose vectors are summed, fixed once; and what a holder signs when it releases (S4).

Parts of a sum: its sites, and the weight of each. Two sums over one base with different parts can give away a single
site by their difference; so the parts are what is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedcervix.core.plan import check
from fedcervix.trust.boxes import OwnKey, agreed_key
from fedcervix.trust.contexts import RoundContext, mask_context
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.statements import PrivateKey, PublicKey, digest_of, holds, sign
from fedcervix.trust.sum_reports import SumReport
from fedcervix.trust.sum_roster import PinnedKeys, SumRoster

RELEASE = "fedcervix sum release 1"
MASK = "fedcervix sum mask 1"


@dataclass(frozen=True)
class SumList:
    """The signed reports of the sites that count, for one context."""

    context: str
    """digest"""
    reports: tuple[SumReport, ...]

    def __post_init__(self) -> None:
        check(tuple(sorted(set(self.sites))) == self.sites, "the lines stand in alphabetical order, one for each site")

    @property
    def sites(self) -> tuple[str, ...]:
        """U: the sites of the list."""
        return tuple(report.site for report in self.reports)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all lines, without their signatures."""
        return digest_of("fedcervix sum list 1", self.context, *(t for line in self.reports for t in line.texts))


def parts_of(weights: Mapping[str, int]) -> str:
    """Return the digest of the sites of a sum and their weights."""
    return digest_of(
        "fedcervix sum parts 1", *(text for site in sorted(weights) for text in (site, str(weights[site])))
    )


def mask_secret(
    own: OwnKey, roster: SumRoster, context: RoundContext, site: str, holder: str, commit: str
) -> MaskSecret:
    """Return what the stream between a site and a holder is made of. `own`: one of the two, or both."""
    first, second, bound_to = roster.of(site).key, roster.of(holder).key, mask_context(context, site, holder, commit)
    return MaskSecret(agreed_key(own, first, second, MASK, bound_to), bound_to)


@dataclass(frozen=True, slots=True)
class SignedRelease:
    """A holder's word: it released its masks for this list, and for no other one of the round."""

    holder: str
    listed: str
    """digest of the list"""
    masks: str
    """digest of the sum of its streams"""
    signature: bytes

    def holds(self, key: PublicKey, context: RoundContext) -> bool:
        """Say whether the owner of a key signed it for this context."""
        return holds(key, self.signature, RELEASE, context.digest, self.holder, self.listed, self.masks)


def signed_release(
    identity: PrivateKey, holder: str, context: RoundContext, listed: SumList, masks: str
) -> SignedRelease:
    """Return this holder's signed release. `masks`: digest of the sum of its streams."""
    signature = sign(identity, RELEASE, context.digest, holder, listed.digest, masks)
    return SignedRelease(holder, listed.digest, masks, signature)


def released_fault(context: RoundContext, listed: SumList, releases: Sequence[SignedRelease], pins: PinnedKeys) -> str:
    """Say which holder did not release its masks for this very list; empty: all of them did.

    One of them is honest, so there is no other sum of the round. Without it the coordinator could sum over one list
    and publish another one.
    """
    by_holder = {release.holder: release for release in releases}
    for holder in context.holders:
        release = by_holder.get(holder)
        signed = release is not None and holder in pins and release.holds(pins[holder], context)
        if release is None or not signed or release.listed != listed.digest or listed.context != context.digest:
            return f"holder {holder} has not signed for the list of round {context.round}"
    return ""
