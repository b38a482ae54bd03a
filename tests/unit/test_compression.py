"""Who may have which packed form, and what a site carries on from round to round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcervix.core.compression import (
    ErrorFeedback,
    Packed,
    answered,
    error_feedback_from_json,
    error_feedback_to_json,
    kept_form,
    made,
    packed_form,
    residual_for,
    undecided,
)
from fedcervix.core.events import (
    AggregateStored,
    Answer,
    ScoreReported,
    SiteAttached,
    SiteSilent,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.coordinator_work import coordinator_work
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Run, begin
from fedcervix.core.rounds.step import step

SITES = A, B, C = "ada", "bob", "cleo"
FIRST = "9" * 64


def digest(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def packed(name: str) -> str:
    return digest(f"p-{name}")


# --- a run in which every model has a packed form ------------------------------------------------------------------


def fresh(mode: str, compression: str, *, base: str = FIRST) -> Run:
    terms = Terms(rounds=9, patience_rounds=9, compression=compression)
    plan = Plan(mode=mode, sites=SITES, profile="paper", terms=terms, recipe=Recipe())
    run = begin("run", plan, base=base, at=0.0)
    for site in SITES:
        run, _ = step(run, SiteAttached(site, 0.0))
    return run


def task_of(run: Run, site: str) -> Task:
    task = instruction(run, site)
    assert isinstance(task, Task)
    return task


def train(run: Run, *sites: str) -> Run:
    for site in sites:
        task = task_of(run, site)
        name = f"{site}{task.round}"
        run, answer = step(run, UpdateStored(site, task, digest(name), 9, 1, 0.5, 1.0, 0.0, packed(name)))
        assert answer is Answer.ACCEPTED
    if coordinator_work(run) is not None:
        number = run.current.number
        average = digest(f"average{number}"), 0.0, packed(f"average{number}"), digest(f"left{number}")
        run, _ = step(run, AggregateStored(number, *average))
    return run


def score(run: Run, *sites: str) -> Run:
    for site in sites:
        run, answer = step(run, ScoreReported(site, task_of(run, site), 1.0 / run.current.number, 1, 9, (), 0.0))
        assert answer is Answer.ACCEPTED
    return run


def form_of_task(run: Run, site: str) -> Packed | None:
    return packed_form(run, site, task_of(run, site).base)


def test_an_average_is_the_difference_to_the_model_that_its_round_began_with() -> None:
    run = train(fresh("csfssl", "int8"), *SITES)
    assert form_of_task(run, A) == Packed(packed("average1"), FIRST)
    run = train(score(run, *SITES), *SITES)
    assert form_of_task(run, B) == Packed(packed("average2"), digest("average1"))


def test_the_first_model_travels_as_it_is_unless_a_site_rounded_it() -> None:
    assert form_of_task(fresh("csfssl", "int8"), A) is None
    run = fresh("csfssl", "bfloat16", base="")
    run, _ = step(run, UpdateStored(A, task_of(run, A), digest("seed"), 0, 0, 0.0, 1.0, 0.0, packed("seed")))
    assert form_of_task(run, C) == Packed(packed("seed"), "")


def test_a_site_that_never_held_the_base_is_sent_whole_models() -> None:
    """It missed the first round, and never was sent the model that this began with."""
    run = fresh("csfssl", "int8")
    terms = replace(run.plan.terms, quorum=2, grace_s=0.0)
    run, _ = step(replace(run, plan=replace(run.plan, terms=terms)), SiteSilent(C, 0.0))
    run = train(run, A, B)
    run, _ = step(run, SiteAttached(C, 1.0))
    assert form_of_task(run, A) == Packed(packed("average1"), FIRST)
    assert form_of_task(run, C) is None
    run = score(run, *SITES)  # it has the average now, and with it the base of the next one
    assert form_of_task(train(run, *SITES), C) == Packed(packed("average2"), digest("average1"))


def test_in_a_ring_the_next_site_has_the_base_and_the_one_after_it_has_not() -> None:
    run = train(score(train(fresh("ppfssl", "int8"), *SITES), *SITES), A)
    assert task_of(run, B).base == digest("ada2")
    assert form_of_task(run, B) == Packed(packed("ada2"), digest("cleo1"))  # which it has scored
    run = train(run, B)
    assert form_of_task(run, C) is None  # it never held what ada handed to bob
    run = train(run, C)
    assert form_of_task(run, B) == Packed(packed("cleo2"), digest("bob2"))  # which it made
    assert form_of_task(run, A) is None
    assert kept_form(run, digest("cleo2")) == Packed(packed("cleo2"), digest("bob2"))


def test_bfloat16_needs_no_base_so_every_site_may_have_it() -> None:
    run = train(fresh("ppfssl", "bfloat16"), A, B)
    assert form_of_task(run, C) == Packed(packed("bob1"), "")


def test_an_average_in_a_ring_is_not_a_difference_to_anything() -> None:
    run = fresh("ppfssl", "int8")
    run = replace(run, plan=replace(run.plan, terms=replace(run.plan.terms, ring_result="cycle-average")))
    for site in SITES:
        run, _ = step(run, UpdateStored(site, task_of(run, site), digest(site), 9, 1, 0.5, 1.0, 0.0, packed(site)))
    work = coordinator_work(run)
    assert work is not None
    assert work.compression == "none"


def test_the_next_average_is_rounded_with_what_the_last_one_left_over() -> None:
    run = fresh("csfssl", "int8")
    found = []
    for _ in range(3):
        for site in SITES:
            task = task_of(run, site)
            run, _ = step(run, UpdateStored(site, task, digest(f"{site}{task.round}"), 9, 1, 0.5, 1.0, 0.0))
        work = coordinator_work(run)
        assert work is not None
        found.append((work.compression, work.base, work.residual))
        run = score(train(run), *SITES)
    bases = [FIRST, digest("average1"), digest("average2")]
    assert found == list(zip(["int8"] * 3, bases, ["", digest("left1"), digest("left2")], strict=True))


# --- what a site carries on ---------------------------------------------------------------------------------------

ACCEPTED, DUPLICATE, STALE, REFUSED = Answer.ACCEPTED, Answer.DUPLICATE, Answer.STALE, Answer.REFUSED


def trained(round_: int, name: str = "model") -> UpdateStored:
    return UpdateStored(A, train_task(round_), digest(f"{name}{round_}"), 9, 1, 0.5, 1.0, 0.0)


def train_task(round_: int) -> Task:
    return Task("run", TaskKind.TRAIN, round_, FIRST)


def told(carried: ErrorFeedback, round_: int, answer: Answer) -> ErrorFeedback:
    """Return what is carried after a round whose update got this answer."""
    return answered(made(carried, trained(round_), digest(f"left{round_}")), trained(round_), answer)


def test_what_an_update_left_over_is_carried_on_when_it_counted() -> None:
    for answer in (ACCEPTED, DUPLICATE):
        carried = told(ErrorFeedback(), 1, answer)
        assert residual_for(carried, 2) == digest("left1")
        assert undecided(carried, train_task(2)) is None


def test_an_update_that_came_too_late_changes_nothing() -> None:
    for answer in (STALE, REFUSED):
        carried = told(told(ErrorFeedback(), 1, ACCEPTED), 2, answer)
        assert residual_for(carried, 3) == digest("left1")
        assert carried == told(ErrorFeedback(), 1, ACCEPTED)


def test_a_round_that_is_done_again_begins_from_what_it_began_with() -> None:
    carried = made(told(told(ErrorFeedback(), 1, ACCEPTED), 2, ACCEPTED), trained(3), digest("left3"))
    assert residual_for(carried, 3) == digest("left2")  # the process was killed before it could deliver
    assert residual_for(told(carried, 3, ACCEPTED), 3) == digest("left2")  # the coordinator was
    assert residual_for(told(carried, 3, ACCEPTED), 1) == ""


def test_an_update_whose_answer_was_lost_is_undecided_until_it_is_asked_about() -> None:
    carried = made(ErrorFeedback(), trained(1), digest("left1"))
    assert undecided(carried, train_task(1)) is None  # that very task is done again
    assert undecided(carried, train_task(2)) == trained(1)
    assert residual_for(answered(carried, trained(1), DUPLICATE), 2) == digest("left1")


def test_the_answer_to_another_update_decides_nothing() -> None:
    carried = made(ErrorFeedback(), trained(1), digest("left1"))
    assert answered(carried, trained(1, "other"), ACCEPTED) == carried
    assert answered(carried, trained(2), ACCEPTED) == carried


def test_no_more_is_kept_than_a_round_done_again_needs() -> None:
    carried = ErrorFeedback()
    for round_ in range(1, 6):
        carried = told(carried, round_, ACCEPTED)
    assert carried.residuals == {digest("left4"), digest("left5")}
    assert made(carried, trained(6), digest("left6")).residuals == {digest(f"left{n}") for n in (4, 5, 6)}


def test_what_is_carried_is_written_and_read_back() -> None:
    for carried in (ErrorFeedback(), made(told(ErrorFeedback(), 1, ACCEPTED), trained(2), digest("left2"))):
        assert error_feedback_from_json(error_feedback_to_json(carried)) == carried


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"counted": 1, "made": null, "left": ""}', '{"made": "x"}'])
def test_anything_else_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        error_feedback_from_json(text)
