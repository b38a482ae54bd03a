"""The runs this site took part in."""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.core.plan import Plan
from site_agent.home import SiteHome
from site_agent.store.run_store import Spool


@dataclass(frozen=True, slots=True)
class Federation:
    """A run this site took part in."""

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


def federation_of(home: SiteHome, run: str) -> Federation | None:
    """Return a run by its name; None where this site has no record of it. Raises StorageError."""
    spool = Spool(home.run_folder(run))
    return Federation(run, spool.plan(), spool) if (spool.folder / "plan.json").exists() else None
