"""Secure sums: who opens a run, who holds the masks of an attempt at a round, and when it can be closed.

The protocol: docs/secure-sums.md. What a holder signs, and refuses, is its own decision (`fedcervix.trust`).
"""

from __future__ import annotations

from fedcervix.core.rounds.state import Presence, Run, Site


def has_opened(run: Run, site: str) -> bool:
    """Say whether a site has opened the run, or need not."""
    return not run.plan.hides_from_coordinator or any(opening.site == site for opening in run.openings)


def all_opened(run: Run) -> bool:
    """Say whether all sites of the plan have opened the run, or need not."""
    return all(has_opened(run, site) for site in run.plan.sites)


def has_boxed(run: Run, site: str) -> bool:
    """Say whether a site has given its secret bytes to the others, or need not."""
    return not run.plan.terms.secure_sum or any(boxes.site == site for boxes in run.boxes)


def attempt(run: Run) -> int:
    """Return the number of the present attempt at the round."""
    return len(run.current.closed) + 1


def holders(run: Run) -> tuple[str, ...]:
    """Return the holders of the present attempt, in alphabetical order."""
    closed = run.current.closed
    return closed[-1][0].remaining if closed else tuple(sorted(run.plan.terms.holders))


def unreleased(run: Run) -> tuple[Site, ...]:
    """Return the holders that have not released their masks, in roster order."""
    done = {release.site for release in run.current.releases}
    return tuple(site for site in run.sites if site.name in holders(run) and site.name not in done)


def unclosed(run: Run) -> tuple[Site, ...]:
    """Return the holders that are asked to close the attempt and have not, in roster order."""
    asked = set(run.current.remaining) - {close.site for close in run.current.closes}
    return tuple(site for site in run.sites if site.name in asked)


def present_holders(run: Run) -> tuple[str, ...]:
    """Return the holders of the attempt that are here."""
    return tuple(name for name in holders(run) if run.site(name).presence is Presence.PRESENT)


def may_close(run: Run) -> bool:
    """Say whether those holders that are here can close the attempt: c + 1 of them, and nobody has released."""
    return not run.current.releases and run.plan.terms.colluders < len(present_holders(run)) < len(holders(run))


def can_free(run: Run) -> bool:
    """Say whether the holders that are here can close the last attempt of a run, so that its base is free again."""
    if not run.plan.terms.secure_sum or not run.rounds or run.current.candidate or run.current.releases:
        return False
    return len(present_holders(run)) > run.plan.terms.colluders
