"""A ring whose models travel under seal: who is asked to pass a key on, and from which model the ring goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coordinator.run.incoming import needed
from fedcervix.core.compression import Packed, packed_form
from fedcervix.core.events import (
    Answer,
    Event,
    Rewrapped,
    SiteOpened,
    SiteRevoked,
    SiteSilent,
    Task,
    TaskKind,
    Tick,
    UpdateStored,
)
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Idle, instruction
from fedcervix.core.rounds.readers import next_reader, readers
from fedcervix.core.rounds.state import Outcome, Phase, Run
from fedcervix.core.rounds.step import step
from fedcervix.core.rounds.waits import OnTimeout, waits
from tests.unit.test_rounds import (
    A,
    B,
    C,
    adopted,
    after,
    attached,
    digest,
    fresh,
    plan,
    scored,
    sealed,
    task_of,
    trained,
)

D = "dora"


def run_of(*sites: str, rounds: int = 2, **terms: Any) -> Run:
    """Return a run whose sites are there, with a first model."""
    given = fresh("ppfssl", base="", sites=sites, rounds=rounds, sealed=True, **terms)
    run = after(
        given, *(SiteOpened(site, f"{number:064x}", 10, "0" * 64, "30", 0.0) for number, site in enumerate(sites))
    )
    run = after(run, *attached(*sites))
    task = task_of(run, sites[0], TaskKind.SEED)
    return after(run, made(run, sites[0], task, "seed"))


def made(run: Run, site: str, task: Task, name: str) -> UpdateStored:
    seal = sealed(digest(name), next_reader(run.plan.sites, site))
    images = 0 if task.kind is TaskKind.SEED else 10
    return UpdateStored(site, task, digest(name), images, 1, 0.5, 1.0, 0.0, seal.file, seal=seal)


def hop(run: Run, site: str) -> Run:
    task = task_of(run, site, TaskKind.TRAIN)
    return after(run, made(run, site, task, f"{site}{task.round}"))


def passed_on(run: Run, site: str, *readers_: str) -> Run:
    """Let a site pass a key on: it is asked to, and all others stand by."""
    task = task_of(run, site, TaskKind.REWRAP)
    assert task.readers == readers_
    assert all(isinstance(instruction(run, other), Idle) for other in run.plan.sites if other != site)
    return after(run, Rewrapped(site, task, sealed(task.base, *readers_), 0.0))


def a_round(run: Run) -> Run:
    """Let all sites train, and those score that can read."""
    for site in run.plan.sites:
        run = hop(run, site)
    for site in (run.plan.sites[-1], run.plan.sites[0]):
        run = after(run, scored(run, site))
    return run


def silent(site: str, at: float = 0.0) -> Event:
    return SiteSilent(site, at)


def test_a_model_can_be_read_by_whoever_made_it_and_by_the_next_site_alone() -> None:
    run = hop(run_of(A, B, C), A)
    assert readers(run, digest(f"{A}1")) == {A, B}
    assert task_of(run, B, TaskKind.TRAIN).base == digest(f"{A}1")
    assert isinstance(instruction(run, C), Idle)


def test_a_model_is_scored_by_those_who_can_read_it() -> None:
    run = run_of(A, B, C)
    for site in (A, B, C):
        run = hop(run, site)
    assert (run.phase, readers(run, run.current.candidate)) == (Phase.SCORING, {C, A})
    assert isinstance(instruction(run, B), Idle)
    run = after(run, scored(run, A), scored(run, C))
    assert (run.phase, run.current.number) == (Phase.TRAINING, 2)


def test_a_quorum_of_all_needs_no_score_of_those_who_cannot_read() -> None:
    assert a_round(run_of(A, B, C, quorum=3)).current.number == 2


def test_a_site_that_was_passed_over_costs_a_key_of_the_one_before_it() -> None:
    run = after(hop(run_of(A, B, C), A), silent(B))
    assert [(wait.site, wait.then) for wait in waits(run)] == [(A, OnTimeout.LEASE)]
    run = passed_on(run, A, C)
    assert task_of(run, C, TaskKind.TRAIN).base == digest(f"{A}1")
    assert [missing.site for missing in run.current.missing] == [B]


def test_the_key_is_passed_on_by_another_reader_where_the_sender_is_away() -> None:
    """Bob has the box of ada's model, and is passed over; he comes back while ada is away."""
    run = after(hop(run_of(A, B, C), A), silent(B), silent(A), *attached(B))
    assert task_of(passed_on(run, B, C), C, TaskKind.TRAIN).base == digest(f"{A}1")


def test_where_nobody_can_pass_it_on_the_ring_goes_back_to_the_last_model_that_can_be_read() -> None:
    run = hop(a_round(run_of(A, B, C)), A)
    run = after(run, silent(A), silent(B))
    assert task_of(run, C, TaskKind.TRAIN).base == digest(f"{C}1")
    assert [(missing.site, missing.answered) for missing in run.current.missing] == [(B, False), (A, True)]
    assert [update.site for update in run.current.dropped] == [A]
    assert "went back" in run.current.notes[0]
    run = hop(run, C)
    assert (run.phase, run.model) == (Phase.SCORING, digest(f"{C}2"))


