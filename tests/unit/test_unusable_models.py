"""A model that gives no finite loss ends its round by rule; a revoked site's part in the round is taken out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.alarms.alarm_sources import alarms
from coordinator.run.status import ledger_line
from fedcervix.core.events import (
    AggregateStored,
    Answer,
    AverageUnusable,
    ModelUnusable,
    SiteRevoked,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.rounds.coordinator_work import coordinator_work
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Outcome, Phase, Run
from fedcervix.core.rounds.step import step
from fedcervix.core.rounds.unusable import TRIES_MAX, VOID_ROUNDS_MAX
from tests.unit.test_rounds import A, B, C, after, all_scored, attached, digest, fresh, scored, task_of, trained

STALE, DUPLICATE = Answer.STALE, Answer.DUPLICATE
FAR = 50.0


def begun(mode: str = "csfssl", **terms: object) -> Run:
    """Return a run in which every site was asked for round 1."""
    run = fresh(mode, **{"rounds": 9, **terms})
    return after(run, *attached(*run.plan.sites))


def unusable(run: Run, site: str, kind: TaskKind = TaskKind.SCORE, steps: int = 0) -> ModelUnusable:
    return ModelUnusable(site, task_of(run, site, kind), steps, 0.0)


def averaged(run: Run) -> Run:
    work = coordinator_work(run)
    assert work is not None
    name = f"{work.round}.{work.attempt}"
    return after(run, AggregateStored(work.round, digest(name), 0.0, attempt=work.attempt))


def to_score(run: Run, far: str = "") -> Run:
    """Let all train; the update of `far` lies far from its base."""
    for site in run.plan.sites:
        run = after(run, replace(trained(run, site), step=FAR if site == far else 1.0))
    return averaged(run) if run.phase is Phase.AGGREGATING else run


def hops(run: Run, *sites: str) -> Run:
    for site in sites:
        run = after(run, trained(run, site))
    return run


def counted(run: Run) -> list[str]:
    return [update.site for update in run.current.contributions]


def answered(run: Run, unable: str, able: str = "") -> Run:
    """Let sites say whether they can use the candidate."""
    for site in unable.split():
        run = after(run, unusable(run, site))
    for site in able.split():
        run = after(run, scored(run, site, at=1.0))
    return run


def reasons(run: Run, number: int) -> dict[str, str]:
    return {missing.site: missing.reason for missing in run.rounds[number - 1].missing}


# --- the average is made again ------------------------------------------------------------------------------------


def test_the_update_with_the_largest_step_is_left_out_first_and_named_when_that_helps() -> None:
    run = to_score(begun(), far=B)
    run = after(run, unusable(run, A), scored(run, B), unusable(run, C))
    assert (run.phase, counted(run)) == (Phase.AGGREGATING, [A, C])
    run = all_scored(averaged(run), {A: 1.0, B: 1.0, C: 1.0})
    first = run.rounds[0]
    assert (run.current.number, run.model, first.contributions[0].site) == (2, first.candidate, A)
    assert reasons(run, 1) == {B: f"with its update the model could not be used (so {A}, {C})"}
    assert [(alarm.site, alarm.what) for alarm in alarms(run, first)] == [(B, "step"), (B, "unusable")]
    [dropped] = ledger_line(run, first).dropped
    assert (dropped.site, dropped.digest) == (B, first.dropped[0].digest)


def test_where_leaving_one_out_does_not_help_it_counts_again_and_the_next_is_left_out() -> None:
    run = to_score(begun(), far=B)
    run = averaged(answered(run, unable=f"{A} {C}", able=f"{B}"))
    run = answered(run, unable=f"{A} {C}", able=f"{B}")
    assert (run.phase, counted(run), run.current.tried) == (Phase.AGGREGATING, [B, C], (B,))
    run = all_scored(averaged(run), {A: 1.0, B: 1.0, C: 1.0})
    assert reasons(run, 1).keys() == {A}


def test_with_two_sites_one_word_is_enough_and_with_three_it_is_not() -> None:
    run = to_score(begun(sites=(A, B)))
    run = answered(run, unable=f"{A}", able=f"{B}")
    assert run.phase is Phase.AGGREGATING
    run = to_score(begun())
    run = answered(run, unable=f"{A}", able=f"{B} {C}")
    assert (run.current.number, run.rounds[0].missing, run.outcome) == (2, (), None)
    assert [(alarm.site, alarm.what) for alarm in alarms(run, run.rounds[0])] == [(A, "contradicted")]


def test_an_average_that_no_model_can_hold_is_made_again_as_well() -> None:
    run = begun()
    for site in (A, B, C):
        run = after(run, replace(trained(run, site), step=FAR if site == C else 1.0))
    run = after(run, AverageUnusable(1, 0, 0.0))
    assert (run.phase, counted(run)) == (Phase.AGGREGATING, [A, B])
    assert step(run, AverageUnusable(1, 0, 0.0))[1] is STALE
    assert step(run, AggregateStored(1, digest("old"), 0.0))[1] is STALE, "it is of the updates that counted before"


def test_what_is_said_twice_or_too_late_changes_nothing() -> None:
    run = to_score(begun())
    said = unusable(run, A)
    run = after(run, said)
    assert step(run, said) == (run, DUPLICATE)
    run = after(run, unusable(run, B), scored(run, C))
    assert step(run, said) == (run, STALE)
    assert step(run, replace(said, task=replace(said.task, round=7)))[1] is Answer.REFUSED
    assert step(run, replace(said, site="nobody"))[1] is Answer.REFUSED


# --- rounds in which nobody counts --------------------------------------------------------------------------------


def void(run: Run) -> Run:
    """A round of two sites whose model one of them never finds usable."""
    run = to_score(run)
    for _ in range(3):
        run = answered(run, unable=f"{A}", able=f"{B}")
        run = averaged(run) if run.phase is Phase.AGGREGATING else run
    return run


def test_where_no_update_can_be_blamed_nobody_counts_and_the_run_goes_on_from_the_last_good_model() -> None:
    run = begun(sites=(A, B))
    run = void(run)
    assert (run.phase, run.current.number, run.current.base) == (Phase.TRAINING, 2, run.rounds[0].base)
    assert (run.rounds[0].void, run.rounds[0].candidate, run.best_round) == (True, run.layout, 0)
    assert run.rounds[0].notes == (f"the model could not be used (so {A}), whichever update was left out",)
    assert set(reasons(run, 1).values()) == {"no update counts in this round"}
    assert alarms(run, run.rounds[0]) == ()


def test_a_run_in_which_that_goes_on_is_aborted_with_the_reason() -> None:
    run = begun(sites=(A, B))
    for _ in range(VOID_ROUNDS_MAX):
        run = void(run)
    assert (run.outcome, len(run.rounds)) == (Outcome.ABORTED, VOID_ROUNDS_MAX)
    assert run.reason.startswith(
        f"no update has counted in {VOID_ROUNDS_MAX} rounds in a row. In the last one: the model could"
    )


def test_a_run_that_has_no_usable_model_at_its_last_round_is_aborted() -> None:
    run = void(begun(sites=(A, B), rounds=1))
    assert (run.outcome, run.reason) == (Outcome.ABORTED, "all 1 rounds done, and none gave a model that can be used")


def test_a_barren_last_round_leaves_the_best_one_before() -> None:
    run = all_scored(to_score(begun(sites=(A, B), rounds=2)), {A: 1.0, B: 1.0})
    run = void(run)
    assert (run.phase, run.outcome, run.best_round) == (Phase.PUBLISHING, Outcome.DEGRADED, 1)


def test_the_search_is_bounded() -> None:
    sites = tuple("abcdefghi")
    run = to_score(begun(sites=sites))
    asked = 0
    while run.current.number == 1:
        asked += 1
        run = answered(run, " ".join(sites))
        run = averaged(run) if run.phase is Phase.AGGREGATING else run
    assert asked == 1 + TRIES_MAX


# --- a model that cannot be trained from --------------------------------------------------------------------------


def test_one_site_of_three_that_cannot_train_is_left_out_and_the_others_go_on() -> None:
    run = begun()
    run = after(run, unusable(run, A, TaskKind.TRAIN, steps=4), trained(run, B), trained(run, C))
    assert (run.phase, counted(run)) == (Phase.AGGREGATING, [B, C])
    assert "after 4 steps" in reasons(run, 1)[A]


def test_a_first_model_that_nobody_can_train_from_ends_the_run_and_its_maker_is_named() -> None:
    run = after(fresh(base="", sites=(A, B)), *attached(A, B))
    run = after(run, UpdateStored(A, task_of(run, A, TaskKind.SEED), digest("first"), 0, 0, 0.0, 1.0, 0.0))
    run = after(run, trained(run, A), unusable(run, B, TaskKind.TRAIN))
    assert run.outcome is Outcome.ABORTED
    assert f"(the first one, made by {A}) gives no finite loss in training (so {B})" in run.reason


def test_a_later_model_that_half_of_the_sites_cannot_train_from_is_given_up_for_the_one_before() -> None:
    run = all_scored(to_score(begun(sites=(A, B))), {A: 1.0, B: 1.0})
    assert (run.current.number, run.best_round) == (2, 1)
    run = after(run, trained(run, A), unusable(run, B, TaskKind.TRAIN))
    assert (run.current.number, run.model, run.best_round) == (3, run.layout, 0)
    assert instruction(run, B) == Task("run", TaskKind.TRAIN, 3, run.layout)


# --- the ring -----------------------------------------------------------------------------------------------------


def test_in_a_ring_the_holder_s_word_costs_the_hop_before_it() -> None:
    run = begun("ppfssl")
    run = hops(run, A, B)
    run = after(run, unusable(run, C, TaskKind.TRAIN))
    assert instruction(run, C) == Task("run", TaskKind.TRAIN, 1, digest(f"{A}1"))
    run = after(run, trained(run, C))
    assert (run.phase, counted(run)) == (Phase.SCORING, [A, C])
    assert reasons(run, 1) == {B: f"with its update the model could not be used (so {C})"}


def test_whoever_was_handed_a_spoilt_model_is_not_blamed() -> None:
    """The hop of b hides its harm from the training of c: the model of c is left out first, then that of b."""
    run = to_score(begun("ppfssl"))
    run = answered(run, unable=f"{A} {B}", able=f"{C}")
    assert (counted(run), run.current.candidate) == ([A, B], digest(f"{B}1"))
    run = answered(run, unable=f"{A} {C}", able=f"{B}")
    run = all_scored(run, {A: 1.0, B: 1.0, C: 1.0})
    assert reasons(run, 1) == {
        C: f"it had trained from the model of {B}, which could not be used",
        B: f"with its update the model could not be used (so {A}, {C})",
    }
    assert [alarm.site for alarm in alarms(run, run.rounds[0])] == [B]
    assert (run.current.number, run.model) == (2, digest(f"{A}1"))


# --- revoked in mid-round -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.AGGREGATING, Phase.SCORING])
def test_a_revoked_site_s_update_does_not_count_in_the_round_in_progress(phase: Phase) -> None:
    run = begun()
    for site in (A, B) if phase is Phase.TRAINING else (A, B, C):
        run = after(run, trained(run, site))
    if phase is Phase.SCORING:
        run = averaged(run)
        run = after(run, scored(run, B))
    assert run.phase is phase
    run = after(run, SiteRevoked(B, 0.0))
    assert (B in counted(run), reasons(run, 1)) == (False, {B: "revoked by the operator"})
    if phase is Phase.TRAINING:
        run = after(run, trained(run, C))
    assert run.phase is Phase.AGGREGATING
    run = all_scored(averaged(run), {A: 1.0, C: 1.0})
    assert (run.current.number, [u.site for u in run.rounds[0].contributions]) == (2, [A, C])


def test_a_site_that_was_left_out_for_a_trial_counts_again_once_another_is_revoked() -> None:
    run = to_score(begun(), far=A)
    run = answered(run, unable=f"{A} {C}", able=f"{B}")
    assert counted(run) == [B, C]
    run = after(run, SiteRevoked(B, 0.0))
    assert (counted(run), reasons(run, 1).keys()) == ([A, C], {B})


def test_a_quorum_that_is_gone_with_the_revoked_site_ends_the_round_without_a_model() -> None:
    run = after(to_score(begun(quorum=3)), SiteRevoked(B, 0.0))
    assert "too few sites are left for a quorum" in run.reason


def test_a_ring_with_too_few_hops_left_blames_nobody_and_says_whose_were_left_out() -> None:
    """Its model is not scored: the hop that spoils it may be an earlier one, from which the others could train."""
    run = begun("ppfssl", quorum=3)
    run = hops(run, A, B)
    run = hops(after(run, unusable(run, C, TaskKind.TRAIN)), C)
    assert (run.current.number, run.rounds[0].void) == (2, True)
    assert alarms(run, run.rounds[0]) == ()
    assert run.rounds[0].notes == (f"too few updates are left to count: it was tried without those of {B}",)


def test_in_a_ring_the_newest_hop_of_a_revoked_site_is_taken_back_and_its_holder_is_passed_over() -> None:
    run = begun("ppfssl")
    run = after(run, trained(run, A), SiteRevoked(A, 0.0))
    assert (run.model, instruction(run, C)) == (run.layout, Task("run", TaskKind.TRAIN, 1, run.layout))
    assert reasons(run, 1) == {
        A: "revoked by the operator",
        B: f"it held the model of {A}, which was revoked",
    }


def test_a_ring_of_two_begins_anew_when_its_first_hop_is_revoked() -> None:
    run = begun("ppfssl", sites=(A, B))
    run = after(run, trained(run, A), SiteRevoked(A, 0.0))
    assert (run.current.number, instruction(run, B)) == (2, Task("run", TaskKind.TRAIN, 2, run.layout))


def test_in_a_ring_a_hop_from_which_others_have_trained_stays_and_the_ledger_says_so() -> None:
    run = begun("ppfssl")
    run = after(hops(run, A, B), SiteRevoked(A, 0.0))
    assert counted(run) == [A, B]
    assert run.current.notes == (f"the hop of {A}, which was revoked since, stays: others had trained from it",)


def test_what_a_revoked_site_has_said_of_a_model_does_not_count() -> None:
    run = to_score(begun())
    run = after(run, unusable(run, A), unusable(run, B), SiteRevoked(A, 0.0))
    assert (counted(run), run.current.unusable) == ([B, C], ())


def test_a_score_of_an_earlier_average_is_stale() -> None:
    run = to_score(begun(), far=B)
    old = scored(run, B)
    run = averaged(after(run, unusable(run, A), old, unusable(run, C)))
    assert step(run, old) == (run, STALE)
