"""What a site should be doing, from what it was told and has done."""

from __future__ import annotations

from fedcervix.events import ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.rounds import Leave, Outcome, Stand
from fedcervix.session import (
    NOT_ATTACHED,
    Deliver,
    Done,
    Rest,
    Session,
    Work,
    answered,
    duty,
    finished,
    instructed,
)

TRAIN = Task("run", TaskKind.TRAIN, 1, "a" * 64)
SCORE = Task("run", TaskKind.SCORE, 1, "b" * 64)
SEED = Task("run", TaskKind.SEED, 0, "")
UPDATE = UpdateStored("ada", TRAIN, "c" * 64, 10, 1, 0.5, 1.0, 0.0)
FIRST = UpdateStored("ada", SEED, "a" * 64, 0, 0, 0.0, 1.0, 0.0)
WAIT = Stand("round 1: waiting for bob")


def test_before_anything_was_said_there_is_nothing_to_do() -> None:
    assert duty(Session("ada")) == Rest(NOT_ATTACHED.reason)


def test_a_task_is_work_until_it_is_finished_then_delivered_until_it_is_answered() -> None:
    session = instructed(Session("ada"), TRAIN)
    assert duty(session) == Work(TRAIN)
    session = finished(session, UPDATE)
    assert duty(session) == Deliver(UPDATE)
    session = answered(session, TRAIN)
    assert isinstance(duty(session), Rest)
    assert duty(instructed(session, WAIT)) == Rest(WAIT.reason)


def test_a_task_said_twice_is_the_same_work() -> None:
    session = instructed(Session("ada"), TRAIN)
    assert instructed(session, TRAIN) == session
    done = answered(finished(session, UPDATE), TRAIN)
    assert duty(instructed(done, TRAIN)) == duty(done), "the line came back before the coordinator had anything new"


def test_a_result_that_was_finished_while_the_line_was_down_is_delivered_later() -> None:
    session = finished(Session("ada"), UPDATE)
    assert duty(session) == Deliver(UPDATE)
    assert duty(instructed(session, WAIT)) == Deliver(UPDATE)
    assert duty(instructed(session, TRAIN)) == Deliver(UPDATE)


def test_a_restarted_site_delivers_what_lies_in_its_spool() -> None:
    assert duty(instructed(Session("ada", result=UPDATE), TRAIN)) == Deliver(UPDATE)


def test_work_on_a_new_task_goes_before_the_delivery_of_an_old_one() -> None:
    """The coordinator asks for something else only where the old result would be stale."""
    session = instructed(finished(Session("ada"), UPDATE), SCORE)
    assert duty(session) == Work(SCORE)
    assert duty(finished(session, ScoreReported("ada", SCORE, 1.0, 1, 1, (), 0.0))) == Deliver(
        ScoreReported("ada", SCORE, 1.0, 1, 1, (), 0.0)
    )


def test_an_answer_to_something_else_changes_nothing() -> None:
    session = finished(instructed(Session("ada"), TRAIN), UPDATE)
    assert answered(session, SCORE) == session
    assert answered(Session("ada"), TRAIN) == Session("ada")


def test_a_task_that_is_asked_for_again_is_done_again() -> None:
    """Its result was answered `stale`, because by then another site had been asked: now it is needed after all."""
    session = instructed(finished(instructed(Session("ada"), SEED), FIRST), Stand("bob makes the first model"))
    session = answered(session, SEED)
    assert duty(instructed(session, SEED)) == Work(SEED)


def test_leaving_ends_everything() -> None:
    leave = Leave(Outcome.OK, "all 3 rounds done")
    assert duty(instructed(finished(Session("ada"), UPDATE), leave)) == Done(leave)


def test_an_adopted_model_is_reported_like_any_result() -> None:
    adopt = Task("run", TaskKind.ADOPT, 1, "b" * 64)
    session = finished(instructed(Session("ada"), adopt), ModelAdopted("ada", adopt, 0.0))
    assert duty(session) == Deliver(ModelAdopted("ada", adopt, 0.0))
