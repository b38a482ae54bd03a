"""Secure sums among real processes: the result is that of the whole numbers of all sites, whoever is killed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.loopback import Federation, Process

Federate = Callable[..., Federation]

SITES = ("nhs", "alts", "cleo")
TERMS: dict[str, Any] = {"secure_sum": True, "holders": ["nhs", "alts"], "rounds": 2, "lease_s": 5.0, "grace_s": 1.0}
NUMBERS = 20_000
LIGHT = ("--numbers", str(NUMBERS), "--silence-s", "60")

pytestmark = pytest.mark.timeout(120)


def begun(federate: Federate, **terms: Any) -> tuple[Federation, Process]:
    """Return a federation of three light sites that know each other's keys, and its coordinator."""
    made = federate(sites=SITES, terms={**TERMS, **terms})
    coordinator = made.coordinate("--mode", "csfssl")
    for site in SITES:
        made.enrol(site)
    made.know()
    return made, coordinator


def journaled(made: Federation) -> list[str]:
    """Return the kinds of events of the run, in their order."""
    with contextlib.closing(sqlite3.connect(f"file:{made.home.journal}?mode=ro", uri=True)) as journal:
        return [kind for (kind,) in journal.execute("SELECT json_extract(event, '$.event') FROM events ORDER BY seq")]


def test_three_sites_end_with_the_sum_of_their_whole_numbers(
    federate: Federate, light_right: Callable[..., str]
) -> None:
    made, coordinator = begun(federate)
    agents = [made.light(site, *LIGHT) for site in SITES]
    made.finish(*agents, coordinator)
    assert made.record()["outcome"] == "OK"
    right = light_right("csfssl", numbers=NUMBERS, sites=SITES, **TERMS)
    assert made.result() == right
    assert [made.adopted(site) for site in SITES] == [[right]] * 3
    kinds = journaled(made)
    assert [kinds.count(kind) for kind in ("SiteOpened", "BoxesStored", "ReleaseStored", "CloseSigned")] == [3, 3, 4, 0]
