"""The coordinator's own certificates: renewed while it runs, for the keys of this start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.home.founding import certify_self
from coordinator.home.home import Home
from coordinator.home.own_certificates import OwnCertificates
from fedcervix.errors import ConfigError
from fedcervix.transport import identity
from tests.unit.coordinator_homes import made

DAY = timedelta(days=1)
NAMES = ("server", "operator")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


def ends(home: Home) -> list[datetime]:
    return [identity.identify(home.pem(f"{name}.crt")).not_after for name in NAMES]


def test_they_are_renewed_after_half_of_their_life_and_keep_their_keys(home: Home) -> None:
    now = datetime.now(UTC)
    own, before, keys = OwnCertificates(home), ends(home), [home.pem(f"{name}.key") for name in NAMES]
    assert own.step_s(now) == 3600.0
    assert own.step_s(now + 44 * DAY) == 3600.0
    assert ends(home) == before
    own.step_s(now + 55 * DAY)
    assert all(after - end > 54 * DAY for after, end in zip(ends(home), before, strict=True))
    assert [home.pem(f"{name}.key") for name in NAMES] == keys
    assert all(identity.matches(home.pem(f"{name}.key"), home.pem(f"{name}.crt")) for name in NAMES)
    assert own.warnings(now + 55 * DAY) == []


def test_a_start_makes_new_keys(home: Home) -> None:
    before = home.pem("server.key")
    certify_self(home, datetime.now(UTC))
    assert home.pem("server.key") != before


def test_a_renewal_that_fails_is_named_and_tried_again(home: Home) -> None:
    now, own = datetime.now(UTC), OwnCertificates(home)
    home.key_file("authority.key").rename(home.folder / "elsewhere")
    with pytest.raises(ConfigError, match=r"authority\.key is missing"):
        own.step_s(now + 65 * DAY)
    assert own.again_s == 6 * 3600
    assert [words.split(" ends")[0] for words in own.warnings(now + 65 * DAY)] == [
        "the certificate of the coordinator",
        "the certificate of the operator",
    ]
    (home.folder / "elsewhere").rename(home.key_file("authority.key"))
    own.step_s(now + 65 * DAY)
    assert own.warnings(now + 65 * DAY) == []


def test_near_the_end_of_the_authority_it_does_not_try_without_a_pause(home: Home) -> None:
    authority = identity.identify(home.pem("authority.crt"))
    certify_self(home, authority.not_after - DAY)
    own = OwnCertificates(home)
    before = ends(home)
    assert own.step_s(authority.not_after - timedelta(minutes=1)) > 60
    assert ends(home) == before
    assert "the federation's authority ends" in own.warnings(authority.not_after - DAY)[-1]
