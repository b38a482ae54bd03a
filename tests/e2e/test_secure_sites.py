"""Three sites whose updates the coordinator never sees: real agents, a real coordinator, real lines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import EXIT_OF_OUTCOME
from tests.e2e.loopback import Federation, Process, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

SITES = ("alts", "nhs", "cuba", "dora")
TERMS = {
    "rounds": 4,
    "epochs_per_round": 1,
    "patience_rounds": 4,
    "secure_sum": True,
    "holders": ["alts"],
    "server_momentum": 0.5,
    "quorum": 3,
    "lease_s": 2.0,
    "grace_s": 0.0,
}
SMALL = ("--numbers", "5000")


def pinned(made: Federation) -> None:
    """Let all sites have joined and pinned each other."""
    for site in made.sites:
        made.enrol(site)
    prints = {site: made.site(site).certificate().key_fingerprint for site in made.sites}
    for site in made.sites:
        partners = [f'{name} = "{found}"' for name, found in prints.items() if name != site]
        file = made.site(site).config_file
        file.write_text("\n".join([file.read_text(), "[pins]", *partners, ""]))


def begun(federate: Federate, **terms: Any) -> Federation:
    """Return a federation whose coordinator listens and whose sites have pinned each other."""
    made = federate(sites=SITES, terms={**TERMS, **terms})
    made.coordinate("--mode", "csfssl")
    pinned(made)
    return made


def lights(made: Federation, *options: str) -> dict[str, Process]:
    """Start the agents of all sites."""
    return {site: made.light(site, *SMALL, *options) for site in made.sites}


def everything(folder: Path) -> bytes:
    """Return what lies in a folder."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_whoever_is_killed_or_away_goes_on_and_nothing_that_a_site_trained_is_at_the_coordinator(
    federate: Federate, tmp_path: Path
) -> None:
    made, keep = begun(federate), ("--keep", str(tmp_path / "nhs"))
    (tmp_path / "nhs").mkdir()
    agents = {site: made.light(site, *SMALL, "--pace-s", "0.05", *keep * (site == "nhs")) for site in SITES}
    kills = (("nhs", "BoxesStored"), ("dora", "UpdateStored"), ("alts", "ReleaseStored"), ("cuba", "ScoreReported"))
    for site, event in kills:
        made.until(event, lambda _, event=event: made.events(event))  # type: ignore[misc]
        made.kill_site(agents[site])
        if site != "dora":
            agents[site] = made.light(site, *SMALL, *keep * (site == "nhs"))
    made.until("a round without dora", lambda _: made.events("AggregateStored") > 1)
    made.kill_site(agents["alts"])  # no round goes on without it
    agents["dora"] = made.light("dora", *SMALL)
    agents["dora"].says("attached to run")
    agents["alts"] = made.light("alts", *SMALL)
    made.finish(*agents.values(), code=EXIT_OF_OUTCOME[Outcome.DEGRADED])
    last = made.record()["ledger"][-1]
    assert {one["site"] for one in last["contributions"]} == set(SITES), "dora has derived what it missed"
    assert "it was away, and has fetched the model before it" in made.texts()
    assert {digest for site in SITES for digest in made.adopted(site)} == {made.result()}
    trained = list((tmp_path / "nhs").glob("train-*"))
    assert len(trained) == TERMS["rounds"]
    seen = everything(made.home.folder)
    assert not [file.name for file in trained if file.read_bytes()[-4000:] in seen]
    for site in SITES:
        assert not list(made.site(site).secrets.glob("*.json")), "the secrets go when the run ends"
        assert not list(made.site(site).blobs.rglob(".sum-*")), "nothing unmasked stays"


def test_a_restored_home_takes_no_part_and_says_why(federate: Federate) -> None:
    made = begun(federate, rounds=50)
    agents = lights(made, "--pace-s", "0.05")
    made.until("a round", lambda _: made.events("ReleaseStored"))
    made.kill_site(agents["nhs"])
    home = made.site("nhs").folder
    shutil.copytree(home, home.with_name("copy"))
    shutil.rmtree(home)
    home.with_name("copy").rename(home)
    made.until("its lease has ended", lambda _: made.events("SiteSilent"))  # for another agent than the one before
    again = made.light("nhs", *SMALL)
    assert again.ended() == 6
    assert "this home was restored or copied during run" in again.text
    assert "likely cause: this home was restored from a backup, or is a copy" in again.text
    assert made.events("SiteRefused"), "the coordinator is told"


@pytest.mark.long
def test_check_names_the_pins_that_a_run_with_secure_sums_needs(federate: Federate) -> None:
    made = begun(federate)
    made.settle("nhs")
    code, said = call("site-agent", "--home", made.site("nhs").folder, "check", cwd=made.folder)
    assert code == 6
    for partner in ("alts", "cuba"):
        assert f"site {partner} is not pinned" in said
        assert f"pin {partner} FINGERPRINT" in said
