"""A coordinator's ledger and the sites that keep it, without a network: rounds are events, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.calls.ledger_stream import LedgerStream
from coordinator.home.home import Home
from coordinator.run.history import begin_of
from coordinator.run.run_ledger import RunLedger, first_entries
from fedcervix.core.events import (
    AggregateStored,
    Event,
    ModelAdopted,
    ScoreReported,
    SiteAttached,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.step import step
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.transport import codec, identity
from fedcervix.trust.key_texts import private_key, public_pem
from fedcervix.trust.ledger import NOT_SIGNED, Signed
from fedcervix.trust.records import RECORD, record_of
from fedcervix.trust.statements import sign
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.site_ledger import SiteLedger
from site_agent.home import SiteHome
from tests.unit.coordinator_homes import made
from tests.unit.fake_link import digest

RUN = "20300101-000000-csfssl-00000000"
BASE = digest(b"the first model")


@dataclass
class Ledgers:
    """One run. `fork`: the ledger goes on in another file from there, as a coordinator that shows two does it."""

    folder: Path
    sites: tuple[str, ...] = ("nhs", "alts")
    rounds: int = 3
    home: Home = field(init=False)
    keys: dict[str, bytes] = field(default_factory=dict)
    certificates: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = made(self.folder / "coordinator", sites=self.sites)
        now, authority = datetime.now(UTC), self.home.authority()
        for site in self.sites:
            self.keys[site] = key = identity.new_key()
            who = identity.Identity("cervix", "site", site)
            lifetime = identity.AUTHORITY_LIFETIME
            self.certificates[site] = identity.issue(authority, identity.public_key(key), who, now, lifetime).decode()
            self._settle(site)
        terms = Terms(rounds=self.rounds, patience_rounds=1000)
        self.plan = Plan(mode="csfssl", sites=self.sites, profile="paper", terms=terms, recipe=Recipe())
        self.key = private_key(self.home.pem("ledger.key"))
        self.record = RunRecord(RUN, self.plan, BASE, 1.0)
        self.begin("journal.db")

    def _settle(self, site: str) -> None:
        home = self.site(site)
        home.key_file("").mkdir(parents=True)
        home.config_file.touch()
        home.key_file("site.key").write_bytes(self.keys[site])
        home.key_file("site.crt").write_text(self.certificates[site])
        home.key_file("authority.crt").write_bytes(self.home.pem("authority.crt"))

    def begin(self, name: str) -> None:
        """Begin the run's ledger in a file of this name."""
        self.journal = Journal(self.home.folder / name)
        authority = self.home.pem("authority.crt").decode()
        first = first_entries(self.record, "cervix", authority, public_pem(self.key.public_key()))
        self.journal.begin(self.record, (0, first))
        self.ledger = RunLedger(self.journal, RUN)
        self.ledger.note_certificates(self.certificates)
        self.run = begin_of(self.record)
        self.at = 1.0

    # --- the coordinator ---

    def submit(self, event: Event, signed: Signed | None = None) -> None:
        """Let something happen; a site signs what it says."""
        after, _ = step(self.run, event)
        self.ledger.append(after, event, self.signed(event) if signed is None else signed)
        self.run = after

    def signed(self, event: Event, key: bytes = b"") -> Signed:
        site = getattr(event, "site", "")
        if not site:
            return NOT_SIGNED
        record = record_of(event, RUN, self.plan.digest)
        return Signed(record, sign(private_key(key or self.keys[site]), RECORD, record))

    def attach(self) -> None:
        for site in self.sites:
            self.submit(SiteAttached(site, self.at))

    def update(self, site: str, word: str = "") -> UpdateStored:
        task = instruction(self.run, site)
        assert isinstance(task, Task)
        model = digest(f"{site} {task.round} {word}".encode())
        return UpdateStored(site, task, model, 10, 5, 1.5, 2.0, self.at)

    def play_round(self, word: str = "") -> None:
        """Let all sites train, average, and score."""
        self.at += 1
        for site in self.sites:
            self.ledger.note_reader(site, self.run.model)
            self.submit(self.update(site, word))
        number = self.run.current.number
        self.average(word)
        for site in self.sites:
            task = instruction(self.run, site)
            assert isinstance(task, Task)
            self.submit(ScoreReported(site, task, 6.0 / number, 4, 10, (("unit_std", 0.5),), self.at))

    def average(self, word: str = "") -> None:
        """Let the coordinator average."""
        now = self.run.current
        model = digest(f"average {now.number} {word}".encode())
        self.submit(AggregateStored(now.number, model, self.at, attempt=now.attempt))

    def adopt(self) -> None:
        for site in self.sites:
            task = instruction(self.run, site)
            assert isinstance(task, Task)
            assert task.kind is TaskKind.ADOPT
            self.submit(ModelAdopted(site, task, self.at))

    def texts(self, entries: int) -> list[str]:
        """Return the first entries."""
        return [text for text, _ in self.journal.ledger(RUN)][:entries]

    # --- the sites ---

    def site(self, name: str) -> SiteHome:
        return SiteHome(self.folder / name)

    def run_folder(self, site: str) -> Path:
        folder = self.site(site).run_folder(RUN)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(self.plan.canonical())
        return folder

    def welcome(self, **other: Any) -> codec.Welcome:
        known = {"ledger_key": self.ledger.known.ledger_key}
        return codec.Welcome("cervix", RUN, self.plan, **{**known, **other})

    def attached(self, site: str, **other: Any) -> tuple[SiteLedger, LedgerStream]:
        """Return a site's ledger as an agent has it that has just connected, and what it is sent."""
        folder = self.run_folder(site)
        ledger = SiteLedger(self.site(site), site)
        stream = LedgerStream(self.ledger, self.key, ledger.kept())
        ledger.welcomed(self.welcome(**other), folder)
        return ledger, stream

    def countersign(self, ledger: SiteLedger, site: str) -> wire.FromSite:
        """Let a site report something, and the coordinator keep its countersignature."""
        message = codec.write_report(codec.Ready(RUN, self.plan.digest), 0.0)
        ledger.sign(message)
        found = codec.read_countersigned(message, site)
        if found is not None:
            self.ledger.countersigned(site, found.head, found.signature)
        return message


def deliver(ledger: SiteLedger, stream: LedgerStream) -> None:
    """Send a site what it does not have, over the wire's form."""
    while part := stream.next():
        message = wire.FromCoordinator.FromString(codec.write_ledger(part).SerializeToString())
        read = codec.read_from_coordinator(message)
        assert isinstance(read, codec.LedgerPart)
        ledger.take(read, lambda act: act())
