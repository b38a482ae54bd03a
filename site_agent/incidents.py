"""Failures at the site: the full account stays here under a number; a scrubbed line may travel."""

from __future__ import annotations

import csv

from fedcervix.errors import FedcervixError
from fedcervix.events import SiteFailed
from fedcervix.files import write_secret
from fedcervix.privacy import incident_number, scrub
from site_agent.home import SiteHome
from site_agent.worker import WorkFailedError


def secrets(home: SiteHome) -> frozenset[str]:
    """Return what must not stand in a report: every word of the manifest but labels, and the names of its folders."""
    try:
        manifest = home.manifest()
        rows = csv.reader(manifest.read_text(encoding="utf-8", errors="replace").splitlines())
        words = {word for row in rows for word in row if len(word) > 1}
    except (FedcervixError, OSError, csv.Error):
        return frozenset()
    return frozenset(words | set(manifest.parts[1:]) - {"image", "patient", "label", "split"})


def record(home: SiteHome, site: str, error: FedcervixError, *, secrets: frozenset[str], at: float) -> SiteFailed:
    """Write the full account to the incidents folder; return the report that may leave the hospital."""
    stage, trace = (error.stage, error.trace) if isinstance(error, WorkFailedError) else ("agent", "")
    number = incident_number(error.what + trace, at)
    write_secret(home.incidents / f"{number}.txt", f"{error.explain()}\nwhile: {stage}\n\n{trace}".encode())
    hint = scrub(f"{error.what} ({error.cause})" if error.cause else error.what, secrets)
    return SiteFailed(site, scrub(stage, secrets), hint, number, at)
