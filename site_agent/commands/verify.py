"""The command `verify`: the ledger of a run and the ledger of what has left, from this site's files alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fedcervix.errors import LedgerError, RunError
from fedcervix.printable import printable
from fedcervix.runtime.printing import say
from fedcervix.trust.chain import Values, read
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.ledger import LedgerEntry
from fedcervix.trust.ledger_verdict import Countersignature, Expected, Stored, Verdict, sentences, verdict
from fedcervix.trust.records import RECORD
from fedcervix.trust.statements import PublicKey, holds
from site_agent.commands.egress import broken
from site_agent.home import SiteHome
from site_agent.store import egress
from site_agent.store.egress_account import Egressed, egressed
from site_agent.store.ledger import differences
from site_agent.store.ledger_store import LedgerStore
from site_agent.store.run_store import RunStore, last_federation
from site_agent.store.sum_journal import rounds_summed


def verify(home: SiteHome, run: str | None) -> None:
    """Verify the ledger of a run, or of the last one, and what left for it.

    Raises LedgerError, RunError, StorageError.
    """
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
            cause="a file was changed, or the disk is failing; a pin was changed by hand in site.toml; "
            "or the coordinator has written what nobody signed, or what cannot have happened",
            next_step=f"ask the other sites for the output of: site-agent verify {run}; where it holds, compare their "
            f"{store.entries.name} and {store.signatures.name} with those in {store.entries.parent}",
        )
    _check_record(home, run, told)
    for line in (*sentences(told), *_of_sums(home, run), *_of_egress(home, run, told, stored.entries)):
        say(line)
    if not known_key:
        say(f"the ledger key is not known here ({home.key_file('ledger.pub')}): anybody may have signed these heads")


def _check_record(home: SiteHome, run: str, told: Verdict) -> None:
    """Compare the record that the coordinator sent at the end with the signed ledger. Raises LedgerError."""
    run_store = RunStore(home.run_folder(run))
    try:
        record = run_store.record()
    except ValueError:
        return  # it is none: reports say so
    other = differences(record, told.run, ended=told.ledger.ended) if record and told.run else []
    if other:
        raise LedgerError(
            f"the record of run {run} says something else than its signed ledger: {'; '.join(other)}",
            cause="record.json was changed, or the coordinator has sent another one than what happened",
            next_step=f"believe the ledger; compare with record.json of other sites; it lies in {run_store.folder}",
        )


def _of_sums(home: SiteHome, run: str) -> Iterator[str]:
    """Yield of which rounds this site knows the sums; nothing where the run had none. Raises StorageError."""
    plan = RunStore(home.run_folder(run)).known_plan()
    if plan is None or not plan.terms.secure_sum:
        return
    rounds = ", ".join(map(str, rounds_summed(home, run))) or "none"
    yield f"secure sums: this site knows which sites and weights were added up in rounds {rounds}, by its own journal"
    yield (
        "before it worked with a model of the run, it checked the signatures of all holders, the sum's range and tag, "
        "and derived the model itself; the masks are deleted, so nobody can compute a sum again"
    )


# --- what has left --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """A record of this site that stands in the ledger of the run."""

    digest: str
    place: Values


def _of_egress(home: SiteHome, run: str, told: Verdict, entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """Yield what the ledger of what has left says, held against that of the run. Raises LedgerError, StorageError."""
    said = list(_said(entries, private_key(home.pem("site.key")).public_key()))
    try:
        found = egressed(egress.entries(home.egress), _ends(said))
    except ValueError as error:
        raise broken(home, error) from error
    _check_heads(home, run, told, found)
    yield from _of_own_keys(home, told, found)
    records = {one.record for one in found.departures}
    yield f"what has left this site: all {found.end.entries} entries hold; to see it: {home.command(f'egress {run}')}"
    if elsewhere := sum(one.digest not in records for one in said):
        yield (
            f"{elsewhere} records in the ledger of the run are signed with the key of this site and have not left from "
            "here: the disk was full then, or somebody else has this key"
        )


def _of_own_keys(home: SiteHome, told: Verdict, found: Egressed) -> Iterator[str]:
    """Yield which keys the ledger has for this site that are not known here. Raises LedgerError where it had none."""
    own = home.certificate()
    known = {own.key_fingerprint, *(one.key for one in found.departures)}
    certified = (Fingerprint.of(key) for key in told.ledger.all_keys.get(own.identity.name, ()))
    for key in (key for key in certified if key.hex not in known):
        if found.never_had(key.hex, told.ledger.begun_at):
            raise LedgerError(
                f"the ledger of run {told.ledger.run} has a key for this site that it has never had: {key.groups}",
                cause="the coordinator has certified a key of its own in the name of this site",
                next_step="tell the other sites, and those who are responsible for the federation",
            )
        yield f"the ledger also has this key for this site: {key.groups}; was it lost, and has the site joined again?"


def _said(entries: Iterable[LedgerEntry], own: PublicKey) -> Iterator[_Said]:
    """Yield the records that this site has signed, with its present key, as a version that keeps an egress ledger."""
    for line in entries:
        record = str(read(line.text).get("record", ""))
        place = read(record).get("egress") if record else None
        if isinstance(place, Mapping) and holds(own, line.signature, RECORD, record):
            yield _Said(hashlib.sha256(record.encode()).hexdigest(), place)


def _ends(said: Iterable[_Said]) -> dict[int, str]:
    """Return where the chain of what has left ended, as this site has signed it."""
    found = {one.place.get("entries"): str(one.place.get("hash")) for one in said}
    return {entries: hash_ for entries, hash_ in found.items() if isinstance(entries, int) and entries > 0}


def _check_heads(home: SiteHome, run: str, told: Verdict, found: Egressed) -> None:
    """Raise LedgerError where this site has signed a later head of the run than those that are here."""
    signed = max((one.head for one in found.departures if one.run == run), default=-1)
    if signed > max(told.ledger.heads, default=-1):
        raise LedgerError(
            f"the ledger of run {run} does not hold: this site has signed the head of round {signed}: it is missing",
            cause="the ends of both files were cut off: by a program, a power cut, or a backup that was restored",
            next_step=f"start the agent while the run goes on: {home.command()}; else copy ledger.jsonl and "
            f"ledger-signatures.jsonl of another site to {home.run_folder(run)}",
        )
