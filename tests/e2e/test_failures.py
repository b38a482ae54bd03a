"""What breaks at a site: what the operator hears of it, and when; what goes on by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedcervix.errors import DataError, PolicyError
from fedcervix.models.weights import write_tensors
from tests.e2e.loopback import Federation, processes_of

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)


def worker_of(federation: Federation, site: str) -> int:
    [worker] = [pid for pid, words in processes_of(federation.site(site).folder).items() if "light_worker" in words]
    return worker


def test_a_worker_that_hangs_is_killed_and_its_task_begun_again(
    federate: Federate, light_right: Callable[..., str]
) -> None:
    """Stopped, it is as silent as one that waits for a lost GPU. Without the rule its lease would hold for ever."""
    terms = {"rounds": 1, "lease_s": 8.0}
    federation = federate(terms=terms)
    coordinator = federation.coordinate("--mode", "ppfssl")
    for site in federation.sites:
        federation.enrol(site)
    nhs = federation.light("nhs", "--worker", "--pace-s", "0.3", "--silence-s", "4")
    alts = federation.light("alts")
    nhs.says("asked to train in round 1")
    federation.until("it trains", lambda seen: seen["sites"][0]["stage"] == "training")
    hung = worker_of(federation, "nhs")
    os.kill(hung, signal.SIGSTOP)
    nhs.says("the training process has not reported for")
    nhs.says("done: train in round 1")
    assert worker_of(federation, "nhs") != hung
    [failure] = federation.until("the operator sees it", lambda seen: seen["failures"])
    assert (failure["site"], failure["kind"], failure["goes_on"]) == ("nhs", "TrainingError", True)
    assert (federation.site("nhs").incidents / f"{failure['incident']}.txt").exists()

    federation.finish(coordinator, nhs, alts)
    record = federation.record()
    assert (record["outcome"], [line["missing"] for line in record["ledger"]]) == ("OK", [[]])
    assert federation.result() == light_right("ppfssl", **terms)
    assert federation.deserted()


def test_a_failure_while_the_coordinator_is_away_is_heard_when_it_is_back(
    federate: Federate, collections: dict[str, Path], tmp_path: Path
) -> None:
    federation = federate(sites=("nhs",), terms={"rounds": 1}, run={"base": "first.safetensors"})
    write_tensors(federation.home.folder / "first.safetensors", {"weight": np.zeros(9, np.float32)})
    coordinator = federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs", collections["nhs"] / "manifest.csv")
    agent = federation.light("nhs", "--pace-s", "60")
    agent.says("asked to train in round 1")
    federation.until("it trains", lambda seen: seen["sites"][0]["stage"] == "training")  # and so holds the model
    coordinator.kill()
    agent.says("trying again automatically, work continues meanwhile")
    agent.kill()
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("image,patient,label\nzamora.jpg,Zamora,yes\n")
    federation.settle("nhs", manifest)

    agent = federation.agent("nhs")
    federation.finish(agent, code=DataError.exit_code)
    assert "the coordinator cannot be reached now; INC-" in agent.text
    [untold] = federation.site("nhs").untold.iterdir()
    federation.settle("nhs", collections["nhs"] / "manifest.csv")
    federation.coordinate()
    agent = federation.light("nhs", "--pace-s", "60")
    [failure] = federation.until("the operator hears of it", lambda seen: seen["failures"])
    assert (failure["kind"], failure["incident"]) == ("DataError", untold.stem)
    assert "amora" not in str(failure)
    [site] = federation.overview()["sites"]
    assert site["presence"] == "present"
    assert not list(federation.site("nhs").untold.iterdir())


def test_an_update_that_tells_who_was_trained_on_stays_at_the_site_until_its_policy_lets_it_go(
    federate: Federate, tmp_path: Path
) -> None:
    federation = federate(terms={"rounds": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs", audit_max_auc=0.6)
    federation.enrol("alts")
    (tmp_path / "kept").mkdir()
    keep = ("--keep", str(tmp_path / "kept"))
    alts, nhs = federation.light("alts"), federation.light("nhs", "--audited", "0.71", *keep)
    federation.finish(nhs, code=PolicyError.exit_code)
    assert "an AUC of at least 0.71" in nhs.text
    at_operator = next(one for one in federation.overview()["sites"] if one["site"] == "nhs")
    assert (at_operator["presence"], at_operator["reason"]) == ("refused", "the site's policy holds its update back")
    held = tmp_path / "kept" / "train-1"
    at_coordinator = b"".join(file.read_bytes() for file in federation.home.folder.rglob("*") if file.is_file())
    assert held.read_bytes()[-4000:] not in at_coordinator

    federation.settle("nhs", audit_max_auc=0.8)
    nhs = federation.light("nhs", "--audited", "0.71")
    federation.finish(coordinator, nhs, alts)
    assert {one["site"] for one in federation.record()["ledger"][0]["contributions"]} == {"alts", "nhs"}
