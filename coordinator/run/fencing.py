"""Which process of an agent acts for a site. If two processes use one certificate, one of them is refused.

Rules
1. If no process acts for the site, or the one that did is gone (no open stream, no message for a lease), the next one
   that comes is accepted.
2. If the acting process comes again, its connection was cut and opened again. It continues.
3. If a process comes that was started later on the same home folder (`succeeds`), it is a restart. It takes over at
   once, even if the old connection is not known to be dead: a home folder has room for one process, so the old one has
   ended.
4. Any other process is a duplicate: a second machine, or a copied home folder. It is refused as long as the acting one
   lives.
5. A process makes its claim once, when it attaches. Its other calls are answered if it acts, or if no process does yet.

Which process acts is not journaled, like signs of life: a restarted coordinator accepts the first one that comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.errors import DuplicateAgentError
from fedcervix.runtime.printing import utc
from fedcervix.transport.codec import InstanceClaim


@dataclass(frozen=True, slots=True)
class Acting:
    """The process that acts for a site, and since when (Unix seconds)."""

    instance: str
    since: float


def admit(acting: Acting | None, claim: InstanceClaim, *, alive: bool, at: float) -> Acting | None:
    """Return which process acts from now on; None if the claim is that of a duplicate."""
    if acting is not None and claim.instance == acting.instance:
        return acting
    if acting is None or not alive or acting.instance in claim.succeeds:
        return Acting(claim.instance, at)
    return None


def is_answered(acting: Acting | None, instance: str) -> bool:
    """Say whether a call of this process is answered."""
    return acting is None or acting.instance == instance


def refusal(site: str, acting: Acting, lease_s: float) -> DuplicateAgentError:
    """Return the error that a duplicate gets."""
    since = utc(acting.since, "%Y-%m-%d %H:%M:%S UTC")
    return DuplicateAgentError(
        f"another agent of site {site} has been connected since {since}; this one is refused",
        cause="a second machine or a copy of the home folder uses this site's certificate",
        next_step=f"stop one of the two; this one can start {lease_s:.0f} s after the last message of the other one",
    )
