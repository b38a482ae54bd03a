"""A whole ledger, from what is stored: whether it holds, who has signed it, and whose keys people have compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple, cast

from fedcervix.core.rounds.state import Run
from fedcervix.errors import IdentityError
from fedcervix.trust.chain import End, Values, read
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.heads import Head, SignedHead, conflict
from fedcervix.trust.key_texts import public_key
from fedcervix.trust.ledger import LEDGER, Ledger, LedgerEntry
from fedcervix.trust.ledger_run import LedgerRun
from fedcervix.trust.pins import Pins
from fedcervix.trust.statements import PublicKey


class Countersignature(NamedTuple):
    """A site's signature over a head."""

    site: str
    head: Head
    signature: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A ledger as it is stored; nothing of it is believed."""

    entries: Sequence[LedgerEntry]
    heads: Sequence[SignedHead]
    countersigned: Sequence[Countersignature]


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known from elsewhere."""

    run: str
    ledger_key: str = ""
    """PEM; empty: it is taken from the ledger itself, which then proves less"""
    pins: Pins | None = None
    """None: nobody pins keys here"""
    own: str = ""
    """the site whose people ask: nobody need pin its key"""
    end: End | None = None
    """where the chain ends, where that is known without a head"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    fault: str = ""
    """the first thing that does not hold, in words; empty where all does"""
    ledger: Ledger = field(default_factory=Ledger)
    """as far as it was read"""
    countersigned: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """by round of a head, the sites that have signed it"""
    unpinned: tuple[str, ...] = ()
    """sites whose key nobody here has compared"""
    run: Run | None = None
    """the run, as its events lead to it"""


def verdict(stored: Stored, expected: Expected) -> Verdict:
    """Return whether a ledger holds, from its genesis to its last head."""
    try:
        key = _ledger_key(stored, expected)
        _check_heads(stored, key)
    except ValueError as error:
        return Verdict(str(error))
    last = expected.end or max((one.head.end for one in stored.heads), key=lambda end: end.entries, default=End())
    if stored.entries and last == End():
        return Verdict("no head is stored, so nothing of it is signed by the coordinator")
    known = {one.head.end.entries: one.head.end.hash for one in stored.heads}
    texts = [entry.text for entry in stored.entries]
    if fault := LEDGER.fault(texts, last, known):
        return Verdict(str(fault))
    return _followed(stored, expected)


def _ledger_key(stored: Stored, expected: Expected) -> PublicKey:
    """Return the key of the heads. Raises ValueError that names the genesis where it is not the known one."""
    if expected.ledger_key:
        return public_key(expected.ledger_key)
    try:
        return public_key(Ledger().follow(stored.entries[0]).ledger_key)
    except (ValueError, IndexError) as error:
        raise ValueError(f"entry 0 does not hold: {error or 'there is none'}") from error


def _check_heads(stored: Stored, key: PublicKey) -> None:
    """Raise ValueError where a head is not signed, or two of them prove that there are two ledgers."""
    for one in stored.heads:
        if not one.holds(key):
            raise ValueError(f"the head of round {one.head.round} is not signed with the ledger key")
    for one, other in combinations({head.head.text: head for head in stored.heads}.values(), 2):
        if conflict(one, other, key):
            raise ValueError(f"there are two heads of round {one.head.round}: the coordinator has signed two ledgers")


def _followed(stored: Stored, expected: Expected) -> Verdict:
    """Read the entries one by one."""
    now, told, said = Ledger(), LedgerRun(), _Once()
    try:
        for entry in stored.entries:
            before, after = now, now.follow(entry)
            told = told.follow(entry.text)
            said.take(read(entry.text))
            now = after
            if now.keys is not before.keys or not before.run:
                _check_known(before, now, expected)
    except (ValueError, IdentityError) as error:
        return Verdict(f"entry {now.end.entries} does not hold: {error}", now)
    signed: dict[int, tuple[str, ...]] = {}
    try:
        for one in stored.heads:
            if now.heads.get(one.head.round) != one.head.end or one.head.run != now.run:
                return Verdict(f"the head of round {one.head.round} is not where that round ends", now)
        for found in stored.countersigned:
            now.countersigner(found.site, found.head, found.signature)
            signed[found.head.round] = (*signed.get(found.head.round, ()), found.site)
    except ValueError as error:
        return Verdict(str(error), now)
    sites = {round_: tuple(sorted(set(found))) for round_, found in sorted(signed.items())}
    others = sorted(site for site in now.keys if site != expected.own)
    return Verdict("", now, sites, expected.pins.unpinned(others) if expected.pins else (), told.state)


class _Once:
    """The records so far: a site that says the same again signs another one, for more has left it meanwhile."""

    def __init__(self) -> None:
        self._records: dict[str, int] = {}

    def take(self, values: Values) -> None:
        """Raise ValueError where a record stands a second time."""
        record = str(values.get("record", ""))
        if not record or "egress" not in read(record):
            return
        before = self._records.setdefault(record, cast(int, values["entry"]))
        if before != values["entry"]:
            raise ValueError(f"it holds the record of entry {before} once more")


def _check_known(before: Ledger, now: Ledger, expected: Expected) -> None:
    """Compare with what is known from elsewhere. Raises ValueError."""
    if now.run != expected.run:
        raise ValueError(f"it is the ledger of run {now.run}")
    if expected.ledger_key and now.ledger_key.strip() != expected.ledger_key.strip():
        raise ValueError("it names another ledger key than the one that is known here")
    pins = expected.pins or Pins()
    if site := unfitting(before, now, pins):
        found, pinned = Fingerprint.of(now.keys[site]), pins.keys[site]
        raise ValueError(f"site {site} has the key {found.groups} here, and is pinned to {pinned.groups}")


def unfitting(before: Ledger, now: Ledger, pins: Pins) -> str:
    """Return the site whose key was certified last, where that does not fit its pin; else nothing."""
    new = [site for site, key in now.keys.items() if before.keys.get(site) is not key]
    for site in new:
        if not pins.fits(site, [Fingerprint.of(key) for key in now.all_keys[site]], now.begun_at):
            return site
    return ""


def sentences(found: Verdict) -> list[str]:
    """Return a verdict that all holds as lines for a person."""
    ledger = found.ledger
    ends = ", from the first to the end of the run" if ledger.ended else "; the end of the run is not among them"
    lines = [f"run {ledger.run}: all {ledger.end.entries} entries hold{ends}"]
    lines += [
        f"{_place(ledger, round_)}: countersigned by {', '.join(found.countersigned.get(round_, ())) or 'no site'}"
        for round_ in sorted(ledger.heads)
    ]
    if ledger.heads and len(found.countersigned.get(max(ledger.heads), ())) < len(ledger.keys):
        lines.append("the last head is countersigned later, or never: a missing signature there is no fault")
    if ledger.unsigned:
        lines.append(f"not signed, by an earlier version: the first reports of {', '.join(sorted(ledger.unsigned))}")
    if found.unpinned:
        lines.append(f"keys that nobody here has compared (not pinned): {', '.join(found.unpinned)}")
    return lines


def _place(ledger: Ledger, round_: int) -> str:
    """Return which head that of a round is, for a person."""
    if ledger.ended and round_ == ledger.round:
        return "head at the end of the run"
    return f"head after round {round_}" if round_ else "head before round 1"
