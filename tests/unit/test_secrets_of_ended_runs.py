"""The secrets of a run that has ended go, also where the process was killed before it had deleted them."""

from __future__ import annotations

from pathlib import Path

from fedcervix.disk.files import aside
from fedcervix.transport.codec import Welcome
from site_agent.federation.accounting import Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.membership import Membership
from site_agent.home import SiteHome, create
from site_agent.store.run_secrets import RunSecrets, SecretsFile, runs_with_secrets
from site_agent.store.run_store import RunStore
from tests.unit.fake_link import RUN, FakeLink, plan

OTHER = "20260202-000000-csfssl-0123abcd"


def test_the_next_process_deletes_them(tmp_path: Path) -> None:
    home, link = SiteHome(tmp_path), FakeLink()
    create(home)
    for run in (RUN, OTHER):
        RunStore(home.run_folder(run)).open(plan())
        SecretsFile(home, run).write(RunSecrets.drawn(10))
    RunStore(home.run_folder(RUN)).end("OK", "")
    half_made = aside(home.secrets / f"{RUN}.json")
    half_made.write_bytes(b"of a killed process")
    context = AgentContext(home, "nhs", link, lambda _: None)
    Membership(context, "f", Accounting(home, link), lambda act: act()).resume()
    assert SecretsFile(home, RUN).read() is None
    assert not half_made.exists()
    assert SecretsFile(home, OTHER).read() is not None, "its coordinator may come back"


def test_those_of_a_run_whose_end_was_never_heard_go_when_another_one_begins(tmp_path: Path) -> None:
    home, link = SiteHome(tmp_path), FakeLink()
    create(home)
    RunStore(home.run_folder(OTHER)).open(plan())
    for run in (RUN, OTHER):
        SecretsFile(home, run).write(RunSecrets.drawn(10))
    membership = Membership(
        AgentContext(home, "nhs", link, lambda _: None), "f", Accounting(home, link), lambda act: act()
    )
    assert membership.welcomed(Welcome("f", RUN, plan()))
    assert runs_with_secrets(home) == (RUN,)
