"""An agent in a run with secure sums, stepped: what it refuses before it does anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedcervix.core.events import Task, TaskKind
from fedcervix.errors import FedcervixError, LedgerError, PolicyError, RemoteError
from fedcervix.transport import codec
from fedcervix.trust.sum_memory import HomeRestored, OpeningMade
from fedcervix.trust.sum_papers import AttemptShown
from site_agent.federation.agent import Agent, Checks
from site_agent.federation.context import AgentContext
from site_agent.store.run_secrets import RunSecrets, SecretsFile
from site_agent.store.sum_journal import SumJournal
from tests.unit.agents import Site, nothing
from tests.unit.fake_link import TRAIN
from tests.unit.sum_sites import KEYS, NAMES, PINS, RUN, plan

BOX = Task(RUN, TaskKind.BOX, 0, "")
NOT_SIGNED = "too few sites have signed the ledger"


class StrictLedger:
    """Stands in for a ledger of which everything is here but the signatures of the others."""

    def check_kept(self, *_: object) -> None: ...

    def welcomed(self, *_: object) -> str:
        return ""

    def check_told(self, _task: Task) -> None: ...

    def check_countersigned(self, _task: Task, colluders: int, keys: dict[str, Any]) -> None:
        assert (colluders, keys) == (0, PINS)
        raise LedgerError(NOT_SIGNED)


class SecureSite(Site):
    """Site a, which knows the keys of its partners from the coordinator."""

    def _agent(self, examine: Any, waits: Any, inbox: Any) -> Agent:
        self.home.key_file("").mkdir(exist_ok=True)
        pem = KEYS["a"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.home.key_file("site.key").write_bytes(pem)
        self.home.config_file.write_text('[policy]\npins = "known"\n')
        self.journal = SumJournal(self.home)
        shared: dict[str, Any] = {"ledger": StrictLedger(), "journal": self.journal}
        context = AgentContext(self.home, "a", self.link, self._show, inbox, **shared)
        worker: Any = self.worker
        return Agent(context, worker, federation="f", checks=Checks(nothing, nothing, examine), waits=waits)

    def enter(self) -> None:
        """Begin, and be welcomed to the run."""
        SumJournal(self.home)
        SecretsFile(self.home, RUN).write(RunSecrets.drawn(10))
        self.alone()
        partners = {name: PINS[name] for name in NAMES if name != "a"}
        self.says(codec.Welcome("f", RUN, plan(), keys=partners))


def ends(site: Site, kind: type[FedcervixError]) -> str:
    """Return what an agent has said when an error of this kind ended it."""
    error = site.end()
    assert isinstance(error, kind)
    return error.what


@pytest.fixture
def site(tmp_path: Path) -> SecureSite:
    return SecureSite(tmp_path)


def test_a_round_does_not_begin_before_enough_sites_have_signed_the_ledger(site: SecureSite) -> None:
    site.enter()
    site.says(Task(RUN, TaskKind.TRAIN, 1, "5" * 64))
    assert ends(site, LedgerError) == NOT_SIGNED
    assert not site.worker.begun


def test_the_opening_goes_with_the_word_that_the_site_is_ready(site: SecureSite) -> None:
    site.enter()
    [ready] = [said for said in site.link.told if isinstance(said, codec.Ready)]
    assert ready.opening is not None
    assert (ready.opening.site, ready.opening.images) == ("a", 10)


def test_a_restored_home_tells_the_coordinator_that_it_takes_no_part(site: SecureSite) -> None:
    site.journal.remember(OpeningMade(RUN, "1" * 64))
    site.journal.remember(HomeRestored())
    site.enter()
    assert "restored or copied" in ends(site, PolicyError)
    [refusal] = [said for said in site.link.told if isinstance(said, codec.Refusal)]
    assert "restored or copied" in refusal.reason


def test_what_belongs_to_secure_sums_is_refused_in_any_other_run(tmp_path: Path) -> None:
    plain = Site(tmp_path / "paper")
    plain.attach()
    plain.says(AttemptShown(1))  # type: ignore[arg-type]
    assert "shows AttemptShown in a run that has no secure sums" in ends(plain, RemoteError)
    again = Task(TRAIN.run, TRAIN.kind, 1, TRAIN.base, attempt=2)
    for number, task in enumerate((Task(TRAIN.run, TaskKind.BOX, 0, ""), again)):
        other = Site(tmp_path / str(number))
        other.attach(task)
        assert "the plan has no secure sums" in ends(other, RemoteError)
