"""The ledger of a run, entry by entry: what it holds, and whether it holds.

    genesis      federation, authority, ledger key, plan; the first entry
    certificate  the authority certified a key of a site
    event        an event of the run, as the journal has it; with the site's record where a site says it
    reader       a site began to read a model
    end          how the run ended; the last entry

Rules
1. An event of a site that has a record is signed by the newest key that the ledger has of the site. The signature lies
   beside the entry, not in it: a chain has the same hashes whoever made the signatures, and how often.
2. A site that has signed a record signs what comes of every task that follows. Where the plan hides something from the
   coordinator, all sites sign from the beginning.
3. `round` of an entry is the number of the round in progress after it; once the last round is over, one more. The head
   of a round is where the chain ends with the first entry of a later round; the last head is that of the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from fedcervix.core.events import (
    BoxesStored,
    CloseSigned,
    Event,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    UpdateStored,
    event_from_json,
)
from fedcervix.core.plan import Plan, check
from fedcervix.trust.chain import Chain, End, Value, Values, is_same, read
from fedcervix.trust.heads import Head, is_countersigned
from fedcervix.trust.key_texts import p256, public_key
from fedcervix.trust.records import RECORD, SAID, SIGNED_CHARS_MAX, values_of
from fedcervix.trust.statements import PublicKey, holds

LEDGER = Chain("fedcervix ledger 1")
SCHEME = "fedcervix://"
"""of the names of parties in certificates"""
OF_A_TASK = (
    BoxesStored,
    UpdateStored,
    ReleaseStored,
    CloseSigned,
    ScoreReported,
    ModelUnusable,
    ModelAdopted,
    Rewrapped,
)
READERS_MAX = 2**14
"""in one round; of 64 sites each may read 256 models"""


@dataclass(frozen=True, slots=True)
class Signed:
    """A record of a site, and its signature (DER)."""

    record: str = ""
    signature: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.record)


NOT_SIGNED = Signed()


class LedgerEntry(NamedTuple):
    """One entry as it is stored and sent, and the signature over the record in it; empty where it has none."""

    text: str
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is known after the entries so far."""

    end: End = field(default_factory=End)
    run: str = ""
    federation: str = ""
    authority: str = ""
    """PEM"""
    ledger_key: str = ""
    """PEM"""
    plan: Plan | None = None
    begun_at: float = 0.0
    """Unix seconds, by the coordinator's clock"""
    round: int = 0
    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    """by site, the newest one"""
    all_keys: Mapping[str, tuple[PublicKey, ...]] = field(default_factory=dict)
    """by site, in order"""
    certificates: frozenset[str] = frozenset()
    """PEM"""
    signs: frozenset[str] = frozenset()
    """the sites that have signed a record"""
    unsigned: frozenset[str] = frozenset()
    """the sites with reports from before their first signature: by a version that keeps no ledger"""
    readers: frozenset[tuple[str, str]] = frozenset()
    """site and model, in this round"""
    heads: Mapping[int, End] = field(default_factory=dict)
    """by round"""
    ended: bool = False

    def follow(self, line: LedgerEntry, *, signatures: bool = True) -> Ledger:
        """Return what is known after one more entry. Raises ValueError that says why it does not hold.

        `signatures`: whether those of sites are checked; whoever has written the entries has checked them before.
        """
        values, end = LEDGER.follow(self.end, line.text)
        check(not self.ended, "it stands after the end")
        kind = _text(values, "kind")
        check((kind == "genesis") == (self.end.entries == 0), "the genesis is the first entry, and no other")
        check(kind in _KINDS, "it is of an unknown kind")
        found = _KINDS[kind](self, values, line if signatures else None)
        return _in_round(replace(found, end=end), _whole(values, "round"))

    def countersigner(self, site: str, head: Head, signature: bytes) -> PublicKey:
        """Return the key with which a site has countersigned a head of this ledger: one that was certified.

        It may be one that the site has lost since. Raises ValueError.
        """
        what = f"the countersignature of {site} over the head of round {head.round}"
        ours = head.run == self.run and self.heads.get(head.round) == head.end
        check(ours, f"{what} is over a head that this ledger does not have")
        keys = [key for key in self.all_keys.get(site, ()) if is_countersigned(key, signature, site, head)]
        check(len(keys) > 0, f"{what} does not hold")
        return keys[0]

    def check_record(self, event: Event, signed: Signed) -> None:
        """Raise ValueError unless a record says what an event says, and is signed by the site of the event."""
        site = str(getattr(event, "site", ""))
        check(len(signed.record) <= SIGNED_CHARS_MAX, "its record is too long")
        check(type(event) in SAID and self.plan is not None, "no site says this")
        assert self.plan is not None
        said, found = values_of(event, self.run, self.plan.digest), read(signed.record)
        other = [name for name, value in said.items() if not is_same(found.get(name), value)]
        check(not other, f"its record says something else: {', '.join(other)}")
        check("head" not in found or self._has(found["head"]), "its record names a head that this ledger does not have")
        check(site in self.keys, f"no key of {site} is known")
        check(holds(self.keys[site], signed.signature, RECORD, signed.record), f"the signature is not that of {site}")

    def _has(self, head: Value) -> bool:
        """Say whether a record names a head of this ledger."""
        round_ = head.get("round") if isinstance(head, dict) else None
        ours = self.heads.get(round_) if type(round_) is int else None
        return ours is not None and is_same(head, {"round": round_, "hash": ours.hash})


