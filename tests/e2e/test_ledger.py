"""The ledger between real processes: kept by all, the same everywhere, verified offline, and what is wrong is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator.cli import cli as coordinator_cli
from fedcervix.disk.journal import Journal
from fedcervix.errors import LedgerError
from fedcervix.trust.fingerprints import Fingerprint
from site_agent import home as homes
from site_agent.cli import cli as site_cli
from site_agent.store.ledger_store import LedgerStore
from tests.e2e.accounted import unaccounted, updates
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
        assert_all_is_accounted(light, site, run)


def assert_all_is_accounted(made: Federation, site: str, run: str) -> None:
    """Every result of a site that the coordinator has stands in the site's egress ledger, its model whole."""
    assert not list(unaccounted(made, run, site))
    shown = CliRunner().invoke(site_cli, ["--home", str(made.site(site).folder), "egress", run])
    assert shown.exit_code == 0, shown.output
    found = updates(made, run, site)
    assert found
    assert all(update.digest[:12] in shown.output for update in found)


def verified(cli: object, home: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home), "verify", *words])  # type: ignore[arg-type]


def test_each_role_verifies_from_files_alone_and_names_what_was_changed(light: Federation) -> None:
    coordinator = light.coordinate("--mode", "csfssl")
    for site in light.sites:
        light.enrol(site)
    agents = [light.light(site) for site in light.sites]
    light.finish(coordinator, *agents)
    run = light.record()["run"]
    site = light.site("nhs")
    ours, theirs = verified(coordinator_cli, light.home.folder), verified(site_cli, site.folder, run)
    assert (ours.exit_code, theirs.exit_code) == (0, 0), (ours.output, theirs.output, ours.exception, theirs.exception)
    assert "entries hold, from the first to the end of the run" in ours.output
    ours_entries = texts(light)
    for output in (ours.output, theirs.output):
        assert "head after round 1: countersigned by alts, nhs" in output
    assert "not pinned): alts\n" in theirs.output
    assert "not pinned" not in ours.output

    file = LedgerStore(site.run_folder(run)).entries
    whole = file.read_text()
    lines = whole.split("\n")
    place = next(number for number, line in enumerate(lines) if '"kind":"reader"' in line)
    file.write_text(whole.replace(lines[place], lines[place].replace("alts", "nhs ").replace('"nhs"', '"alts"')))
    error = verified(site_cli, site.folder, run).exception
    assert isinstance(error, LedgerError)
    assert "does not hold: entry" in error.what
    assert "was changed" in error.what
    file.write_text("\n".join(line for line in lines if line != lines[place]))
    assert "is missing" in str(verified(site_cli, site.folder, run).exception)
    file.write_text(whole)
    signatures = LedgerStore(site.run_folder(run)).signatures
    signed = signatures.read_text()
    signatures.write_text("")
    assert "no head is stored" in str(verified(site_cli, site.folder, run).exception)
    signatures.write_text(signed)

    cut = [line for line in signed.split("\n") if not re.search(r"round.{2}:[1-9]", line)]
    signatures.write_text("\n".join(cut))
    assert "this site has signed the head of round" in str(verified(site_cli, site.folder, run).exception)
    signatures.write_text(signed)
    left = site.egress.read_text()
    site.egress.write_text("\n".join(left.split("\n")[:-6]))
    assert "what has left this site does not hold: entry" in str(verified(site_cli, site.folder, run).exception)
    site.egress.write_text(left)
    homes.pin(site, "alts", Fingerprint(bytes(32)))
    error = verified(site_cli, site.folder, run).exception
    assert isinstance(error, LedgerError)
    assert "and is pinned to 0000 0000" in error.what

    with closing(Journal(light.home.journal)) as journal:
        journal._db.execute("DELETE FROM ledger WHERE entry = (SELECT max(entry) FROM ledger)")
    error = verified(coordinator_cli, light.home.folder, run).exception
    assert isinstance(error, LedgerError)
    assert f"the run has ended, and entry {len(ours_entries) - 1}, which says how, is missing" in error.what
    with closing(Journal(light.home.journal)) as journal:
        journal._db.execute("DELETE FROM ledger WHERE entry = 9")
    error = verified(coordinator_cli, light.home.folder, run).exception
    assert isinstance(error, LedgerError)
    assert "entry 9 is missing" in error.what
