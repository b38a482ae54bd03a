"""What a site is sent of the ledger on its stream: the entries that it does not have, up to the newest head."""

from __future__ import annotations

from functools import partial

from coordinator.run.run_ledger import RunLedger
from fedcervix.transport.codec import Countersigned, LedgerKept, LedgerPart
from fedcervix.trust.heads import Head, sign_head
from fedcervix.trust.statements import PrivateKey


class LedgerStream:
    """The ledger as one stream of a site has it.

    `key` signs heads; None where the run keeps no ledger. `kept`: None where the site keeps none.
    """

    def __init__(self, ledger: RunLedger, key: PrivateKey | None, kept: LedgerKept | None) -> None:
        known = ledger.known
        self._ledger, self._key = ledger, key
        self._sent = kept.entries if kept and kept.run == known.run else 0
        self._is_wanted = kept is not None and key is not None
        self._head: Head | None = None
        """the last one that was sent"""

    def next(self) -> LedgerPart | None:
        """Return what to send before the next instruction; None where the site has all. Raises StorageError."""
        known = self._ledger.known
        if not self._is_wanted or self._key is None or not known.heads:
            return None
        round_ = max(known.heads)
        head = Head(known.run, round_, known.heads[round_])
        if head == self._head:
            return None
        part = self._ledger.part(self._sent, head, partial(self._part, self._key, head))
        self._sent += len(part.lines)
        self._head = part.head.head if part.head else None
        return part

    def _part(self, key: PrivateKey, head: Head) -> LedgerPart:
        lines = tuple(self._ledger.since(self._sent, head.end.entries))
        if self._sent + len(lines) < head.end.entries:
            return LedgerPart(lines)
        return LedgerPart(lines, sign_head(key, head), self._countersigned(head.round - 1))

    def _countersigned(self, round_: int) -> tuple[Countersigned, ...]:
        """Return the countersignatures of the head of a round."""
        known = self._ledger.known
        if round_ not in known.heads:
            return ()
        head = Head(known.run, round_, known.heads[round_])
        found = self._ledger.countersignatures(round_)
        return tuple(Countersigned(site, head, signature) for at, site, signature in found if at == round_)