def _in_round(found: Ledger, round_: int) -> Ledger:
    """Note the round after an entry, and the heads that it completes."""
    check(round_ >= found.round, "it goes back to an earlier round")
    check(
        found.plan is not None and round_ <= found.plan.rounds_max + 1, "it is of a round that the plan does not have"
    )
    over = range(found.round, round_ + (1 if found.ended else 0))
    if not over:
        return found
    return replace(found, round=round_, readers=frozenset(), heads={**found.heads, **dict.fromkeys(over, found.end)})


# --- the kinds ------------------------------------------------------------------------------------------------------


def genesis(federation: str, run: str, plan: Plan, base: str, authority: str, ledger_key: str, at: str) -> Values:
    """Return the first entry. `at`: when the run began (`chain.real`, Unix seconds); keys and certificates are PEM."""
    keys: Values = {"authority": authority, "ledger_key": ledger_key}
    agreed: Values = {"federation": federation, "run": run, "plan": plan.canonical(), "base": base, "at": at}
    return {"kind": "genesis", "round": 0, **agreed, **keys}


def certificate(round_: int, site: str, pem: str) -> Values:
    """Return the entry that a site was certified."""
    return {"kind": "certificate", "round": round_, "site": site, "certificate": pem}


def event_entry(round_: int, event_text: str, record: str) -> Values:
    """Return the entry of an event; `record` is empty where no site says it, or it was not signed."""
    return {"kind": "event", "round": round_, "event": event_text, **({"record": record} if record else {})}


def reader(round_: int, site: str, model: str) -> Values:
    """Return the entry that a site began to read a model (its digest)."""
    return {"kind": "reader", "round": round_, "site": site, "model": model}


def the_end(round_: int, outcome: str, reason: str, model: str) -> Values:
    """Return the last entry; `model`: digest of the result, empty where there is none."""
    return {"kind": "end", "round": round_, "outcome": outcome, "reason": reason, "model": model}


def _genesis(_: Ledger, values: Values, __: LedgerEntry | None) -> Ledger:
    public_key(_text(values, "ledger_key"))
    plan = Plan.parse(_text(values, "plan"))
    return Ledger(
        signs=frozenset(plan.sites if plan.hides_from_coordinator else ()),
        run=_text(values, "run"),
        federation=_text(values, "federation"),
        authority=_text(values, "authority"),
        ledger_key=_text(values, "ledger_key"),
        plan=plan,
        begun_at=float.fromhex(_text(values, "at")),
    )


