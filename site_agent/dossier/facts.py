"""What the papers are made from: values that were read from the site's home folder.

Rules
1. Nothing of a patient: of the women only their number is read, of images nothing. No path of this machine is kept.
2. No clock and no chance: the same home gives the same facts.
3. What cannot be read is said in the papers, and not left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fedcervix.core.plan import Plan
from fedcervix.disk.storage import disk
from fedcervix.errors import FedcervixError
from fedcervix.lineage.decisions import ModelStanding
from fedcervix.lineage.model_facts import ModelFacts
from fedcervix.trust.chain import read
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.ledger_verdict import Countersignature, Expected, Stored, Verdict, verdict
from site_agent.classifier.kept_models import kept_models, standings
from site_agent.home import Policy, SiteHome
from site_agent.manifest.splits import parse_splits
from site_agent.store import egress as egress_ledger
from site_agent.store.audit_sheets import AuditSheet
from site_agent.store.egress_account import Egressed, egressed
from site_agent.store.ledger_store import LedgerStore, StoredLedger
from site_agent.store.run_store import RunStore

NOT_JOINED = "this site"


@dataclass(frozen=True, slots=True)
class Approval:
    """A site has accepted a plan, and has signed that it did."""

    site: str
    record: str
    """SHA-256 of what it signed"""
    signature: str
    """DER, hexadecimal"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run that this site took part in."""

    run: str
    plan: Plan
    outcome: str
    rounds: int
    """that this site trained"""
    ledger: Verdict | None
    """None: the site keeps no ledger of it"""
    approvals: tuple[Approval, ...]
    audits: tuple[AuditSheet, ...]
    trouble: str = ""
    """why its history cannot be read"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known here."""

    site: str
    federation: str
    fingerprint: str
    """of the site's key, in groups of digits; empty before it has joined"""
    coordinator: str
    """HOST:PORT"""
    policy: Policy
    pins: tuple[str, ...]
    """the partners whose keys people have compared"""
    women: Mapping[str, int]
    """by split; none where the manifest gives the splits itself, or no image was looked at yet"""
    runs: tuple[RunFacts, ...]
    egress: Egressed
    egress_fault: str
    models: tuple[ModelFacts, ...]
    standings: Mapping[str, ModelStanding]
    """which of them are approved or retired, by digest"""
    unread: tuple[str, ...]
    """what could not be read"""

    @property
    def partners(self) -> tuple[str, ...]:
        """The other sites of all runs."""
        return tuple(sorted({one for run in self.runs for one in run.plan.sites} - {self.site}))

    @property
    def audits(self) -> tuple[tuple[str, AuditSheet], ...]:
        """The audited updates, with their runs."""
        return tuple((run.run, sheet) for run in self.runs for sheet in run.audits)


def facts(home: SiteHome) -> Facts:
    """Return what lies in a home. Raises ConfigError, StorageError."""
    config = home.config()
    joined = home.certificate() if home.key_file("site.crt").exists() else None
    found, fault = _egress(home)
    models, unread = kept_models(home, earlier=False)
    own = joined.identity.name if joined else NOT_JOINED
    runs, unread_runs = _runs(home, own)
    return Facts(
        site=own,
        federation=joined.identity.federation if joined else "",
        fingerprint=Fingerprint.parse(joined.key_fingerprint).groups if joined else "",
        coordinator=config.link.coordinator,
        policy=config.policy,
        pins=tuple(sorted(config.pins)),
        women=_women(home),
        runs=runs,
        egress=found,
        egress_fault=fault,
        models=tuple(sorted(models, key=lambda one: one.name)),
        standings=standings(home, models),
        unread=(*sorted(unread), *unread_runs),
    )


def _women(home: SiteHome) -> dict[str, int]:
    if not home.splits.exists():
        return {}
    with disk(home.splits, "read"):
        text = home.splits.read_text("utf-8")
    return dict(sorted(Counter(str(kept.split) for kept in parse_splits(text, home.splits.name).values()).items()))


def _egress(home: SiteHome) -> tuple[Egressed, str]:
    try:
        return egressed(egress_ledger.entries(home.egress)), ""
    except ValueError as error:
        return Egressed(), str(error)


# --- runs ----------------------------------------------------------------------------------------------------------


def _runs(home: SiteHome, own: str) -> tuple[tuple[RunFacts, ...], list[str]]:
    """Return the runs by name, which begins with their time, and those that cannot be read."""
    found, unread = [], []
    for file in sorted((home.folder / "runs").glob("*/plan.json")):
        try:
            found.append(_run(home, file.parent.name, own))
        except FedcervixError:
            unread.append(f"runs/{file.parent.name}")
    return tuple(found), unread


def _run(home: SiteHome, run: str, own: str) -> RunFacts:
    store = RunStore(home.run_folder(run))
    stored, train = LedgerStore(store.folder).read(), store.history().train
    return RunFacts(
        run=run,
        plan=store.plan(),
        outcome=store.outcome(),
        rounds=len(train),
        ledger=_verdict(home, stored, run, own) if stored.lines else None,
        approvals=tuple(_approvals(stored)),
        audits=tuple(one.audit for _, one in sorted(train.items()) if one.audit is not None),
    )


def _verdict(home: SiteHome, stored: StoredLedger, run: str, own: str) -> Verdict:
    signed = [Countersignature(one.site, one.head, one.signature) for one in stored.countersigned]
    expected = Expected(run, home.known_ledger_key(), home.pins(), own)
    return verdict(Stored(stored.lines, stored.heads, signed), expected)


def _approvals(stored: StoredLedger) -> Iterator[Approval]:
    """Yield the first approval of each site."""
    seen: set[str] = set()
    for site, record, signature in _signed_ready(stored):
        if site not in seen:
            seen.add(site)
            yield Approval(site, hashlib.sha256(record.encode()).hexdigest(), signature.hex())


def _signed_ready(stored: StoredLedger) -> Iterable[tuple[str, str, bytes]]:
    for line in stored.lines:
        try:
            record = str(read(line.text).get("record", ""))
            values = read(record) if record else {}
        except ValueError:  # the verdict names the first entry that does not hold
            return
        if values.get("what") == "ready":
            yield str(values.get("site", "")), record, line.signature
