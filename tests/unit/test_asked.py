"""What a coordinator may ask again, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from site_agent.federation.asked import FILE, Asked, again_max, begun, is_replacement, key, objection

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())


def task(kind: TaskKind = TaskKind.TRAIN, round_: int = 1, base: str = "a") -> Task:
    return Task("run", kind, round_, "" if kind is TaskKind.SEED else base * 64)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def does(asked: Asked, *tasks: Task) -> None:
    for one in tasks:
        assert objection(asked.turns(), one, PLAN) == ""
        asked.note("begun", one)
        asked.note("answered", one)


def test_another_base_for_a_round_that_was_answered_is_refused(asked: Asked) -> None:
    does(asked, task())
    assert "answered 'train in round 1' from model aaaaaaaaaaaa" in objection(asked.turns(), task(base="b"), PLAN)
    assert objection(asked.turns(), task(round_=2, base="b"), PLAN) == ""


def test_before_the_answer_the_base_may_change(asked: Asked) -> None:
    """In a ring, the neighbour before this site may be revoked while this site trains."""
    asked.note("begun", task())
    does(asked, task(base="b"))
    assert objection(asked.turns(), task(), PLAN) != ""


def test_work_that_goes_on_is_not_begun_anew(asked: Asked) -> None:
    for _ in range(100):
        assert objection(asked.turns(), task(), PLAN) == ""
        asked.note("begun", task())
    assert asked.turns()[key(task())].tries == 1


def test_repeated_training_is_bounded_over_the_whole_run(asked: Asked) -> None:
    for round_ in range(1, again_max(PLAN) + 1):
        does(asked, task(round_=round_), task(round_=round_))
    assert "once more" in objection(asked.turns(), task(round_=1), PLAN)
    assert objection(asked.turns(), task(round_=99), PLAN) == ""


def test_bases_that_change_without_an_answer_are_bounded(asked: Asked) -> None:
    for number in range(1 + again_max(PLAN)):
        assert objection(asked.turns(), task(base="ab"[number % 2]), PLAN) == ""
        asked.note("begun", task(base="ab"[number % 2]))
    assert objection(asked.turns(), task(base="f"), PLAN) != ""


def test_models_from_which_a_site_cannot_train_are_not_held_against_it(asked: Asked) -> None:
    """Else a site of a ring ends after some rounds because of the neighbour before it."""
    for round_ in range(1, 5 * again_max(PLAN)):
        assert objection(asked.turns(), task(round_=round_, base="b"), PLAN) == ""
        asked.note("begun", task(round_=round_, base="b"))
        asked.note("unusable", task(round_=round_, base="b"))
        asked.note("unusable", task(round_=round_, base="b"))
        does(asked, task(round_=round_))
        assert asked.turns()[key(task(round_=round_))].unusable == 1


def test_a_round_cannot_be_begun_for_ever_with_models_that_are_of_no_use(asked: Asked) -> None:
    for number in range(len(PLAN.sites) + again_max(PLAN) + 1):
        assert objection(asked.turns(), task(base="ab"[number % 2]), PLAN) == ""
        asked.note("begun", task(base="ab"[number % 2]))
        asked.note("unusable", task(base="ab"[number % 2]))
    assert objection(asked.turns(), task(base="c"), PLAN) != ""


def test_a_round_is_scored_again_with_another_model_and_not_for_ever(asked: Asked) -> None:
    for round_ in (1, 2):
        bases = "0123456789abcdef"[: 1 + again_max(PLAN)]
        does(asked, *(task(TaskKind.SCORE, round_, base) for base in bases))
        assert objection(asked.turns(), task(TaskKind.SCORE, round_, "f"), PLAN) != ""


def test_lines_that_were_torn_or_edited_are_left_out(asked: Asked) -> None:
    does(asked, task())
    file = asked.folder / FILE
    torn = b'\n["begun", "tra'
    file.write_bytes(file.read_bytes() + torn + b'\n[["begun"], 1, 2, 3]\n7\n["gone", "train", 1, "a"]')
    does(asked, task(round_=2))
    assert sorted(asked.turns()) == [("train", 1), ("train", 2)]


def test_work_that_the_coordinator_takes_away_is_begun_anew_as_often_as_the_policy_allows(asked: Asked) -> None:
    for _ in range(2 * again_max(PLAN)):
        asked.note("begun", task())
        asked.note("withdrawn", task())
    turn = asked.turns()[key(task())]
    assert is_replacement(turn)
    assert begun(turn, task().base) != turn, "it would count as work that goes on"
    assert not objection(asked.turns(), task(), PLAN)


def test_a_run_has_one_model_that_is_adopted(asked: Asked) -> None:
    does(asked, task(TaskKind.ADOPT))
    assert not objection(asked.turns(), task(TaskKind.ADOPT), PLAN)
    for other in (task(TaskKind.ADOPT, base="b"), task(TaskKind.ADOPT, round_=2, base="c")):
        assert "has adopted model" in objection(asked.turns(), other, PLAN)
