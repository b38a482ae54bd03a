"""The federation's machine: what each event does in each phase, who is waited for and how long, and how a run ends."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcervix.core.events import (
    WITHOUT_BASE,
    AggregateStored,
    Answer,
    Event,
    ModelAdopted,
    Rewrapped,
    RunAborted,
    ScoreReported,
    Seal,
    SiteAttached,
    SiteFailed,
    SiteOpened,
    SiteRefused,
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
from fedcervix.core.rounds.holders import has_opened
from fedcervix.core.rounds.instructions import Finish, Idle, instruction
from fedcervix.core.rounds.objections import objection
from fedcervix.core.rounds.readers import next_reader
from fedcervix.core.rounds.scores import improves, mean_loss
from fedcervix.core.rounds.state import Outcome, Phase, Presence, Run, begin
from fedcervix.core.rounds.step import replay, step
from fedcervix.core.rounds.transitions import add_models
from fedcervix.core.rounds.waits import OnTimeout, deadline, waits

A, B, C = "ada", "bob", "cleo"
MODES = ("csfssl", "ppfssl")
SEALED = "ppfssl with models under seal"
GIVEN = "9" * 64
ACCEPTED, DUPLICATE, STALE, REFUSED = Answer.ACCEPTED, Answer.DUPLICATE, Answer.STALE, Answer.REFUSED


def digest(name: str) -> str:
    """Return a digest that a reader can tell from others: the hexadecimal of a few letters, filled up."""
    return name.encode().hex().ljust(64, "0")


def plan(mode: str = "csfssl", sites: tuple[str, ...] = (A, B, C), *, epochs_max: int = 50, **terms: Any) -> Plan:
    return Plan(
        mode=mode,
        sites=sites,
        profile="paper",
        terms=Terms(**{"rounds": 3, **terms}),
        recipe=Recipe(epochs_max=epochs_max),
    )


def sealed(model: str, *readers: str) -> Seal:
    """Return a seal of a model with boxes for sites."""
    return Seal("header", digest(f"f{model[:8]}"), tuple((reader, "b" * 96) for reader in readers), "5e")


def fresh(mode: str = "csfssl", *, base: str = GIVEN, at: float = 0.0, **given: Any) -> Run:
    return begin("run", plan(mode, **given), base=base, at=at)


def after(run: Run, *events: Event) -> Run:
    """Return the state after events that are all accepted."""
    for event in events:
        run, answer = step(run, event)
        assert answer is ACCEPTED, f"{event}: {answer}"
    return run


def attached(*sites: str, at: float = 0.0) -> list[Event]:
    return [SiteAttached(site, at) for site in sites]


def task_of(run: Run, site: str, kind: TaskKind) -> Task:
    """Return what the machine asks of a site, which is a task of this kind."""
    task = instruction(run, site)
    assert isinstance(task, Task), f"{site}: {task}"
    assert task.kind is kind
    return task


def trained(run: Run, site: str, *, at: float = 0.0, images: int = 10, name: str = "") -> UpdateStored:
    task = task_of(run, site, TaskKind.TRAIN)
    return UpdateStored(site, task, digest(name or f"{site}{task.round}"), images, 1, 0.5, 1.0, at)


def scored(run: Run, site: str, loss: float = 1.0, *, at: float = 0.0, images: int = 10) -> ScoreReported:
    return ScoreReported(site, task_of(run, site, TaskKind.SCORE), 4 * loss, 4, images, (), at)


def adopted(run: Run, site: str, *, at: float = 0.0) -> ModelAdopted:
    return ModelAdopted(site, task_of(run, site, TaskKind.ADOPT), at)


def all_trained(run: Run, sites: Iterable[str], *, at: float = 0.0) -> Run:
    for site in sites:
        run = after(run, trained(run, site, at=at))
    work = coordinator_work(run)
    return run if work is None else after(run, AggregateStored(work.round, digest(f"average{work.round}"), at))


def all_scored(run: Run, losses: dict[str, float], *, at: float = 0.0) -> Run:
    for site, loss in losses.items():
        run = after(run, scored(run, site, loss, at=at))
    return run


def in_phase(mode: str, phase: Phase) -> Run:
    """Return a run of three sites that has come this far by the shortest way."""
    run = fresh(
        mode, base="" if phase in (Phase.GATHERING, Phase.SEEDING) else GIVEN, ring_result="cycle-average", rounds=1
    )
    if phase is Phase.GATHERING:
        return run
    if phase is Phase.ABORTED:
        return after(run, RunAborted("enough", 0.0))
    run = after(run, *attached(A, B, C))
    if phase in (Phase.SEEDING, Phase.TRAINING):
        return run
    for site in (A, B, C):
        run = after(run, trained(run, site))
    if phase is Phase.AGGREGATING:
        return run
    run = after(run, AggregateStored(1, digest("average1"), 0.0))
    if phase is Phase.SCORING:
        return run
    run = all_scored(run, {A: 1.0, B: 1.0, C: 1.0})
    if phase is Phase.PUBLISHING:
        return run
    for site in (A, B, C):
        run = after(run, adopted(run, site))
    return run


PHASES = [phase for phase in Phase if phase not in (Phase.RELEASING, Phase.CLOSING)]
"""of a run without secure sums (tests/unit/test_secure_rounds.py has the others)"""

# --- the way through ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_is_reached(mode: str, phase: Phase) -> None:
    assert in_phase(mode, phase).phase is phase


def test_csfssl_every_site_trains_at_once_from_the_same_model() -> None:
    run = in_phase("csfssl", Phase.TRAINING)
    assert {site: instruction(run, site) for site in (A, B, C)} == dict.fromkeys(
        (A, B, C), Task("run", TaskKind.TRAIN, 1, GIVEN)
    )


def test_csfssl_the_next_round_begins_from_the_average() -> None:
    run = after(fresh(rounds=2), *attached(A, B, C))
    run = all_scored(all_trained(run, (A, B, C)), {A: 1.0, B: 1.0, C: 1.0})
    assert (run.current.number, run.current.base, run.model) == (2, digest("average1"), digest("average1"))


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.SCORING])
def test_a_site_that_has_done_its_part_is_not_asked_again_and_told_who_is_waited_for(phase: Phase) -> None:
    run = in_phase("csfssl", phase)
    run = after(run, trained(run, B) if phase is Phase.TRAINING else scored(run, B))
    stand = instruction(run, B)
    assert isinstance(stand, Idle)
    assert stand.reason.endswith("ada, cleo")


def test_csfssl_updates_are_averaged_in_roster_order_whatever_the_order_of_arrival() -> None:
    run = in_phase("csfssl", Phase.TRAINING)
    for site in (C, A, B):
        run = after(run, trained(run, site))
    work = coordinator_work(run)
    assert work is not None
    assert work.updates == ((digest("ada1"), 1.0), (digest("bob1"), 1.0), (digest("cleo1"), 1.0))
    assert (work.round, work.layout) == (1, GIVEN)


def round_of(run: Run, number: int, losses: dict[str, float]) -> tuple[Run, tuple[str, str] | None]:
    """Return the state after a whole round, and the step that its average was told to carry on."""
    for site in losses:
        run = after(run, trained(run, site))
    work = coordinator_work(run)
    assert work is not None
    run = after(run, AggregateStored(number, digest(f"average{number}"), 0.0))
    return all_scored(run, losses), work.last_step


def test_server_momentum_carries_on_the_step_between_the_bases_of_this_round_and_the_one_before() -> None:
    """Training goes on from the last model though the first round's is the best; the step is between those as well."""
    run, steps = after(fresh(rounds=4, server_momentum=0.5), *attached(A, B, C)), []
    for number, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)):
        run, last = round_of(run, number, dict.fromkeys((A, B, C), loss))
        steps.append(last)
    assert run.best_round == 1
    assert steps == [
        None,
        (digest("average1"), GIVEN),
        (digest("average2"), digest("average1")),
        (digest("average3"), digest("average2")),
    ]


