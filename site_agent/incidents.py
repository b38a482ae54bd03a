"""Failures at the site: the full account stays here under a number; a scrubbed line may travel."""

from __future__ import annotations

import re

from fedcervix.errors import FedcervixError
from fedcervix.events import SiteFailed
from fedcervix.files import write_secret
from fedcervix.manifest import SPLITS
from fedcervix.privacy import incident_number, scrub
from site_agent.home import SiteHome
from site_agent.worker import WorkFailedError

APART = re.compile(r'[,;\t"\\/\r\n]+')
HARMLESS = frozenset({"image", "images", "patient", "label", *SPLITS, "split"})


def secrets(home: SiteHome) -> frozenset[str]:
    """Return what must not stand in a report: every word of the manifest but labels, and the names of its folders.

    The manifest may be the very thing that is broken, so it is torn apart instead of parsed.
    """
    try:
        manifest = home.manifest()
        text = manifest.read_text(encoding="utf-8", errors="replace")
    except (FedcervixError, OSError):
        return frozenset()
    words = {word.strip() for word in APART.split(text)} | set(manifest.parts)
    stems = {word.rpartition(".")[0] for word in words}
    return frozenset(word for word in words | stems if len(word) > 1) - HARMLESS


def record(home: SiteHome, site: str, error: FedcervixError, *, secrets: frozenset[str], at: float) -> SiteFailed:
    """Write the full account to the incidents folder; return the report that may leave the hospital."""
    stage, trace = (error.stage, error.trace) if isinstance(error, WorkFailedError) else ("agent", "")
    number = incident_number(error.what + trace, at)
    write_secret(home.incidents / f"{number}.txt", f"{error.explain()}\nwhile: {stage}\n\n{trace}".encode())
    hint = scrub(f"{error.what} ({error.cause})" if error.cause else error.what, secrets)
    return SiteFailed(site, scrub(stage, secrets), hint, number, at)
