"""Federations that are disturbed: whatever is killed, cut or corrupted, the run ends with the same weights.

Each test has its moment. Random moments, and many of them: `tests.e2e.chaos`.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcervix.models.weights import write_tensors
from tests.e2e.loopback import Federation, Process, Proxy, processes_of, until

Federate = Callable[..., Federation]
Reference = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.timeout(120)


def begin(federation: Federation, mode: str, collections: dict[str, Path]) -> tuple[Process, dict[str, Process]]:
    """Start a federation whose sites train."""
    coordinator = federation.coordinate("--mode", mode)
    for site in federation.sites:
        federation.enrol(site, collections[site] / "manifest.csv")
    return coordinator, {site: federation.agent(site) for site in federation.sites}


def assert_as_undisturbed(federation: Federation, right: dict[str, Any]) -> None:
    record = federation.record()
    assert (record["outcome"], [line["missing"] for line in record["ledger"]]) == ("OK", [[] for _ in right["rounds"]])
    assert [line["model"] for line in record["ledger"]] == [found["digest"] for found in right["rounds"]]
    assert federation.result() == right["digest"]
    for site in federation.sites:
        assert federation.adopted(site) == [right["digest"]]
    assert federation.deserted()


def test_a_site_killed_while_training_and_a_coordinator_killed_in_mid_round_change_nothing(
    federate: Federate, collections: dict[str, Path], reference: Reference
) -> None:
    federation = federate()
    coordinator, agents = begin(federation, "csfssl", collections)

    agents["nhs"].says("asked to train in round 1")
    federation.until("nhs trains", lambda seen: seen["sites"][0]["stage"] == "training")
    federation.kill_site(agents["nhs"])
    assert "done: train in round 1" not in agents["nhs"].text
    agents["nhs"] = federation.agent("nhs")

    agents["alts"].says("asked to train in round 2")
    coordinator.kill()
    agents["nhs"].says("trying again")
    coordinator = federation.coordinate()
    assert "run continues" in coordinator.text

    federation.finish(coordinator, *agents.values())
    assert_as_undisturbed(federation, reference(federation.plan("csfssl")))


@pytest.mark.long
def test_the_holder_of_a_ring_s_model_and_the_coordinator_killed_together_change_nothing(
    federate: Federate, collections: dict[str, Path], reference: Reference
) -> None:
    federation = federate()
    coordinator, agents = begin(federation, "ppfssl", collections)

    agents["alts"].says("asked to train in round 1")
    coordinator.kill()
    federation.kill_site(agents["alts"])
    assert "done: train in round 1" not in agents["alts"].text
    agents["alts"] = federation.agent("alts")
    agents["alts"].says("trying again")
    coordinator = federation.coordinate()

    federation.finish(coordinator, *agents.values())
    assert_as_undisturbed(federation, reference(federation.plan("ppfssl")))


@pytest.mark.long
def test_a_site_that_is_stopped_and_killed_while_its_coordinator_is_away_trains_to_the_end(
    federate: Federate, collections: dict[str, Path], reference: Reference
) -> None:
    federation = federate(terms={"rounds": 1, "epochs_per_round": 12}, recipe={"epochs_max": 12})
    coordinator, agents = begin(federation, "csfssl", collections)

    federation.until("nhs trains", lambda seen: seen["sites"][0]["stage"] == "training")
    coordinator.kill()
    agents["nhs"].signal(signal.SIGTERM)
    federation.finish(agents["nhs"], code=130)
    assert "a checkpoint is saved" in agents["nhs"].text
    assert processes_of(federation.site("nhs").folder) == {}
    agents["nhs"] = federation.agent("nhs")
    agents["nhs"].says("continues from its checkpoint: epoch ")
    federation.kill_site(agents["nhs"])
    assert "done: train in round 1" not in agents["nhs"].text
    agents["nhs"] = federation.agent("nhs")
    run = next(folder.name for folder in (federation.site("nhs").folder / "runs").iterdir())
    for words in (f"continues run {run}: train in round 1", "work continues meanwhile", "from its checkpoint: epoch "):
        agents["nhs"].says(words)
    for agent in agents.values():
        agent.says("the coordinator cannot be reached; the result of round 1 is saved and will be sent on reconnect")
    coordinator = federation.coordinate()

    federation.finish(coordinator, *agents.values())
    assert_as_undisturbed(federation, reference(federation.plan("csfssl")))


def test_ctrl_c_ends_either_role_in_order_and_it_goes_on_afterwards(
    federate: Federate, collections: dict[str, Path], reference: Reference
) -> None:
    federation = federate()
    coordinator, agents = begin(federation, "csfssl", collections)

    agents["nhs"].says("asked to train in round 1")
    agents["nhs"].signal(signal.SIGINT)
    federation.finish(agents["nhs"], code=130)
    home = federation.site("nhs").folder
    assert f"stopped; continue with: site-agent --home {home}" in agents["nhs"].text
    assert "Traceback" not in agents["nhs"].text
    assert processes_of(home) == {}
    agents["nhs"] = federation.agent("nhs")

    agents["alts"].says("asked to train in round 2")
    coordinator.signal(signal.SIGINT)
    federation.finish(coordinator, code=130)
    assert f"to continue the run: coordinator --home {federation.home.folder} start" in coordinator.text
    assert "Traceback" not in coordinator.text
    assert not federation.home.running.exists()

    # A site at rest, and one that waits for its coordinator, both leave as quickly.
    agents["alts"].says("trying again")
    agents["alts"].signal(signal.SIGINT)
    federation.finish(agents["alts"], code=130)
    assert processes_of(federation.site("alts").folder) == {}
    agents["alts"] = federation.agent("alts")
    coordinator = federation.coordinate()
    federation.finish(coordinator, *agents.values())
    assert_as_undisturbed(federation, reference(federation.plan("csfssl")))


@pytest.mark.long
def test_a_second_signal_ends_an_agent_at_once_and_its_hung_worker_with_it(
    federate: Federate, collections: dict[str, Path]
) -> None:
    federation = federate(sites=("nhs",), terms={"rounds": 1, "epochs_per_round": 100}, recipe={"epochs_max": 100})
    coordinator, agents = begin(federation, "csfssl", collections)
    federation.until("nhs trains", lambda seen: seen["sites"][0]["stage"] == "training")
    home = federation.site("nhs").folder
    [worker] = [pid for pid, words in processes_of(home).items() if "worker_process" in words]
    os.kill(worker, signal.SIGSTOP)
    agents["nhs"].signal(signal.SIGTERM)
    agents["nhs"].says("stopping: training saves a checkpoint at its next step")
    agents["nhs"].signal(signal.SIGTERM)
    assert agents["nhs"].ended(timeout_s=5) == 130
    until("nothing is left", lambda: not processes_of(home), timeout_s=5, seen=lambda: processes_of(home))

    again = federation.agent("nhs")  # no lock is in its way
    again.says("asked to train in round 1")
    coordinator.signal(signal.SIGTERM)
    federation.finish(coordinator, code=130)
    assert "stopping" in coordinator.text


# --- bad lines, with sites that compute instead of train (see light_worker.py) ------------------------------------


@pytest.fixture
def through(federate: Federate) -> Iterator[Callable[..., tuple[Federation, Proxy, list[Process]]]]:
    """Return a starter of one-round federations whose site nhs has a bad line; models are 12 MB."""
    proxies = []

    def start(**fault: Any) -> tuple[Federation, Proxy, list[Process]]:
        federation = federate(terms={"rounds": 1})
        coordinator = federation.coordinate("--mode", "csfssl")
        proxies.append(Proxy(federation.port, **fault))
        for site in federation.sites:
            federation.enrol(site)
        federation.settle("nhs", port=proxies[-1].port)
        sites = [federation.light(site, "--numbers", "3000000") for site in federation.sites]
        return federation, proxies[-1], [coordinator, *sites]

    yield start
    for proxy in proxies:
        proxy.close()


def test_an_upload_that_is_cut_goes_on_where_it_was(
    through: Callable[..., tuple[Federation, Proxy, list[Process]]], light_right: Callable[..., str]
) -> None:
    # No connection ever carries a whole model: an upload that began anew after each cut would never end.
    federation, proxy, processes = through(fault="cut", up_bytes=5_000_000, faults=1000)
    federation.finish(*processes)
    assert proxy.hits <= 1000 - 4
    assert federation.result() == light_right("csfssl", numbers=3_000_000, rounds=1)


def test_corrupted_bytes_cost_a_retry_and_nothing_else(
    through: Callable[..., tuple[Federation, Proxy, list[Process]]], light_right: Callable[..., str]
) -> None:
    federation, proxy, processes = through(fault="flip", up_bytes=5_000_000, faults=2)
    federation.finish(*processes)
    assert proxy.hits == 0
    assert federation.result() == light_right("csfssl", numbers=3_000_000, rounds=1)


# --- leases ------------------------------------------------------------------------------------------------------


def test_a_site_that_rested_longer_than_its_lease_is_not_passed_over_when_its_turn_comes(federate: Federate) -> None:
    federation = federate(terms={"rounds": 1, "lease_s": 3.0}, run={"base": "first.safetensors"})
    write_tensors(federation.home.folder / "first.safetensors", {"weight": np.zeros(9, np.float32)})
    coordinator = federation.coordinate("--mode", "ppfssl")
    for site in federation.sites:
        federation.enrol(site)
    sites = [federation.light("nhs", "--pace-s", "0.9"), federation.light("alts")]  # nhs needs 4.5 s for its turn
    federation.finish(coordinator, *sites)
    assert federation.record()["outcome"] == "OK"


def test_a_coordinator_killed_before_it_wrote_its_results_writes_them_at_the_next_start(federate: Federate) -> None:
    federation = federate(sites=("nhs",), terms={"rounds": 1, "lease_s": 2.0})
    coordinator = federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs")
    federation.finish(coordinator, federation.light("nhs"))
    digest = federation.result()

    shutil.rmtree(federation.home.results)  # as it lies there when the process dies between its last event and this
    federation.home.results.mkdir()
    # With the mode, as a service manager repeats the command line; it is still no second run.
    federation.finish(federation.coordinate("--mode", "csfssl", listening=False))
    assert federation.result() == digest
    assert federation.record()["outcome"] == "OK"

    again = federation.coordinate(listening=False)
    federation.finish(again, code=11)
    assert "no unfinished run to continue" in again.text
