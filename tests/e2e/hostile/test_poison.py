"""A site whose updates spoil the model: its round goes on without it, no honest agent ends, and the ledger names it.

Before, the honest site's agent ended at scoring (told to lower its learning rate), ended again after a restart, and
again after the culprit was revoked; the ledger blamed the honest site.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcervix.core.events import ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.rounds.instructions import Finish
from fedcervix.errors import RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import kind, read_tensors, write_tensors
from fedcervix.transport import codec
from fedcervix.transport.codec import InstanceClaim
from tests.e2e.loopback import Federation, Process, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

TERMS = {"rounds": 2, "epochs_per_round": 1, "patience_rounds": 9, "step_max": 1e36}
"""so that what is to be found out by scoring is not refused before"""
SPOILS = ("--spoils", "1e30")
DEGRADED = 20


def begin(federation: Federation, mode: str, *options: str) -> tuple[Process, Process, Process]:
    """Start a federation; alts is the culprit. Returns coordinator, nhs, alts."""
    coordinator = federation.coordinate("--mode", mode)
    for site in federation.sites:
        federation.enrol(site)
    return coordinator, federation.light("nhs", *options), federation.light("alts", *SPOILS, *options)


def revoke_alts(federation: Federation) -> None:
    code, text = call("coordinator", "--home", federation.home.folder, "revoke", "alts", cwd=federation.folder)
    assert code == 0, text


def names(lines: list[dict[str, Any]]) -> list[str]:
    return [line["site"] for line in lines]


def assert_alts_is_named(federation: Federation, nhs: Process) -> None:
    """The run has ended well without alts; nhs has done its work to the end and is told nothing of its own recipe."""
    record = federation.record()
    assert record["outcome"] == "DEGRADED"
    for line in record["ledger"]:
        assert (names(line["contributions"]), names(line["missing"])) == (["nhs"], ["alts"])
    assert "nhs" in record["adopted"]
    assert (nhs.ended(), "lower lr" in nhs.text) == (DEGRADED, False), nhs.text


def test_in_csfssl_the_average_is_made_again_without_the_culprit(federate: Federate) -> None:
    federation = federate(terms=TERMS)
    coordinator, nhs, alts = begin(federation, "csfssl")
    assert [process.ended() for process in (coordinator, alts)] == [DEGRADED, DEGRADED], coordinator.text
    assert_alts_is_named(federation, nhs)
    reasons = {line["missing"][0]["reason"] for line in federation.record()["ledger"]}
    assert reasons == {"with its update the model could not be used (so nhs)"}


def test_in_a_ring_the_next_site_goes_on_from_the_model_before(federate: Federate) -> None:
    federation = federate(terms=TERMS, sites=("alts", "nhs"))
    coordinator, nhs, alts = begin(federation, "ppfssl")
    assert [process.ended() for process in (coordinator, alts)] == [DEGRADED, DEGRADED], coordinator.text
    assert_alts_is_named(federation, nhs)
    first = federation.record()["ledger"][0]
    assert [c["digest"] for c in first["contributions"]] == [first["model"]]


def test_restarts_and_the_revocation_of_the_culprit_change_nothing(federate: Federate) -> None:
    """Killed in the middle of the search, both go on; after the culprit is revoked, the run goes on without it."""
    federation = federate(terms=TERMS)
    coordinator, nhs, alts = begin(federation, "csfssl", "--pace-s", "0.05")
    federation.until("alts is left out", lambda d: d["ledger"] and names(d["ledger"][0]["missing"]) == ["alts"])
    coordinator.signal(signal.SIGKILL)
    nhs.kill()
    coordinator.ended()
    coordinator, nhs = federation.coordinate("--mode", "csfssl"), federation.light("nhs", "--pace-s", "0.05")
    federation.until("round 2", lambda d: d["round"] == 2)
    revoke_alts(federation)
    assert coordinator.ended() == DEGRADED, coordinator.text
    alts.ended()
    assert_alts_is_named(federation, nhs)


# --- a culprit that speaks the protocol itself, beside a site that really trains ----------------------------------


class Culprit:
    """Takes part with the certificate of alts; `spoil` changes what it sends for training."""

    def __init__(self, federation: Federation, spoil: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._home, self._spoil = federation.site("alts"), spoil
        self._link = federation.link("alts", claim=InstanceClaim("a" * 32))
        self.refused: list[RemoteError] = []
        self._thread = threading.Thread(target=self._take_part, daemon=True)
        self._thread.start()

    def ended(self) -> None:
        self._thread.join(90)
        self._link.close()

    def _take_part(self) -> None:
        for said in self._link.attach():
            match said:
                case codec.Welcome(_, run, plan):
                    self._link.report(codec.Ready(run, plan.digest))
                case Task() as task:
                    self._do(task)
                case Finish():
                    return

    def _do(self, task: Task) -> None:
        if task.kind is TaskKind.SCORE:
            self._link.report(ScoreReported("alts", task, 0.1, 1, 10, (), 0.0))
        elif task.kind is TaskKind.ADOPT:
            self._link.report(ModelAdopted("alts", task, 0.0))
        elif task.kind is TaskKind.TRAIN:
            self._train(task)

    def _train(self, task: Task) -> None:
        blobs = BlobStore(self._home.blobs)
        self._link.fetch(task.base, blobs, lambda _done, _of: None, bytes_max=2**30)
        base = read_tensors(blobs.path(task.base))
        for state in ({**base, "backbone.bn1.running_var": negative(base)}, self._spoil(base)):
            making = blobs.scratch("made")
            blobs.adopt(making, digest := write_tensors(making, state))
            self._link.push(digest, blobs, lambda _done, _of: None)
            try:
                self._link.report(UpdateStored("alts", task, digest, 10, 1, 1.0, 1.0, 0.0))
            except RemoteError as error:
                self.refused.append(error)


def negative(base: dict[str, Any]) -> Any:
    """Return running variances with the one number that poisoned a run for good."""
    found = base["backbone.bn1.running_var"].copy()
    found[0] = -1e6
    return found


def huge(base: dict[str, Any]) -> dict[str, Any]:
    """Return weights of 1e30 beside running statistics of an ordinary size: two layers later nothing is finite."""
    return {
        name: values * np.float32(1e30) if kind(name, "F32") == "float" else values for name, values in base.items()
    }


@pytest.mark.long
def test_a_site_that_really_trains_goes_on_beside_a_culprit(federate: Federate, collections: dict[str, Path]) -> None:
    """A negative variance is refused, and named; weights of 1e30, which are not refused here, spoil one average."""
    federation = federate(terms={**TERMS, "rounds": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs", collections["nhs"] / "manifest.csv")
    federation.enrol("alts")
    nhs, culprit = federation.agent("nhs"), Culprit(federation, huge)
    assert coordinator.ended() == DEGRADED, coordinator.text
    culprit.ended()
    assert "this site cannot use the model that it was given: the loss is nan on the validation images" in nhs.text
    assert_alts_is_named(federation, nhs)
    assert [error.what for error in culprit.refused] == [
        'the coordinator refused: "backbone.bn1.running_var holds a negative number, -1e+06"'
    ]


def test_the_default_bound_refuses_an_update_that_lies_too_far(federate: Federate) -> None:
    federation = federate(terms={**TERMS, "rounds": 1, "step_max": 1000.0})
    coordinator, nhs, alts = begin(federation, "csfssl")
    assert alts.ended() == RemoteError.exit_code, alts.text
    assert "lies too far from the model that it was trained from" in alts.text
    revoke_alts(federation)
    assert coordinator.ended() == DEGRADED, coordinator.text
    assert nhs.ended() == DEGRADED
    [line] = federation.record()["ledger"]
    assert (names(line["contributions"]), names(line["missing"])) == (["nhs"], ["alts"])
