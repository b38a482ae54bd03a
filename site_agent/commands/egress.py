"""The command `egress`: what has left this site, by its egress ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from fedcervix.errors import LedgerError, RunError
from fedcervix.printable import printable
from fedcervix.runtime.printing import say
from fedcervix.transport.identity import moment
from site_agent.home import SiteHome
from site_agent.store import egress as ledger
from site_agent.store.egress_account import Departure, Egressed, RunAccount, egressed

DIGITS = 12
"""of a digest that are shown"""


def egress(home: SiteHome, run: str | None) -> None:
    """Print what has left this site: for each run a summary, or everything that left for one run.

    Raises LedgerError where the ledger does not hold, RunError, StorageError.
    """
    accounts = stored(home).runs()
    if run is None:
        for account in accounts:
            for line in summary(account):
                say(line)
        if not accounts:
            say("nothing has left this site yet")
        return
    found = [account for account in accounts if account.run == run]
    if not found:
        raise RunError(
            f"nothing has left this site for run {run}",
            cause="the name is misspelt, or an earlier version was installed then",
            next_step=home.command("egress"),
        )
    for one in found[0].departures:
        say(_line(one))


def stored(home: SiteHome) -> Egressed:
    """Return what the egress ledger says. Raises LedgerError where it does not hold, StorageError."""
    try:
        return egressed(ledger.entries(home.egress))
    except ValueError as error:
        raise broken(home, error) from error


def broken(home: SiteHome, why: object) -> LedgerError:
    """Return the error that the egress ledger does not hold."""
    return LedgerError(
        f"the ledger of what has left this site does not hold: {printable(str(why))}",
        cause=f"{home.egress} was changed or is of a backup, or the disk is failing",
        next_step="tell those who are responsible for data protection; what left for a run also stands in the ledgers "
        "of the coordinator and of all its sites: coordinator verify",
    )


def summary(account: RunAccount) -> Iterator[str]:
    """Yield what left for a run, in a few lines."""
    yield f"run {account.run}:" if account.run else "outside of runs:"
    models, reports = account.models, account.reports
    if models:
        whole = sum(models.values())
        part = f", {len(models) - whole} in part" if whole < len(models) else ""
        yield f"  files: {whole} whole{part}; {_bytes(account.of('model'))}"
    if reports:
        kinds = ", ".join(f"{count} {what}" for what, count in sorted(reports.items()))
        yield f"  reports: {kinds}; {_bytes(account.of('report'))}"
    if requests := account.of("request"):
        yield f"  requests for a certificate: {len(requests)}; {_bytes(requests)}"
    if talk := account.of("talk"):
        yield f"  small messages ({', '.join(sorted({one.what for one in talk}))}): {_bytes(talk)}"
    yield f"  to: {', '.join(sorted({one.to for one in account.departures}))}"


def _bytes(departures: tuple[Departure, ...]) -> str:
    most = "" if all(one.is_exact for one in departures) else "at most "
    return f"{most}{sum(one.bytes for one in departures):,} bytes"


def _line(one: Departure) -> str:
    """Return one thing that left."""
    part = "" if one.kind != "model" or one.bytes == one.reaches[2] else f", from byte {one.reaches[0]:,} on"
    at = moment(datetime.fromtimestamp(one.at, UTC))
    size = f"{_bytes((one,))}{part}"
    return "  ".join(filter(None, (at, one.kind, one.what, one.task, size, one.digest[:DIGITS], f"to {one.to}")))