def test_without_server_momentum_there_is_no_step_to_carry_on() -> None:
    run = after(fresh(), *attached(A, B, C))
    run, _ = round_of(run, 1, {A: 1.0, B: 1.0, C: 1.0})
    assert round_of(run, 2, {A: 1.0, B: 1.0, C: 1.0})[1] is None


def test_server_momentum_carries_on_the_step_of_a_round_in_which_a_site_was_missing() -> None:
    run = after(fresh(server_momentum=0.5, quorum=2, grace_s=0.0), *attached(A, B, C), SiteSilent(C, 0.0))
    run, _ = round_of(run, 1, {A: 1.0, B: 1.0})
    run, last = round_of(run, 2, {A: 1.0, B: 1.0})
    assert [missing.site for missing in run.rounds[0].missing] == [C]
    assert last == (digest("average1"), GIVEN)


def test_by_images_an_update_weighs_as_many_images_as_its_site_has() -> None:
    run = after(fresh(average="by-images"), *attached(A, B, C))
    for site, images in ((A, 10), (B, 100), (C, 3)):
        run = after(run, trained(run, site, images=images))
    work = coordinator_work(run)
    assert work is not None
    assert [weight for _, weight in work.updates] == [10.0, 100.0, 3.0]


def test_ppfssl_the_model_goes_from_site_to_site() -> None:
    """Paper, II-B: "the updated model is sent to next client and so on"."""
    run = in_phase("ppfssl", Phase.TRAINING)
    base = GIVEN
    for holder, others in ((A, (B, C)), (B, (A, C)), (C, (A, B))):
        assert instruction(run, holder) == Task("run", TaskKind.TRAIN, 1, base)
        assert all(isinstance(instruction(run, other), Idle) for other in others)
        run = after(run, trained(run, holder))
        base = digest(f"{holder}1")
    assert run.model == digest("cleo1")


@pytest.mark.parametrize(("ring_result", "candidate"), [("last", "cleo1"), ("cycle-average", "average1")])
def test_ppfssl_a_cycle_gives_its_last_model_or_the_average_of_its_hops(ring_result: str, candidate: str) -> None:
    run = all_trained(after(fresh("ppfssl", ring_result=ring_result), *attached(A, B, C)), (A, B, C))
    assert (run.phase, run.current.candidate) == (Phase.SCORING, digest(candidate))
    run = all_scored(run, {A: 1.0, B: 1.0, C: 1.0})
    assert instruction(run, A) == Task("run", TaskKind.TRAIN, 2, digest("cleo1"))  # the ring goes on from the last hop


def test_the_first_model_is_made_by_the_first_site_that_is_present() -> None:
    run = in_phase("csfssl", Phase.SEEDING)
    assert instruction(run, A) == Task("run", TaskKind.SEED, 0, "")
    assert instruction(run, B) == Idle("ada makes the first model")
    run = after(run, SiteSilent(A, 70.0))
    assert instruction(run, B) == Task("run", TaskKind.SEED, 0, "")
    run = after(run, UpdateStored(B, Task("run", TaskKind.SEED, 0, ""), GIVEN, 0, 0, 0.0, 1.0, 80.0))
    assert (run.phase, run.model, run.layout) == (Phase.TRAINING, GIVEN, GIVEN)


def test_only_the_site_that_makes_the_first_model_is_waited_for_meanwhile() -> None:
    run = in_phase("csfssl", Phase.SEEDING)
    assert [wait.site for wait in waits(run)] == [A]
    run = after(run, SiteSilent(A, 1.0), SiteSilent(B, 2.0), SiteSilent(C, 3.0))
    assert [(wait.site, wait.then) for wait in waits(run)] == [(site, OnTimeout.ABORT) for site in (A, B, C)]
    assert after(run, SiteAttached(C, 4.0)).phase is Phase.SEEDING
    assert after(run, Tick(3.0 + run.plan.terms.give_up_s)).phase is Phase.ABORTED


def test_a_run_with_a_quorum_of_two_needs_only_one_site_for_its_first_model() -> None:
    run = after(fresh(base="", quorum=2), *attached(A, B, C), SiteRevoked(A, 1.0), SiteRevoked(B, 2.0))
    assert (run.phase, task_of(run, C, TaskKind.SEED).round) == (Phase.SEEDING, 0)


def test_a_given_first_model_needs_no_seed() -> None:
    assert after(fresh(), *attached(A, B, C)).phase is Phase.TRAINING


def test_a_federation_of_one_site() -> None:
    run = after(fresh(sites=(A,), rounds=1), *attached(A))
    run = all_scored(all_trained(run, (A,)), {A: 1.0})
    assert after(run, adopted(run, A)).outcome is Outcome.OK


@pytest.mark.parametrize("mode", MODES)
def test_a_site_that_has_adopted_the_result_may_leave_before_the_others(mode: str) -> None:
    run = in_phase(mode, Phase.PUBLISHING)
    run = after(run, adopted(run, B))
    assert (run.phase, instruction(run, B)) == (Phase.PUBLISHING, Finish(Outcome.OK, "all 1 rounds done"))


# --- phase x event ------------------------------------------------------------------------------------------------

SEED_TASK = Task("run", TaskKind.SEED, 0, "")
TRAIN_TASK = Task("run", TaskKind.TRAIN, 1, GIVEN)
SCORE_TASK = Task("run", TaskKind.SCORE, 1, digest("average1"))
ADOPT_TASK = Task("run", TaskKind.ADOPT, 1, digest("average1"))

