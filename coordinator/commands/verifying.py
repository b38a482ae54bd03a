"""The command `verify`: the ledger of a run, from the journal alone."""

from __future__ import annotations

from contextlib import closing

from coordinator.home.home import Home
from coordinator.run import history
from fedcervix.core.events import event_to_json
from fedcervix.disk.journal import Journal, RunRecord, UnreadRun
from fedcervix.errors import LedgerError, RunError
from fedcervix.printable import printable
from fedcervix.runtime.printing import say
from fedcervix.trust.chain import NOTHING, End, read
from fedcervix.trust.heads import Head, sign_head
from fedcervix.trust.key_texts import private_key, public_pem
from fedcervix.trust.ledger import LEDGER, Ledger, LedgerEntry
from fedcervix.trust.ledger_verdict import Countersignature, Expected, Stored, Verdict, sentences, verdict


def verify(home: Home, run: str | None) -> None:
    """Verify the ledger of a run, or of the last one. Raises LedgerError, RunError, StorageError."""
    if not home.has(home.journal):
        raise RunError("no run has begun here yet", next_step=home.command("start --mode csfssl"))
    with closing(Journal(home.journal, read_only=True)) as journal, journal.snapshot():  # a run may be going on
        records = journal.runs()
        record = history.found(records, run or (records[-1].run if records else ""), home)
        run = record.run
        entries = [LedgerEntry(*found) for found in journal.ledger(run)]
        if not entries:
            raise RunError(
                f"run {run} has no ledger",
                cause="it began with an earlier version",
                next_step=home.command("runs"),
            )
        told = _verdict(home, journal, record, entries)
    if told.fault:
        raise LedgerError(
            f"the ledger of run {run} does not hold: {printable(told.fault)}",
            cause=f"{home.journal} was changed by another program, or the disk is failing",
            next_step="compare with a site: site-agent verify; or restore a backup: coordinator restore FILE",
        )
    for line in sentences(told):
        say(line)


def _verdict(home: Home, journal: Journal, record: RunRecord | UnreadRun, entries: list[LedgerEntry]) -> Verdict:
    """Return what is found. The coordinator keeps no heads: they follow from the entries, and it signs them again."""
    run, key = record.run, private_key(home.pem("ledger.key"))
    end = End(len(entries), LEDGER.hash(entries[-1].text))
    ledger = Ledger()
    if fault := LEDGER.fault([entry.text for entry in entries], end):
        return Verdict(str(fault))
    try:
        for entry in entries:
            ledger = ledger.follow(entry, signatures=False)
    except ValueError as error:
        return Verdict(f"entry {ledger.end.entries} does not hold: {error}")
    if missing := _missing(journal, run, entries):
        return Verdict(missing, ledger)
    if history.replayed(journal, record).ended and not ledger.ended:
        return Verdict(f"the run has ended, and entry {len(entries)}, which says how, is missing", ledger)
    heads = [sign_head(key, Head(run, round_, over)) for round_, over in ledger.heads.items()]
    countersigned = [
        Countersignature(site, Head(run, round_, ledger.heads.get(round_, End(1, NOTHING))), signature)
        for round_, site, signature in journal.countersignatures(run)
    ]
    return verdict(Stored(entries, heads, countersigned), Expected(run, public_pem(key.public_key()), end=end))


def _missing(journal: Journal, run: str, entries: list[LedgerEntry]) -> str:
    """Return which event of the journal is not the next one of the ledger; nothing where they are the same."""
    written = [(number, read(entry.text)) for number, entry in enumerate(entries)]
    told = [(number, values["event"]) for number, values in written if values["kind"] == "event"]
    happened = [event_to_json(event) for event in journal.events(run)]
    for (number, text), event in zip(told, happened, strict=False):
        if text != event:
            return f"entry {number} is not the event that the journal has"
    if len(told) != len(happened):
        counts = f"the journal has {len(happened)} events, and the ledger {len(told)}"
        return f"{counts}: entries after number {len(entries) - 1} are missing"
    return ""
