"""Secure sums hold: honest rounds come to the sum of the steps through kills and losses; nobody gets more than it.

A failure prints its seed. More histories: `python -m tests.simulation.soak --world sums`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.simulation.sum_adversary import Scene
from tests.simulation.sum_algebra import Row, decodable
from tests.simulation.sum_coordinator import Coordinator, Round, StalledError, StoppedError
from tests.simulation.sum_histories import BREAKS, honest_history, sum_history
from tests.simulation.sum_world import Kills, Step, Switches, Terms, Vector, added, sites, step_of
from tests.simulation.world import ViolationError

HOSPITALS = ("ada", "bob", "cleo", "dora", "emil", "fay", "gus", "hal")
SMALL = Terms(HOSPITALS[:3], ("bob",))
WIDE = Terms(HOSPITALS[:5], ("ada", "bob", "cleo"), colluders=1)
"""c + 2 holders: one of them may be lost"""
HISTORIES, SHARES = 120, 4
CAUGHT_WITHIN = 100


def images(site: str) -> int:
    return 10 + sum(map(ord, site)) % 20


def expected(terms: Terms, listed: tuple[str, ...], round_: int, base: str, attempt: int = 1) -> Vector:
    weights = {site: images(site) if terms.average == "by-images" else 1 for site in terms.sites}
    return added(step_of(Step(site, "run", round_, attempt, base, weights[site])) for site in listed)


def begun(terms: Terms, kills: Kills | None = None) -> Coordinator:
    kills = kills or Kills()
    coordinator = Coordinator(sites(terms.sites, kills), "run", terms, images, kills)
    coordinator.begin()
    return coordinator


def base_of(coordinator: Coordinator) -> str:
    return coordinator.homes["ada"].runs["run"].bases[-1]


# --- honest rounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["equal", "by-images"])
@pytest.mark.parametrize(("count", "holders"), [(3, ("bob",)), (8, ("ada", "gus")), (8, HOSPITALS[:3])])
def test_an_honest_run_comes_to_the_sum_of_the_steps(average, count: int, holders: tuple[str, ...]) -> None:
    terms = Terms(HOSPITALS[:count], holders, colluders=len(holders) - 1, average=average)
    coordinator = begun(terms)
    for number in (1, 2, 3):
        base = base_of(coordinator)
        total, listed = coordinator.round()
        assert listed.sites == terms.sites
        assert total == expected(terms, terms.sites, number, base)
        assert len({home.runs["run"].bases[-1] for home in coordinator.homes.values()}) == 1


def test_a_kill_at_every_write_leaves_the_same_sums() -> None:
    undisturbed = begun(SMALL)
    for _ in range(2):
        undisturbed.round()
    writes = undisturbed.kills.writes
    # Openings, rosters; in two rounds: reports, a release, and the sum at those that know it from no release.
    assert writes == 3 * 2 + 2 * (3 + 1 + 2)
    for number in range(writes):
        for after in (False, True):
            kills = Kills({(number, after)})
            coordinator = begun(SMALL, kills)
            for _ in range(2):
                coordinator.round()
            assert kills.done == 1
            assert base_of(coordinator) == base_of(undisturbed)


def test_a_coordinator_that_stops_after_every_answer_comes_to_the_same_sum() -> None:
    undisturbed = begun(WIDE)
    first = undisturbed.asked
    total, _ = undisturbed.round()
    for number in range(first, undisturbed.asked - len(WIDE.sites)):  # afterwards the round is over
        coordinator, disk = begun(WIDE), Round()
        coordinator.stops_at = {number}
        with pytest.raises(StoppedError):
            coordinator.round(disk)
        assert coordinator.round(disk)[0] == total


def test_a_site_that_is_lost_after_its_upload_costs_nobody_anything() -> None:
    coordinator, disk = begun(replace(WIDE, holders=("ada", "bob"))), Round()
    base, proposal = base_of(coordinator), coordinator.proposal(disk)
    coordinator._gather(disk, proposal)
    coordinator.away = {"emil"}
    total, listed = coordinator.round(disk)
    assert "emil" in listed.sites
    assert total == expected(WIDE, WIDE.sites, 1, base)


def test_a_site_that_comes_too_late_is_in_no_sum() -> None:
    coordinator = begun(replace(WIDE, holders=("ada", "bob")))
    base, coordinator.away = base_of(coordinator), {"emil"}
    total, listed = coordinator.round()
    assert listed.sites == HOSPITALS[:4]
    assert total == expected(WIDE, HOSPITALS[:4], 1, base)


def test_a_round_waits_for_a_holder_and_goes_on_when_it_returns() -> None:
    coordinator, disk = begun(SMALL), Round()
    coordinator._gather(disk, coordinator.proposal(disk))
    coordinator.away = {"bob"}
    with pytest.raises(StalledError):
        coordinator.round(disk)
    coordinator.away = set()
    assert coordinator.round(disk)[1].sites == SMALL.sites


def test_a_holder_that_is_lost_for_good_is_left_out_of_another_attempt() -> None:
    """Another attempt has other masks, and the sites train with other seeds: its steps are not those of the first."""
    coordinator, disk = begun(WIDE), Round()
    base = base_of(coordinator)
    coordinator._gather(disk, coordinator.proposal(disk))
    coordinator.lost = {"cleo"}
    coordinator.away = {"cleo"}
    total, listed = coordinator.round(disk)
    assert listed.sites == ("ada", "bob", "dora", "emil")
    assert total == expected(WIDE, listed.sites, 1, base, attempt=2)
    assert total != expected(WIDE, listed.sites, 1, base)


def test_a_roster_is_not_shrunk_by_a_site_that_is_gone() -> None:
    """With three sites, two are not enough: what is left of the sum would be the other one's step."""
    coordinator = begun(SMALL)
    coordinator.away = {"cleo"}
    with pytest.raises(AssertionError, match="at least 3"):
        coordinator.round()


