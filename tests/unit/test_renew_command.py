"""`coordinator renew`: an invitation for the key that a site has, or why there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator.cli import cli
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from fedcervix.errors import ConfigError, IdentityError
from fedcervix.transport.invitations import Invitation
from tests.unit.coordinator_homes import made

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEY = "0f" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


def joined(home: Home, site: str, ended: datetime) -> Registry:
    """Let a site join with a certificate that ends then."""
    registry = Registry(home.registry)
    registry.invite(site, f"i-{site}", NOW + DAY, NOW)
    registry.redeem(f"i-{site}", KEY, lambda: (b"certificate", f"c-{site}", ended), NOW)
    return registry


def renew(home: Home, site: str) -> Result:
    out = str(home.folder / "again.toml")
    return CliRunner().invoke(cli, ["--home", str(home.folder), "renew", site, "--out", out], standalone_mode=False)


@pytest.mark.parametrize("days_ago", [-60, 1, 29])
def test_it_is_bound_to_the_known_key_and_short_lived(home: Home, days_ago: int) -> None:
    registry = joined(home, "nhs", NOW - days_ago * DAY)
    result = renew(home, "nhs")
    assert result.exception is None, result.output
    assert "only with the key that nhs has" in result.output
    written = Invitation.parse((home.folder / "again.toml").read_bytes())
    assert (written.site, written.renews) == ("nhs", KEY)
    [bound] = [c for c in registry.roll().credentials.values() if (c.role, c.state) == ("enroll", "valid")]
    assert bound.key_fingerprint == KEY
    assert bound.not_after <= datetime.now(UTC) + 3 * DAY


def test_what_cannot_be_renewed_is_said_with_the_invitation_as_the_way_out(home: Home) -> None:
    joined(home, "alts", NOW + DAY).revoke("alts", NOW)
    for site, words in (("nhs", "has no certificate"), ("alts", "has no certificate")):
        error = renew(home, site).exception
        assert isinstance(error, IdentityError)
        assert words in error.what
        assert f"invite {site}" in error.next_step
    joined(home, "nhs", NOW - 31 * DAY)
    error = renew(home, "nhs").exception
    assert isinstance(error, IdentityError)
    assert "30 days" in error.cause
    assert not (home.folder / "again.toml").exists()


def test_a_site_that_left_the_roster_is_not_renewed(home: Home) -> None:
    joined(home, "west", NOW)
    assert isinstance(renew(home, "west").exception, ConfigError)
