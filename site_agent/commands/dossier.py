"""The command `dossier`: the papers for the data protection officer."""

from __future__ import annotations

from pathlib import Path

from fedcervix.runtime.printing import say
from site_agent.dossier.facts import facts
from site_agent.dossier.writing import INDEX, files, write
from site_agent.home import SiteHome


def dossier(home: SiteHome, to: Path | None) -> None:
    """Write the papers into a folder. Raises ConfigError, StorageError."""
    folder = (to or home.folder / "dossier").absolute()
    known = facts(home)
    content = files(home, known)
    write(folder, content)
    for one in known.unread:
        say(f"could not be read, and is missing: {one}", err=True)
    if known.egress_fault:
        say(f"the egress ledger does not hold: {known.egress_fault}", err=True)
    say(f"{len(content)} files: {folder / INDEX}")
