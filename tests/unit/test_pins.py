"""Pins: which key a partner must have, and what a person is told where it has another one."""

import pytest

from fedcervix.errors import IdentityError
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.pins import Pins, effective

OLD, NEW = Fingerprint(bytes(32)), Fingerprint(bytes(range(32)))
PINS = Pins({"north": OLD}, command="site-agent --home /h pin")


def test_the_pinned_key_and_a_name_without_a_pin_are_accepted() -> None:
    PINS.check("north", OLD)
    PINS.check("south", NEW)
    assert PINS.unpinned(["north", "south"]) == ("south",)


def test_another_key_is_refused_with_both_fingerprints_and_the_way_out() -> None:
    with pytest.raises(IdentityError) as caught:
        PINS.check("north", NEW)
    said = caught.value.explain()
    for part in (OLD.groups, *NEW.lines(), "lost its key", "somebody else", "telephone site north"):
        assert part in said
    assert f"site-agent --home /h pin north {NEW.hex};" in said
    assert "mistyped" not in said


def test_a_pin_with_one_wrong_group_is_called_mistyped() -> None:
    with pytest.raises(IdentityError) as caught:
        PINS.check("north", Fingerprint(bytes(31) + b"\1"))
    assert "only group 16 differs" in caught.value.cause


def test_a_name_keeps_its_key_within_a_run_pinned_or_not() -> None:
    Pins().check_unchanged("north", OLD, OLD)
    for pins in (Pins(), PINS):
        with pytest.raises(IdentityError, match="another key than the one earlier in this run"):
            pins.check_unchanged("north", OLD, NEW)


def test_a_pin_of_the_new_key_lets_the_run_go_on() -> None:
    Pins({"north": NEW}).check_unchanged("north", OLD, NEW)


@pytest.mark.parametrize(
    ("setting", "hides", "rule"),
    [
        ("auto", False, "known"),
        ("auto", True, "required"),
        ("known", True, "known"),
        ("required", False, "required"),
    ],
)
def test_plans_that_hide_from_the_coordinator_need_pins_unless_the_site_says_otherwise(
    setting: str, hides: bool, rule: str
) -> None:
    assert effective(setting, hides_from_coordinator=hides) == rule  # type: ignore[arg-type]
