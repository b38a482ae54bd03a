"""The link of a site to its coordinator: how it is made, and the welcome that is heard beside a running agent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fedcervix.transport import codec
from site_agent.federation.policy import check_welcome
from site_agent.home import SiteHome

if TYPE_CHECKING:
    from site_agent.federation.link import GrpcLink
    from site_agent.federation.site_ledger import SiteLedger


def connect(home: SiteHome, claim: codec.InstanceClaim | None = None, ledger: SiteLedger | None = None) -> GrpcLink:
    """Return a link to the site's coordinator. Raises ConfigError, StorageError."""
    from site_agent.federation.link import Books, GrpcLink
    from site_agent.store.egress import Egress

    return GrpcLink(
        home.config().link.coordinator,
        authority_pem=home.pem("authority.crt"),
        certificate_pem=home.pem(home.certificates()[0]),
        key_pem=home.pem("site.key"),
        claim=claim,
        books=Books(ledger, Egress(home.egress, home.config().link.coordinator)),
    )


def welcome(home: SiteHome) -> codec.Welcome:
    """Hear the coordinator's welcome as the agent does, beside it. Raises a FedcervixError."""
    with contextlib.closing(connect(home)) as link:
        heard = link.welcome()
    assert isinstance(heard, codec.Welcome)
    check_welcome(heard, home.certificate().identity.federation)
    return heard
