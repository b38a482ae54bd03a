"""Secure sums hold: honest rounds come to the sum of the steps through kills and losses; nobody gets more than it."""

from __future__ import annotations

import pytest

from tests.simulation.sum_coordinator import Coordinator
from tests.simulation.sum_world import Kills, Step, Terms, Vector, added, sites, step_of

HOSPITALS = ("ada", "bob", "cleo", "dora", "emil")


def images(site: str) -> int:
    return 10 + sum(map(ord, site)) % 20


def expected(terms: Terms, listed: tuple[str, ...], round_: int, base: str, attempt: int = 1) -> Vector:
    weights = {site: images(site) if terms.average == "by-images" else 1 for site in terms.sites}
    return added(step_of(Step(site, "run", round_, attempt, base, weights[site])) for site in listed)


def federation(terms: Terms, kills: Kills | None = None) -> Coordinator:
    kills = kills or Kills()
    return Coordinator(sites(terms.sites, kills), "run", terms, images, kills)


@pytest.mark.parametrize("average", ["equal", "by-images"])
def test_an_honest_run_comes_to_the_sum_of_the_steps(average) -> None:
    terms = Terms(HOSPITALS[:3], ("bob",), average=average)
    coordinator = federation(terms)
    coordinator.begin()
    for number in (1, 2, 3):
        base = coordinator.homes["ada"].runs["run"].bases[-1]
        total, listed = coordinator.round()
        assert listed.sites == terms.sites
        assert total == expected(terms, terms.sites, number, base)
        assert len({home.runs["run"].bases[-1] for home in coordinator.homes.values()}) == 1
