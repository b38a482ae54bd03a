"""The ledger of a run at the coordinator: its entries are written with the events that they are of, in one transaction.

What an entry is, and how the chain is read: `fedcervix.trust.ledger`. A run that began with a version without a ledger
has none. After a restart the entries are read back; so the chain goes on where it ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from fedcervix.core.events import Event, event_to_json
from fedcervix.core.plan import check
from fedcervix.core.rounds.state import Run
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import RemoteError, StorageError
from fedcervix.transport.codec import PART_CHARS_MAX, LedgerPart
from fedcervix.trust import ledger
from fedcervix.trust.chain import Values, read, real
from fedcervix.trust.heads import Head, is_countersigned
from fedcervix.trust.ledger import LEDGER, NOT_SIGNED, Ledger, LedgerEntry, Signed, is_owed
from fedcervix.trust.ledger_run import result_of, round_of
from fedcervix.trust.records import SAID

PARTS_KEPT = 4
"""of what sites were sent last"""
UNSIGNED = "it is not signed, although this site has signed before in this run"


class RunLedger:
    """One run's ledger. Thread-safe. `known` is replaced, and may be read at any time."""

    def __init__(self, journal: Journal, run: str) -> None:
        """Read what is there. Raises StorageError where it does not hold."""
        self._journal, self._run, self._lock = journal, run, threading.RLock()
        self._countersigned = {(round_, site) for round_, site, _ in journal.countersignatures(run)}
        self._parts: dict[tuple[int, Head, int], LedgerPart] = {}
        self._fresh: list[tuple[int, str, bytes]] = []
        """countersignatures that the next event takes to the disk: a transaction for each would cost a sync each"""
        self.known = Ledger()
        for text, signature in journal.ledger(run):
            try:
                self.known = self.known.follow(LedgerEntry(text, signature), signatures=False)
            except ValueError as error:
                raise _broken(run, self.known.end.entries, error) from error

    @property
    def is_kept(self) -> bool:
        """Whether the run has a ledger that goes on."""
        return self.known.plan is not None and not self.known.ended

    def append(self, after: Run, event: Event, signed: Signed) -> None:
        """Journal an event that leads to a state, with its entries. Raises StorageError; then nothing was written."""
        with self._lock:
            if not self.is_kept:
                self._journal.append(self._run, event)
                return
            round_ = round_of(after)
            drafts = [(ledger.event_entry(round_, event_to_json(event), signed.record), signed.signature)]
            if after.ended:
                outcome = after.outcome.value if after.outcome else ""
                drafts.append((ledger.the_end(round_, outcome, after.reason, result_of(after)), b""))
            known, lines = made(self.known, drafts)
            self._journal.append(self._run, event, (self.known.end.entries, lines), self._fresh)
            self._fresh, self.known = [], known

    def note_reader(self, site: str, model: str) -> None:
        """Write down that a site begins to read a model: once in a round. Raises StorageError."""
        if self.is_kept and (site, model) not in self.known.readers:
            self._add(lambda known: [ledger.reader(known.round, site, model)])

    def note_certificates(self, certificates: Mapping[str, str]) -> None:
        """Write down which keys of sites were certified (site -> PEM), where that is new. Raises StorageError."""
        if self.is_kept:
            self._add(lambda known: _new_certificates(known, certificates))

    def _add(self, drafts: Callable[[Ledger], Sequence[Values]]) -> None:
        with self._lock:
            known, lines = made(self.known, [(draft, b"") for draft in drafts(self.known)])
            if lines:
                self._journal.add(self._run, (self.known.end.entries, lines))
                self.known = known

    # --- what sites sign ---

    def checked(self, event: Event, signed: Signed) -> Signed:
        """Return the record that came with an event of a site; an empty one where the site signs none.

        Raises RemoteError where the site has signed something else, or nothing although it has signed before.
        """
        known = self.known
        is_signed = self.is_kept and bool(signed) and type(event) in SAID
        try:
            if is_signed and read(signed.record).get("run") == self._run:
                known.check_record(event, signed)
                return signed
            check(not (self.is_kept and is_owed(known, event)), UNSIGNED)
        except ValueError as error:
            raise RemoteError(
                f"a report does not hold: {error}",
                cause="an earlier version was installed at the site during the run, or its key was changed",
                next_step="install the later version again at the site; or ask for a new invitation and join again",
            ) from error
        return NOT_SIGNED

    def countersigned(self, site: str, head: Head, signature: bytes) -> None:
        """Keep a site's signature over a head of this ledger. Raises RemoteError where it is none, StorageError.

        It comes with a report, and is written with the event that the report becomes, or with the next one.
        """
        if (head.round, site) in self._countersigned or head.run != self._run or self.known.plan is None:
            return
        known = self.known
        ours = Head(self._run, head.round, known.heads[head.round]) if head.round in known.heads else None
        key = known.keys.get(site)
        if head != ours or key is None or not is_countersigned(key, signature, site, head):
            raise RemoteError(
                f"site {site} has countersigned a head that this ledger does not have",
                cause="the coordinator's home was restored from an old backup",
                next_step="ask the coordinator's operator to compare the ledgers: coordinator verify",
            )
        with self._lock:
            if self.known.ended:
                self._journal.countersign(self._run, head.round, site, signature)
            else:
                self._fresh.append((head.round, site, signature))
            self._countersigned.add((head.round, site))

    # --- what sites are sent ---

    def part(self, entry: int, head: Head, make: Callable[[], LedgerPart]) -> LedgerPart:
        """Return what sites are sent from an entry on, up to a head: made once for all that wait for the same."""
        with self._lock:
            wanted = (entry, head, len(self._countersigned))
            found = self._parts.get(wanted)
            if found is None:
                self._parts = {**dict(list(self._parts.items())[1 - PARTS_KEPT :]), wanted: (found := make())}
            return found

    def since(self, entry: int, until: int) -> list[LedgerEntry]:
        """Return entries from `entry` on, before `until`: as many as go into a message. Raises StorageError."""
        lines: list[LedgerEntry] = []
        room = PART_CHARS_MAX
        for _, found in zip(range(entry, until), self._journal.ledger(self._run, entry), strict=False):
            room -= len(found[0])
            if lines and room < 0:
                break
            lines.append(LedgerEntry(*found))
        return lines

    def countersignatures(self, round_: int) -> list[tuple[int, str, bytes]]:
        """Return (round, site, signature) for the heads from a round on. Raises StorageError."""
        with self._lock:
            fresh = [one for one in self._fresh if one[0] >= round_]
            return sorted([*self._journal.countersignatures(self._run, round_), *fresh])


