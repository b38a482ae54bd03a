"""Federations that save bytes: counted on the line in both directions, and killed where that could change something.

Sites compute instead of training (see light_site.py); their models are 2.8 MB, and the first one is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import read_tensors, write_tensors
from tests.e2e.light_site import NUMBERS
from tests.e2e.line import Line
from tests.e2e.loopback import Federation, Process, Proxy

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(150)

ROUNDS = 3
TERMS = {"rounds": ROUNDS, "epochs_per_round": 1, "patience_rounds": ROUNDS}
FIRST = "first.safetensors"
MODEL_BYTES = 4 * NUMBERS
SHARE = {"bfloat16": 0.50, "int8": 0.2539}
"""of a packed form in its model; 1/64 of int8's are scales"""
SHARE_MAX = {"bfloat16": 0.51, "int8": 0.27}
BESIDE = 1.015
"""what TLS and HTTP/2 add; no more than that, and what is told beside the models, is allowed for"""
TOLD_BYTES = 60_000


@dataclass(frozen=True, slots=True)
class Passed:
    """How many whole and how many packed models a site should have been sent, or have sent."""

    whole: int
    packed: int

    def check(self, found_bytes: int, compression: str) -> None:
        right = MODEL_BYTES * (self.whole + self.packed * SHARE[compression])
        assert right <= found_bytes <= right * BESIDE + TOLD_BYTES, f"{found_bytes:,} bytes for {self}"


DOWN = {
    # Every site fetches the first model, and then each average as the difference to the one before.
    ("csfssl", "int8"): {"nhs": Passed(1, ROUNDS), "alts": Passed(1, ROUNDS)},
    ("csfssl", "bfloat16"): {"nhs": Passed(1, ROUNDS), "alts": Passed(1, ROUNDS)},
    # alts never held the first model, to which nhs's first update is the difference; from then on each holds what the
    # other one began with.
    ("ppfssl", "int8"): {"nhs": Passed(1, ROUNDS), "alts": Passed(1, ROUNDS - 1)},
    ("ppfssl", "bfloat16"): {"nhs": Passed(1, ROUNDS), "alts": Passed(0, ROUNDS)},
}


@pytest.fixture
def proxies() -> Iterator[list[Line]]:
    made: list[Line] = []
    yield made
    for proxy in made:
        proxy.close()


def begin(federate: Federate, mode: str, compression: str) -> tuple[Federation, Process]:
    """Start a coordinator that is given a first model; enrol its sites."""
    federation = federate(terms={**TERMS, "compression": compression}, run={"base": FIRST})
    weights = np.random.default_rng(0).standard_normal(NUMBERS).astype(np.float32)
    # A light site's loss is the size of this number, to which each round adds: so the last model is the best one, which
    # everybody has scored and nobody needs to fetch in the end.
    write_tensors(federation.home.folder / FIRST, {"weight": weights, "steps": np.array(-1000, np.int64)})
    coordinator = federation.coordinate("--mode", mode)
    for site in federation.sites:
        federation.enrol(site)
    return federation, coordinator


def metered(federate: Federate, proxies: list[Line], mode: str, compression: str) -> Federation:
    """Let a federation run undisturbed, and check what passed on its lines."""
    federation, coordinator = begin(federate, mode, compression)
    meters = {site: Line(federation.port) for site in federation.sites}
    proxies.extend(meters.values())
    for site, meter in meters.items():
        federation.settle(site, port=meter.port)
    federation.finish(coordinator, *[federation.light(site) for site in federation.sites])
    for site, meter in meters.items():
        Passed(0, ROUNDS).check(meter.passed["up"], compression)
        DOWN[mode, compression][site].check(meter.passed["down"], compression)
        assert meter.passed["up"] <= SHARE_MAX[compression] * ROUNDS * MODEL_BYTES
    return federation


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        ("csfssl", "bfloat16"),
        pytest.param("ppfssl", "int8", marks=pytest.mark.long),
        pytest.param("csfssl", "int8", marks=pytest.mark.long),
        pytest.param("ppfssl", "bfloat16", marks=pytest.mark.long),
    ],
)
def test_packed_models_take_their_share_of_the_line_and_kills_change_nothing(
    federate: Federate, proxies: list[Line], mode: str, compression: str
) -> None:
    right = metered(federate, proxies, mode, compression)

    federation, coordinator = begin(federate, mode, compression)
    proxies.append(Proxy(federation.port, fault="cut", up_bytes=100_000, faults=1 << 30))
    federation.settle("nhs", port=proxies[-1].port)  # no update gets through on this line
    sites = {site: federation.light(site) for site in federation.sites}
    sites["nhs"].says("done: train in round 1")
    sites["nhs"].kill()
    federation.settle("nhs")
    sites["nhs"] = federation.light("nhs")

    sites["alts"].says("asked to train in round 2")
    coordinator.kill()
    coordinator = federation.coordinate()
    federation.finish(coordinator, *sites.values())

    ours, theirs = federation.record(), right.record()
    assert (ours["outcome"], theirs["outcome"]) == ("OK", "OK")
    assert digests(ours) == digests(theirs)
    for site in federation.sites:
        assert federation.adopted(site) == [right.result()]


def digests(record: dict[str, Any]) -> list[Any]:
    return [(line["model"], [(c["site"], c["digest"]) for c in line["contributions"]]) for line in record["ledger"]]


@pytest.mark.long
def test_a_site_that_lost_its_disk_fetches_the_whole_model_of_the_same_digest(federate: Federate) -> None:
    federation, coordinator = begin(federate, "csfssl", "int8")
    sites = {site: federation.light(site, "--pace-s", "0.2") for site in federation.sites}
    sites["alts"].says("asked to train in round 2")
    sites["alts"].kill()
    for blob in federation.site("alts").blobs.glob("*.safetensors"):
        blob.unlink()
    sites["alts"] = federation.light("alts")
    code = sites["alts"].ended()
    # What its rounding had left over is gone with the models: it says so rather than go on without it.
    assert code == 8, sites["alts"].text
    assert "is missing: the rounding remainder of the last model" in sites["alts"].text
    [note] = federation.site("alts").folder.rglob("carried.json")
    note.unlink()
    sites["alts"] = federation.light("alts")
    federation.finish(coordinator, *sites.values())
    assert federation.record()["outcome"] == "OK"
    assert federation.adopted("alts") == federation.adopted("nhs") == [federation.result()]


def test_the_published_model_holds_numbers_of_bfloat16(federate: Federate) -> None:
    federation, coordinator = begin(federate, "csfssl", "bfloat16")
    federation.finish(coordinator, *[federation.light(site) for site in federation.sites])
    [file] = federation.home.results.glob("*/cervix-model.safetensors")
    weights = read_tensors(file)["weight"]
    assert weights.dtype == np.float32
    assert (weights.view(np.uint32) & 0xFFFF == 0).all()
    assert not list(BlobStore(federation.home.blobs).scratch("x").parent.glob("*.part"))
