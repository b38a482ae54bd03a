"""Failures at the site: the full account stays here under a number; a scrubbed line may travel."""

from __future__ import annotations

from fedcervix.errors import FedcervixError
from fedcervix.events import SiteFailed
from fedcervix.files import write_secret
from fedcervix.privacy import incident_number, scrub
from site_agent.home import SiteHome
from site_agent.worker import WorkFailedError


def record(home: SiteHome, site: str, error: FedcervixError, *, secrets: frozenset[str], at: float) -> SiteFailed:
    """Write the full account to the incidents folder; return the report that may leave the hospital."""
    stage, trace = (error.stage, error.trace) if isinstance(error, WorkFailedError) else ("agent", "")
    number = incident_number(error.what + trace, at)
    write_secret(home.incidents / f"{number}.txt", f"{error.explain()}\nwhile: {stage}\n\n{trace}".encode())
    hint = scrub(f"{error.what} ({error.cause})" if error.cause else error.what, secrets)
    return SiteFailed(site, scrub(stage, secrets), hint, number, at)
