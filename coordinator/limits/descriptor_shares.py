"""How many descriptors this process has, and how they are divided.

The coordinator's own come first: journal, registry, models, log, and the operator's commands. The rest limits the
network connections, so that no client can take the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.errors import RunError
from fedcervix.transport.address import Address

OWN = 96
"""journal, registry, log, locks, the library's threads and pollers, and the operator's commands; about 40 are in use"""
OWN_PER_SITE = 4
"""an incoming and an outgoing model, and their folders"""
PER_CERTIFICATE_MAX, PER_CERTIFICATE_MIN = 8, 2
"""an agent has one connection, and `site-agent doctor` another; a lost one may still be open here"""
INVITED = 32
"""connections of sites that are about to join"""
UNAUTHENTICATED_MAX, BURST_MAX = 512, 2048
"""connections that stay, and new ones until the next look (see coordinator.calls.connections)"""
STRANGERS_MIN = 48
"""both together"""
PER_ADDRESS = 64
"""in addition to one for each site: all may have one address, and come back together"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of network connections."""

    in_all: int
    """the next one is closed as soon as it is accepted"""
    unauthenticated: int
    """without an admitted call yet, from all addresses together"""
    per_address: int
    """the same, from one address"""
    per_certificate: int
    """with admitted calls, for one certificate"""

    def at_one_listener(self, to: Address) -> int:
        """Return how many of `in_all` there may be at each address that is listened on; the library counts these alone.

        A name may stand for an IPv4 and an IPv6 address.
        """
        return self.in_all if to.is_ip else self.in_all // 2


def bounds(limit: int, sites: int) -> Bounds:
    """Share out `limit` descriptors in a run of so many sites. Raises RunError where they are too few."""
    left = limit - OWN - OWN_PER_SITE * sites
    per_certificate = min((left - INVITED - STRANGERS_MIN) // sites, PER_CERTIFICATE_MAX)
    if per_certificate < PER_CERTIFICATE_MIN:
        raise _too_few(limit, sites)
    strangers = left - INVITED - per_certificate * sites
    unauthenticated = min(strangers // 3, UNAUTHENTICATED_MAX)
    burst = min(strangers - unauthenticated, BURST_MAX)
    in_all = INVITED + per_certificate * sites + unauthenticated + burst
    return Bounds(in_all, unauthenticated, PER_ADDRESS + sites, per_certificate)


def _too_few(limit: int, sites: int) -> RunError:
    least = OWN + INVITED + STRANGERS_MIN + (OWN_PER_SITE + PER_CERTIFICATE_MIN) * sites
    return RunError(
        f"this process may open {limit:,} files and connections; a run of {sites} sites needs at least {least:,}",
        cause="the hard limit of the shell, the service or the container is low",
        next_step=f"raise it: LimitNOFILE=65536 in the unit, ulimits nofile in the container, or as root "
        f"`ulimit -n {max(least, 65_536)}` in the shell; then start again",
    )
