"""How much federations have had of a site in a month, and when the policy says that it is enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from fedcervix.errors import StorageError
from site_agent.federation import account
from site_agent.federation.account import GIB, Spent
from site_agent.home import Policy

POLICY = Policy(runs_per_month=2, rounds_per_month=4, epochs_per_month=6, upload_gib_per_month=1)
NOW = datetime(2030, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (Spent(runs=3), "with this task it would be 3 runs in 30 days; [policy] runs_per_month is 2"),
        (Spent(rounds=5), "with this task it would be 5 rounds in 30 days; [policy] rounds_per_month is 4"),
        (Spent(epochs=7), "with this task it would be 7 epochs in 30 days; [policy] epochs_per_month is 6"),
        (
            Spent(bytes=GIB + 2**28),
            "with this task it would be 1.25 GiB sent in 30 days; [policy] upload_gib_per_month is 1",
        ),
    ],
)
def test_an_objection_says_what_it_would_be_and_what_is_allowed(more: Spent, said: str) -> None:
    assert account.objections(POLICY, Spent(), more) == [said]


def test_what_is_just_allowed_is_spent_and_nothing_more(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    for _ in range(2):
        assert account.spend(file, POLICY, Spent(1, 2, 3, GIB // 2), NOW) == []
    before = file.read_bytes()
    assert account.spend(file, POLICY, Spent(rounds=1), NOW) != []
    assert file.read_bytes() == before
    assert account.read(file) == {date(2030, 3, 31): Spent(2, 4, 6, GIB)}


def test_a_limit_that_was_lowered_below_what_was_spent_stops_only_more_of_it() -> None:
    assert account.objections(replace(POLICY, runs_per_month=0), Spent(runs=2), Spent(rounds=1)) == []


def test_after_30_days_it_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    assert account.spend(file, POLICY, Spent(runs=2), NOW) == []
    assert account.spend(file, POLICY, Spent(runs=1), NOW + timedelta(days=29)) != []
    assert account.spend(file, POLICY, Spent(runs=1), NOW + timedelta(days=30)) == []
    assert list(account.read(file)) == [date(2030, 4, 30)]


def test_a_clock_that_goes_back_forgives_nothing(tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    assert account.spend(file, POLICY, Spent(runs=2), NOW) == []
    assert account.spend(file, POLICY, Spent(runs=1), NOW - timedelta(days=300)) != []


@pytest.mark.parametrize("content", [b"", b"\0\0\0"])
def test_a_power_cut_costs_the_count_and_not_the_next_run(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "account.json"
    file.write_bytes(content)
    assert account.spend(file, POLICY, Spent(runs=1), NOW) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"yesterday": {}}', '{"2030-03-31": {"runs": -1}}', "[" * 100_000])
def test_a_damaged_account_is_said_as_such(tmp_path: Path, text: str) -> None:
    file = tmp_path / "account.json"
    file.write_text(text)
    with pytest.raises(StorageError, match="is damaged"):
        account.read(file)
