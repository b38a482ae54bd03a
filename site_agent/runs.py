"""The runs this site took part in."""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.plan import Plan
from site_agent.home import SiteHome
from site_agent.spool import Spool


@dataclass(frozen=True, slots=True)
class Federation:
    """The last run this site took part in."""

    run: str
    plan: Plan
    spool: Spool


def last_federation(home: SiteHome) -> Federation | None:
    """Return the last run this site took part in."""
    found = sorted((home.folder / "runs").glob("*/plan.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        return None
    spool = Spool(found[-1].parent)
    return Federation(spool.folder.name, spool.plan(), spool)
