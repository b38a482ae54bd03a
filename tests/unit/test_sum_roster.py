"""The roster of secure sums: openings under pinned keys, weights, and secret bytes of every site for every other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcervix.errors import RemoteError
from fedcervix.trust.boxes import NamedKey, OwnKey
from fedcervix.trust.contexts import RunContext
from fedcervix.trust.sum_roster import (
    Opening,
    SumRoster,
    checked_roster,
    opened_rho,
    outweighs,
    rho_boxes,
    signed_opening,
)
from tests.simulation.sum_world import identity

SITES = ("ada", "bob", "cleo")
RUN = RunContext(federation="cervix", run="r1", plan="a" * 64)
KEYS = {site: OwnKey(site, bytes([place]) * 32) for place, site in enumerate(SITES, 1)}
RHOS = {site: bytes([place]) * 32 for place, site in enumerate(SITES, 11)}
IMAGES = {"ada": 100, "bob": 200, "cleo": 50}
PINS = {site: identity(site).public_key() for site in SITES}


def opening(site: str, run: RunContext = RUN, signer: str = "") -> Opening:
    return signed_opening(identity(signer or site), run, KEYS[site], IMAGES[site], RHOS[site])


OPENINGS = [opening(site) for site in SITES]


def roster(*openings: Opening) -> SumRoster:
    return checked_roster(RUN, SITES, openings or OPENINGS, PINS)


def with_(site: str, changed: Opening) -> list[Opening]:
    return [changed if one.site == site else one for one in OPENINGS]


def test_a_roster_stands_in_the_plans_order_whatever_order_it_arrives_in() -> None:
    assert roster(*reversed(OPENINGS)) == roster()
    assert roster().names == SITES


def test_an_opening_can_be_made_again() -> None:
    assert opening("ada") == OPENINGS[0]


@pytest.mark.parametrize("field", ["images", "rho"])
def test_what_an_opening_says_is_signed(field: str) -> None:
    changed = replace(OPENINGS[1], **{field: {"images": 201, "rho": "f" * 64}[field]})
    with pytest.raises(RemoteError, match="the opening of site bob is not signed by the key that is pinned for it"):
        roster(*with_("bob", changed))


@pytest.mark.parametrize(
    "run", [replace(RUN, run="r2"), replace(RUN, plan="b" * 64), replace(RUN, federation="other")], ids=str
)
def test_an_opening_of_another_run_is_refused(run: RunContext) -> None:
    with pytest.raises(RemoteError, match="site bob is not signed"):
        roster(*with_("bob", opening("bob", run)))


def test_a_site_that_the_coordinator_invented_is_refused() -> None:
    """TRUST 1: "{me, invented, invented} isolates me"."""
    with pytest.raises(RemoteError, match="site bob is not signed"):
        roster(OPENINGS[0], opening("bob", signer="coordinator"), opening("cleo", signer="coordinator"))
    with pytest.raises(RemoteError, match="site cleo is not signed"):
        checked_roster(RUN, SITES, OPENINGS, {site: key for site, key in PINS.items() if site != "cleo"})


@pytest.mark.parametrize("openings", [OPENINGS[:2], [*OPENINGS, OPENINGS[0]], [*OPENINGS[:2], OPENINGS[0]], []])
def test_a_roster_has_every_site_of_the_plan_once(openings: list[Opening]) -> None:
    with pytest.raises(RemoteError, match="the plan names ada, bob, cleo"):
        checked_roster(RUN, SITES, openings, PINS)


def test_two_sites_with_one_key_are_refused_by_their_names() -> None:
    own = OwnKey("cleo", KEYS["ada"].secret)
    copied = signed_opening(identity("cleo"), RUN, own, 50, RHOS["cleo"])
    with pytest.raises(RemoteError, match="sites ada and cleo give the same run key"):
        roster(*with_("cleo", copied))


def test_the_digest_holds_everything_that_weights_and_masks_come_from() -> None:
    others = [
        signed_opening(identity("ada"), RUN, KEYS["ada"], 101, RHOS["ada"]),
        signed_opening(identity("ada"), RUN, KEYS["ada"], 100, bytes(32)),
        signed_opening(identity("ada"), RUN, OwnKey("ada", bytes(32)), 100, RHOS["ada"]),
    ]
    assert len({roster().digest, *(roster(*with_("ada", one)).digest for one in others)}) == 4


def test_weights_follow_from_the_roster_alone() -> None:
    assert roster().weights("by-images") == IMAGES
    assert roster().weights("equal") == {"ada": 1, "bob": 1, "cleo": 1}


@pytest.mark.parametrize(
    ("weights", "colluders", "found"),
    [
        ((1, 1, 1), 0, ""),
        ((8, 1, 1), 0, ""),
        ((9, 1, 1), 0, "ada"),
        ((1, 1, 1), 1, ""),
        ((1, 1), 1, "ada"),
        ((8, 50, 2), 1, "bob"),
        ((9, 8, 2), 1, "ada"),
        ((8, 8, 2), 1, ""),
        ((1, 1, 10**6), 0, "cleo"),
        ((4, 9, 1, 1), 1, "bob"),
        ((4, 8, 1, 1), 1, ""),
        ((5, 5, 5, 1), 2, "ada"),
    ],
)
def test_nobody_outweighs_those_that_do_not_collude(weights: tuple[int, ...], colluders: int, found: str) -> None:
    names = ("ada", "bob", "cleo", "dora")
    assert outweighs(dict(zip(names, weights, strict=False)), colluders) == found


def test_secret_bytes_reach_every_other_site_and_are_checked() -> None:
    boxes = rho_boxes(KEYS["ada"], roster(), RHOS["ada"])
    assert set(boxes) == {"bob", "cleo"}
    assert opened_rho(KEYS["bob"], roster(), "ada", boxes["bob"]) == RHOS["ada"]
    lie = rho_boxes(KEYS["ada"], roster(), bytes(32))
    with pytest.raises(RemoteError, match="not those that it committed to"):
        opened_rho(KEYS["bob"], roster(), "ada", lie["bob"])
    with pytest.raises(RemoteError, match="does not open"):
        opened_rho(KEYS["cleo"], roster(), "ada", boxes["bob"])


@pytest.mark.parametrize(
    "changed", [{"images": 0}, {"images": 2**31 + 1}, {"rho": "ff"}, {"key": NamedKey("bob", KEYS["bob"].public.key)}]
)
def test_what_is_no_opening_cannot_be_built(changed: dict) -> None:
    with pytest.raises(ValueError):
        replace(OPENINGS[0], **changed)
