"""What a coordinator shows a site of a secure sum before a task, and how it follows from a run's events.

Nothing of it is taken on the coordinator's word: sites and holders have signed each part, and the site checks it by
`fedcervix.trust.holder_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcervix.core.events import CloseSigned, ReleaseStored, SiteOpened, UpdateStored
from fedcervix.core.plan import check
from fedcervix.trust.boxes import NamedKey
from fedcervix.trust.contexts import RoundContext
from fedcervix.trust.holder_rules import Proposal
from fedcervix.trust.sum_closes import ClosedAttempt, SignedClose
from fedcervix.trust.sum_lists import SignedRelease, SumList
from fedcervix.trust.sum_reports import SumReport
from fedcervix.trust.sum_roster import Opening


@dataclass(frozen=True, slots=True)
class Openings:
    """What each site has opened the run with, in the plan's order."""

    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class Boxes:
    """The secret bytes of each other site, in a box for the reader."""

    boxes: Mapping[str, bytes]
    """by who made it"""


Closing = tuple[SignedClose, ...]
"""the words of the holders that closed one attempt"""


@dataclass(frozen=True, slots=True)
class AttemptShown:
    """Which attempt at a round a task is of."""

    round: int
    earlier: tuple[Closing, ...] = ()
    """how each attempt before it was closed, from the first one on"""
    lines: tuple[SumReport, ...] = ()
    """of the round's list; empty before it is fixed"""
    remaining: tuple[str, ...] = ()
    """of a close: the holders of the next attempt"""

    @property
    def attempt(self) -> int:
        """Its number, from 1."""
        return len(self.earlier) + 1

    def proposal(self, first: RoundContext) -> Proposal:
        """Return the attempt and those before it. `first`: of the round's first attempt, as the site sees it.

        Raises ValueError where no such attempt can be.
        """
        context, earlier = first, []
        for closing in self.earlier:
            check(bool(closing), "nobody closed an attempt before")
            earlier.append(ClosedAttempt(context, closing))
            context = context.after_close(closing[0].remaining)
        return Proposal(context, tuple(earlier))

    def listed(self, context: RoundContext) -> SumList:
        """Return the round's list. Raises ValueError where a site stands in it twice, or not in its place."""
        return SumList(context.digest, self.lines)


@dataclass(frozen=True, slots=True)
class SumShown:
    """A sum that all holders have released."""

    attempt: AttemptShown
    """with the list"""
    releases: tuple[SignedRelease, ...]
    base: str
    """digest of the model that the round began with"""
    total: str
    """digest of the sum"""
    model: str
    """digest of the average that follows from it"""


# --- as events have it ----------------------------------------------------------------------------------------------


def opened_with(event: SiteOpened) -> Opening:
    """Return a site's opening. Raises RemoteError for a key that no honest site makes."""
    key, signature = (bytes.fromhex(text) for text in (event.key, event.signature))
    named = NamedKey(event.site, key)
    return Opening(site=event.site, key=named, images=event.images, rho=event.rho, signature=signature)


def opening_event(opening: Opening, at: float) -> SiteOpened:
    """Return the event of an opening."""
    key, signature = opening.key.key.hex(), opening.signature.hex()
    return SiteOpened(opening.site, key, opening.images, opening.rho, signature, at)


def line_of(update: UpdateStored) -> SumReport:
    """Return the line of an update in the round's list. Raises ValueError where it was not masked."""
    masked = update.masked
    if masked is None:
        raise ValueError(f"the update of {update.site} is not masked")
    return SumReport(
        site=update.site,
        commit=masked.commit,
        upload=update.digest,
        steps=update.steps,
        norm=masked.norm,
        loss=update.loss,
        before=masked.before,
        signature=bytes.fromhex(masked.signature),
    )


def lines_of(updates: Sequence[UpdateStored]) -> tuple[SumReport, ...]:
    """Return the lines of a list."""
    return tuple(line_of(update) for update in sorted(updates, key=lambda update: update.site))


def released_with(event: ReleaseStored) -> SignedRelease:
    """Return what a holder has signed with its masks."""
    return SignedRelease(event.site, event.listed, event.masks, bytes.fromhex(event.signature))


def closed_with(event: CloseSigned) -> SignedClose:
    """Return what a holder has signed to close an attempt."""
    return SignedClose(event.site, event.remaining, bytes.fromhex(event.signature))
