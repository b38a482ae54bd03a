"""What a federation has of a site is counted once, and before it has it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedcervix.core.events import ModelUnusable, Task, UpdateStored
from fedcervix.errors import PolicyError
from fedcervix.transport import codec
from site_agent.federation import account
from site_agent.federation.accounting import Accounting
from site_agent.federation.inbox import Participation
from site_agent.home import SiteHome, create
from site_agent.store.run_store import RunStore
from tests.unit.fake_link import RUN, TRAIN, FakeLink, digest, plan

FROM_ANOTHER = replace(TRAIN, base=digest(b"the model before"))


class Account:
    """A site that allows one round a month, in a run."""

    def __init__(self, folder: Path, policy: str = "rounds_per_month = 1") -> None:
        self.home, self.link = SiteHome(folder), FakeLink()
        create(self.home)
        self.home.config_file.write_text(f"[policy]\n{policy}\n")
        self.accounting = Accounting(self.home, self.link)
        self.run = Participation(plan(), RunStore(self.home.run_folder(RUN)))
        self.run.run_store.open(self.run.plan)

    def begins(self, task: Task) -> None:
        self.accounting.begin_work(self.run, task)

    def spent(self) -> account.Spent:
        return account.month(account.read(self.home.account), datetime.now(UTC).date())


@pytest.fixture
def site(tmp_path: Path) -> Account:
    return Account(tmp_path)


def test_a_round_that_begins_anew_because_the_model_was_unusable_is_counted_once(site: Account) -> None:
    """In a ring: the neighbour's model was broken, and this site is asked again, from the model before."""
    site.begins(TRAIN)
    site.accounting.begin_answer(site.run, ModelUnusable("nhs", TRAIN, 1, 0.0))
    site.begins(FROM_ANOTHER)
    assert site.spent() == account.Spent(rounds=1, epochs=2)


def test_a_round_that_was_answered_and_begins_anew_is_counted_again(site: Account) -> None:
    site.begins(TRAIN)
    site.accounting.begin_answer(site.run, UpdateStored("nhs", TRAIN, digest(b"made"), 9, 3, 1.0, 1.0, 0.0))
    with pytest.raises(PolicyError, match="rounds_per_month is 1"):
        site.begins(TRAIN)
    assert isinstance(site.link.told[-1], codec.Refusal)


def test_a_round_that_is_taken_from_a_site_before_it_has_answered_is_counted_again(site: Account) -> None:
    """Else a coordinator could have it train from one base after the other."""
    site.begins(TRAIN)
    with pytest.raises(PolicyError, match="rounds_per_month is 1"):
        site.begins(FROM_ANOTHER)


def test_epochs_of_unusable_models_are_counted(tmp_path: Path) -> None:
    site = Account(tmp_path, "epochs_per_month = 1")
    site.begins(TRAIN)
    site.accounting.begin_answer(site.run, ModelUnusable("nhs", TRAIN, 1, 0.0))
    with pytest.raises(PolicyError, match="epochs_per_month is 1"):
        site.begins(FROM_ANOTHER)


def test_epochs_of_work_that_is_taken_away_again_and_again_are_counted(tmp_path: Path) -> None:
    """A coordinator let a site train for ever: each time it took the task away before the first checkpoint."""
    site = Account(tmp_path, "epochs_per_month = 3")
    for _ in range(3):
        site.begins(TRAIN)
        site.accounting.withdraw(site.run, TRAIN)
    assert site.spent() == account.Spent(rounds=1, epochs=3)
    with pytest.raises(PolicyError, match="epochs_per_month is 3"):
        site.begins(TRAIN)
