"""An update of which a part lies far away raises an alarm, also where what it trained hardly moved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.alarms.alarm_sources import alarms
from fedcervix.core.measures import Measures
from fedcervix.core.rounds.state import Run
from tests.unit.test_unusual_steps import run_of

HARDLY = Measures(2.24, 0.02, None, None)
"""of an update whose running variances alone were changed: the most modest of its round"""


def run_with(*steps: float) -> Run:
    run = run_of([[HARDLY] * len(steps)])
    moved = tuple(replace(update, step=step) for update, step in zip(run.rounds[0].contributions, steps, strict=True))
    return replace(run, rounds=(replace(run.rounds[0], contributions=moved),))


def found(run: Run) -> list[tuple[str, str]]:
    return [(alarm.site, alarm.what) for alarm in alarms(run, run.rounds[0]) if alarm.what == "step"]


def test_variances_a_million_times_as_large_raise_an_alarm_in_the_first_round_already() -> None:
    """Of three sites one multiplied its running variances by 9e5, which is 947 by their roots."""
    run = run_with(0.5, 0.7, 947.7)
    assert found(run) == [("cyd", "step")]
    [alarm] = (alarm for alarm in alarms(run, run.rounds[0]) if alarm.what == "step")
    assert "948 times the base's size away from the base; at other sites at most 0.7" in alarm.words


@pytest.mark.parametrize(
    "steps",
    [(0.5, 0.7, 12.4), (0.01, 0.02, 0.5), (12.4, 3.0, 4.0), (150.0, 160.0, 900.0), (947.0,)],
    ids=["a high learning rate", "late rounds", "another first one", "all far", "nobody to compare with"],
)
def test_what_honest_sites_do_raises_none(steps: tuple[float, ...]) -> None:
    assert found(run_with(*steps)) == []


def test_of_two_sites_one_is_enough_to_compare_with() -> None:
    assert found(run_with(0.5, 90.0)) == [("bob", "step")]


def test_an_update_that_was_left_out_is_named_as_well() -> None:
    run = run_with(0.5, 0.7, 947.7)
    first = run.rounds[0]
    out = replace(first, contributions=first.contributions[:2], dropped=first.contributions[2:])
    assert found(replace(run, rounds=(out,))) == [("cyd", "step")]
