"""Failures at the site: the full account stays here under a number; a scrubbed line may travel.

A line that could not be told yet, because the coordinator was away, lies in a folder of its own until it was.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from fedcervix.core.events import SiteFailed, event_from_json, event_to_json
from fedcervix.core.plan import STAGES
from fedcervix.disk.files import write_secret
from fedcervix.errors import DataError, FedcervixError, StorageError
from fedcervix.printable import printable_lines
from site_agent.federation.privacy import incident_number, scrub
from site_agent.home import SiteHome
from site_agent.manifest.details import DETAIL_COLUMNS
from site_agent.manifest.reading import SPLITS
from site_agent.manifest.spreadsheet import decode_text
from site_agent.worker.worker import WorkFailedError

APART = re.compile(r'[,;\t"\\/\r\n]+')
UNTOLD_MAX = 100
HARMLESS = frozenset({"image", "images", "patient", "label", *SPLITS, "split", *DETAIL_COLUMNS, *STAGES})


def secrets(home: SiteHome) -> frozenset[str]:
    """Return what must not stand in a report: every word of the manifest but labels, and the names of its folders.

    The manifest may be the very thing that is broken, so it is torn apart instead of parsed.
    """
    try:
        manifest = home.manifest()
        raw = manifest.read_bytes()
    except (FedcervixError, OSError):
        return frozenset()
    words = {word.strip() for word in APART.split(_text(raw))} | set(manifest.parts)
    stems = {word.rpartition(".")[0] for word in words}
    return frozenset(word for word in words | stems if len(word) > 1) - HARMLESS


def _text(raw: bytes) -> str:
    try:
        return decode_text(raw, "the manifest")
    except DataError:
        return raw.decode(errors="replace")


def record(home: SiteHome, site: str, error: FedcervixError, *, at: float, goes_on: bool = False) -> SiteFailed:
    """Write the full account to the incidents folder; return the report that may leave the hospital.

    A disk that is full costs the account, not the report.
    """
    work = error if isinstance(error, WorkFailedError) else None
    stage, trace, kind = (work.stage, work.trace, work.kind) if work else ("agent", "", type(error).__name__)
    number = incident_number(error.what + trace, at)
    hidden = secrets(home)
    hint = scrub(f"{error.what} ({error.cause})" if error.cause else error.what, hidden)
    failure = SiteFailed(site, scrub(stage, hidden), hint, number, at, kind, goes_on)
    with contextlib.suppress(StorageError, OSError):
        account = printable_lines(f"{error.explain()}\nwhile: {stage}\n\n{trace}")
        write_secret(home.incidents / f"{number}.txt", account.encode(errors="backslashreplace"))
        home.untold.mkdir(exist_ok=True)
        write_secret(_untold_file(home, failure), event_to_json(failure).encode())
    return failure


def untold(home: SiteHome) -> tuple[SiteFailed, ...]:
    """Return the reports that the coordinator has not heard, oldest first; of very many the newest."""
    found = []
    for file in home.untold.glob("*.json"):
        with contextlib.suppress(ValueError, OSError):
            failure = event_from_json(file.read_text())
            if isinstance(failure, SiteFailed):
                found.append(failure)
    return tuple(sorted(found, key=lambda failure: failure.at)[-UNTOLD_MAX:])


def told(home: SiteHome, failure: SiteFailed) -> None:
    """The coordinator has heard a report."""
    _untold_file(home, failure).unlink(missing_ok=True)


def _untold_file(home: SiteHome, failure: SiteFailed) -> Path:
    return home.untold / f"{failure.incident}.json"
