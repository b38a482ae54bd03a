"""A burst at once, then so much a second."""

from __future__ import annotations

import pytest

from fedcervix.runtime.budgets import Budget


def test_a_burst_is_let_through_and_no_more() -> None:
    budget = Budget(per_s=0.0, burst=3)
    assert [budget.take(0.0) for _ in range(5)] == [True, True, True, False, False]


def test_it_fills_up_with_time_and_never_above_its_burst() -> None:
    budget = Budget(per_s=2.0, burst=4)
    assert budget.take(10.0, 4)
    assert not budget.take(10.0)
    assert budget.take(11.0, 2)
    assert not budget.take(11.0)
    assert not budget.take(1000.0, 5)
    assert budget.take(1000.0, 4)


def test_what_is_refused_uses_nothing() -> None:
    budget = Budget(per_s=0.0, burst=4)
    assert not budget.take(0.0, 5)
    assert budget.take(0.0, 4)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = Budget(per_s=1.0, burst=1)
    assert budget.take(10.0)
    assert not budget.take(5.0)


@pytest.mark.parametrize(("per_s", "burst"), [(-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_a_budget_that_cannot_be_is_refused(per_s: float, burst: float) -> None:
    with pytest.raises(ValueError, match="a budget is above 0"):
        Budget(per_s, burst)
