"""Whether what a site has given stands in its own ledgers, once a federation is over: whatever was done to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

from fedcervix.core.events import UpdateStored
from fedcervix.disk.journal import Journal
from site_agent.commands.egress import stored
from site_agent.home import SiteHome
from tests.e2e.loopback import Federation, call
from tests.unit.independent_verifier import BrokenError, egress_ends, verify_egress


def updates(federation: Federation, run: str, site: str) -> list[UpdateStored]:
    """Return what the coordinator has accepted from a site."""
    with closing(Journal(federation.home.journal, read_only=True)) as journal:
        return [event for event in journal.events(run) if isinstance(event, UpdateStored) and event.site == site]


def unaccounted(federation: Federation, run: str, site: str) -> Iterator[str]:
    """Yield in words what the ledgers of a site lack, or what does not hold in them."""
    home = federation.site(site)
    code, said = call("site-agent", "--home", home.folder, "verify", run, cwd=home.folder)
    if code or "what has left this site: all" not in said:
        yield f"{site}: verify ended with {code}: {said}"
        return
    accounts = [account for account in stored(home).runs() if account.run == run]
    models = accounts[0].models if accounts else {}
    for update in updates(federation, run, site):
        if not models.get(update.packed or update.digest):
            yield f"{site}: the model of {update.task} is not in its egress ledger, or not whole"
    yield from _otherwise(home, run, site, sum(one.bytes for account in accounts for one in account.departures))


def _otherwise(home: SiteHome, run: str, site: str, left_bytes: int) -> Iterator[str]:
    """Yield what another verifier finds."""
    try:
        found = verify_egress(home.egress, egress_ends(home.run_folder(run), site))
    except (BrokenError, KeyError, json.JSONDecodeError) as error:
        yield f"{site}: the independent verifier says {error!r}"
        return
    if found.get(run, 0) != left_bytes:
        yield f"{site}: {found.get(run, 0)} bytes left by the independent verifier, {left_bytes} by ours"