SAID: dict[str, Event] = {
    "attached": SiteAttached(A, 1.0),
    "silent": SiteSilent(A, 1.0),
    "refused": SiteRefused(A, "no", 1.0),
    "revoked": SiteRevoked(A, 1.0),
    "failed": SiteFailed(A, "training", "out of memory", "INC-1", 1.0),
    "seed": UpdateStored(A, SEED_TASK, digest("seed"), 0, 0, 0.0, 1.0, 1.0),
    "update": UpdateStored(A, TRAIN_TASK, digest("ada1"), 10, 1, 0.5, 1.0, 1.0),
    "average": AggregateStored(1, digest("average1"), 1.0),
    "score": ScoreReported(A, SCORE_TASK, 4.0, 4, 10, (), 1.0),
    "adopted": ModelAdopted(A, ADOPT_TASK, 1.0),
    "abort": RunAborted("enough", 1.0),
    "tick": Tick(1.0),
}

TABLE = """
              attached   silent    refused   revoked   failed    seed       update     average   score      adopted
gathering     accepted   stale     accepted  accepted  accepted  stale      refused    stale     refused    stale
seeding       duplicate  accepted  accepted  accepted  accepted  accepted   refused    stale     refused    stale
training      duplicate  accepted  accepted  accepted  accepted  stale      accepted   stale     stale      stale
aggregating   duplicate  accepted  accepted  accepted  accepted  stale      duplicate  accepted  stale      stale
scoring       duplicate  accepted  accepted  accepted  accepted  stale      duplicate  stale     accepted   stale
publishing    duplicate  accepted  accepted  accepted  accepted  stale      duplicate  stale     duplicate  accepted
finished      stale      stale     stale     stale     stale     stale      stale      stale     stale      stale
aborted       stale      stale     stale     stale     stale     stale      stale      stale     stale      stale
"""
"""What ada is answered in each phase; the same in both modes."""

_HEAD, *_ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(row[0], said, answer) for row in _ROWS for said, answer in zip(_HEAD, row[1:], strict=True)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("phase", "said", "answer"), CELLS)
def test_the_answer_to_each_event_in_each_phase(mode: str, phase: str, said: str, answer: str) -> None:
    run = in_phase(mode, Phase(phase))
    changed, found = step(run, SAID[said])
    assert found == answer
    if found is not ACCEPTED:
        assert changed is run, "what is not accepted changes nothing"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase not in (Phase.FINISHED, Phase.ABORTED)])
def test_the_operator_can_end_a_run_in_every_phase(mode: str, phase: Phase) -> None:
    run = after(in_phase(mode, phase), SAID["abort"])
    assert (run.phase, run.outcome, run.reason) == (Phase.ABORTED, Outcome.ABORTED, "enough")
    assert instruction(run, B) == Finish(Outcome.ABORTED, "enough")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", PHASES)
def test_a_tick_before_any_deadline_changes_nothing(mode: str, phase: Phase) -> None:
    run = in_phase(mode, phase)
    assert step(run, Tick(1.0))[0] is run


# --- what no correct site says ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase not in (Phase.FINISHED, Phase.ABORTED)])
@pytest.mark.parametrize("said", sorted(SAID.keys() - {"average", "abort", "tick"}))
def test_an_undeclared_site_is_refused_whatever_it_says(mode: str, phase: Phase, said: str) -> None:
    run = in_phase(mode, phase)
    assert step(run, replace(SAID[said], site="mallory")) == (run, REFUSED)


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.SCORING, Phase.PUBLISHING])
@pytest.mark.parametrize("said", ["seed", "update", "score", "adopted"])
def test_a_report_of_another_run_is_stale(phase: Phase, said: str) -> None:
    """A site may deliver its last result after the operator has begun another run: that is no offence."""
    run, event = in_phase("csfssl", phase), SAID[said]
    assert step(run, replace(event, task=replace(event.task, run="another"))) == (run, STALE)


def test_an_update_of_a_round_that_has_not_begun_is_refused() -> None:
    run = in_phase("csfssl", Phase.TRAINING)
    ahead = replace(trained(run, A), task=replace(TRAIN_TASK, round=2))
    assert step(run, ahead) == (run, REFUSED)


def test_an_update_from_another_base_is_stale() -> None:
    run = in_phase("csfssl", Phase.TRAINING)
    assert step(run, replace(trained(run, A), task=replace(TRAIN_TASK, base=digest("old")))) == (run, STALE)


def test_a_first_model_that_was_not_asked_for_is_not_taken() -> None:
    run = in_phase("csfssl", Phase.SEEDING)
    assert step(run, replace(SAID["seed"], site=B)) == (run, STALE)
    assert step(run, replace(SAID["seed"], task=replace(SEED_TASK, round=3)))[1] is STALE


# --- an update is named (run, round, site, digest) ----------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_an_update_twice_is_acknowledged_twice_and_counts_once(mode: str) -> None:
    run = in_phase(mode, Phase.TRAINING)
    update = trained(run, A)
    run = after(run, update)
    assert step(run, replace(update, at=5.0)) == (run, DUPLICATE)
    assert [u.site for u in run.current.contributions] == [A]


@pytest.mark.parametrize("mode", MODES)
def test_a_second_update_with_another_digest_does_not_replace_the_first(mode: str) -> None:
    run = in_phase(mode, Phase.TRAINING)
    first, second = trained(run, A), trained(run, A, name="other")
    run = after(run, first)
    assert step(run, second) == (run, STALE)


@pytest.mark.parametrize("mode", MODES)
def test_an_update_of_an_older_round_is_acknowledged_or_stale_but_never_counts(mode: str) -> None:
    run = after(fresh(mode), *attached(A, B, C))
    update, other = trained(run, A), trained(run, A, name="other")
    run = all_scored(all_trained(run, (A, B, C)), {A: 1.0, B: 1.0, C: 1.0})
    assert run.current.number == 2
    assert step(run, update) == (run, DUPLICATE)
    assert step(run, other) == (run, STALE)


@pytest.mark.parametrize("mode", MODES)
def test_a_score_twice_counts_once(mode: str) -> None:
    run = in_phase(mode, Phase.SCORING)
    run = after(run, scored(run, A))
    assert step(run, replace(SAID["score"], loss_sum=99.0, task=run.current.scores[0].task)) == (run, DUPLICATE)


def test_a_first_model_twice_is_acknowledged_twice_and_another_one_is_stale() -> None:
    seed = replace(SAID["seed"], digest=GIVEN)
    run = after(in_phase("csfssl", Phase.SEEDING), seed)
    assert step(run, seed) == (run, DUPLICATE)
    assert step(run, replace(seed, digest=digest("other"))) == (run, STALE)


