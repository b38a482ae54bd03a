"""When a certificate is renewed, and when a person is warned: values in, values out. Times are aware UTC.

    |---------------------------- life ----------------------------|
    |                              |tries      |warns              |ends       |too late for `coordinator renew`
    0                              1/2 .. 3/5  2/3                 1           30 days later

Rules
1. The holder tries from half of the life on. The tenth of a life after that is jitter by the holder's name, so that
   sites that joined together do not come together.
2. The authority signs only what lives on for a third of a lifetime longer than what the holder has. So it signs at most
   three certificates of a holder in a lifetime, however often it is asked, and does not sign at all where its own end
   is near.
3. A renewal keeps the key. What was agreed about a key (see `coordinator.home.registry`) stays true.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from fedcervix.core.seeds import SEED_BITS, derive
from fedcervix.errors import IdentityError
from fedcervix.transport.identity import Certificate, moment

TRIED_FROM, JITTER = 0.5, 0.1
"""parts of a life"""
WARNED_LEFT = 1 / 3
GAIN = 1 / 3
"""of a lifetime"""
GRACE = timedelta(days=30)
"""so long after its end a certificate is renewed at the operator's word (`coordinator renew SITE`)"""
AUTHORITY_WARNED_LEFT = timedelta(days=365)
AGAIN, AGAIN_S_MAX = 1 / 50, 6 * 3600.0
"""from a try that failed to the next one: part of a life, and at most"""

SKEW_S_MAX = 60.0
"""clocks that differ by more are named"""


def due_at(certificate: Certificate) -> datetime:
    """Return when the holder tries for the first time."""
    chance = derive(0, "renewal", certificate.identity.uri) / 2**SEED_BITS
    wait: timedelta = _life(certificate) * (TRIED_FROM + JITTER * chance)
    return certificate.not_before + wait


def again_s(certificate: Certificate) -> float:
    """Return how long to wait after a try that failed, in seconds."""
    return min(_life(certificate).total_seconds() * AGAIN, AGAIN_S_MAX)


def gains(until: datetime, has_until: datetime, lifetime: timedelta) -> bool:
    """Say whether a certificate that ends at `until` is worth a signature, for one who has one that ends earlier."""
    return until - has_until >= lifetime * GAIN


def warning(title: str, since: datetime, until: datetime, now: datetime) -> str:
    """Return the words for a certificate that should have been renewed; empty as long as there is nothing to say.

    `title`: whose it is; it is good from `since` to `until`.
    """
    if until - now > (until - since) * WARNED_LEFT:
        return ""
    if now > until:
        return f"the certificate of {title} has expired ({moment(until)})"
    return f"the certificate of {title} ends at {moment(until)} and was not renewed yet"


def authority_warning(authority: Certificate, now: datetime) -> str:
    """Return the words for an authority in its last year; empty before it."""
    if authority.not_after - now > AUTHORITY_WARNED_LEFT:
        return ""
    return (
        f"the federation's authority ends at {moment(authority.not_after)}, and every certificate with it: "
        "plan a new federation before that (deploy/RUNBOOK.md, chapter 9)"
    )


def check_grace(site: str, ended: datetime, now: datetime) -> None:
    """Raise IdentityError where a site's certificate ended too long ago to be renewed."""
    if now <= ended + GRACE:
        return
    raise IdentityError(
        f"the certificate of site {site} ended at {moment(ended)}, more than {GRACE.days} days ago",
        cause="a certificate that ended is renewed within this time only",
        next_step=f"make a new invitation: coordinator invite {site}",
    )


def skew(whose: str, ahead_s: float) -> str:
    """Return the words for a clock that is `ahead_s` seconds ahead of this machine's; empty where it is near enough."""
    if abs(ahead_s) <= SKEW_S_MAX:
        return ""
    way = "ahead of" if ahead_s > 0 else "behind"
    return (
        f"the clock of {whose} is {abs(ahead_s):.0f} s {way} this machine's: "
        "certificates are checked by the clock; set the wrong one (timedatectl set-ntp true)"
    )


def _life(certificate: Certificate) -> timedelta:
    return certificate.not_after - certificate.not_before
