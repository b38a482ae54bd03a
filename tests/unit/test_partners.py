"""Before anything leaves a site, its partners have the keys that its people have compared."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.rounds.instructions import Idle
from fedcervix.doctor.findings import CheckWarning
from fedcervix.errors import IdentityError, PolicyError, StorageError
from fedcervix.transport import codec, identity
from fedcervix.trust.fingerprints import Fingerprint, SiteKeys
from fedcervix.trust.pins import Pins
from site_agent import home as homes
from site_agent.doctor.site_checks import _partners as of_partners
from site_agent.federation.partners import Partners, doubts, known_keys, partners
from site_agent.home import SiteHome
from site_agent.store.run_store import RunStore
from tests.unit.agents import Site, interrupted
from tests.unit.fake_link import OVER, RUN, TRAIN, plan, update
from tests.unit.ledgers import Ledgers

OLD, NEW, OTHER, OWN = (ec.derive_private_key(number, ec.SECP256R1()).public_key() for number in (2, 3, 5, 7))
PLAN = plan()
"""of nhs, which is this site, and alts"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def pin(site: Site, key: ec.EllipticCurvePublicKey, name: str = "alts") -> None:
    homes.pin(site.home, name, Fingerprint.of(key))


def welcome(run: str = RUN, **keys: ec.EllipticCurvePublicKey) -> codec.Welcome:
    return codec.Welcome("cervix", run, plan(), keys=keys)


def shown(site: Site, what: str) -> Mapping[str, Any]:
    return next((found for name, found in site.shown if name == what), {})


# --- decisions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pinned", "keys", "found"),
    [
        ({}, {}, Partners(unpinned=("alts",))),
        ({}, {"alts": OLD}, Partners(unpinned=("alts",))),
        ({"alts": OLD}, {}, Partners(awaited=("alts",))),
        ({"alts": OLD}, {"alts": OLD, "nhs": OWN}, Partners(pinned=("alts",))),
        ({"alts": NEW}, {"alts": OLD}, Partners(awaited=("alts",))),
        ({"cuba": OLD}, {"alts": OLD}, Partners(unpinned=("alts",))),
    ],
)
def test_how_far_a_site_knows_its_partners(
    pinned: dict[str, ec.EllipticCurvePublicKey], keys: SiteKeys, found: Partners
) -> None:
    pins = Pins({name: Fingerprint.of(key) for name, key in pinned.items()})
    assert partners(pins, PLAN, "nhs", keys) == found


def test_a_site_may_appear_once_and_disappear_but_not_change() -> None:
    both = known_keys(Pins(), {"alts": OLD}, {"alts": OLD, "cuba": NEW})
    assert both == {"alts": OLD, "cuba": NEW}
    assert known_keys(Pins(), both, {"alts": OLD}) == both, "it was revoked"
    with pytest.raises(IdentityError, match="site cuba has another key than the one earlier in this run"):
        known_keys(Pins(), both, {"alts": OLD, "cuba": OTHER})


def test_one_key_is_not_two_sites_however_late_that_is_told() -> None:
    with pytest.raises(IdentityError, match="sites alts and cuba have the same key"):
        known_keys(Pins(), {"alts": OLD}, {"cuba": OLD})


def test_a_site_that_has_joined_again_is_no_stranger_to_itself() -> None:
    assert known_keys(Pins(), {"nhs": OWN, "alts": OLD}, {"nhs": NEW}, own="nhs") == {"nhs": NEW, "alts": OLD}
    with pytest.raises(IdentityError, match="site alts has another key"):
        known_keys(Pins(), {"nhs": OWN, "alts": OLD}, {"nhs": NEW, "alts": OTHER}, own="nhs")


def test_a_run_whose_keys_are_not_the_pinned_ones_is_in_doubt() -> None:
    pins = Pins({"alts": Fingerprint.of(OLD)})
    assert not list(doubts(pins, PLAN, "nhs", {"alts": OLD}))
    assert list(doubts(pins, PLAN, "nhs", {})) == ["site alts is pinned here, and its key is not known yet"]
    [why] = doubts(pins, PLAN, "nhs", {"alts": NEW})
    assert why.startswith("site alts has another key than the one pinned")


# --- the agent ----------------------------------------------------------------------------------------------------


def test_a_partner_with_another_key_ends_the_agent_and_the_coordinator_hears_nothing(site: Site) -> None:
    pin(site, OLD)
    site.alone()
    site.says(welcome(alts=NEW), TRAIN)
    error = site.end()
    assert isinstance(error, IdentityError)
    assert site.home.command(f"pin alts {Fingerprint.of(NEW).hex};") in error.next_step
    assert (site.link.told, site.worker.begun) == ([], [])
    assert not site.home.run_folder(RUN).exists()


