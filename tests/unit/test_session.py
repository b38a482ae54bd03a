"""What a site should be doing, from what it was told and has done."""

from __future__ import annotations

from fedcervix.core import session as sessions
from fedcervix.core.events import ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.rounds.instructions import Finish, Idle
from fedcervix.core.rounds.state import Outcome
from fedcervix.core.session import (
    NOT_ATTACHED,
    Action,
    Deliver,
    Done,
    PersistentState,
    Rest,
    Session,
    Work,
    answered,
    attached,
    cut,
    finished,
    instructed,
    persistent_state,
    resumed,
)

TRAIN = Task("run", TaskKind.TRAIN, 1, "a" * 64)
SCORE = Task("run", TaskKind.SCORE, 1, "b" * 64)
SEED = Task("run", TaskKind.SEED, 0, "")
UPDATE = UpdateStored("ada", TRAIN, "c" * 64, 10, 1, 0.5, 1.0, 0.0)
FIRST = UpdateStored("ada", SEED, "a" * 64, 0, 0, 0.0, 1.0, 0.0)
SCORED = ScoreReported("ada", SCORE, 1.0, 1, 1, (), 0.0)
ADOPT = Task("run", TaskKind.ADOPT, 1, "b" * 64)
WAIT = Idle("round 1: waiting for bob")


def action(session: Session, *models: str) -> Action:
    """With these models on the site's disk."""
    return sessions.next_action(session, models.__contains__)


def test_before_anything_was_said_there_is_nothing_to_do() -> None:
    assert action(Session("ada")) == Rest(NOT_ATTACHED.reason)


def test_a_task_is_work_until_it_is_finished_then_delivered_until_it_is_answered() -> None:
    session = instructed(Session("ada"), TRAIN)
    assert action(session) == Work(TRAIN)
    session = finished(session, UPDATE)
    assert action(session) == Deliver(UPDATE)
    session = answered(session, TRAIN)
    assert isinstance(action(session), Rest)
    assert action(instructed(session, WAIT)) == Rest(WAIT.reason)


def test_a_task_said_twice_is_the_same_work() -> None:
    session = instructed(Session("ada"), TRAIN)
    assert instructed(session, TRAIN) == session
    done = answered(finished(session, UPDATE), TRAIN)
    assert action(instructed(done, TRAIN)) == action(done), "said before the result had arrived, heard after it"


def test_a_result_that_was_finished_while_the_line_was_down_is_delivered_later() -> None:
    session = finished(cut(instructed(Session("ada"), TRAIN)), UPDATE)
    assert action(session) == Rest(
        "the coordinator cannot be reached; the result of round 1 is saved and will be sent on reconnect"
    )
    assert action(attached(session)) == Deliver(UPDATE)
    assert action(instructed(session, WAIT)) == Deliver(UPDATE)
    assert action(instructed(session, TRAIN)) == Deliver(UPDATE)


def test_what_is_kept_is_named_by_what_it_is() -> None:
    adopted = ModelAdopted("ada", ADOPT, 0.0)
    for result, words in ((FIRST, "the first model"), (SCORED, "the score of round 1"), (adopted, "the adoption of")):
        waits = action(finished(Session("ada"), result))
        assert isinstance(waits, Rest)
        assert words in waits.reason


def test_training_goes_on_while_the_line_is_down_where_its_model_is_here() -> None:
    session = cut(instructed(Session("ada"), TRAIN))
    assert action(session, TRAIN.base) == Work(TRAIN)
    assert action(session) == Rest("cannot train in round 1: the coordinator, which has the model, cannot be reached")
    assert action(attached(session)) == Work(TRAIN)
    assert action(cut(instructed(Session("ada"), SEED))) == Work(SEED)


# --- restarts ----------------------------------------------------------------------------------------------------


