"""Secure sums among real processes: the result is that of the whole numbers of all sites, whoever is killed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import EXIT_OF_OUTCOME
from fedcervix.models.weights import write_tensors
from tests.e2e.light_worker import seed_model
from tests.e2e.loopback import Federation, Process, call, until
from tests.unit.independent_verifier import verify as verify_independently

Federate = Callable[..., Federation]

SITES = ("nhs", "alts", "cleo")
TERMS: dict[str, Any] = {"secure_sum": True, "holders": ["nhs", "alts"], "rounds": 2, "lease_s": 5.0, "grace_s": 1.0}
NUMBERS = 20_000
LIGHT = ("--numbers", str(NUMBERS), "--silence-s", "60")

pytestmark = pytest.mark.timeout(120)


def begun(federate: Federate, **terms: Any) -> tuple[Federation, Process]:
    """Return a federation of three light sites that know each other's keys, and its coordinator."""
    made = federate(sites=SITES, terms={**TERMS, **terms})
    coordinator = made.coordinate("--mode", "csfssl")
    for site in SITES:
        made.enrol(site)
    made.know()
    return made, coordinator


def journaled(made: Federation) -> list[str]:
    """Return the kinds of events of the run, in their order."""
    with contextlib.closing(sqlite3.connect(f"file:{made.home.journal}?mode=ro", uri=True)) as journal:
        return [kind for (kind,) in journal.execute("SELECT json_extract(event, '$.event') FROM events ORDER BY seq")]


def verified(made: Federation) -> list[tuple[int, str]]:
    """Return what `verify` says at the coordinator and at each site."""
    homes = [("coordinator", made.home.folder), *(("site-agent", made.site(site).folder) for site in SITES)]
    return [call(program, "--home", folder, "verify", cwd=made.folder) for program, folder in homes]


def test_three_sites_end_with_the_sum_of_their_whole_numbers(
    federate: Federate, light_right: Callable[..., str]
) -> None:
    made, coordinator = begun(federate)
    agents = [made.light(site, *LIGHT) for site in SITES]
    made.finish(*agents, coordinator)
    assert made.record()["outcome"] == "OK"
    right = light_right("csfssl", numbers=NUMBERS, sites=SITES, **TERMS)
    assert made.result() == right
    assert [made.adopted(site) for site in SITES] == [[right]] * 3
    kinds = journaled(made)
    assert [kinds.count(kind) for kind in ("SiteOpened", "BoxesStored", "ReleaseStored", "CloseSigned")] == [3, 3, 4, 0]
    assert [code for code, _ in verified(made)] == [0] * 4
    sums = "secure sums: this site knows which sites and weights were added up in rounds 1, 2, by its own journal"
    assert [sums in " ".join(said.split()) for _, said in verified(made)] == [False, True, True, True]
    key = (made.site("cleo").key_file("ledger.pub")).read_bytes()
    [folder] = made.site("cleo").folder.glob("runs/*")
    assert verify_independently(folder, key), "an entry does not hold for a verifier that was written from the page"


@pytest.mark.long
@pytest.mark.parametrize("victim", ["coordinator", "nhs", "cleo"])
def test_whoever_is_killed_while_masks_are_released_the_result_is_the_same(
    federate: Federate, light_right: Callable[..., str], victim: str
) -> None:
    """A holder, a site that is none, and the coordinator."""
    made, coordinator = begun(federate, lease_s=60.0, grace_s=60.0)
    agents = {site: made.light(site, *LIGHT) for site in SITES}
    until("masks are released", lambda: made.events("ReleaseStored") > 0, seen=made.texts)
    if victim == "coordinator":
        coordinator.kill()
        coordinator = made.coordinate()
    else:
        agents[victim].kill()
        agents[victim] = made.light(victim, *LIGHT)
    made.finish(*agents.values(), coordinator)
    assert made.result() == light_right(
        "csfssl", numbers=NUMBERS, sites=SITES, **{**TERMS, "lease_s": 60.0, "grace_s": 60.0}
    )


@pytest.mark.long
def test_a_holder_that_stays_away_costs_an_attempt(federate: Federate, light_right: Callable[..., str]) -> None:
    """It is killed once its vector has arrived, while another site still trains."""
    made, coordinator = begun(federate, rounds=1, lease_s=3.0, grace_s=0.0)
    slow = {"cleo": ("--pace-s", "0.4")}
    agents = {site: made.light(site, *LIGHT, *slow.get(site, ())) for site in SITES}
    until("its vector has arrived", lambda: made.events('UpdateStored%"site":"nhs"%"kind":"train"'), seen=made.texts)
    agents["nhs"].kill()
    until("the attempt is closed", lambda: made.events("CloseSigned"), seen=made.texts)
    agents["nhs"] = made.light("nhs", *LIGHT)
    made.finish(*agents.values(), coordinator)
    terms = {**TERMS, "rounds": 1}
    assert made.result() == light_right("csfssl", numbers=NUMBERS, sites=SITES, attempt=2, **terms)
    assert made.last("ReleaseStored")["task"]["attempt"] == 2


@pytest.mark.long
def test_another_run_may_begin_with_the_model_of_a_run_that_was_aborted_in_its_first_round(federate: Federate) -> None:
    """The holders close the round first, and all sites learn it: their vectors are in no sum."""
    made = federate(sites=SITES, terms={**TERMS, "rounds": 1}, run={"base": "first.safetensors"})
    first = made.home.folder / "first.safetensors"
    digest = write_tensors(first, seed_model(made.home.plan("csfssl"), NUMBERS))
    coordinator = made.coordinate("--mode", "csfssl")
    for site in SITES:
        made.enrol(site, first_model=digest)
    made.know()
    slow = {"cleo": ("--pace-s", "2.0")}
    agents = [made.light(site, *LIGHT, *slow.get(site, ())) for site in SITES]
    until("two vectors have arrived", lambda: made.events("UpdateStored") > 1, seen=made.texts)
    code, said = call("coordinator", "--home", made.home.folder, "abort", cwd=made.folder)
    assert "as soon as its holders have promised" in said, said
    assert code == 0
    made.finish(*agents, coordinator, code=EXIT_OF_OUTCOME[Outcome.ABORTED])
    assert made.events("CloseSigned") == 2
    again = made.coordinate("--mode", "csfssl")
    for site in SITES:
        made.settle(site, first_model=digest)
    made.know()
    made.finish(*(made.light(site, *LIGHT) for site in SITES), again)
