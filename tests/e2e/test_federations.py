"""Whole federations, undisturbed: both modes, against the same training done in one straight line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.loopback import Federation, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)


def join(federation: Federation, site: str, manifest: Path) -> None:
    """Enrol as people do: `coordinator invite` there, `site-agent join` here."""
    cwd, home = federation.folder, federation.site(site)
    code, text = call("coordinator", "--home", federation.home.folder, "invite", site, cwd=cwd)
    assert code == 0, text
    invitation = cwd / f"{site}.invitation.toml"
    assert invitation.stat().st_mode & 0o777 == 0o600
    code, text = call(
        "site-agent", "--home", home.folder, "join", invitation, "--manifest", manifest, "--threads", "1", cwd=cwd
    )
    assert code == 0, text
    assert home.key_file("site.key").stat().st_mode & 0o777 == 0o600
    assert tomllib.loads(home.config_file.read_text())["link"]["coordinator"] == f"localhost:{federation.port}"


def test_csfssl_of_two_sites_equals_sequential_training_bit_for_bit(
    federate: Federate, collections: dict[str, Path], reference: Callable[..., dict[str, Any]]
) -> None:
    federation = federate()
    coordinator = federation.coordinate("--mode", "csfssl")
    for site, collection in collections.items():
        join(federation, site, collection / "manifest.csv")
    agents = [federation.agent(site) for site in collections]
    federation.finish(coordinator, *agents)

    right = reference(federation.plan("csfssl"))
    record = federation.record()
    assert record["outcome"] == "OK"
    assert [line["model"] for line in record["ledger"]] == [found["digest"] for found in right["rounds"]]
    for line, found in zip(record["ledger"], right["rounds"], strict=True):
        assert {c["site"]: c["digest"] for c in line["contributions"]} == found["updates"]
        assert [c["site"] for c in line["contributions"]] == ["nhs", "alts"]
        assert [c["weight"] for c in line["contributions"]] == [0.5, 0.5]
        assert line["loss"] == pytest.approx(found["loss"], rel=1e-12)
        assert line["missing"] == []
    assert record["ledger"][0]["base"] == right["first"]
    assert record["ledger"][1]["base"] == record["ledger"][0]["model"]

    assert record["model"] == federation.result() == right["digest"]
    assert federation.adopted("nhs") == federation.adopted("alts") == [right["digest"]]
    assert record["adopted"] == ["nhs", "alts"] or record["adopted"] == ["alts", "nhs"]
    assert federation.deserted()
    assert not federation.home.running.exists()

    # The journal alone tells the same, once nobody runs any more.
    code, text = call("coordinator", "--home", federation.home.folder, "status", "--json", cwd=federation.folder)
    assert (code, json.loads(text)["ledger"]) == (0, record["ledger"])


@pytest.mark.parametrize("sites", [("nhs", "alts"), pytest.param(("alts", "nhs"), marks=pytest.mark.long)])
def test_ppfssl_passes_one_model_through_the_roster_in_order(
    federate: Federate,
    collections: dict[str, Path],
    reference: Callable[..., dict[str, Any]],
    sites: tuple[str, str],
) -> None:
    rounds = 2 if sites[0] == "nhs" else 1
    federation = federate(sites=sites, terms={"rounds": rounds})
    coordinator = federation.coordinate("--mode", "ppfssl")
    for site in sites:
        federation.enrol(site, collections[site] / "manifest.csv")
    federation.finish(coordinator, *[federation.agent(site) for site in sites])

    right = reference(federation.plan("ppfssl"))
    record = federation.record()
    assert (record["outcome"], len(record["ledger"])) == ("OK", rounds)
    held = right["first"]
    for line, found in zip(record["ledger"], right["rounds"], strict=True):
        assert [hop["site"] for hop in line["contributions"]] == list(sites)
        assert line["base"] == held
        for hop in line["contributions"]:
            # Bit for bit what this site makes of the weights that the hop before handed on, and of no others.
            assert hop["digest"] == found["updates"][hop["site"]]
            held = hop["digest"]
        assert line["model"] == held
    assert federation.result() == right["digest"]
    for site in sites:
        assert federation.adopted(site) == [right["digest"]]
        [model] = federation.site(site).models.glob("*/record.json")
        assert json.loads(model.read_text())["start"] == f"PPFSSL_{sites[0].upper()}"
    assert federation.deserted()


@pytest.mark.long
def test_one_site_that_keeps_its_optimiser_trains_as_if_alone(
    federate: Federate, collections: dict[str, Path], reference: Callable[..., dict[str, Any]]
) -> None:
    federation = federate(
        sites=("nhs",),
        terms={"rounds": 3, "epochs_per_round": 1, "optimiser_state": "keep"},
        recipe={"epochs_max": 3},
    )
    coordinator = federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs", collections["nhs"] / "manifest.csv")
    federation.finish(coordinator, federation.agent("nhs"))

    ledger = federation.record()["ledger"]
    assert [line["model"] == line["contributions"][0]["digest"] for line in ledger] == [True, True, True]
    assert ledger[-1]["model"] == reference(federation.plan("csfssl"), local=3)["digest"]
