"""How many lines a site may cause in the coordinator's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcervix.runtime.log_budgets import KEPT_MAX, PAUSE, SITE, LineBudgets


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def asked(
    budgets: LineBudgets, count: int, site: str = "ada", level: str = "warning"
) -> list[Mapping[str, Any] | None]:
    return [budgets({"event": "call refused", "site": site, "level": level}) for _ in range(count)]


def written(answers: list[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    return [more for more in answers if more is not None]


def test_a_flood_costs_so_many_lines_and_one_says_that_others_are_left_out() -> None:
    budgets = LineBudgets(Clock())
    answers = asked(budgets, 100_000)
    lines = written(answers)
    assert len(lines) == SITE[1] + 1
    assert lines[-1] == {"left_out": PAUSE}
    assert not any(lines[:-1])


def test_later_one_line_says_how_many_were_left_out() -> None:
    budgets = LineBudgets(clock := Clock())
    asked(budgets, int(SITE[1]) + 1 + 500)
    clock.now_s += 2 / SITE[0]
    assert asked(budgets, 2) == [{"left_out": 500}, {}]


def test_in_a_minute_of_a_flood_a_site_has_few_lines() -> None:
    budgets = LineBudgets(clock := Clock())
    asked(budgets, 1000)
    found = 0
    for _ in range(600):
        clock.now_s += 0.1
        found += len(written(asked(budgets, 100)))
    assert found <= 60 * SITE[0] * 2 + 1


def test_a_flood_hides_neither_the_site_s_other_lines_nor_those_of_others() -> None:
    budgets = LineBudgets(Clock())
    asked(budgets, 1000)
    for site, level in (("ada", "info"), ("bob", "warning"), ("", "warning")):
        assert asked(budgets, 1, site, level) == [{}]


def test_budgets_are_forgotten_where_there_are_too_many() -> None:
    budgets = LineBudgets(Clock())
    for number in range(KEPT_MAX + 10):
        asked(budgets, 1, f"site{number}")
    assert len(budgets._lines) == KEPT_MAX
