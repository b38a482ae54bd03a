"""Secure sums as the core has them: who opens, who releases, when an attempt is closed, what ends the run."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcervix.core.events import (
    AggregateStored,
    Answer,
    AverageUnusable,
    BoxesStored,
    CloseSigned,
    Event,
    Masked,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    RunAborted,
    ScoreReported,
    SiteAttached,
    SiteOpened,
    SiteRevoked,
    SiteSilent,
    Task,
    TaskKind,
    Tick,
    UpdateStored,
    event_from_json,
    event_to_json,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.coordinator_work import coordinator_work
from fedcervix.core.rounds.holders import holders
from fedcervix.core.rounds.instructions import Idle, instruction
from fedcervix.core.rounds.state import Outcome, Phase, Presence, Run, begin
from fedcervix.core.rounds.step import replay, step
from fedcervix.core.rounds.waits import OnTimeout, deadline, waits
from tests.unit.test_rounds import GIVEN, check_state, digest

SITES = ("ada", "bob", "cleo", "dora")
A, B, C, D = SITES
ACCEPTED, DUPLICATE, STALE, REFUSED = Answer.ACCEPTED, Answer.DUPLICATE, Answer.STALE, Answer.REFUSED
BOX = Task("run", TaskKind.BOX, 0, "")
GRACE_S, GIVE_UP_S = 300.0, 1000.0


def fresh(**terms: Any) -> Run:
    said = {"holders": (A, B), "rounds": 2, "grace_s": GRACE_S, "give_up_s": GIVE_UP_S, **terms}
    sites = said.pop("sites", SITES)
    plan = Plan(
        mode="csfssl", sites=sites, profile="paper", terms=Terms(secure_sum=True, **said), recipe=Recipe(epochs_max=9)
    )
    return begin("run", plan, base=GIVEN, at=0.0)


def opening(site: str, at: float = 0.0) -> SiteOpened:
    return SiteOpened(site, digest(f"key {site}"), 10, digest(f"rho {site}"), "3045", at)


def boxes(run: Run, site: str, at: float = 0.0) -> BoxesStored:
    return BoxesStored(site, BOX, digest("roster"), tuple((one, "ab") for one in run.plan.sites if one != site), at)


def answered(run: Run, site: str, at: float = 0.0, loss: float = 1.0) -> Event:
    """Return the answer of a site in good order to what it is asked."""
    asked = instruction(run, site)
    assert isinstance(asked, Task), f"{site}: {asked}"
    name = digest(f"{site} {asked.kind} {asked.round} {asked.attempt}")
    masked = Masked(name, 0.5, "", "3045")
    made: dict[TaskKind, Event] = {
        TaskKind.BOX: boxes(run, site, at),
        TaskKind.ADOPT: ModelAdopted(site, asked, at) if asked.kind is TaskKind.ADOPT else Tick(at),
    }
    if asked.kind is TaskKind.TRAIN:
        return UpdateStored(site, asked, name, 10, 1, 0.5, 1.0, at, masked=masked)
    if asked.kind is TaskKind.RELEASE:
        return ReleaseStored(site, asked, digest("list"), name, "3045", at)
    if asked.kind is TaskKind.CLOSE:
        return CloseSigned(site, asked, run.current.remaining, "3045", at)
    if asked.kind is TaskKind.SCORE:
        return ScoreReported(site, asked, 4 * loss, 4, 10, (), at)
    return made[asked.kind]


def after(run: Run, *events: Event) -> Run:
    for event in events:
        run, answer = step(run, event)
        assert answer is ACCEPTED, f"{event}: {answer}"
    return run


def all_do(run: Run, *sites: str, at: float = 0.0) -> Run:
    for site in sites or run.plan.sites:
        run = after(run, answered(run, site, at))
    return run


def training(**terms: Any) -> Run:
    run = fresh(**terms)
    sites = run.plan.sites
    run = after(run, *map(opening, sites), *(SiteAttached(site, 0.0) for site in sites))
    return all_do(run)


def releasing(**terms: Any) -> Run:
    run = all_do(training(**terms))
    assert run.phase is Phase.RELEASING
    return run


def asked(run: Run) -> dict[str, TaskKind | None]:
    found = {site: instruction(run, site) for site in run.plan.sites}
    return {site: one.kind if isinstance(one, Task) else None for site, one in found.items()}


# --- the beginning ----------------------------------------------------------------------------------------------------


def test_a_site_takes_part_once_it_has_opened_the_run() -> None:
    run = fresh()
    assert step(run, SiteAttached(A, 0.0)) == (run, REFUSED)
    run = after(run, opening(A), SiteAttached(A, 0.0))
    assert run.site(A).presence is Presence.PRESENT


def test_a_site_opens_a_run_once() -> None:
    run = after(fresh(), opening(A))
    assert step(run, opening(A, at=5.0)) == (run, DUPLICATE)
    assert step(run, replace(opening(A), key=digest("another"))) == (run, REFUSED)
    assert step(run, replace(opening(A), images=11)) == (run, REFUSED)


def test_a_plain_run_is_not_opened() -> None:
    plan = Plan(mode="csfssl", sites=SITES, profile="paper", terms=Terms(), recipe=Recipe())
    run = begin("run", plan, base=GIVEN, at=0.0)
    assert step(run, opening(A)) == (run, REFUSED)


def test_all_open_then_all_box_then_the_first_round_begins() -> None:
    run = fresh(quorum=3)
    for site in (A, B, C):
        run = after(run, opening(site), SiteAttached(site, 0.0))
    assert asked(run) == dict.fromkeys(SITES)
    assert step(run, Tick(GRACE_S + 1))[0] is run, "a quorum does not begin a run whose roster lacks a site"
    run = after(run, opening(D), SiteAttached(D, 0.0))
    assert asked(run) == dict.fromkeys(SITES, TaskKind.BOX)
    run = all_do(run, A, B, C)
    assert run.phase is Phase.GATHERING
    assert [wait.site for wait in waits(run)] == [D]
    run = all_do(run, D)
    assert (run.phase, asked(run)) == (Phase.TRAINING, dict.fromkeys(SITES, TaskKind.TRAIN))


def test_boxes_for_others_than_the_plan_s_sites_are_refused() -> None:
    run = after(fresh(), *map(opening, SITES), *(SiteAttached(site, 0.0) for site in SITES))
    made = boxes(run, A)
    assert step(run, replace(made, boxes=made.boxes[1:])) == (run, REFUSED)
    assert step(run, replace(made, boxes=(*made.boxes, (A, "ab")))) == (run, REFUSED)
    run = after(run, made)
    assert step(run, made) == (run, DUPLICATE)


def test_a_site_that_is_revoked_before_the_beginning_ends_the_run() -> None:
    run = after(fresh(), *map(opening, SITES), *(SiteAttached(site, 0.0) for site in (A, B, C)), SiteRevoked(D, 1.0))
    assert run.phase is Phase.ABORTED


# --- a round ----------------------------------------------------------------------------------------------------------


def test_an_update_that_is_not_masked_is_refused_and_one_that_is_nowhere_else_taken() -> None:
    run = training()
    masked = answered(run, A)
    assert isinstance(masked, UpdateStored)
    assert step(run, replace(masked, masked=None)) == (run, REFUSED)
    plan = Plan(mode="csfssl", sites=SITES, profile="paper", terms=Terms(), recipe=Recipe())
    plain = after(begin("run", plan, base=GIVEN, at=0.0), *(SiteAttached(site, 0.0) for site in SITES))
    assert step(plain, masked) == (plain, REFUSED)


def test_the_holders_release_then_the_sum_is_opened_and_scored() -> None:
    run = releasing()
    assert asked(run) == {A: TaskKind.RELEASE, B: TaskKind.RELEASE, C: None, D: None}
    assert isinstance(idle := instruction(run, C), Idle)
    assert "waiting for the masks of ada, bob" in idle.reason
    run = all_do(run, A)
    assert coordinator_work(run) is None
    run = all_do(run, B)
    work = coordinator_work(run)
    assert work is not None
    assert work.sites == SITES
    run = after(run, AggregateStored(1, digest("average"), 0.0, total=digest("sum")))
    assert (run.current.total, run.model) == (digest("sum"), digest("average"))
    assert asked(run) == dict.fromkeys(SITES, TaskKind.SCORE)


def test_a_run_of_two_rounds_ends_ok() -> None:
    run = training()
    for number in (1, 2):
        run = all_do(run)
        run = all_do(run, A, B)
        run = after(run, AggregateStored(number, digest(f"average{number}"), 0.0, total=digest(f"sum{number}")))
        run = all_do(run)
    run = all_do(run)
    assert (run.phase, run.outcome) == (Phase.FINISHED, Outcome.OK)


def test_nobody_is_asked_for_masks_while_a_holder_is_away_and_none_has_released() -> None:
    run = after(releasing(), SiteSilent(B, 5.0))
    assert asked(run) == dict.fromkeys(SITES)
    [wait] = waits(run)
    assert (wait.site, wait.until, wait.then) == (B, 5.0 + GRACE_S, OnTimeout.GO_ON)
    run = after(run, SiteAttached(B, 50.0))
    assert asked(run) == {A: TaskKind.RELEASE, B: TaskKind.RELEASE, C: None, D: None}


def test_a_site_that_is_no_holder_is_not_needed_after_its_upload() -> None:
    run = after(releasing(), SiteSilent(C, 5.0), SiteSilent(D, 5.0))
    assert all_do(run, A, B).phase is Phase.AGGREGATING


def test_after_the_first_release_the_others_are_waited_for_and_no_attempt_is_closed() -> None:
    run = after(all_do(releasing(), A), SiteSilent(B, 5.0))
    [wait] = waits(run)
    assert (wait.until, wait.then) == (5.0 + GIVE_UP_S, OnTimeout.ABORT)
    assert step(run, Tick(5.0 + GRACE_S))[0] is run
    late = after(run, SiteAttached(B, 900.0))
    assert all_do(late, B).phase is Phase.AGGREGATING
    given_up = after(run, Tick(5.0 + GIVE_UP_S))
    assert given_up.phase is Phase.ABORTED


def test_a_release_that_was_asked_for_before_another_holder_went_away_counts() -> None:
    run = releasing()
    release = answered(run, A)
    run = after(run, SiteSilent(B, 5.0), release)
    assert [one.site for one in run.current.releases] == [A]


# --- a holder is lost -------------------------------------------------------------------------------------------------


def closing(**terms: Any) -> Run:
    run = after(releasing(**terms), SiteSilent(B, 5.0), Tick(5.0 + GRACE_S))
    assert run.phase is Phase.CLOSING
    return run


def test_a_holder_that_stays_away_costs_an_attempt() -> None:
    run = closing()
    assert asked(run) == {A: TaskKind.CLOSE, B: None, C: None, D: None}
    first = run.current.contributions
    run = all_do(run, A)
    assert (run.phase, holders(run), run.current.contributions) == (Phase.TRAINING, (A,), ())
    assert instruction(run, C) == Task("run", TaskKind.TRAIN, 1, GIVEN, attempt=2)
    assert step(run, first[2])[1] is STALE, "a vector of the attempt before"
    assert "attempt 1 was closed" in run.current.notes[0]
    run = after(run, SiteAttached(B, 400.0))
    run = all_do(run)
    assert asked(run) == {A: TaskKind.RELEASE, B: None, C: None, D: None}, "it is no holder of this attempt any more"


def test_a_holder_that_is_away_when_a_round_begins_is_left_out_before_anybody_trains() -> None:
    run = all_do(releasing(quorum=3), A, B)
    run = after(run, AggregateStored(1, digest("average"), 0.0, total=digest("sum")))
    run = after(all_do(run, A, C, D), SiteSilent(B, 5.0), Tick(5.0 + GRACE_S))
    assert (run.phase, run.current.number) == (Phase.CLOSING, 2)
    assert asked(run) == {A: TaskKind.CLOSE, B: None, C: None, D: None}
    run = all_do(run, A)
    assert instruction(run, A) == Task("run", TaskKind.TRAIN, 2, digest("average"), attempt=2)


def test_c_plus_one_holders_are_all_needed() -> None:
    run = after(releasing(holders=(A, B), colluders=1), SiteSilent(B, 5.0))
    [wait] = waits(run)
    assert (wait.until, wait.then) == (5.0 + GIVE_UP_S, OnTimeout.ABORT)
    assert after(run, Tick(5.0 + GIVE_UP_S)).phase is Phase.ABORTED


def test_a_holder_that_had_released_when_it_is_asked_to_close_is_heard() -> None:
    """It was asked for its masks before the other one went away; its word was on its way."""
    run = releasing()
    release = answered(run, A)
    run = after(run, SiteSilent(B, 5.0), Tick(5.0 + GRACE_S))
    assert run.phase is Phase.CLOSING
    run = after(run, release)
    assert (run.phase, run.current.remaining) == (Phase.RELEASING, ())
    run = after(run, SiteAttached(B, 400.0))
    assert all_do(run, B).phase is Phase.AGGREGATING


def test_one_that_has_released_and_one_that_has_closed_end_the_run() -> None:
    run = releasing(holders=(A, B, C), colluders=1)
    release = answered(run, A)
    run = all_do(after(run, SiteSilent(B, 5.0), Tick(5.0 + GRACE_S)), C)
    run = after(run, release)
    assert run.phase is Phase.ABORTED
    assert "ada has released its masks, cleo never will" in run.reason


@pytest.mark.parametrize("revoked", [A, B])
def test_a_revoked_holder_is_closed_out_at_once_while_the_sites_train(revoked: str) -> None:
    run = after(all_do(training(), revoked, C), SiteRevoked(revoked, 5.0))
    [left] = {A, B} - {revoked}
    assert (run.phase, run.current.remaining) == (Phase.CLOSING, (left,))
    run = all_do(run, left)
    assert instruction(run, C) == Task("run", TaskKind.TRAIN, 1, GIVEN, attempt=2)


def test_a_revoked_holder_is_closed_out_while_masks_are_asked_for() -> None:
    run = after(releasing(), SiteRevoked(B, 5.0))
    assert (run.phase, run.current.remaining) == (Phase.CLOSING, (A,))


def test_a_revoked_holder_after_the_first_release_ends_the_run() -> None:
    run = after(all_do(releasing(), A), SiteRevoked(B, 5.0))
    assert run.phase is Phase.ABORTED


def test_a_site_that_is_revoked_while_it_trains_is_in_no_list() -> None:
    run = all_do(after(all_do(training(), D), SiteRevoked(D, 5.0)), A, B, C)
    assert [update.site for update in run.current.contributions] == [A, B, C]
    assert run.phase is Phase.RELEASING


def test_a_list_that_a_holder_may_know_is_not_changed_by_a_revocation() -> None:
    run = after(releasing(), SiteRevoked(D, 5.0))
    assert [update.site for update in run.current.contributions] == [A, B, C, D]
    assert "stays in the sum" in run.current.notes[0]


def test_with_three_sites_none_can_be_missing() -> None:
    run = after(training(sites=(A, B, C)), SiteRevoked(C, 5.0))
    assert all_do(run, A, B).phase is Phase.ABORTED, "once the holders have closed the attempt"


# --- a model that cannot be used --------------------------------------------------------------------------------------


def test_a_sum_that_cannot_be_used_ends_the_run() -> None:
    run = after(all_do(releasing(), A, B), AverageUnusable(1, 0, 5.0))
    assert run.phase is Phase.ABORTED
    assert "no model is the base of two rounds" in run.reason


def test_a_model_without_a_finite_loss_ends_the_run() -> None:
    run = all_do(releasing(), A, B)
    run = after(run, AggregateStored(1, digest("average"), 0.0, total=digest("sum")))
    for site in SITES:
        run = after(run, ModelUnusable(site, instruction(run, site), 0, 1.0))  # type: ignore[arg-type]
    assert run.phase is Phase.ABORTED


def test_too_few_vectors_end_the_run() -> None:
    run = training(quorum=3)
    for site in (A, B):
        run = after(run, ModelUnusable(site, instruction(run, site), 0, 1.0))  # type: ignore[arg-type]
    run = all_do(run, C, D)
    assert all_do(run, A, B).phase is Phase.ABORTED, "once the holders have closed the attempt"


# --- any history ------------------------------------------------------------------------------------------------------

RUNS = st.builds(
    lambda terms, quorum: fresh(**terms, quorum=quorum),
    st.sampled_from(
        [
            {"holders": (A,)},
            {"holders": (A, B)},
            {"holders": (B, C), "colluders": 1, "quorum_min": 3},
            {"holders": (A, B, D), "colluders": 1},
        ]
    ).map(lambda terms: {key: value for key, value in terms.items() if key != "quorum_min"}),
    st.sampled_from([None, 4]),
)


def check_sums(run: Run) -> None:
    """What holds of every round, whatever happens."""
    check_state(run)
    for round_ in run.rounds:
        closers = {close.site for close in round_.closes}
        assert run.ended or not (round_.releases and closers), "one has released, one never will"
        for closing in round_.closed:
            assert len(closing) > run.plan.terms.colluders
            assert {close.site for close in closing} == set(closing[0].remaining)
        releasers = {release.site for release in round_.releases}
        allowed = round_.closed[-1][0].remaining if round_.closed else run.plan.terms.holders
        assert releasers <= set(allowed)
        if round_.total:
            assert releasers == set(allowed)
            assert len(round_.contributions) >= 3
    bases = [round_.base for round_ in run.rounds]
    assert len(set(bases)) == len(bases), "one base, one round"


def next_event(run: Run, dice: random.Random, at: float, trouble: float) -> Event:
    work = coordinator_work(run)
    if work is not None:
        return AggregateStored(work.round, digest(f"average{work.round}"), at, total=digest(f"sum{work.round}"))
    site = dice.choice(run.plan.sites)
    if dice.random() < trouble:
        chance = [SiteSilent(site, at), SiteSilent(site, at), SiteAttached(site, at), Tick(at)]
        return dice.choice([*chance, SiteRevoked(site, at), RunAborted("enough", at)] if trouble > 0.3 else chance)
    if all(one.site != site for one in run.openings):
        return opening(site, at)
    if run.site(site).presence is not Presence.PRESENT:
        return SiteAttached(site, at)
    return answered(run, site, at) if isinstance(instruction(run, site), Task) else Tick(at)


@settings(max_examples=10, deadline=None)
@given(run=RUNS, seed=st.integers(0, 2**32), trouble=st.sampled_from([0.0, 0.1, 0.25, 0.4]))
def test_any_history_keeps_the_rules_and_replays_to_the_same_state(run: Run, seed: int, trouble: float) -> None:
    dice, first, journal, at, kept = random.Random(seed), run, [], 0.0, []
    for _ in range(150):
        at += dice.choice([0.0, 1.0, 400.0 if trouble else 1.0])
        event = next_event(run, dice, at, trouble)
        if kept and dice.random() < 0.1:
            event = replace(dice.choice(kept), at=at)  # said before; or too late
        before = run
        run, _ = step(run, event)
        if isinstance(event, ReleaseStored | CloseSigned | UpdateStored | BoxesStored):
            kept.append(event)
        if run is not before:
            journal.append(event_to_json(event))
        check_sums(run)
    assert replay(first, map(event_from_json, journal)) == run
    if trouble == 0.0:
        assert run.outcome is Outcome.OK, run.reason


def test_deadlines_end() -> None:
    run = after(releasing(), SiteSilent(B, 5.0))
    assert deadline(run) == 5.0 + GRACE_S


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [(), (A, C), SITES])
def test_a_run_that_is_aborted_first_closes_its_attempt(trained: tuple[str, ...]) -> None:
    """Then the model that the round began with was in no sum, and another run may begin with it."""
    run = after(all_do(training(), *trained) if trained else training(), RunAborted("enough", 5.0))
    assert (run.phase, run.outcome, run.current.remaining) == (Phase.CLOSING, None, (A, B))
    assert asked(run) == {A: TaskKind.CLOSE, B: TaskKind.CLOSE, C: None, D: None}
    run = all_do(run, A, B)
    assert (run.phase, run.outcome, run.reason) == (Phase.ABORTED, Outcome.ABORTED, "enough")
    assert [close.site for close in run.current.closed[0]] == [A, B]


def test_a_run_that_is_aborted_does_not_wait_long_for_a_holder_and_not_at_all_when_told_twice() -> None:
    run = after(all_do(after(training(), RunAborted("enough", 5.0)), A), SiteSilent(B, 6.0))
    assert deadline(run) == 6.0 + GRACE_S
    assert after(run, Tick(6.0 + GRACE_S)).reason == "no quorum while closing: waited for bob (silent: no sign of life)"
    assert after(run, RunAborted("at once", 7.0)).reason == "at once"


def test_where_masks_were_released_nothing_is_left_to_close() -> None:
    assert after(all_do(releasing(), A), RunAborted("enough", 5.0)).phase is Phase.ABORTED