def test_it_goes_back_no_further_than_to_a_model_of_which_a_reader_is_there() -> None:
    run = hop(hop(a_round(run_of(A, B, C, D)), A), B)
    run = after(run, silent(C), silent(B))
    assert task_of(passed_on(run, A, D), D, TaskKind.TRAIN).base == digest(f"{A}2")
    run = after(run, silent(A))
    assert task_of(run, D, TaskKind.TRAIN).base == digest(f"{D}1")
    assert [missing.site for missing in run.current.missing] == [C, B, A]


def test_without_any_reader_the_run_waits_for_one_and_goes_on_when_it_is_back() -> None:
    run = after(hop(run_of(A, B, C, give_up_s=1000.0), A), silent(A, 10.0), silent(B, 10.0))
    assert {(wait.site, wait.until, wait.then) for wait in waits(run)} == {
        (A, 1010.0, OnTimeout.ABORT),
        (B, 1010.0, OnTimeout.ABORT),
    }
    assert step(run, Tick(1011.0))[0].phase is Phase.ABORTED
    back = passed_on(after(run, *attached(A, at=20.0)), A, C)
    assert task_of(back, C, TaskKind.TRAIN).base == digest(f"{A}1")


def test_a_run_whose_readers_are_all_revoked_ends() -> None:
    run = after(run_of(A, B, C), silent(B))
    run = hop(run, A)
    run, _ = step(after(run, SiteRevoked(B, 1.0)), SiteRevoked(A, 2.0))
    assert run.phase is Phase.ABORTED
    assert "could read the model was revoked" in run.reason


def test_a_site_that_returns_takes_part_in_the_next_round() -> None:
    run = passed_on(after(hop(run_of(A, B, C), A), silent(B)), A, C)
    run = after(hop(run, C), *attached(B))
    run = after(run, scored(run, A), scored(run, C))
    run = hop(run, A)
    assert task_of(run, B, TaskKind.TRAIN).base == digest(f"{A}2")


def test_at_the_end_the_last_holder_passes_the_key_on_to_all_and_then_all_adopt() -> None:
    run = a_round(run_of(A, B, C, D, rounds=1))
    assert run.phase is Phase.PUBLISHING
    run = passed_on(run, D, B, C)
    run = after(run, *(adopted(run, site) for site in (A, B, C, D)))
    assert (run.phase, run.outcome) == (Phase.FINISHED, Outcome.OK)


def test_a_revoked_site_gets_no_key_of_the_result() -> None:
    run = after(a_round(run_of(A, B, C, D, rounds=1)), SiteRevoked(B, 0.0))
    passed_on(run, D, C)


def test_the_result_is_waited_for_where_nobody_is_there_who_can_read_it() -> None:
    run = after(a_round(run_of(A, B, C, rounds=1, give_up_s=1000.0, grace_s=0.0)), silent(A), silent(C))
    assert {(wait.site, wait.then) for wait in waits(run)} == {(A, OnTimeout.ABORT), (C, OnTimeout.ABORT)}
    assert run.phase is Phase.PUBLISHING
    passed_on(after(run, *attached(A)), A, B)


def test_a_word_that_was_not_asked_for_changes_nothing() -> None:
    run = after(hop(run_of(A, B, C), A), silent(B))
    task = task_of(run, A, TaskKind.REWRAP)
    done = Rewrapped(A, task, sealed(task.base, C), 0.0)
    for other, answer in (
        (replace(done, site=B), Answer.STALE),
        (replace(done, site="mallory"), Answer.REFUSED),
        (replace(done, task=replace(task, base=digest("other"))), Answer.STALE),
    ):
        assert step(run, other) == (run, answer)
    assert step(after(run, done), done)[1] is Answer.DUPLICATE


def test_only_a_reader_is_sent_the_sealed_file_and_every_file_that_may_be_needed_is_kept() -> None:
    run = hop(a_round(run_of(A, B, C)), A)
    file = sealed(digest(f"{A}2")).file
    assert packed_form(run, B, run.model) == Packed(file, "")
    assert packed_form(run, C, run.model) is None
    kept = {sealed(digest(name)).file for name in (f"{A}2", f"{A}1", f"{B}1", f"{C}1")}
    assert kept <= needed(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "csfssl"}, "is for ppfssl"),
        ({"ring_result": "cycle-average"}, "cannot average"),
        ({"compression": "int8"}, "bfloat16"),
        ({"sites": (A,)}, "at least 2 sites"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(**{"mode": "ppfssl", "sealed": True, **changes})


def test_a_plan_says_nothing_of_it_where_it_is_off() -> None:
    assert "sealed" not in plan("ppfssl").canonical()
    sealed_plan = plan("ppfssl", sealed=True)
    assert (Plan.parse(sealed_plan.canonical()), sealed_plan.format) == (sealed_plan, 2)


def test_a_plain_ring_knows_no_readers() -> None:
    run = after(fresh("ppfssl"), *attached(A, B, C))
    run = after(run, trained(run, A), SiteSilent(B, 0.0))
    assert task_of(run, C, TaskKind.TRAIN).base == run.model