def test_rounds_through_kills_absences_and_lost_holders_come_to_the_sum_of_the_steps() -> None:
    assert sum(honest_history(seed) for seed in range(40)) > 20


# --- a malicious coordinator ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", range(SHARES))
def test_a_malicious_coordinator_gets_one_sum_and_no_site(share: int) -> None:
    for seed in range(share * HISTORIES // SHARES, (share + 1) * HISTORIES // SHARES):
        sum_history(seed)


@pytest.mark.parametrize("name", BREAKS)
def test_a_planted_mistake_is_found(name: str) -> None:
    switches, attack = BREAKS[name]
    assert any(is_caught(seed, switches, attack) for seed in range(CAUGHT_WITHIN))


def is_caught(seed: int, switches: Switches, attack: Callable[[Scene], None]) -> bool:
    try:
        sum_history(seed, switches, [attack])
    except ViolationError:
        return True
    return False


def test_every_rule_has_a_planted_mistake() -> None:
    assert {name[:2] for name in BREAKS} >= {f"H{number}" for number in range(1, 8)}


@pytest.mark.parametrize(
    ("rows", "known"),
    [
        ([{"q1": 1, "m1": 1}, {"q2": 1, "m2": 1}, {"m1": 1, "m2": 1}], [{"q1": 1, "q2": 1}]),
        ([{"q1": 1, "m1": 1}, {"q2": 1, "m2": 1}, {"m1": 1}], [{"q1": 1}]),
        ([{"q1": 1, "m1": 1}, {"q2": 1, "m1": 1}], [{"q2": 1, "q1": -1}]),
        ([{"q1": 1, "m1": 1}, {"q2": 1, "m2": 1}], []),
        ([{"q1": 1, "m1": 2}], [{"q1": -(2**31)}]),
        ([{"q1": 3, "m1": 3}, {"q2": 1, "m1": 1}, {"m1": 5}], [{"q1": 1}, {"q2": 1}]),
    ],
    ids=["a sum", "a site", "a mask used twice", "nothing", "the lowest bit under an even mask", "odd factors"],
)
def test_the_algebra_finds_what_follows(rows: list[Row], known: list[Row]) -> None:
    assert decodable(rows, lambda unknown: str(unknown).startswith("m")) == known
