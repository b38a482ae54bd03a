"""The command `verify`: the ledger of a run, from this site's files alone."""

from __future__ import annotations

from fedcervix.errors import LedgerError, RunError
from fedcervix.printable import printable
from fedcervix.runtime.printing import say
from fedcervix.trust.ledger_verdict import Countersignature, Expected, Stored, sentences, verdict
from site_agent.home import SiteHome
from site_agent.store.ledger_store import LedgerStore
from site_agent.store.run_store import last_federation


def verify(home: SiteHome, run: str | None) -> None:
    """Verify the ledger of a run, or of the last one. Raises LedgerError, RunError, StorageError."""
    own = home.certificate().identity.name
    if run is None:
        last = last_federation(home, any_readable=True)
        run = last.run if last else ""
    store = LedgerStore(home.run_folder(run))
    found = store.read(whole=True)
    if not run or not (found.lines or found.heads):
        raise RunError(
            f"there is no ledger of run {run} here" if run else "this site has not taken part in a run yet",
            cause="the run began with an earlier version, or the name is misspelt" if run else "no run has begun",
            next_step=home.command("verify") if run else home.command(),
        )
    last_head = max((head.head.end.entries for head in found.heads), default=0)
    stored = Stored(
        found.lines[: last_head or None],
        found.heads,
        [Countersignature(one.site, one.head, one.signature) for one in found.countersigned],
    )
    known_key = home.known_ledger_key()
    told = verdict(stored, Expected(run, known_key, home.pins(), own))
    if told.fault:
        raise LedgerError(
            f"the ledger of run {run} does not hold: {printable(told.fault)}",
            cause="a file was changed, or the disk is failing; a site joined again later, and was pinned again; "
            "or the coordinator has written what nobody signed",
            next_step=f"ask the other sites for the output of: site-agent verify {run}; where it holds, compare their "
            f"{store.entries.name} and {store.signatures.name} with those in {store.entries.parent}",
        )
    for line in sentences(told):
        say(line)
    if not known_key:
        say(f"the ledger key is not known here ({home.key_file('ledger.pub')}): anybody may have signed these heads")