def test_what_is_kept_is_the_open_task_and_the_result() -> None:
    session = Session("ada")
    assert persistent_state(session) == PersistentState()
    session = instructed(session, TRAIN)
    assert persistent_state(session) == PersistentState(TRAIN)
    session = finished(session, UPDATE)
    assert persistent_state(session) == persistent_state(cut(session)) == PersistentState(TRAIN, UPDATE)
    session = answered(session, TRAIN)
    assert persistent_state(session) == persistent_state(instructed(session, WAIT)) == PersistentState()


def test_a_restarted_site_works_on_without_its_coordinator() -> None:
    session = resumed("ada", PersistentState(TRAIN))
    assert action(session, TRAIN.base) == Work(TRAIN)
    assert action(session) == Rest("cannot train in round 1: the coordinator, which has the model, cannot be reached")
    assert action(attached(session)) == Work(TRAIN)


def test_what_the_coordinator_says_replaces_what_it_said_to_the_process_before() -> None:
    session = instructed(attached(resumed("ada", PersistentState(TRAIN))), SCORE)
    assert action(session) == Work(SCORE)
    assert persistent_state(session) == PersistentState(SCORE)
    assert action(instructed(attached(resumed("ada", PersistentState(TRAIN))), WAIT)) == Rest(WAIT.reason)


def test_a_restarted_site_delivers_what_lies_in_its_journal() -> None:
    session = resumed("ada", PersistentState(TRAIN, UPDATE))
    assert isinstance(action(session), Rest)
    assert action(instructed(session, TRAIN)) == Deliver(UPDATE)
    assert action(attached(resumed("ada", PersistentState(None, UPDATE)))) == Deliver(UPDATE)


def test_a_restart_changes_nothing_of_what_is_to_be_done() -> None:
    session = instructed(Session("ada"), TRAIN)
    for then in (session, finished(session, UPDATE), instructed(finished(session, UPDATE), SCORE)):
        assert action(attached(resumed("ada", persistent_state(then)))) == action(then)


def test_a_settled_task_that_is_asked_for_after_a_restart_or_on_a_new_line_is_wanted_anew() -> None:
    """Its result was answered `stale`: another site had been asked meanwhile, and is gone by now."""
    done = answered(finished(instructed(Session("ada"), SEED), FIRST), SEED)
    assert action(done) == action(attached(cut(done))) == Rest("the coordinator has the result: make the first model")
    assert action(instructed(attached(cut(done)), SEED)) == Work(SEED)
    assert action(instructed(resumed("ada", persistent_state(done)), SEED)) == Work(SEED)


# --- changes of mind ---------------------------------------------------------------------------------------------


def test_work_on_a_new_task_goes_before_the_delivery_of_an_old_one() -> None:
    """The coordinator asks for something else only where the old result would be stale."""
    session = instructed(finished(Session("ada"), UPDATE), SCORE)
    assert action(session) == Work(SCORE)
    assert action(finished(session, SCORED)) == Deliver(SCORED)


def test_an_answer_to_something_else_changes_nothing() -> None:
    session = finished(instructed(Session("ada"), TRAIN), UPDATE)
    assert answered(session, SCORE) == session
    assert answered(Session("ada"), TRAIN) == Session("ada")


def test_a_task_that_is_asked_for_again_is_done_again() -> None:
    """Its result was answered `stale`, because by then another site had been asked: now it is needed after all."""
    session = instructed(finished(instructed(Session("ada"), SEED), FIRST), Idle("bob makes the first model"))
    session = answered(session, SEED)
    assert action(instructed(session, SEED)) == Work(SEED)


def test_leaving_ends_everything() -> None:
    leave = Finish(Outcome.OK, "all 3 rounds done")
    left = instructed(finished(Session("ada"), UPDATE), leave)
    assert action(left) == Done(leave)
    assert persistent_state(left) == PersistentState()


def test_an_adopted_model_is_reported_like_any_result() -> None:
    session = finished(instructed(Session("ada"), ADOPT), ModelAdopted("ada", ADOPT, 0.0))
    assert action(session) == Deliver(ModelAdopted("ada", ADOPT, 0.0))
