"""Certificates renew themselves, with real processes: nobody is locked out, and no digest changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.e2e.loopback import Federation

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

LIFE_DAYS = 6 / 86_400
"""six seconds: renewed after three"""
RENEWALS = 5


def certificates(made: Federation, site: str) -> list[tuple[str, str]]:
    """Return the states of all certificates of a site and the fingerprints of their keys, oldest first."""
    with closing(sqlite3.connect(f"file:{made.home.registry}?mode=ro", uri=True)) as registry:
        rows = registry.execute(
            "SELECT state, key_fingerprint FROM credentials WHERE site = ? AND role = 'site' ORDER BY not_after",
            (site,),
        )
        return rows.fetchall()


def test_certificates_that_end_five_times_within_a_run_change_nothing(
    federate: Federate, light_right: Callable[..., str]
) -> None:
    terms = {"rounds": 3}
    right = light_right("csfssl", **terms)
    made = federate(terms=terms, certificates={"site_days": LIFE_DAYS, "own_days": LIFE_DAYS})
    coordinator = made.coordinate("--mode", "csfssl")
    for site in made.sites:
        made.enrol(site)
    agents = [made.light(site, "--pace-s", "0.55") for site in made.sites]
    made.finish(coordinator, *agents)
    assert made.result() == right
    for agent, site in zip(agents, made.sites, strict=True):
        assert agent.text.count("was renewed") >= RENEWALS, agent.text
        assert "does not accept" not in agent.text
        states, keys = zip(*certificates(made, site), strict=True)
        assert len(set(keys)) == 1
        assert states.count("valid") == 1
        assert len(states) <= 4, "closed certificates of renewals are forgotten when they have expired"
