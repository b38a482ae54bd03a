"""When certificates are renewed and people are warned: pure functions of a certificate and a moment."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from fedcervix.transport import identity, renewal
from fedcervix.transport.identity import Certificate, Identity
from tests.unit.identities import AUTHORITY, NOW, make_party

DAY = timedelta(days=1)
LIFE = timedelta(days=100)


def certificate(name: str = "north", life: timedelta = LIFE) -> Certificate:
    return Certificate(Identity("demo", "site", name), "1", NOW, NOW + life, "0" * 64)


def test_it_is_tried_from_half_of_life_on_and_not_by_all_at_once() -> None:
    due = {name: renewal.due_at(certificate(name)) for name in map("site-{}".format, range(50))}
    assert all(NOW + 50 * DAY <= at <= NOW + 60 * DAY for at in due.values())
    assert len({at.date() for at in due.values()}) > 5
    assert due == {name: renewal.due_at(certificate(name)) for name in due}, "the name alone decides"


@pytest.mark.parametrize(("life", "pause_s"), [(timedelta(days=90), 6 * 3600), (timedelta(seconds=50), 1)])
def test_a_try_that_failed_is_repeated_within_hours(life: timedelta, pause_s: float) -> None:
    assert renewal.again_s(certificate(life=life)) == pause_s


@pytest.mark.parametrize(
    ("until", "is_worth_it"),
    [(NOW + LIFE, False), (NOW + LIFE * 1.3, False), (NOW + LIFE * 1.34, True), (NOW + LIFE / 2, False)],
)
def test_only_what_lives_on_for_a_third_longer_is_signed(until: datetime, is_worth_it: bool) -> None:
    assert renewal.gains(until, NOW + LIFE, LIFE) is is_worth_it


def test_whoever_asks_without_end_gets_three_certificates_in_a_lifetime() -> None:
    has_until, signed = NOW + LIFE, 0
    for hour in range(100 * 24):
        until = NOW + timedelta(hours=hour) + LIFE
        if renewal.gains(until, has_until, LIFE):
            has_until, signed = until, signed + 1
    assert signed <= 3


@pytest.mark.parametrize(
    ("days", "words"),
    [(0, ""), (66, ""), (67, "of site north ends at 2030-04-11 12:00 UTC and was not renewed yet"), (101, "expired")],
)
def test_a_person_is_warned_when_a_third_of_the_life_is_left(days: int, words: str) -> None:
    found = certificate()
    said = renewal.warning(found.identity.title, found.not_before, found.not_after, NOW + days * DAY)
    assert words in said
    assert bool(words) == bool(said)


def test_the_authority_is_named_a_year_before_its_end() -> None:
    authority = identity.identify(AUTHORITY.certificate_pem)
    assert renewal.authority_warning(authority, authority.not_after - 366 * DAY) == ""
    assert "RUNBOOK" in renewal.authority_warning(authority, authority.not_after - 364 * DAY)


def test_a_certificate_is_renewed_for_thirty_days_after_its_end() -> None:
    assert [renewal.is_renewable(NOW, NOW + days * DAY) for days in (-50, 0, 30, 31)] == [True, True, True, False]


@pytest.mark.parametrize(("ahead_s", "words"), [(0, ""), (60, ""), (-60, ""), (61, "61 s ahead of"), (-90, "behind")])
def test_clocks_that_differ_by_more_than_a_minute_are_named(ahead_s: float, words: str) -> None:
    said = renewal.skew("site north", ahead_s)
    assert words in said
    assert bool(words) == bool(said)


def test_a_short_lived_certificate_does_not_begin_minutes_ago() -> None:
    made = identity.identify(make_party(AUTHORITY, Identity("demo", "site", "north"), lifetime=LIFE / 1e6).certificate)
    assert NOW - made.not_before <= timedelta(seconds=2)
