"""Which process of an agent acts for a site: two under one certificate are told apart, and one of them is refused.

Rules
1. Nobody acts for the site, or who did is gone (no open stream, no sign of life for a lease): whoever comes is let in.
2. The one who acts comes again: that is a line that was cut and mended. It goes on.
3. Somebody comes who ran after it on the same home folder (`succeeds`): that is a restart. It takes over at once, also
   while the old line is not known to be dead. A home folder has room for one process, so the old one has ended.
4. Anybody else is a twin: a second machine, or a copied home folder. It is refused for as long as the first one lives.
5. A process says so once, when it attaches. Its other calls are heeded if it acts, or if nobody does yet.

Who acts is not journaled, as signs of life are not: a restarted coordinator lets in whoever comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from fedcervix.errors import DuplicateAgentError
from fedcervix.network.codec import InstanceClaim


@dataclass(frozen=True, slots=True)
class Acting:
    """The process that acts for a site, and since when (Unix seconds)."""

    instance: str
    since: float


def admit(acting: Acting | None, claim: InstanceClaim, *, alive: bool, at: float) -> Acting | None:
    """Return who acts from now on, where the claim is let in; None where it is a twin's."""
    if acting is not None and claim.instance == acting.instance:
        return acting
    if acting is None or not alive or acting.instance in claim.succeeds:
        return Acting(claim.instance, at)
    return None


def heeded(acting: Acting | None, instance: str) -> bool:
    """Say whether a call of this process is answered."""
    return acting is None or acting.instance == instance


def refusal(site: str, acting: Acting, lease_s: float) -> DuplicateAgentError:
    """Return what a twin is told."""
    return DuplicateAgentError(
        f"another agent of site {site} has been connected since {_moment(acting.since)}; this one is refused",
        cause="a second machine or a copy of the home folder uses this site's certificate",
        next_step=f"stop one of the two; this one can start {lease_s:.0f} s after the last message of the other one",
    )


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
