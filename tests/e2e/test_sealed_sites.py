"""Three sites in a ring whose models the coordinator cannot read: real agents, a real coordinator, real lines."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.loopback import Federation, Process

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

SITES = ("alts", "nhs", "cuba")
TERMS = {"rounds": 2, "epochs_per_round": 1, "patience_rounds": 2, "lease_s": 30.0}
NUMBERS = ("--numbers", "60000")
CHUNK_BYTES = 64 << 10


def begun(federate: Federate, *, sealed: bool = True, **terms: Any) -> Federation:
    """Return a federation whose coordinator listens and whose sites have pinned each other."""
    made = federate(sites=SITES, terms={**TERMS, "sealed": sealed, **terms})
    made.coordinate("--mode", "ppfssl")
    for site in SITES:
        made.enrol(site)
    made.know()
    return made


def lights(made: Federation, folder: Path, *options: str, only: tuple[str, ...] = SITES) -> dict[str, Process]:
    """Start the agents of sites; each keeps copies of what it trains in a folder of its own."""
    for site in only:
        (folder / site).mkdir(exist_ok=True)
    return {site: made.light(site, *NUMBERS, "--keep", str(folder / site), *options) for site in only}


def trained(folder: Path) -> list[bytes]:
    """Return the models that the sites have trained."""
    return [file.read_bytes() for site in SITES for file in sorted((folder / site).glob("train-*"))]


def pieces(models: list[bytes]) -> list[bytes]:
    """Return some bytes of each chunk of models: that they occur anywhere else by chance is out of the question."""
    return [model[at : at + 64] for model in models for at in range(1024, len(model) - 64, CHUNK_BYTES)]


def everything(folder: Path) -> bytes:
    """Return what lies in a folder."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def memory_of(process: Process) -> bytes:
    """Return all that a process of ours has in its memory and can write to."""
    found = []
    with Path(f"/proc/{process.pid}/maps").open() as maps, Path(f"/proc/{process.pid}/mem").open("rb", 0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                first, last = (int(part, 16) for part in place.split("-"))
                try:
                    memory.seek(first)
                    found.append(memory.read(last - first))
                except (OSError, ValueError, OverflowError):  # it is gone, or cannot be read
                    continue
    return b"".join(found)


def test_the_coordinator_has_no_chunk_of_a_model_on_its_disk_or_in_its_memory(
    federate: Federate, tmp_path: Path
) -> None:
    made = begun(federate)
    coordinator = made.processes[0]
    lights(made, tmp_path, "--pace-s", "0.1")
    made.until("a model of the second round has come", lambda _: made.events("UpdateStored") >= 1 + 3 + 2)
    models = trained(tmp_path)
    coordinator.signal(signal.SIGSTOP)  # it stands still while it is looked at
    sealed = [file.read_bytes() for file in (made.home.folder / "blobs").glob("*.safetensors")]
    memory, disk = memory_of(coordinator), everything(made.home.folder)
    coordinator.signal(signal.SIGCONT)
    assert len(pieces(models)) >= 5 * 3
    assert not [piece for piece in pieces(models) if piece in memory or piece in disk]
    assert all(data.startswith(b"fcseal1") for data in sealed)
    assert sealed
    assert all(data[-1000:] in disk for data in sealed), "the search finds what is there"
    made.finish(*made.processes)
    [adopted] = {digest for site in SITES for digest in made.adopted(site)}
    assert adopted == made.result()
    assert not list(made.home.results.glob("*/cervix-model.safetensors"))
    assert not [piece for piece in pieces(trained(tmp_path)) if piece in everything(made.home.folder)]
    for site in SITES:
        assert not list((made.site(site).folder / "secrets").glob("*.json")), "the secrets go when the run ends"


@pytest.mark.long
def test_a_ring_under_seal_ends_with_the_model_of_the_plain_ring(federate: Federate, tmp_path: Path) -> None:
    digests = []
    for sealed in (False, True):
        made = begun(federate, sealed=sealed, rounds=1)
        lights(made, tmp_path)
        made.finish(*made.processes)
        digests.append(made.result())
        models = {hashlib.sha256(model).hexdigest() for model in trained(tmp_path)}
        assert digests[-1] in models
        made.end()
    assert digests[0] == digests[1]


@pytest.mark.long
def test_a_holder_that_is_killed_while_its_sender_is_away_does_not_stop_the_ring(
    federate: Federate, tmp_path: Path
) -> None:
    """The third site can read neither hop of the round, so it goes on from its own model of the round before."""
    made = begun(federate, lease_s=3.0, grace_s=1.0)
    agents = lights(made, tmp_path, "--pace-s", "0.3")
    made.until(
        "the second site holds the model of the second round", lambda _: made.events("UpdateStored") >= 1 + 3 + 1
    )
    for site in ("alts", "nhs"):
        made.kill_site(agents[site])
    made.finish(made.processes[0], agents["cuba"], code=20)
    first, second = made.record()["ledger"]
    assert [one["site"] for one in second["contributions"]] == ["cuba"]
    assert {one["site"] for one in second["missing"]} == {"alts", "nhs"}
    assert any("went back" in note for note in second["notes"])
    assert made.last("Rewrapped")["task"]["kind"] == "rewrap"
    assert first["model"] == first["contributions"][-1]["digest"]


@pytest.mark.long
def test_a_model_with_a_number_that_is_none_costs_the_hop_of_the_site_that_sealed_it(
    federate: Federate, tmp_path: Path
) -> None:
    """The coordinator cannot see it. The next site refuses the model in a signed word, and goes on from another one."""
    made = begun(federate, rounds=1)
    agents = lights(made, tmp_path, only=("alts", "cuba")) | {"nhs": made.light("nhs", *NUMBERS, "--spoils", "inf")}
    made.finish(*made.processes, code=20)
    [round_] = made.record()["ledger"]
    assert [one["site"] for one in round_["contributions"]] == ["alts", "cuba"]
    assert [one["site"] for one in round_["missing"]] == ["nhs"]
    assert "this site refuses the model that it was given" in agents["cuba"].text
    assert {*made.adopted("alts"), *made.adopted("cuba")} == {made.result()}
