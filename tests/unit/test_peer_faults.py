"""Faults of secure aggregation in other projects, each as a test that ours does not have it (TRUST section 0)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedcervix.errors import RemoteError
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.fixed_point import (
    OutOfRangeError,
    Share,
    averaged_steps,
    bound,
    check_steps,
    quantised_steps,
    steps_of,
)
from fedcervix.trust.mask_streams import Lane
from fedcervix.trust.sum_lists import SumList, mask_secret
from fedcervix.trust.sum_roster import checked_roster, signed_opening
from tests.simulation.sum_algebra import decodable
from tests.simulation.sum_coordinator import Coordinator, Round, allowed
from tests.simulation.sum_world import Mask, Terms, identity, run_context, sites

HOSPITALS = ("ada", "bob", "cleo", "dora", "emil")
TERMS = Terms(HOSPITALS, ("bob",))


def in_fixed_point(values: np.ndarray, base: np.ndarray, share: Share, within: float) -> np.ndarray:
    """Return what a site sends of the numbers that it trained."""
    return quantised_steps(steps_of(values, base, within), share, within)


def begun(terms: Terms = TERMS) -> Coordinator:
    coordinator = Coordinator(sites(terms.sites), "run", terms, lambda _: 20)
    coordinator.begin()
    return coordinator


def test_a_mask_has_a_key_of_256_bits() -> None:
    """Flower folds a 256-bit secret into a seed of 32 bits; OpenFL draws one float: both can be searched through.

    Here no part of the secret is left out: one bit changed anywhere gives another key.
    """
    secrets = [bytes(32), *(bytes(place) + b"\x80" + bytes(31 - place) for place in range(32))]
    coordinator = begun()
    home = coordinator.homes["bob"]
    roster, context = home.runs["run"].roster, home.view("run").context
    assert roster
    made = mask_secret(home.runs["run"].own, roster, context, "ada", "bob", "0" * 64)
    assert len(made.secret) == 32
    keys = {replace(made, secret=secret).key(Lane.NUMBERS) for secret in secrets}
    assert len(keys) == len(secrets)
    assert {len(key) for key in keys} == {32}


def test_no_two_sites_and_no_two_rounds_share_a_key() -> None:
    """APPFL uses one secret for the whole group; NVFlare's homomorphic mode gives all sites one symmetric key."""
    coordinator, found = begun(replace(TERMS, holders=("bob", "cleo"), colluders=1)), set()
    for _ in range(3):
        rows = [row for site in HOSPITALS for row in [allowed(_report(coordinator, site))[1].row]]
        found |= {unknown.secret for row in rows for unknown in row if isinstance(unknown, Mask)}
        coordinator.round()
    assert len(found) == 3 * len(HOSPITALS) * 2


def _report(coordinator: Coordinator, site: str):
    return coordinator.homes[site].report(coordinator.proposal(Round()))


def test_a_key_that_the_coordinator_exchanged_is_refused() -> None:
    """Flower's server relays unsigned public keys, so it can put its own in their place (flower#7522)."""
    coordinator = begun()
    pins, context = coordinator.homes["ada"].pins, run_context("run", TERMS)
    openings = [
        signed_opening(identity(site), context, OwnKey(site, site.encode().ljust(32)), 20, bytes(32))
        for site in HOSPITALS
    ]
    exchanged = replace(openings[1], key=OwnKey("bob", b"of the coordinator".ljust(32)).public)
    with pytest.raises(RemoteError, match="the opening of site bob is not signed by the key that is pinned for it"):
        checked_roster(context, HOSPITALS, [openings[0], exchanged, *openings[2:]], pins)


def test_the_coordinator_cannot_make_a_mask_from_all_that_it_saw() -> None:
    """OpenFL's aggregator can rebuild every key. Ours is told public keys, boxes, masked vectors, and sums of masks."""
    coordinator, disk = begun(), Round()
    coordinator.round(disk)
    seen = [vector.row for _, vector in (*disk.reports.values(), *disk.releases.values())]
    [only] = decodable(seen, lambda unknown: isinstance(unknown, Mask))
    assert {step.site: n for step, n in only.items()} == dict.fromkeys(HOSPITALS, 1)  # type: ignore[attr-defined]


def test_a_site_is_in_the_list_or_not_in_it() -> None:
    """Flower never checks that "active" and "dead" sets are disjoint, so both masks of a site are revealed (#7633).

    Here nothing is revealed for a site that is away: there is one set, and a holder answers for one.
    """
    coordinator, disk = begun(), Round()
    proposal = coordinator.proposal(disk)
    coordinator._gather(disk, proposal)
    lines = tuple(disk.reports[site][0] for site in HOSPITALS)
    with pytest.raises(ValueError, match="one for each site"):
        SumList(proposal.context.digest, (*lines, lines[-1]))
    holder = coordinator.homes["bob"]
    release, masks = allowed(holder.release(proposal, SumList(proposal.context.digest, lines)))
    assert release.listed
    assert len(masks.row) == len(HOSPITALS)
    refused = holder.release(proposal, SumList(proposal.context.digest, lines[:-1]))
    assert refused.rule == "H1"  # type: ignore[union-attr]


def test_a_site_that_drops_out_stops_no_round() -> None:
    """Fed-BioMed's masking tolerates no dropout: here before the upload, and after it."""
    coordinator = begun()
    coordinator.away = {"emil"}
    assert coordinator.round()[1].sites == HOSPITALS[:4]
    coordinator.away, disk = set(), Round()
    coordinator.catch_up()
    coordinator._gather(disk, coordinator.proposal(disk))
    coordinator.away = {"ada", "dora"}
    assert coordinator.round(disk)[1].sites == HOSPITALS


@pytest.mark.parametrize("step", [8.5, -9.0, 1e6])
def test_a_large_step_is_refused_and_never_clipped(step: float) -> None:
    """Flower clips at +-8 without a word."""
    base = np.zeros(4, np.float32)
    within = bound(0.0, 2)
    with pytest.raises(OutOfRangeError):
        in_fixed_point(base + np.float32(step), base, Share(1, 3), within)


@pytest.mark.parametrize("count", [3, 10, 64, 256])
def test_no_number_of_sites_overflows_a_sum(count: int) -> None:
    """Fed-BioMed has 2^13 levels over +-3 and overflowed with ten nodes (fedbiomed#1210).

    Here weights are applied before the sum, so it stays within 2^30 and one half for each site.
    """
    base = np.zeros(3, np.float32)
    within = bound(0.0, 2)
    trained = np.array([within, -within, within / 3], np.float32)
    total = sum(in_fixed_point(trained, base, Share(1, count), within).astype(np.int64) for _ in range(count))
    check_steps(np.asarray(total, np.int32), count)
    average = averaged_steps(np.asarray(total, np.int32), base, within, Share(count, count))
    assert np.abs(average - trained).max() <= within * count * 2.0**-30