def _new_certificates(known: Ledger, certificates: Mapping[str, str]) -> list[Values]:
    """Return the entries of certificates (site -> PEM) that the ledger does not have."""
    sites = known.plan.sites if known.plan else ()
    new = [site for site in sites if certificates.get(site, "") not in {"", *known.certificates}]
    return [ledger.certificate(known.round, site, certificates[site]) for site in new]


def made(known: Ledger, drafts: Iterable[tuple[Values, bytes]]) -> tuple[Ledger, list[LedgerEntry]]:
    """Return the ledger with new entries, and these."""
    lines = []
    for values, signature in drafts:
        line = LedgerEntry(LEDGER.append(known.end, values)[0], signature)
        known = known.follow(line, signatures=False)
        lines.append(line)
    return known, lines


def first_entries(record: RunRecord, federation: str, authority: str, ledger_key: str) -> list[LedgerEntry]:
    """Return how the ledger of a run begins; keys and certificates are PEM."""
    at = real(record.begun_at)
    begin = ledger.genesis(federation, record.run, record.plan, record.base, authority, ledger_key, at)
    return made(Ledger(), [(begin, b"")])[1]


def _broken(run: str, entry: int, error: ValueError) -> StorageError:
    return StorageError(
        f"entry {entry} of the ledger of run {run} does not hold: {error}",
        cause="journal.db was changed by another program, or the disk is failing",
        next_step="restore the home from a backup: coordinator restore FILE",
    )