def test_a_partner_with_the_pinned_key_is_named_and_work_begins(site: Site) -> None:
    pin(site, OLD)
    site.alone()
    site.says(welcome(alts=OLD, nhs=OWN), TRAIN)
    assert shown(site, "acquainted")["partners"] == Partners(pinned=("alts",))
    assert site.worker.begun == [TRAIN]
    assert site.run_store().keys() == {"alts": OLD, "nhs": OWN}


def test_a_partner_without_a_pin_is_named_at_every_start(site: Site) -> None:
    for _ in range(2):
        site.alone()
        site.says(welcome(alts=OLD), Idle("waiting"))
        said = str(shown(site, "acquainted")["partners"])
        assert "unpinned=('alts',)" in said
        site.stop()
        site.begin()


def test_a_site_waits_for_the_key_of_a_pinned_partner_whatever_it_is_asked(site: Site) -> None:
    pin(site, OLD)
    site.alone()
    site.says(welcome(nhs=OWN), TRAIN, welcome(nhs=OWN))
    assert [what for what, _ in site.shown].count("awaits keys") == 1
    assert (site.link.told, site.worker.begun) == ([], [])
    site.says(welcome(nhs=OWN, alts=OLD))
    assert site.worker.begun == [TRAIN]
    assert codec.Ready(RUN, PLAN.digest) in site.link.told
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER


def test_a_key_that_changes_within_a_run_ends_the_agent_at_once(site: Site) -> None:
    site.alone()
    site.says(welcome(alts=OLD), Idle("waiting"))
    told = list(site.link.told)
    site.says(welcome(alts=NEW), TRAIN)
    assert isinstance(site.end(), IdentityError)
    assert site.link.told == told
    assert site.run_store().keys() == {"alts": OLD}

    site.begin()
    site.alone()
    site.says(welcome(alts=NEW), TRAIN)
    assert isinstance(site.end(), IdentityError), "it is remembered on the disk"

    pin(site, NEW)
    site.begin()
    site.alone()
    site.says(welcome(alts=NEW), TRAIN)
    assert site.worker.begun == [TRAIN], "a person has compared the new key"
    assert site.run_store().keys() == {"alts": NEW}


def test_a_pin_that_is_made_during_a_run_holds_before_the_coordinator_is_back(site: Site) -> None:
    interrupted(site)
    pin(site, OLD)
    site.alone()
    assert site.worker.begun == []
    assert "its key is not known yet" in shown(site, "message")["text"]
    site.says(welcome(alts=OLD), TRAIN)
    assert site.worker.begun == [TRAIN]


def test_where_pins_are_required_an_unpinned_partner_is_a_reason_to_refuse(site: Site) -> None:
    site.home.config_file.write_text('[policy]\npins = "required"\n')
    site.alone()
    site.says(welcome(alts=OLD), TRAIN)
    assert isinstance(site.end(), PolicyError)
    [refusal] = site.link.reports
    assert "site alts is not pinned (site-agent pin alts FINGERPRINT)" in refusal.reason
    assert str(site.home.folder) not in refusal.reason


def test_damaged_keys_of_a_run_are_named(site: Site) -> None:
    site.alone()
    site.says(welcome(alts=OLD), Idle("waiting"))
    file = site.home.run_folder(RUN) / "keys.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"keys\.json"):
        site.run_store().keys()
    shutil.rmtree(file.parent)
    assert RunStore(site.home.run_folder(RUN)).keys() == {}


# --- site.toml ----------------------------------------------------------------------------------------------------


def test_a_pin_is_a_line_of_site_toml_and_everything_else_stays(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    homes.create(home)
    before = home.config_file.read_text()
    homes.pin(home, "alts", Fingerprint.of(OLD))
    homes.pin(home, "cuba", Fingerprint.of(OTHER))
    homes.pin(home, "alts", Fingerprint.of(NEW))
    assert home.pins().keys == {"alts": Fingerprint.of(NEW), "cuba": Fingerprint.of(OTHER)}
    homes.unpin(home, "alts")
    homes.unpin(home, "cuba")
    assert home.config_file.read_text() == before


def test_a_check_does_not_call_partners_right_whom_nobody_has_compared(tmp_path: Path) -> None:
    run = Ledgers(tmp_path)
    keys = {site: identity.public_key(key) for site, key in run.keys.items()}
    home, heard = run.site("nhs"), run.welcome(keys=keys)
    found = of_partners(home, heard)
    assert isinstance(found, CheckWarning)
    assert "not pinned: alts" in found.text
    homes.pin(home, "alts", Fingerprint.of(keys["alts"]))
    assert of_partners(home, heard) == "pinned: alts; the keys are those that were compared"