def _certificate(known: Ledger, values: Values, _: LedgerEntry | None) -> Ledger:
    site, pem = _site(known, values.get("site")), _text(values, "certificate")
    key = certified_key(pem, known.authority, f"fedcervix://{known.federation}/site/{site}")
    return replace(
        known,
        keys={**known.keys, site: key},
        all_keys={**known.all_keys, site: (*(one for one in known.all_keys.get(site, ()) if one != key), key)},
        certificates=known.certificates | {pem},
    )


def _event(known: Ledger, values: Values, line: LedgerEntry | None) -> Ledger:
    event = event_from_json(_text(values, "event"), object_pairs_hook=_each_once)
    if type(event) not in SAID:
        return known
    site = _site(known, event.site)  # type: ignore[union-attr]
    record = _text(values, "record") if "record" in values else ""
    check(not isinstance(event, OF_A_TASK) or event.task.run == known.run, "it is of another run")
    if record:
        if line is not None:
            known.check_record(event, Signed(record, line.signature))
        return replace(known, signs=known.signs | {site})
    check(not is_owed(known, event), f"{site} signs its records, and has not signed this one")
    return replace(known, unsigned=known.unsigned | {site}) if isinstance(event, OF_A_TASK) else known


def is_owed(known: Ledger, event: Event) -> bool:
    """Say whether an event holds only with a record (rule 2)."""
    return isinstance(event, OF_A_TASK) and event.task.run == known.run and event.site in known.signs


def _reader(known: Ledger, values: Values, _: LedgerEntry | None) -> Ledger:
    check(len(known.readers) < READERS_MAX, "more models were read in this round than a round can have")
    return replace(known, readers=known.readers | {(_site(known, values.get("site")), _text(values, "model"))})


def _end(known: Ledger, _: Values, __: LedgerEntry | None) -> Ledger:
    return replace(known, ended=True)


_KINDS: Mapping[str, Callable[[Ledger, Values, LedgerEntry | None], Ledger]] = {
    "genesis": _genesis,
    "certificate": _certificate,
    "event": _event,
    "reader": _reader,
    "end": _end,
}


_NO_CERTIFICATE = (
    InvalidSignature,
    UnsupportedAlgorithm,
    TypeError,
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


def certified_key(pem: str, authority_pem: str, uri: str) -> PublicKey:
    """Return the key of a certificate (PEM) that the authority issued for a party. Raises ValueError.

    Whether it is still valid does not matter: a ledger is read for years.
    """
    try:
        found, authority = (x509.load_pem_x509_certificate(one.encode()) for one in (pem, authority_pem))
        found.verify_directly_issued_by(authority)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = p256(found.public_key())
    except _NO_CERTIFICATE as error:
        raise ValueError("the certificate was not issued by the authority of the federation") from error
    own = [name for name in names.get_values_for_type(x509.UniformResourceIdentifier) if name.startswith(SCHEME)]
    check(own == [uri], f"the certificate is not that of {uri} alone")
    return key


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse what one reader could take for another event than the next."""
    found = dict(pairs)
    check(len(found) == len(pairs), "a key occurs twice in its event")
    return found


def _site(known: Ledger, name: Value) -> str:
    """Return the name of a site of the plan. Raises ValueError for any other: nobody has agreed to its part."""
    check(isinstance(name, str) and known.plan is not None and name in known.plan.sites, "its site is not in the plan")
    return cast(str, name)


def _text(values: Values, name: str) -> str:
    found = values.get(name)
    check(isinstance(found, str), f"it has no {name}")
    return cast(str, found)


def _whole(values: Values, name: str) -> int:
    found = values.get(name)
    check(type(found) is int and found >= 0, f"it has no {name}")
    return cast(int, found)
