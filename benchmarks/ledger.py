"""What the ledger costs a round: processor milliseconds, of the coordinator and of one of its sites.

    python -m benchmarks.ledger FOLDER [--sites 3 8 64] [--rounds 30]

A round is what a federation's round is without models: each site reads one, reports an update and a score, signs both,
and countersigns a head. Each part is timed beside the same without a ledger: the journal alone at the coordinator,
reports alone at the site. Printed are medians of rounds.

    coordinator   checks records and countersignatures, writes entries, sends each site what it does not have
    site          checks all entries, keeps them, signs; writes down what leaves (egress)
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from coordinator.calls.ledger_stream import LedgerStream
from coordinator.home.founding import Founding, create
from coordinator.home.home import Home
from coordinator.run.history import begin_of
from coordinator.run.run_ledger import RunLedger, first_entries
from fedcervix.core.events import AggregateStored, Event, ScoreReported, SiteAttached, Task, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Run
from fedcervix.core.rounds.step import step
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.runtime.printing import say
from fedcervix.transport import codec, identity
from fedcervix.trust.heads import Head, countersign
from fedcervix.trust.key_texts import private_key, public_pem
from fedcervix.trust.ledger import NOT_SIGNED, Signed
from fedcervix.trust.records import RECORD, record_of
from fedcervix.trust.statements import digest_of, sign
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.site_ledger import SiteLedger
from site_agent.home import SiteHome
from site_agent.home import create as create_site
from site_agent.store.egress import Egress

NAME = "20300101-000000-csfssl-00000000"
MODEL_BYTES = 94 * 2**20
FIRST_ROUNDS = 2
"""that are not counted"""


@dataclass
class Clock:
    """Processor time of one part, round by round."""

    ms: list[float]
    now_ms: float = 0.0

    def time(self, act: Callable[[], object]) -> None:
        """Add what it takes to do something."""
        begun = time.process_time()
        act()
        self.now_ms += 1000 * (time.process_time() - begun)

    def end_round(self) -> None:
        """A round is over."""
        self.ms.append(self.now_ms)
        self.now_ms = 0.0

    @property
    def median_ms(self) -> float:
        """Of a round."""
        return statistics.median(self.ms[FIRST_ROUNDS:])


class Federation:
    """A coordinator's ledger, and one site that keeps it; the other sites only sign."""

    def __init__(self, folder: Path, sites: int, rounds: int) -> None:
        names = tuple(f"site-{number:02}" for number in range(sites))
        self.home, now = Home(folder / "coordinator"), datetime.now(UTC)
        told = {"name": "cervix", "advertise": "localhost:1", "bind": "127.0.0.1:0", "profile": "paper"}
        create(self.home, Founding(**told, sites=names), now)
        authority = self.home.authority()
        self.keys = {site: identity.new_key() for site in names}
        certificates = {
            site: identity.issue(
                authority,
                identity.public_key(key),
                identity.Identity("cervix", "site", site),
                now,
                identity.SITE_LIFETIME,
            )
            for site, key in self.keys.items()
        }
        terms = Terms(rounds=rounds, patience_rounds=rounds)
        self.plan = Plan(mode="csfssl", sites=names, profile="paper", terms=terms, recipe=Recipe())
        self.record = RunRecord(NAME, self.plan, digest_of("model", "first"), 1.0)
        self.key = private_key(self.home.pem("ledger.key"))
        pem = public_pem(self.key.public_key())
        self.journal = Journal(self.home.folder / "journal.db")
        self.journal.begin(
            self.record, (0, first_entries(self.record, "cervix", authority.certificate_pem.decode(), pem))
        )
        self.ledger, self.run = RunLedger(self.journal, NAME), begin_of(self.record)
        self.ledger.note_certificates({site: pem.decode() for site, pem in certificates.items()})
        self.bare, self.bare_run = Journal(folder / "bare.db"), begin_of(self.record)
        self.bare.begin(self.record)
        self.site = self._settled(SiteHome(folder / names[0]), names[0], certificates[names[0]])
        self.welcome = codec.Welcome("cervix", NAME, self.plan, ledger_key=pem)
        self.site_ledger.welcomed(self.welcome, self.site.run_folder(NAME))
        self.streams = {site: LedgerStream(self.ledger, self.key, codec.LedgerKept()) for site in names}
        self.clocks = {name: Clock([]) for name in ("coordinator", "bare", "site", "reports")}

    def _settled(self, home: SiteHome, site: str, certificate: bytes) -> SiteHome:
        create_site(home)
        home.run_folder(NAME).mkdir(parents=True)
        files = {"site.key": self.keys[site], "site.crt": certificate, "authority.crt": self.home.pem("authority.crt")}
        for name, content in files.items():
            home.key_file(name).write_bytes(content)
        self.site_ledger, self.egress = SiteLedger(home, site), Egress(home.egress, "localhost:1")
        return home

    # --- a round ---

    def play(self) -> None:
        """Play one round."""
        for site in self.plan.sites:
            self._hear(site)
            self.clocks["coordinator"].time(partial(self.ledger.note_reader, site, self.run.model))
        self._tell(self._updates())
        number = self.run.current.number
        self._submit(AggregateStored(number, digest_of("model", str(number)), float(number)), None)
        for site in self.plan.sites:
            self._hear(site)
        self._tell(self._scores())
        for clock in self.clocks.values():
            clock.end_round()

    def attach(self) -> None:
        """Let all sites attach."""
        for site in self.plan.sites:
            self._submit(SiteAttached(site, 1.0), codec.Ready(NAME, self.plan.digest))

    def _updates(self) -> Iterator[UpdateStored]:
        for site in self.plan.sites:
            task = self._task(site)
            yield UpdateStored(
                site, task, digest_of("model", site, str(task.round)), 10, 5, 1.5, 2.0, float(task.round)
            )

    def _scores(self) -> Iterator[ScoreReported]:
        for site in self.plan.sites:
            task = self._task(site)
            gauges = (("unit_std", 0.5), ("zero_rows", 0.0))
            yield ScoreReported(site, task, 6.0 / task.round, 4, 10, gauges, float(task.round))

    def _task(self, site: str) -> Task:
        found = instruction(self.run, site)
        assert isinstance(found, Task)
        return found

    def _tell(self, reports: Iterator[Event]) -> None:
        for report in list(reports):
            self._submit(report, report)  # type: ignore[arg-type]

    def _submit(self, event: Event, report: codec.Report | None) -> None:
        """Let a site say something, and the coordinator write it down: with a ledger, and without."""
        bare, _ = step(self.bare_run, event)
        self.clocks["bare"].time(lambda: self.bare.append(NAME, event))
        self.bare_run = bare
        message = self._message(event, report) if report is not None else None
        after, _ = step(self.run, event)
        self.clocks["coordinator"].time(lambda: self._take(after, event, message))
        self.run = after

    def _take(self, after: Run, event: Event, message: wire.FromSite | None) -> None:
        signed = NOT_SIGNED
        if message is not None:
            site = str(getattr(event, "site", ""))
            signed = self.ledger.checked(event, codec.read_signed(message))
            if found := codec.read_countersigned(message, site):
                self.ledger.countersigned(site, found.head, found.signature)
        self.ledger.append(after, event, signed)

    def _message(self, event: Event, report: codec.Report) -> wire.FromSite:
        """Return a report as it leaves; that of the first site by what its agent does."""
        site = str(getattr(event, "site", ""))
        message = codec.write_report(report, 0.0)
        if site != self.plan.sites[0]:
            record = record_of(event, NAME, self.plan.digest)
            signed = Signed(record, sign(private_key(self.keys[site]), RECORD, record))
            message.record, message.signature = signed.record.encode(), signed.signature
            self._countersign(site, message)
            return message
        self.clocks["reports"].time(lambda: codec.write_report(report, 0.0).SerializeToString())
        self.clocks["site"].time(lambda: self._leave(message, event))
        return message

    def _countersign(self, site: str, message: wire.FromSite) -> None:
        heads = self.ledger.known.heads
        if heads:
            head = Head(NAME, max(heads), heads[max(heads)])
            message.head = head.text.encode()
            message.countersignature = countersign(private_key(self.keys[site]), site, head)

    def _leave(self, message: wire.FromSite, event: Event) -> None:
        task = getattr(event, "task", None)
        if isinstance(event, UpdateStored):
            with self.egress.model(event.digest, 0, MODEL_BYTES, task) as leaves:
                leaves(MODEL_BYTES, MODEL_BYTES)
        self.site_ledger.sign(message, self.egress.end())
        self.egress.report(message, NAME, task)
        self.site_ledger.accepted(message)

    def _hear(self, site: str) -> None:
        """Send a site what it does not have."""
        texts: list[bytes] = []
        self.clocks["coordinator"].time(lambda: texts.extend(self._sent(site)))
        if site == self.plan.sites[0]:
            for text in texts:
                self.clocks["site"].time(partial(self._heard, text))

    def _sent(self, site: str) -> Iterator[bytes]:
        while part := self.streams[site].next():
            yield codec.write_ledger(part).SerializeToString()

    def _heard(self, text: bytes) -> None:
        part = codec.read_from_coordinator(wire.FromCoordinator.FromString(text))
        assert isinstance(part, codec.LedgerPart)
        self.site_ledger.take(part, lambda act: act())


def main() -> None:
    """Play the rounds, and print what they took."""
    asked = _arguments()
    for sites in asked.sites:
        made = Federation(asked.folder / f"{sites}-sites", sites, asked.rounds)
        made.attach()
        for _ in range(asked.rounds):
            made.play()
        ms = {name: clock.median_ms for name, clock in made.clocks.items()}
        coordinator, site = ms["coordinator"] - ms["bare"], ms["site"] - ms["reports"]
        journal = f"(beside {ms['bare']:.2f} ms of the journal)"
        say(f"{sites:3} sites: coordinator {coordinator:6.2f} ms a round {journal}, site {site:6.2f} ms a round")


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path)
    made.add_argument("--sites", type=int, nargs="+", default=[3, 8, 64])
    made.add_argument("--rounds", type=int, default=30)
    return made.parse_args()


if __name__ == "__main__":
    main()
