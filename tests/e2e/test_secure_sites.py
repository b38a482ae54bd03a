"""Three sites whose updates the coordinator never sees: real agents, a real coordinator, real lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.loopback import Federation, Process

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

SITES = ("alts", "nhs", "cuba")
TERMS = {"rounds": 3, "epochs_per_round": 1, "patience_rounds": 3, "secure_sum": True, "holders": ["alts"]}
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
    """Start the agents of all sites; each has another number of images."""
    return {site: made.light(site, *SMALL, *options) for site in made.sites}


def everything(folder: Path) -> bytes:
    """Return what lies in a folder."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_three_sites_come_to_one_model_and_the_coordinator_sees_none_of_theirs(
    federate: Federate, tmp_path: Path
) -> None:
    made = begun(federate)
    for site in SITES:
        (tmp_path / site).mkdir()
    made.finish(*(made.light(site, *SMALL, "--keep", str(tmp_path / site)) for site in SITES))
    assert {digest for site in SITES for digest in made.adopted(site)} == {made.result()}
    trained = [file for site in SITES for file in (tmp_path / site).glob("train-*")]
    assert len(trained) == 9
    seen = everything(made.home.folder)
    assert not [file.name for file in trained if file.read_bytes()[-4000:] in seen]
    for site in SITES:
        assert not list(made.site(site).secrets.glob("*.json")), "the secrets go when the run ends"
        assert not list(made.site(site).blobs.rglob(".sum-*")), "nothing unmasked stays"
