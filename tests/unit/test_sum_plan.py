"""What goes together with secure sums in one plan, and what is refused when the plan is made."""

from __future__ import annotations

from typing import Any

import pytest

from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.sum_plan import sites_min

SITES = ("ada", "bob", "cleo", "dora", "emil")


def faults(*sites: str, holders: tuple[str, ...] = ("ada",), colluders: int = 0, **terms: Any) -> tuple[str, ...]:
    mode = terms.pop("mode", "csfssl")
    said = Terms(secure_sum=True, holders=holders, colluders=colluders, **terms)
    try:
        Plan(mode=mode, sites=sites or SITES, profile="paper", terms=said, recipe=Recipe())
    except ValueError as error:
        return tuple(str(error).splitlines())
    return ()


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"server_momentum": 0.9},
        {"batch_norm": "pooled-variance"},
        {"batch_norm": "local"},
        {"average": "by-images"},
        {"quorum": 3},
        {"quorum": 5},
        {"holders": ("ada", "bob")},
        {"holders": ("ada", "bob", "cleo"), "colluders": 1},
        {"holders": ("ada", "bob", "cleo"), "colluders": 2, "quorum": 4},
    ],
    ids=str,
)
def test_what_goes_together(terms: dict[str, Any]) -> None:
    assert faults(**terms) == ()


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"mode": "ppfssl"}, "is for csfssl"),
        ({"aggregation": "trimmed-mean"}, "a trimmed mean needs the single updates"),
        ({"clip": 3.0}, "clipping needs the single updates"),
        ({"compression": "int8"}, "a masked number cannot be packed"),
        ({"compression": "bfloat16"}, "a masked number cannot be packed"),
        ({"quorum": 2}, "a quorum of at least 3"),
        ({"quorum": 3, "colluders": 1, "holders": ("ada", "bob")}, "a quorum of at least 4"),
        ({"average": "by-images", "share_max": 0.5}, "share_max of at least 0.8"),
        ({"holders": ()}, "holders must be "),
        ({"holders": ("ada", "bob", "cleo")}, "holders must be "),
        ({"holders": ("ada",), "colluders": 1}, "holders must be "),
        ({"holders": ("gus",)}, "holders must be "),
        ({"holders": ("ada", "ada"), "colluders": 1}, "holders must be "),
        ({"holders": SITES, "colluders": 4}, "colluders may be at most 3 with 5 sites"),
    ],
    ids=str,
)
def test_what_is_refused(terms: dict[str, Any], words: str) -> None:
    [found] = faults(**terms)
    assert words in found


def test_holders_without_secure_sums_are_refused() -> None:
    for terms in (Terms(holders=("ada",)), Terms(colluders=1)):
        with pytest.raises(ValueError, match="they need secure_sum = true"):
            Plan(mode="csfssl", sites=SITES, profile="paper", terms=terms, recipe=Recipe())


def test_with_two_sites_a_sum_hides_nothing() -> None:
    [found] = faults("ada", "bob", quorum=2)
    assert "at least three sites" in found


def test_what_the_holders_must_be_is_said_with_numbers() -> None:
    [found] = faults("ada", "bob", "cleo", holders=("ada", "gus"), colluders=1)
    assert found.endswith("holders must be 2 or 3 of ada, bob, cleo, because colluders is 1; found ada, gus")


def test_with_three_sites_all_must_take_part() -> None:
    assert sites_min(3, 0) == 3
    [found] = faults("ada", "bob", "cleo", quorum=2)
    assert "a quorum of at least 3" in found
    assert faults("ada", "bob", "cleo", quorum=3) == ()


def test_all_faults_are_said_at_once() -> None:
    assert len(faults("ada", "bob", mode="ppfssl", holders=("gus",), compression="int8")) == 4


@pytest.mark.parametrize("sites", range(3, 12))
@pytest.mark.parametrize("colluders", range(4))
def test_two_sums_of_a_round_have_an_honest_site_in_common(sites: int, colluders: int) -> None:
    least = sites_min(sites, colluders)
    assert 2 * least - sites > colluders
    assert least - colluders >= 2
    assert least == 3 or least == colluders + 2 or 2 * (least - 1) - sites <= colluders
