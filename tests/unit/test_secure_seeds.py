"""In runs with secure sums each run and attempt draws its own numbers; in all others nothing has changed."""

from __future__ import annotations

from dataclasses import replace

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.seeds import derive
from site_agent.worker.tasks import first_seed, run_seed
from tests.unit.sites import plan_of
from tests.unit.sum_sites import RUN, plan

TRAIN = Task(RUN, TaskKind.TRAIN, 1, "5" * 64)
OTHER_RUN = replace(TRAIN, run="20260202-000000-csfssl-0123abcd")


def test_no_two_runs_and_no_two_attempts_train_with_the_same_numbers() -> None:
    """TRUST 5: "two runs that differ by one site would give that site's update as the difference of two sums"."""
    tasks = (TRAIN, OTHER_RUN, replace(TRAIN, attempt=2))
    assert len({run_seed(plan(), task) for task in tasks}) == 3
    assert run_seed(plan(), replace(TRAIN, round=2)) == run_seed(plan(), TRAIN), "epochs are counted over the run"


def test_a_plain_run_draws_what_it_always_drew() -> None:
    assert run_seed(plan_of(7), TRAIN) == run_seed(plan_of(7), OTHER_RUN) == 7
    assert first_seed(7) == derive(7, "first-model")


def test_each_roster_has_a_first_model_of_its_own() -> None:
    assert len({first_seed(7), first_seed(7, "1" * 64), first_seed(7, "2" * 64)}) == 3
