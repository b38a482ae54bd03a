"""Who is gone is named within seconds, and a coordinator that returns has its sites back within seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from fedcervix.core.rounds.state import Phase
from fedcervix.models.weights import write_tensors
from tests.e2e.line import Line
from tests.e2e.loopback import Federation, Process, call, until

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

NAMED_WITHIN_S = 10.0
BACK_WITHIN_S = 5.0
DOWN_S = 8.0
"""long enough for every pause to have grown to its longest"""
SITES = ("nhs", "alts", "west")


@pytest.mark.parametrize(("how", "words"), [("killed", "its connection is cut"), ("gone", "no message comes from it")])
def test_status_names_a_site_that_is_gone_and_since_when(federate: Federate, how: str, words: str) -> None:
    federation = federate(terms={"lease_s": 3600.0})
    federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    line = Line(federation.port)
    federation.settle("nhs", port=line.port)
    nhs, _ = (federation.light(site, "--pace-s", "60") for site in federation.sites)
    federation.until("nhs trains", lambda seen: seen["sites"][0]["stage"] == "training")
    if how == "killed":
        nhs.kill()
    else:
        line.silence()  # as when its machine loses power, or its network goes: no connection ends
    gone_at = time.time()
    seen = federation.until("status names nhs", lambda seen: seen if seen["sites"][0]["line"] else None)
    assert time.time() - gone_at < NAMED_WITHIN_S
    site, wait = seen["sites"][0], seen["waits"][0]
    assert (site["site"], site["presence"], site["line"]) == ("nhs", "present", words)
    assert abs(site["cut_at"] - gone_at) < NAMED_WITHIN_S
    assert (wait["site"], wait["reason"]) == ("nhs", f"working: {site['doing']}; {words}")
    assert abs(wait["until"] - site["lease_ends_at"]) < 1

    code, text = call("coordinator", "--home", federation.home.folder, "status", cwd=federation.folder)
    assert (code, text.count(f"{words} since ")) == (0, 2), text
    line.close()


def test_watching_goes_on_through_a_restart_and_ends_with_the_run(federate: Federate) -> None:
    federation = federate(terms={"rounds": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    agents = [federation.light(site, "--pace-s", "0.2") for site in federation.sites]
    watching = federation.watch()
    watching.says('"presence": "present"')
    coordinator.kill()
    watching.says("the coordinator is not running; continue with: coordinator --home")
    coordinator = federation.coordinate()
    federation.finish(coordinator, *agents, watching)
    pictures = [json.loads(line) for line in watching.text.splitlines()]
    # A phase shorter than a look is passed over; none comes twice but by the journal, while no coordinator runs.
    phases = [*dict.fromkeys(picture["phase"] for picture in pictures)]
    assert [phase.value for phase in Phase if phase in phases] == phases
    assert phases[-1] == "finished"
    assert "training" in phases
    assert pictures[-1]["outcome"] == "OK"
    now = [picture["now"] for picture in pictures]
    assert now == sorted(now)


def moments(coordinator: Process) -> dict[str, float]:
    """Return when a coordinator began to listen, and when it first heard each site."""
    found: dict[str, float] = {}
    for line in coordinator.text.splitlines():
        if line.startswith("{") and (said := json.loads(line))["event"] in ("listening", "site connected"):
            at = datetime.fromisoformat(said["timestamp"]).timestamp()
            found.setdefault(said.get("site", "listening"), at)
    return found


def test_a_coordinator_that_returns_finds_every_agent_at_work_within_five_seconds(federate: Federate) -> None:
    federation = federate(sites=SITES, terms={"rounds": 1, "lease_s": 120.0}, run={"base": "first.safetensors"})
    write_tensors(federation.home.folder / "first.safetensors", {"weight": np.zeros(9, np.float32)})
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in SITES:
        federation.enrol(site)
    agents = [federation.light(site, "--pace-s", "10") for site in SITES]  # a round takes longer than this test
    federation.until("all train", all_train)
    coordinator.kill()
    for agent in agents:
        agent.says("trying again")
    time.sleep(DOWN_S)  # the outage itself
    coordinator = federation.coordinate()
    everybody = {"listening", *SITES}
    until("all are back", lambda: moments(coordinator).keys() == everybody, timeout_s=60, seen=federation.texts)
    found = moments(coordinator)
    back_s = {site: found[site] - found["listening"] for site in SITES}
    assert max(back_s.values()) < BACK_WITHIN_S, back_s
    seen = federation.until("all train", all_train, timeout_s=2 * BACK_WITHIN_S)  # their next beat is due later
    assert [wait["reason"] for wait in seen["waits"]] == ["working: train in round 1"] * len(SITES)


def all_train(seen: dict[str, Any]) -> dict[str, Any] | None:
    return seen if all(site["stage"] == "training" for site in seen["sites"]) else None
