"""The ledger between real processes: kept by all, the same everywhere, verified offline, and what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fedcervix.disk.journal import Journal
from site_agent.store.ledger_store import LedgerStore
from tests.e2e.loopback import Federation, federation

pytestmark = pytest.mark.timeout(120)
Run = Callable[..., Federation]


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Federation]:
    with federation(tmp_path) as made:
        yield made


def texts(made: Federation) -> list[str]:
    with closing(Journal(made.home.journal, read_only=True)) as journal:
        [record] = journal.runs()
        return [text for text, _ in journal.ledger(record.run)]


def test_all_keep_one_ledger_though_a_site_and_the_coordinator_are_killed(light: Federation) -> None:
    coordinator = light.coordinate("--mode", "csfssl")
    for site in light.sites:
        light.enrol(site)
    agents = {site: light.light(site, "--pace-s", "0.1") for site in light.sites}
    agents["nhs"].says("round 1")
    coordinator.kill()
    agents["nhs"].kill()
    coordinator, agents["nhs"] = light.coordinate(), light.light("nhs")
    for agent in agents.values():
        agent.ended()
    light.finish(coordinator)
    entries = texts(light)
    assert len(entries) > 20
    run = light.record()["run"]
    for site in light.sites:  # who has adopted the model leaves at once, before the run has ended
        stored = LedgerStore(light.site(site).run_folder(run)).read()
        assert [line.text for line in stored.lines] == entries[: len(stored.lines)]
        assert stored.heads[-1].head.round >= light.plan("csfssl").terms.rounds
        assert {one.site for one in stored.countersigned} == set(light.sites)