def test_a_model_adopted_twice_is_adopted_once() -> None:
    run = in_phase("csfssl", Phase.PUBLISHING)
    said = adopted(run, B)
    run = after(run, said)
    assert step(run, said) == (run, DUPLICATE)
    assert run.adopted == (B,)


def test_rounds_are_counted_from_one() -> None:
    run = after(in_phase("csfssl", Phase.TRAINING), trained(in_phase("csfssl", Phase.TRAINING), A))
    update = run.current.contributions[0]
    assert step(run, replace(update, task=replace(update.task, round=0))) == (run, STALE)


def test_a_late_average_is_stale() -> None:
    run = in_phase("csfssl", Phase.AGGREGATING)
    assert step(run, AggregateStored(2, digest("average2"), 0.0)) == (run, STALE)


# --- presence -----------------------------------------------------------------------------------------------------


def test_a_site_that_says_the_same_failure_twice_has_failed_once() -> None:
    run = after(in_phase("csfssl", Phase.TRAINING), SAID["failed"])
    assert step(run, SAID["failed"]) == (run, DUPLICATE)
    assert run.site(A).reason == "training: out of memory (INC-1)"
    run = after(run, SiteAttached(A, 2.0))
    assert step(run, SAID["failed"]) == (run, DUPLICATE), "a late copy does not send away a site that has come back"
    run = after(run, SiteFailed(A, "training", "out of memory", "INC-2", 3.0))
    assert [failure.incident for failure in run.failures] == ["INC-1", "INC-2"]


def test_a_failure_from_which_a_site_goes_on_is_written_down_and_changes_nothing_else() -> None:
    for mode in MODES:
        before = in_phase(mode, Phase.TRAINING)
        failure = SiteFailed(A, "training", "the worker hung", "INC-7", 3.0, "TrainingError", goes_on=True)
        run, answer = step(before, failure)
        assert answer is ACCEPTED
        assert run == replace(before, failures=(failure,))
        assert step(run, failure) == (run, DUPLICATE)
        assert step(run, replace(failure, site="zoe")) == (run, REFUSED)
        revoked = after(run, SiteRevoked(A, 4.0))
        assert step(revoked, replace(failure, incident="INC-8")) == (revoked, REFUSED)


def test_two_sites_may_give_their_failures_the_same_number() -> None:
    run = after(in_phase("csfssl", Phase.TRAINING), SAID["failed"], replace(SAID["failed"], site=B))
    assert [failure.site for failure in run.failures] == [A, B]


def test_at_most_a_hundred_failures_are_kept() -> None:
    run = in_phase("csfssl", Phase.TRAINING)
    for number in range(105):
        run = after(run, SiteFailed(A, "training", "again", f"INC-{number}", 1.0))
    assert [failure.incident for failure in run.failures] == [f"INC-{n}" for n in range(5, 105)]


def test_a_site_that_fails_all_the_time_does_not_hide_the_failures_of_the_others() -> None:
    run = after(in_phase("csfssl", Phase.TRAINING), SiteFailed(B, "training", "a broken disk", "INC-B", 1.0))
    run = after(run, SiteAttached(B, 1.5))
    for number in range(300):
        run = after(run, SiteFailed(A, "training", "again", f"INC-{number}", 2.0), SiteAttached(A, 2.5))
    assert len(run.failures) == len(run.mended) == 100
    assert run.failures[0].incident == "INC-B"
    assert (run.mended[0].site, run.mended[0].at) == (B, 1.5)


def test_a_revoked_site_does_not_come_back() -> None:
    run = after(fresh(quorum=1), SiteRevoked(A, 1.0))
    assert step(run, SiteRevoked(A, 2.0)) == (run, DUPLICATE)
    for event in (SiteAttached(A, 2.0), SiteRefused(A, "no", 2.0), SAID["failed"], SiteSilent(A, 2.0)):
        assert step(run, event)[1] is REFUSED
    told = instruction(run, A)  # with a new certificate it may connect again
    assert isinstance(told, Idle)
    assert "waits for the next run" in told.reason
    ended = after(run, RunAborted("enough", 3.0))
    over = instruction(ended, A)
    assert isinstance(over, Finish)
    assert over.outcome is Outcome.ABORTED
    assert over.reason.startswith(f"{ended.reason}; the operator revoked this site")


def test_only_a_present_site_falls_silent() -> None:
    for event in (SAID["failed"], SAID["refused"]):
        run = after(in_phase("csfssl", Phase.TRAINING), event)
        assert step(run, SiteSilent(A, 5.0)) == (run, STALE)


def test_a_site_that_refused_may_change_its_mind() -> None:
    run = after(fresh(), SiteRefused(A, "rounds_max is 2", 1.0), *attached(A, at=2.0))
    assert run.site(A).presence is Presence.PRESENT


# --- waiting, quorum, grace, giving up ----------------------------------------------------------------------------


def test_everyone_who_is_waited_for_is_in_the_list_with_reason_and_deadline() -> None:
    run = after(fresh(grace_s=100.0, give_up_s=1000.0), SiteAttached(A, 5.0))
    found = {w.site: (w.reason, w.since, w.until, w.then) for w in waits(run)}
    assert found == {
        B: ("absent", 0.0, 1000.0, OnTimeout.ABORT),
        C: ("absent", 0.0, 1000.0, OnTimeout.ABORT),
    }
    assert deadline(run) == 1000.0


def test_a_present_site_is_waited_for_as_long_as_it_shows_signs_of_life() -> None:
    run = in_phase("csfssl", Phase.TRAINING)
    assert [(w.site, w.until, w.then) for w in waits(run)] == [(site, None, OnTimeout.LEASE) for site in (A, B, C)]
    assert deadline(run) is None
    assert step(run, Tick(1e9))[0] is run


def test_without_a_quorum_rule_a_run_does_not_begin_without_a_declared_site() -> None:
    for mode in MODES:
        run = after(fresh(mode, give_up_s=1000.0), *attached(A, B))
        assert run.phase is Phase.GATHERING
        assert after(run, *attached(C, at=999.0)).phase is Phase.TRAINING
        run = after(run, Tick(1000.0))
        assert (run.phase, run.reason) == (Phase.ABORTED, "no quorum while gathering: waited for cleo (absent)")


def test_with_a_quorum_a_run_begins_when_the_grace_of_the_absent_has_passed() -> None:
    run = after(fresh(quorum=2, grace_s=100.0), *attached(A, B, at=10.0))
    assert (run.phase, deadline(run)) == (Phase.GATHERING, 100.0)
    assert step(run, Tick(99.9))[0] is run
    assert after(run, Tick(100.0)).phase is Phase.TRAINING


