"""`site-agent doctor`: what a run with secure sums needs of this home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedcervix.doctor.findings import CheckWarning
from fedcervix.errors import PolicyError
from fedcervix.transport.codec import Welcome
from fedcervix.trust.sum_memory import OpeningMade
from site_agent.doctor.site_checks import _secure_sums
from site_agent.home import SiteHome
from site_agent.store.sum_journal import SumJournal
from tests.unit.sites import plan_of
from tests.unit.sum_sites import RUN, plan

WELCOME = Welcome("cervix", RUN, plan())


def restored(tmp_path: Path, *runs: str) -> SiteHome:
    (tmp_path / "home").mkdir()
    journal = SumJournal(SiteHome(tmp_path / "home"))
    for run in runs:
        journal.remember(OpeningMade(run, "1" * 64))
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    return SiteHome(tmp_path / "copy")


def test_it_says_on_whom_the_sums_rest(tmp_path: Path) -> None:
    assert str(_secure_sums(SiteHome(tmp_path), WELCOME)).endswith("as long as one of a, b is honest")
    plain = Welcome("cervix", RUN, plan_of(7))
    assert _secure_sums(SiteHome(tmp_path), plain) == "the plan has none: the coordinator sees the update of each site"


def test_a_home_that_was_restored_in_this_run_is_told_before_the_agent_starts(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="takes no part in it any more"):
        _secure_sums(restored(tmp_path, RUN), WELCOME)


def test_a_home_that_was_restored_before_may_have_to_vouch(tmp_path: Path) -> None:
    found = _secure_sums(restored(tmp_path, "20260202-000000-csfssl-0123abcd"), WELCOME)
    assert isinstance(found, CheckWarning)
    assert "vouch DIGEST" in found.text


def test_the_memory_of_a_home_at_work_is_left_alone(tmp_path: Path) -> None:
    home = restored(tmp_path)
    with home.locked():
        found = _secure_sums(home, WELCOME)
    assert isinstance(found, CheckWarning)
    assert "an agent is running" in found.text
    assert SumJournal(home).memory.restored, "it was not noted before"
