"""Histories: the design holds through loss, doubling, delay, reordering, cut lines and crashes.

A failure prints its seed and the command that shows it again. More of them: `python -m tests.simulation.soak`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coordinator.run.fencing import Acting, admit
from coordinator.run.incoming import needed
from fedcervix.core import compression
from fedcervix.core.events import AggregateStored, Answer, Event, UpdateStored, event_from_json, event_to_json
from fedcervix.core.modes import MODES
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.coordinator_work import AverageWork, coordinator_work, last_step
from fedcervix.core.rounds.state import Outcome, Round, Run
from fedcervix.core.rounds.step import step
from fedcervix.transport.codec import InstanceClaim
from tests.simulation.histories import history
from tests.simulation.oracle import averaged, trained, undisturbed
from tests.simulation.world import Faults, History, Rules, ViolationError, simulate

SHARES, SHARE = 10, 150
MOMENTUM = {"server_momentum": 0.5, "rounds": 3}
"""the third round is the first whose step lies between two averages"""
INT8 = {"compression": "int8", "rounds": 3}
"""the second round's update carries on what the first one's rounding left over, and so does the average"""
FEDERATIONS = [("csfssl", {}), ("csfssl", MOMENTUM), ("ppfssl", {}), ("csfssl", INT8), ("ppfssl", INT8)]
SOUND = Faults()
GIVEN = "5" * 64


def small(mode: str, **terms: Any) -> Plan:
    given = Terms(**{"rounds": 2, "lease_s": 60.0, "grace_s": 120.0, "give_up_s": 4 * 3600.0, **terms})
    return Plan(mode=mode, sites=("ada", "bob", "cleo"), profile="paper", terms=given, recipe=Recipe())


def result(found: History) -> tuple[str, int, int]:
    return found.run.best.candidate, found.run.best_round, len(found.run.rounds)


@pytest.mark.parametrize("share", [*range(3), *(pytest.param(n, marks=pytest.mark.long) for n in range(3, SHARES))])
def test_histories(share: int) -> None:
    for seed in range(share * SHARE, (share + 1) * SHARE):
        history(seed)


@pytest.mark.parametrize("mode", MODES)
def test_one_seed_is_one_history(mode: str) -> None:
    faults = Faults(loss=0.2, double=0.2, straggle=0.1, cuts_per_hour=20, coordinator_crash=0.1)
    assert simulate(small(mode), faults, 7) == simulate(small(mode), faults, 7)
    assert simulate(small(mode), faults, 7).journal != simulate(small(mode), faults, 8).journal


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ring_result", ["last", "cycle-average"])
@pytest.mark.parametrize("base", ["", GIVEN])
def test_an_undisturbed_run_ends_with_the_model_that_arithmetic_gives(mode: str, ring_result: str, base: str) -> None:
    plan = small(mode, ring_result=ring_result)
    found = simulate(plan, SOUND, 0, base=base)
    assert (found.run.outcome, result(found)) == (Outcome.OK, undisturbed(plan, base))


def test_server_momentum_carries_the_last_step_on_from_the_second_round() -> None:
    """Round 1 is the plain mean; round 2 adds the step from the first model, round 3 that between two averages."""
    plan = small("csfssl", **MOMENTUM)
    first, second, third = simulate(plan, SOUND, 0, base=GIVEN).run.rounds
    plain = simulate(small("csfssl"), SOUND, 0, base=GIVEN).run.rounds

    def mean(round_: Round, *step: str) -> str:
        return averaged([(trained(round_.base, site, round_.number), 1.0) for site in plan.sites], step)

    assert first.candidate == plain[0].candidate == mean(first)
    assert second.candidate == mean(second, first.candidate, GIVEN)
    assert third.candidate == mean(third, second.candidate, first.candidate)


def test_server_momentum_goes_on_through_rounds_without_a_site() -> None:
    """The step is that of the published model, whoever took part in it."""
    found = simulate(small("csfssl", quorum=2, **MOMENTUM), replace(SOUND, lost=(("bob", 60.0),)), 0)
    away = [[missing.site for missing in round_.missing] for round_ in found.run.rounds]
    assert (found.run.outcome, away) == (Outcome.DEGRADED, [[], ["bob"], ["bob"]])
    _, second, third = found.run.rounds
    updates = [(trained(third.base, site, 3), 1.0) for site in ("ada", "cleo")]
    assert third.candidate == averaged(updates, (third.base, second.base))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ring_result", ["last", "cycle-average"])
@pytest.mark.parametrize("compression", ["bfloat16", "int8"])
def test_a_run_that_saves_bytes_ends_with_the_model_that_arithmetic_gives(
    mode: str, ring_result: str, compression: str
) -> None:
    plan = small(mode, ring_result=ring_result, compression=compression, rounds=3)
    found = simulate(plan, SOUND, 0)
    assert (found.run.outcome, result(found)) == (Outcome.OK, undisturbed(plan, ""))
    assert result(found)[0] != undisturbed(small(mode, ring_result=ring_result, rounds=3), "")[0]


@pytest.mark.parametrize(("mode", "terms"), FEDERATIONS)
def test_a_crash_of_the_coordinator_at_every_journal_position(mode: str, terms: dict[str, Any]) -> None:
    """The design: "journal, step, act, acknowledge. Recovery is replay; effects are idempotent by name."."""
    plan = small(mode, **terms)
    positions = len(simulate(plan, SOUND, 0).journal)
    assert positions >= 3 + 1 + 2 * (3 + 3) + 3  # attached, seed, two rounds of updates and scores, adopted
    for position in range(positions):
        for written in (False, True):
            found = simulate(plan, replace(SOUND, crash_at=frozenset({(position, written)})), 0)
            assert sum(line.endswith("coordinator crashes") for line in found.trace) == 1
            assert (found.run.outcome, result(found)) == (Outcome.OK, undisturbed(plan, ""))


@pytest.mark.parametrize(("mode", "terms"), FEDERATIONS)
def test_a_coordinator_that_crashes_at_every_position_in_one_run(mode: str, terms: dict[str, Any]) -> None:
    plan = small(mode, **terms)
    everywhere = frozenset((position, written) for position in range(200) for written in (True,))
    found = simulate(plan, replace(SOUND, crash_at=everywhere), 0)
    assert (found.run.outcome, result(found)) == (Outcome.OK, undisturbed(plan, ""))


@pytest.mark.parametrize(("mode", "terms"), [each for each in FEDERATIONS if each[1] is not MOMENTUM])
def test_a_crash_of_a_site_at_every_position_of_its_journal(mode: str, terms: dict[str, Any]) -> None:
    """The design: "The agent keeps a smaller journal of its own"; nobody's lease runs out before a site is back.

    A site does nothing for the server's momentum.
    """
    plan = small(mode, lease_s=300.0, **terms)
    undisturbed_run = simulate(plan, SOUND, 0)
    for site, positions in undisturbed_run.site_positions:
        assert positions >= 3 * 5, "asked, finished and answered: two trainings, two scores, the adoption"
        for position in range(positions):
            for written in (False, True):
                found = simulate(plan, replace(SOUND, site_crash_at=frozenset({(site, position, written)})), 0)
                assert sum(line.endswith("crashes at its journal") for line in found.trace) == 1
                assert (found.run.outcome, result(found)) == (Outcome.OK, undisturbed(plan, ""))


@pytest.mark.parametrize(("mode", "terms"), FEDERATIONS)
def test_a_site_that_crashes_at_every_position_in_one_run(mode: str, terms: dict[str, Any]) -> None:
    plan = small(mode, lease_s=300.0, **terms)
    everywhere = frozenset((site, position, True) for site in plan.sites for position in range(200))
    found = simulate(plan, replace(SOUND, site_crash_at=everywhere), 0)
    assert (found.run.outcome, result(found)) == (Outcome.OK, undisturbed(plan, ""))


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_at_every_position_while_a_culprit_spoils_the_model_changes_nothing(mode: str) -> None:
    """The search for the culprit is a function of the state: whoever is killed within it goes on with it."""
    plan, spoilt = small(mode, lease_s=300.0), replace(SOUND, culprits=("bob",))
    once = simulate(plan, spoilt, 0)
    assert any(missing.suspected for round_ in once.run.rounds for missing in round_.missing)
    crashes = [{"crash_at": frozenset({(place, True)})} for place in range(len(once.journal))]
    for site, positions in once.site_positions:
        crashes += [{"site_crash_at": frozenset({(site, place, True)})} for place in range(positions)]
    for crash in crashes:
        found = simulate(plan, replace(spoilt, **crash), 0)
        assert (found.run.outcome, result(found), named(found)) == (Outcome.DEGRADED, result(once), named(once))


def named(found: History) -> list[list[tuple[str, str]]]:
    return [[(missing.site, missing.reason) for missing in round_.missing] for round_ in found.run.rounds]


@pytest.mark.parametrize("mode", MODES)
def test_a_site_that_never_comes_leaves_a_degraded_run_with_its_name(mode: str) -> None:
    """The design: "a run that finished without a declared site's contribution ends `DEGRADED` with the list"."""
    found = simulate(small(mode, quorum=2), replace(SOUND, lost=(("bob", 0.0),)), 1)
    away = [[missing.site for missing in round_.missing] for round_ in found.run.rounds]
    assert (found.run.outcome, away) == (Outcome.DEGRADED, [["bob"], ["bob"]])


# --- the simulation finds bugs ------------------------------------------------------------------------------------


def found_by(rules: Rules, seeds: range = range(60)) -> str:
    """Return what the first history says in which a planted bug shows; empty if it never does."""
    for seed in seeds:
        try:
            history(seed, rules)
        except ViolationError as violation:
            return str(violation)
    return ""


def test_a_failure_names_the_command_that_shows_it_again() -> None:
    with pytest.raises(ViolationError) as caught:
        history(0, planted(lambda run, _: (run, Answer.STALE)))
    assert caught.value.__notes__[-1] == "again: python -m tests.simulation.soak --seed 0 --histories 1 --trace"


def planted(change: Callable[[Run, Event], tuple[Run, Answer] | None]) -> Rules:
    """Return rules whose `step` is `change` where that gives something, and the real one elsewhere."""
    return Rules(step=lambda run, event: change(run, event) or step(run, event))


def test_a_step_that_takes_stale_updates_is_found() -> None:
    def takes_all(run: Run, event: Event) -> tuple[Run, Answer] | None:
        if run.ended or type(event).__name__ != "UpdateStored" or not run.rounds or event.task.round == 0:
            return None
        if run.current.has(event.site) or step(run, event)[1] is not Answer.STALE:
            return None
        task = replace(event.task, round=run.current.number)
        now = replace(run.current, contributions=(*run.current.contributions, replace(event, task=task)))
        return replace(run, rounds=(*run.rounds[:-1], now)), Answer.ACCEPTED

    assert found_by(planted(takes_all), range(300))


def test_a_step_that_counts_an_update_twice_is_found() -> None:
    def counts_twice(run: Run, event: Event) -> tuple[Run, Answer] | None:
        if type(event).__name__ != "UpdateStored" or step(run, event)[1] is not Answer.DUPLICATE:
            return None
        if not run.rounds or not run.current.has(event.site) or event.task.round != run.current.number:
            return None
        return replace(
            run,
            rounds=(*run.rounds[:-1], replace(run.current, contributions=(*run.current.contributions, event))),
        ), Answer.ACCEPTED

    assert "counts twice" in found_by(planted(counts_twice))


def test_a_step_that_forgets_who_is_missing_is_found() -> None:
    def forgets(run: Run, event: Event) -> tuple[Run, Answer] | None:
        after, answer = step(run, event)
        if after is run:
            return None
        return replace(after, rounds=tuple(replace(round_, missing=()) for round_ in after.rounds)), answer

    # Not from 0: in the histories before, a ring waits for the forgotten one, which takes seconds to show.
    assert "neither counted nor missing" in found_by(planted(forgets), range(12, 300))


def test_a_step_that_averages_in_the_order_of_arrival_is_found() -> None:
    """The design: "sites in roster order: the result does not depend on arrival order"."""

    def keeps_order(run: Run, event: Event) -> tuple[Run, Answer] | None:
        if type(event).__name__ != "UpdateStored" or not run.rounds or run.plan.mode_rules.in_turns:
            return None
        after, answer = step(run, event)
        if answer is not Answer.ACCEPTED:
            return None
        current = replace(after.current, contributions=(*run.current.contributions, event))
        return replace(after, rounds=(*after.rounds[:-1], current)), answer

    assert "undisturbed it is" in found_by(planted(keeps_order))


def test_a_momentum_from_the_best_model_instead_of_the_last_is_found() -> None:
    """Early stopping keeps the best round; training, and so the step, goes on from what was published last."""

    def from_best(run: Run) -> AverageWork | None:
        work = coordinator_work(run)
        if work is None or work.last_step is None:
            return work
        return replace(work, last_step=(run.best.candidate, run.best.base))

    def keeps(run: Run) -> set[str]:
        return needed(run) | ({run.best.base} if run.best_round else set())

    assert "does not follow from the accepted updates" in found_by(Rules(work_of=from_best, needed=keeps), range(300))


def test_a_coordinator_that_forgets_the_model_before_the_last_is_found() -> None:
    def forgets(run: Run) -> set[str]:
        before = set(last_step(run) or ()) - {run.layout, run.current.base, run.model} if run.rounds else set()
        return needed(run) - before

    assert "a model to be averaged is gone" in found_by(Rules(needed=forgets), range(300))


def test_a_site_that_carries_on_what_an_update_left_over_that_did_not_count_is_found() -> None:
    def always(carried: compression.ErrorFeedback, update: UpdateStored, _: Answer) -> compression.ErrorFeedback:
        return compression.answered(carried, update, Answer.ACCEPTED)

    assert "its last one that counted" in found_by(Rules(answered=always), range(1500))


def test_a_site_that_forgets_an_update_whose_answer_was_lost_is_found() -> None:
    assert "its last one that counted" in found_by(Rules(undecided=lambda _carried, _task: None), range(1500))


def test_a_coordinator_that_forgets_what_its_rounding_left_over_is_found() -> None:
    def forgets(run: Run) -> set[str]:
        return needed(run) - {round_.residual for round_ in run.rounds}

    assert "what the average is rounded with is gone" in found_by(Rules(needed=forgets), range(300))


def test_a_coordinator_that_gives_away_the_difference_between_two_sites_models_is_found() -> None:
    """A packed form is of use to a site that held its base; to another one it would tell what a site has learned."""
    anyone = Rules(packed_form=lambda run, _site, model: compression.kept_form(run, model))
    assert "the difference to a model that it never held" in found_by(anyone, range(300))


def test_a_step_that_waits_for_nobody_is_found() -> None:
    def never_averaged(run: Run, event: Event) -> tuple[Run, Answer] | None:
        return (run, Answer.STALE) if isinstance(event, AggregateStored) else None

    assert "does not end" in found_by(planted(never_averaged))


def test_a_journal_that_forgets_the_last_event_is_found() -> None:
    """The event is written when the next one is: a crash in between loses one that was acknowledged."""
    held: list[Event] = []

    def late(journal: list[str], event: Event) -> None:
        if held and len(journal):
            journal.append(event_to_json(held.pop()))
        held[:] = [event]
        if not journal:
            journal.append(event_to_json(event))

    assert found_by(Rules(append=late))


def test_a_journal_that_writes_twice_gives_the_same_state() -> None:
    """Not a bug: every event survives being recorded twice."""

    def twice(journal: list[str], event: Event) -> None:
        journal.extend([event_to_json(event)] * 2)

    assert not found_by(Rules(append=twice), range(20))


def test_a_lease_that_is_not_renewed_when_work_is_asked_is_found() -> None:
    """A site that had nothing to do for longer than its lease would lose it at the moment it is asked."""
    assert found_by(Rules(lease_begins_when_asked=False), range(200))


def test_a_rule_that_lets_in_whoever_comes_is_found() -> None:
    def lets_in(_acting: Acting | None, claim: InstanceClaim, *, alive: bool, at: float) -> Acting:
        return Acting(claim.instance, at)

    assert "let in beside one that is connected" in found_by(Rules(admit=lets_in), range(200))


def test_a_rule_that_takes_a_restart_for_a_twin_is_found() -> None:
    def forgets(acting: Acting | None, claim: InstanceClaim, *, alive: bool, at: float) -> Acting | None:
        return admit(acting, InstanceClaim(claim.instance), alive=alive, at=at)

    assert "because of its own earlier process" in found_by(Rules(admit=forgets))


def test_a_journal_is_read_back_as_it_was_written() -> None:
    for text in history(3).journal:
        assert event_to_json(event_from_json(text)) == text