def test_csfssl_with_every_site_needed_a_silent_site_stops_the_round_until_it_is_back() -> None:
    run = after(in_phase("csfssl", Phase.TRAINING), SiteSilent(C, 100.0))
    run = after(run, trained(run, A), trained(run, B))
    assert run.phase is Phase.TRAINING
    assert [(w.site, w.then, w.until) for w in waits(run)] == [(C, OnTimeout.ABORT, 100.0 + run.plan.terms.give_up_s)]
    run = after(run, SiteAttached(C, 5000.0))
    assert after(run, trained(run, C)).phase is Phase.AGGREGATING


def test_csfssl_with_a_quorum_a_round_is_closed_to_a_silent_site_after_its_grace() -> None:
    run = after(fresh(quorum=2, grace_s=100.0), *attached(A, B, C), SiteSilent(C, 50.0))
    run = after(run, trained(run, A))
    assert [w.then for w in waits(run)] == [OnTimeout.LEASE, OnTimeout.ABORT], "one update is no quorum"
    run = after(run, trained(run, B))
    assert (run.phase, deadline(run)) == (Phase.TRAINING, 150.0)
    run = after(run, Tick(150.0))
    assert run.phase is Phase.AGGREGATING
    assert [(m.site, m.reason) for m in run.current.missing] == [(C, "silent: no sign of life")]


def test_csfssl_a_site_that_is_back_within_its_grace_is_not_left_out() -> None:
    run = after(fresh(quorum=2, grace_s=100.0), *attached(A, B, C), SiteSilent(C, 50.0))
    run = after(run, trained(run, A), trained(run, B), SiteAttached(C, 149.0))
    assert (run.phase, deadline(run)) == (Phase.TRAINING, None)
    assert after(run, trained(run, C)).current.missing == ()


