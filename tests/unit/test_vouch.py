"""`site-agent vouch`: after a restore a person says that a first model was in no secure sum."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedcervix.errors import RunError
from site_agent.cli import cli
from site_agent.home import SiteHome
from site_agent.store.sum_journal import SumJournal
from tests.unit.ledgers import Ledgers

MODEL = "5" * 64


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return Ledgers(tmp_path).site("nhs")


def call(home: SiteHome, digest: str = MODEL) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home.folder), "vouch", digest])


def restored(home: SiteHome) -> SiteHome:
    SumJournal(home)
    copy = home.folder.with_name(f"{home.folder.name}-copy")
    shutil.copytree(home.folder, copy)
    return SiteHome(copy)


def test_a_restored_home_takes_a_model_that_a_person_vouches_for(home: SiteHome) -> None:
    copy = restored(home)
    done = call(copy)
    assert done.exit_code == 0, done.output
    assert "no sum was made" in done.output
    assert SumJournal(copy).memory.vouched == {MODEL}


def test_the_next_restore_takes_it_back(home: SiteHome) -> None:
    copy = restored(home)
    call(copy)
    assert SumJournal(restored(copy)).memory.vouched == frozenset()


def test_a_home_that_remembers_everything_needs_nobody(home: SiteHome) -> None:
    error = call(home).exception
    assert isinstance(error, RunError)
    assert "was not restored" in error.what


def test_nobody_vouches_while_the_agent_is_running(home: SiteHome) -> None:
    copy = restored(home)
    with copy.locked():
        error = call(copy).exception
    assert isinstance(error, RunError)
    assert "already running" in error.what


@pytest.mark.parametrize("text", ["", "5", "G" * 64, "5" * 65])
def test_what_is_no_digest_is_refused(home: SiteHome, text: str) -> None:
    assert call(home, text).exit_code == 2