def test_a_site_that_was_left_out_of_a_round_scores_it_and_comes_in_again_in_the_next() -> None:
    run = after(fresh(quorum=2, grace_s=0.0), *attached(A, B, C), SiteSilent(C, 50.0))
    run = all_trained(run, (A, B), at=60.0)
    run = after(run, SiteAttached(C, 70.0))
    run = all_scored(run, {A: 1.0, B: 1.0, C: 1.0}, at=80.0)
    assert instruction(run, C) == Task("run", TaskKind.TRAIN, 2, digest("average1"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("phase", [Phase.GATHERING, Phase.TRAINING])
def test_a_quorum_that_can_never_be_is_not_waited_for(mode: str, phase: Phase) -> None:
    run = in_phase(mode, phase)
    for site in (A, B, C):
        if not run.ended:
            run = after(run, SiteRevoked(site, 1.0))
    assert run.phase is Phase.ABORTED
    assert run.reason.startswith(f"too few sites are left for a quorum while {phase}: ")


@pytest.mark.parametrize("mode", MODES)
def test_a_run_goes_on_without_a_revoked_site_and_ends_degraded(mode: str) -> None:
    run = after(fresh(mode, rounds=1), *attached(A, B, C), SiteRevoked(B, 2.0))
    run = all_scored(all_trained(run, (A, C), at=3.0), {A: 1.0, C: 1.0}, at=4.0)
    assert [(m.site, m.reason) for m in run.rounds[0].missing] == [(B, "revoked: revoked by the operator")]
    assert [update.site for update in run.rounds[0].contributions] == [A, C]
    assert after(run, adopted(run, A, at=5.0), adopted(run, C, at=5.0)).outcome is Outcome.DEGRADED


def test_the_update_of_a_site_that_was_revoked_then_does_not_stand_in_for_one_that_is_still_to_come() -> None:
    run = after(fresh(grace_s=100.0), *attached(A, B, C))
    run = after(run, trained(run, A, at=1.0), trained(run, C, at=1.0), SiteSilent(B, 2.0), SiteRevoked(C, 3.0))
    assert [(wait.site, wait.then) for wait in waits(run)] == [(B, OnTimeout.ABORT)], (
        "bob is needed, however long it takes"
    )
    assert after(run, SiteAttached(B, 500.0)).phase is Phase.TRAINING


def test_a_run_whose_quorum_cannot_be_met_without_the_revoked_site_is_aborted() -> None:
    run = after(fresh(quorum=3), *attached(A, B, C), SiteRevoked(B, 2.0))
    assert (run.phase, run.outcome) == (Phase.ABORTED, Outcome.ABORTED)


def test_nobody_waits_for_a_revoked_site_where_the_quorum_is_met_without_it() -> None:
    run = after(fresh(quorum=2, grace_s=100.0), *attached(A, B, C), SiteRevoked(C, 50.0))
    run = after(run, trained(run, A, at=60.0), trained(run, B, at=60.0))
    assert run.phase is Phase.AGGREGATING


@pytest.mark.parametrize("mode", MODES)
def test_a_result_is_published_without_the_sites_that_are_away(mode: str) -> None:
    run = after(in_phase(mode, Phase.PUBLISHING), SiteSilent(C, 10.0))
    run = after(run, adopted(run, A, at=20.0), adopted(run, B, at=20.0))
    assert (run.phase, deadline(run)) == (Phase.PUBLISHING, 10.0 + run.plan.terms.grace_s)
    run = after(run, Tick(10.0 + run.plan.terms.grace_s))
    assert (run.phase, run.outcome) == (Phase.FINISHED, Outcome.OK), "it contributed to every round"


def test_a_result_is_published_even_if_nobody_comes_for_it() -> None:
    run = after(in_phase("csfssl", Phase.PUBLISHING), *(SiteSilent(site, 10.0) for site in (A, B, C)))
    run = after(run, Tick(10.0 + run.plan.terms.grace_s))
    assert (run.phase, run.adopted) == (Phase.FINISHED, ())


# --- the ring -----------------------------------------------------------------------------------------------------


def test_ppfssl_a_silent_holder_is_passed_over_and_comes_in_again_in_the_next_cycle() -> None:
    """The design: "the last accepted weights go on to the next site, the site rejoins later; each hop counts once"."""
    run = after(fresh("ppfssl"), *attached(A, B, C))
    run = after(run, trained(run, A))
    run = after(run, SiteSilent(B, 100.0))
    assert instruction(run, C) == Task("run", TaskKind.TRAIN, 1, digest("ada1"))
    run = after(run, SiteAttached(B, 110.0))
    assert instruction(run, B) == Idle("round 1 was closed without this site; it takes part again in the next round")
    run = all_trained(run, (C,))
    run = all_scored(run, {A: 1.0, B: 1.0, C: 1.0})
    run = all_trained(run, (A,))
    assert instruction(run, B) == Task("run", TaskKind.TRAIN, 2, digest("ada2"))
    assert [(m.site, m.reason) for m in run.rounds[0].missing] == [(B, "silent: no sign of life")]


def test_ppfssl_the_update_of_a_lost_lease_does_not_count() -> None:
    run = after(fresh("ppfssl"), *attached(A, B, C))
    late = trained(run, A)
    run = after(run, SiteSilent(A, 100.0), SiteAttached(A, 101.0))
    assert step(run, late) == (run, STALE)
    assert run.model == GIVEN


def test_ppfssl_a_site_behind_the_holder_does_not_lose_its_place_while_it_is_silent() -> None:
    run = after(fresh("ppfssl"), *attached(A, B, C), SiteSilent(C, 10.0), SiteAttached(C, 90.0))
    run = all_trained(run, (A, B, C))
    assert (run.phase, run.current.missing) == (Phase.SCORING, ())


def test_ppfssl_the_last_site_of_the_ring_away_ends_the_cycle() -> None:
    run = after(fresh("ppfssl"), *attached(A, B, C), SiteSilent(C, 10.0))
    run = all_trained(run, (A, B), at=20.0)
    assert (run.phase, run.current.candidate) == (Phase.SCORING, digest("bob1"))


def test_ppfssl_a_holder_is_waited_for_from_the_moment_it_got_the_model() -> None:
    run = after(fresh("ppfssl"), *attached(A, B, C))
    run = after(run, trained(run, A, at=70.0))
    assert [(wait.site, wait.since) for wait in waits(run)] == [(B, 70.0)]


def test_ppfssl_with_everyone_away_the_ring_waits_for_anyone_and_gives_up_at_last() -> None:
    run = after(fresh("ppfssl", give_up_s=1000.0), *attached(A, B, C))
    silent = after(run, SiteSilent(A, 10.0), SiteSilent(B, 20.0), SiteSilent(C, 30.0))
    assert [(m.site) for m in silent.current.missing] == [A, B], "C was present when they were passed over"
    assert [(w.site, w.then, w.until) for w in waits(silent)] == [(C, OnTimeout.ABORT, 1030.0)]
    back = after(silent, SiteAttached(C, 900.0))
    assert task_of(back, C, TaskKind.TRAIN).base == GIVEN
    assert after(silent, Tick(1030.0)).phase is Phase.ABORTED


def test_ppfssl_a_quorum_bounds_how_many_are_passed_over() -> None:
    run = after(fresh("ppfssl", quorum=3), *attached(A, B, C))
    run = after(run, trained(run, A), SiteSilent(B, 10.0))
    assert isinstance(instruction(run, C), Idle), "three of three are needed: the ring waits for bob"
    run = after(fresh("ppfssl", quorum=2), *attached(A, B, C))
    run = after(run, trained(run, A), SiteSilent(B, 10.0))
    assert task_of(run, C, TaskKind.TRAIN).base == digest("ada1")
    run = after(run, SiteSilent(C, 20.0))
    assert [w.then for w in waits(run)] == [OnTimeout.ABORT], "one of two has come: cleo cannot be passed over as well"


# --- scores, patience, the best round -----------------------------------------------------------------------------


def course(losses: list[float], **given: Any) -> Run:
    """Return a csfssl run of one site whose rounds have these validation losses; it stops by itself."""
    run = after(fresh(**{"sites": (A,), "rounds": 50, **given}), *attached(A))
    for loss in losses:
        if run.phase is Phase.TRAINING:
            run = all_scored(all_trained(run, (A,)), {A: loss})
    return run


def test_training_stops_after_five_rounds_without_a_lower_loss_and_keeps_the_best() -> None:
    """Paper, III-D: the patience is five."""
    run = course([3.0, 2.0, 2.5, 2.0, 2.5, 2.5, 2.0, 1.0])
    assert (run.phase, len(run.rounds), run.best_round) == (Phase.PUBLISHING, 7, 2)
    assert run.reason == "no lower validation loss in 5 rounds"
    assert instruction(run, A) == Task("run", TaskKind.ADOPT, 2, digest("average2"))


def test_a_lower_loss_in_the_last_moment_begins_the_patience_anew() -> None:
    run = course([3.0, 3.0, 3.0, 3.0, 3.0, 2.9, 3.0])
    assert (run.phase, run.best_round, run.current.number) == (Phase.TRAINING, 6, 8)


@pytest.mark.parametrize(
    ("rounds", "epochs_max", "epochs_per_round", "most"),
    [(50, 50, 1, 50), (3, 50, 1, 3), (50, 50, 20, 2), (9, 1, 5, 1)],
)
def test_rounds_end_with_the_terms_or_with_the_epochs_of_the_recipe(
    rounds: int, epochs_max: int, epochs_per_round: int, most: int
) -> None:
    falling = [1 / n for n in range(1, 60)]
    run = course(falling, rounds=rounds, epochs_max=epochs_max, epochs_per_round=epochs_per_round)
    assert (run.phase, len(run.rounds), run.reason) == (Phase.PUBLISHING, most, f"all {most} rounds done")


@pytest.mark.parametrize(("average", "loss"), [("equal", 2.0), ("by-images", 1.5)])
def test_the_loss_of_a_round_has_the_weights_of_the_average(average: str, loss: float) -> None:
    run = after(fresh(sites=(A, B), average=average), *attached(A, B))
    run = all_trained(run, (A, B))
    run = after(run, scored(run, A, 1.0, images=30))
    assert mean_loss(run, run.current, (A,)) == 1.0
    run = after(run, scored(run, B, 3.0, images=10))
    assert mean_loss(run, run.rounds[0], (A, B)) == loss


def test_rounds_are_compared_on_the_sites_that_scored_both() -> None:
    run = after(fresh(quorum=1, grace_s=0.0), *attached(A, B, C))
    run = all_scored(all_trained(run, (A, B, C)), {A: 1.0, B: 9.0, C: 9.0})
    run = all_trained(run, (A, B, C))
    run = after(run, SiteSilent(B, 50.0), SiteSilent(C, 50.0))
    run, _ = step(run, scored(run, A, 2.0, at=60.0))
    assert run.best_round == 1, "2.0 is below the old mean of all, but above ada's own 1.0"


def test_a_round_that_no_earlier_site_scored_counts_as_better() -> None:
    run = after(fresh(quorum=1, grace_s=0.0), *attached(A, B, C), SiteSilent(B, 1.0), SiteSilent(C, 1.0))
    run = after(run, trained(run, A, at=2.0))
    run = after(run, AggregateStored(1, digest("average1"), 3.0))
    run = after(run, scored(run, A, 1.0, at=4.0))
    run = after(run, SiteAttached(B, 5.0), SiteSilent(A, 6.0))
    run = after(run, trained(run, B, at=7.0))
    run = after(run, AggregateStored(2, digest("average2"), 8.0))
    with_score, _ = step(run, scored(run, B, 5.0, at=9.0))
    assert with_score.best_round == 2
    assert not improves(replace(run, rounds=(run.rounds[0], replace(run.rounds[0], number=2))))


# --- the outcome --------------------------------------------------------------------------------------------------


def test_a_run_in_which_a_declared_site_is_missing_from_a_round_ends_degraded() -> None:
    run = after(fresh("ppfssl", rounds=1), *attached(A, B, C), SiteSilent(A, 10.0), SiteAttached(A, 20.0))
    run = all_scored(all_trained(run, (B, C)), {A: 1.0, B: 1.0, C: 1.0})
    for site in (A, B, C):
        run = after(run, adopted(run, site))
    assert (run.phase, run.outcome) == (Phase.FINISHED, Outcome.DEGRADED)
    assert [(m.site, m.reason) for m in run.rounds[0].missing] == [(A, "silent: no sign of life")]
    assert instruction(run, B) == Finish(Outcome.DEGRADED, "all 1 rounds done")


# --- totality, determinism, liveness ------------------------------------------------------------------------------

SITES = st.sampled_from([A, B, C, "mallory"])
DIGESTS = st.sampled_from([GIVEN, *map(digest, ("ada1", "bob1", "average1", "average2"))])
TIMES = st.floats(0, 1e6)
TASKS = st.builds(
    lambda kind, round_, base, run: Task(
        run, kind, round_, "" if kind in WITHOUT_BASE else base, readers=(C,) if kind is TaskKind.REWRAP else ()
    ),
    st.sampled_from(TaskKind),
    st.integers(0, 4),
    DIGESTS,
    st.sampled_from(["run", "run", "run", "other"]),
)


def tasks(*kinds: TaskKind) -> st.SearchStrategy[Task]:
    return TASKS.filter(lambda task: task.kind in kinds)


UNTOLD = st.one_of(
    st.builds(SiteAttached, SITES, TIMES),
    st.builds(SiteSilent, SITES, TIMES),
    st.builds(SiteRefused, SITES, st.just("no"), TIMES),
    st.builds(SiteRevoked, SITES, TIMES),
    st.builds(SiteFailed, SITES, st.just("training"), st.just("broke"), st.sampled_from(["INC-1", "INC-2"]), TIMES),
    st.builds(
        lambda site, task, digest_, at: UpdateStored(site, task, digest_, 1, 1, 0.5, 1.0, at),
        SITES,
        tasks(TaskKind.TRAIN, TaskKind.SEED),
        DIGESTS,
        TIMES,
    ),
    st.builds(AggregateStored, st.integers(0, 4), DIGESTS, TIMES),
    st.builds(
        lambda site, task, loss, at: ScoreReported(site, task, loss, 1, 1, (), at),
        SITES,
        tasks(TaskKind.SCORE),
        st.floats(-1e300, 1e300),
        TIMES,
    ),
    st.builds(ModelAdopted, SITES, tasks(TaskKind.ADOPT), TIMES),
    st.builds(
        lambda site, task, at: Rewrapped(site, task, sealed(task.base, C), at), SITES, tasks(TaskKind.REWRAP), TIMES
    ),
    st.builds(Tick, TIMES),
)
"""Anything anyone might say at any time."""

RUNS = st.builds(
    lambda mode, quorum, base, grace_s, ring, share: fresh(
        "ppfssl" if mode == SEALED else mode,
        base="" if mode == SEALED else base,
        quorum=quorum,
        grace_s=grace_s,
        ring_result="last" if mode == SEALED else ring,
        rounds=2,
        sealed=mode == SEALED,
        give_up_s=5e5,
        server_momentum=share if mode == "csfssl" else 0.0,
    ),
    st.sampled_from([*MODES, SEALED]),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(["", GIVEN]),
    st.sampled_from([0.0, 300.0]),
    st.sampled_from(["last", "cycle-average"]),
    st.sampled_from([0.0, 0.5]),
)


def next_report(run: Run, dice: random.Random, at: float) -> Event:
    """Return what a federation in good order would say next, or now and then something else."""
    work = coordinator_work(run)
    if work is not None:
        return AggregateStored(work.round, digest(f"average{work.round}"), at)
    site = dice.choice(run.plan.sites)
    asked = instruction(run, site)
    if run.plan.hides_from_coordinator and not has_opened(run, site):
        return SiteOpened(site, digest(site), 10, "0" * 64, "30", at)
    if run.site(site).presence is not Presence.PRESENT or dice.random() < 0.15:
        return dice.choice([SiteAttached(site, at), SiteAttached(site, at), SiteSilent(site, at), Tick(at)])
    if not isinstance(asked, Task):
        return Tick(at)
    name = digest(f"{site}{asked.round}")
    seal = sealed(name, next_reader(run.plan.sites, site)) if run.plan.terms.sealed else None
    packed = seal.file if seal else ""
    return {
        TaskKind.SEED: lambda: UpdateStored(site, asked, name, 0, 0, 0.0, 1.0, at, packed, seal=seal),
        TaskKind.TRAIN: lambda: UpdateStored(site, asked, name, 5, 1, 0.5, 1.0, at, packed, seal=seal),
        TaskKind.REWRAP: lambda: Rewrapped(site, asked, sealed(asked.base, *asked.readers), at),
        TaskKind.SCORE: lambda: ScoreReported(site, asked, dice.random(), 1, 5, (), at),
        TaskKind.ADOPT: lambda: ModelAdopted(site, asked, at),
    }[asked.kind]()


def check_state(run: Run) -> None:
    """What holds in every state whatsoever."""
    json.dumps(asdict(run), allow_nan=False, default=sorted)
    for site in run.plan.sites:
        assert str(instruction(run, site))
    assert (run.outcome is not None) == (run.phase in (Phase.PUBLISHING, Phase.FINISHED, Phase.ABORTED))
    if run.ended:
        assert (waits(run), coordinator_work(run), deadline(run)) == ((), None, None)
        return
    assert bool(waits(run)) != (coordinator_work(run) is not None), "nothing is waited for and nothing is to be done"
    for wait in waits(run):
        assert (
            (wait.then is OnTimeout.LEASE) == (run.site(wait.site).presence is Presence.PRESENT) == (wait.until is None)
        )
    due = deadline(run)
    if due is not None:
        assert step(run, Tick(max(due, run.since)))[0] is not run, "a deadline at which nothing happens"
    for round_ in run.rounds:
        counted = [update.site for update in round_.contributions]
        assert len({*counted, *(m.site for m in round_.missing)}) == len(counted) + len(round_.missing)


@settings(max_examples=150, deadline=None)
@given(run=RUNS, events=st.lists(UNTOLD, max_size=25), seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_any_events_in_any_order_never_raise_and_replay_to_the_same_state(
    run: Run, events: list[Event], seed: int, share: float
) -> None:
    dice, first, journal, at = random.Random(seed), run, [], 0.0
    for untold in events:
        for _ in range(3):
            at += dice.choice([0.0, 1.0, 400.0])
            event = untold if dice.random() < share else next_report(run, dice, at)
            run, _ = step(run, event)
            journal.append(event_to_json(event))
            check_state(run)
    assert replay(first, map(event_from_json, journal)) == run


@settings(max_examples=100, deadline=None)
@given(run=RUNS, seed=st.integers(0, 2**32))
def test_a_federation_in_good_order_comes_to_an_end(run: Run, seed: int) -> None:
    dice, at = random.Random(seed), 0.0
    for _ in range(2000):
        if run.ended:
            break
        at += 1.0
        run, _ = step(run, next_report(run, dice, at))
        check_state(run)
    assert run.phase is Phase.FINISHED
    missing = any(round_.missing for round_ in run.rounds)
    assert run.outcome is (Outcome.DEGRADED if missing else Outcome.OK)


# --- what counts --------------------------------------------------------------------------------------------------


def refused(run: Run, report: UpdateStored | ScoreReported) -> str:
    """Return the words with which a report is refused; nothing changes."""
    after_it, answer = step(run, report)
    assert (answer, after_it) == (REFUSED, run)
    return objection(run, report)


def second_round(mode: str) -> Run:
    run = all_trained(after(fresh(mode), *attached(A, B, C)), (A, B, C))
    return all_scored(run, {A: 1.0, B: 1.0, C: 1.0})


@pytest.mark.parametrize("mode", MODES)
def test_the_model_that_a_site_was_given_is_no_update_of_it(mode: str) -> None:
    run = second_round(mode)
    given = task_of(run, A, TaskKind.TRAIN).base
    assert "the model that the site was given" in refused(run, replace(trained(run, A), digest=given))


@pytest.mark.parametrize("mode", MODES)
def test_what_another_site_has_sent_in_this_round_is_no_update(mode: str) -> None:
    run = after(second_round(mode), trained(second_round(mode), A))
    words = refused(run, trained(run, B, name=f"{A}2"))
    assert ("the model that the site was given" if mode == "ppfssl" else "that another site has sent") in words
    if mode == "ppfssl":
        run = after(run, trained(run, B))
        assert "that another site has sent" in refused(run, trained(run, C, name=f"{A}2"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["first", f"{A}1", f"{B}1"])
def test_an_earlier_model_of_the_run_is_no_update(mode: str, name: str) -> None:
    run = second_round(mode)
    for site in (A, B):
        run = after(run, trained(run, site))
    sent = replace(trained(run, C), digest=GIVEN if name == "first" else digest(name))
    assert "an earlier model of this run" in refused(run, sent)
    run = all_scored(all_trained(run, (C,)), {A: 1.0, B: 1.0, C: 1.0})
    if mode == "csfssl":
        assert "an earlier model" in refused(run, trained(run, A, name="average1"))
    assert "an earlier model" in refused(
        run,
        trained(run, A, name=name) if name != "first" else replace(sent, site=A, task=task_of(run, A, TaskKind.TRAIN)),
    )


def test_a_refused_copy_leaves_the_round_open_to_the_site() -> None:
    run = after(fresh(), *attached(A, B, C))
    refused(run, replace(trained(run, A), digest=GIVEN))
    assert after(run, trained(run, A)).current.has(A)


def test_what_nobody_is_asked_for_is_answered_as_before() -> None:
    run = after(fresh(), *attached(A, B, C))
    early = replace(trained(run, A), task=Task("run", TaskKind.TRAIN, 2, GIVEN), digest=GIVEN)
    assert step(run, early)[1] is REFUSED
    assert objection(run, early) == ""
    late = trained(run, A)
    run = after(run, late)
    assert step(run, replace(late, digest=GIVEN))[1] is STALE
    assert objection(run, replace(late, digest=GIVEN, site="nobody")) == ""


def test_a_negative_loss_is_refused_where_no_correct_site_has_one() -> None:
    run = after(fresh(), *attached(A, B, C))
    assert "never negative" in refused(run, replace(trained(run, A), loss=-1.0))
    after(run, replace(trained(run, A), loss=-1e-6))
    scoring = all_trained(run, (A, B, C))
    assert "a loss of -2 an image" in refused(scoring, scored(scoring, A, -2.0))
    dcl = replace(run, plan=replace(run.plan, recipe=replace(run.plan.recipe, loss="dcl")))
    after(dcl, replace(trained(dcl, A), loss=-1.0))


def as_before(event: Event) -> Event:
    """Return an event as a journal holds it that was written before there were rules of acceptance."""
    raw = json.loads(event_to_json(event))
    del raw["rules"]
    return event_from_json(json.dumps(raw))


def test_a_journal_that_was_written_before_gives_the_same_state() -> None:
    """What counted then counts when it is read again."""
    run = after(fresh(), *attached(A, B, C))
    copied = replace(trained(run, A), digest=GIVEN, loss=-1e308)
    assert step(run, copied)[1] is REFUSED
    run = after(run, as_before(copied), trained(run, B), trained(run, C))
    assert next(update.digest for update in run.current.contributions) == GIVEN
    run = after(run, AggregateStored(1, digest("average1"), 0.0))
    for site in (A, B, C):
        run = after(run, as_before(scored(run, site, -1e300)))
    assert math.isfinite(mean_loss(run, run.rounds[0], (A, B, C)))
    json.dumps(asdict(run), allow_nan=False, default=sorted)


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.AGGREGATING, Phase.SCORING])
def test_a_revocation_that_was_journaled_before_takes_no_update_out(phase: Phase) -> None:
    """Else the average that follows it in the journal would be stale, and the run would stay in that round for ever."""
    run = in_phase("csfssl", phase)
    if phase is Phase.TRAINING:
        run = after(run, trained(run, C))
    before = run.current.contributions
    now = after(run, SiteRevoked(C, 1.0))
    assert not now.current.has(C)
    run = after(run, as_before(SiteRevoked(C, 1.0)))
    assert run.current.contributions == before
    if phase is Phase.TRAINING:
        run = after(run, trained(run, A), trained(run, B))
    if phase is not Phase.SCORING:
        run = after(run, AggregateStored(1, digest("average1"), 2.0))
    assert run.phase is Phase.SCORING


def test_models_of_a_thousand_rounds_are_kept_in_a_few_sets() -> None:
    sets: tuple[frozenset[str], ...] = ()
    for number in range(1000):
        sets = add_models(sets, frozenset({f"{number}a", f"{number}b"}))
    assert len(sets) <= 10
    assert frozenset().union(*sets) == {f"{number}{letter}" for number in range(1000) for letter in "ab"}
