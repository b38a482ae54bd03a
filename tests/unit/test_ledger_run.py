"""What the entries of a ledger say of its run: the state that the coordinator has, and the models of its rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedcervix.core.events import ModelUnusable, Task
from fedcervix.core.rounds.coordinator_work import last_step
from fedcervix.core.rounds.instructions import instruction
from fedcervix.trust.ledger_run import KnownRound, LedgerRun
from site_agent.store.ledger_store import LedgerStore
from tests.unit.ledgers import BASE, Ledgers, deliver


@pytest.fixture
def run(tmp_path: Path) -> Ledgers:
    made = Ledgers(tmp_path)
    made.plan = replace(made.plan, terms=replace(made.plan.terms, server_momentum=0.5))
    made.record = replace(made.record, plan=made.plan)
    made.begin("other.db")
    made.attach()
    return made


def told(run: Ledgers) -> LedgerRun:
    """Return what a site makes of the entries that it has checked."""
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    found = LedgerRun()
    for line in LedgerStore(run.run_folder("nhs")).read().lines:
        found = found.follow(line.text)
    return found


def test_a_site_comes_to_the_state_of_the_coordinator(run: Ledgers) -> None:
    for _ in range(2):
        run.play_round()
    assert told(run).state == run.run


def test_a_round_begins_with_the_model_that_the_one_before_came_to(run: Ledgers) -> None:
    first = told(run).known_round(run.ledger.known.heads, 1)
    assert first == KnownRound(1, BASE, run.ledger.known.heads[0].hash)
    run.play_round()
    second = told(run).known_round(run.ledger.known.heads, 2)
    assert second == KnownRound(2, run.run.model, run.ledger.known.heads[1].hash, last_step(run.run))
    assert second.last_step == (run.run.model, BASE)
    assert told(run).known_round(run.ledger.known.heads, 1) == first, "also once it is over"


def test_a_round_that_has_not_begun_is_not_known(run: Ledgers) -> None:
    run.play_round()
    heads = run.ledger.known.heads
    assert told(run).known_round(heads, 3) is None
    assert told(run).known_round({0: heads[0]}, 2) is None, "its head is not here"
    assert told(run).known_round(heads, 0) is None
    assert LedgerRun().known_round(heads, 1) is None


def test_a_round_without_a_usable_average_goes_on_from_where_it_began(run: Ledgers) -> None:
    run.play_round()
    base = run.run.model
    for site in run.sites:
        run.submit(run.update(site))
    while run.run.current.number == 2:
        if not isinstance(instruction(run.run, run.sites[0]), Task):
            run.average("again")
        for site in run.sites:
            asked = instruction(run.run, site)
            assert isinstance(asked, Task)
            run.submit(ModelUnusable(site, asked, 0, run.at))
    third = told(run).known_round(run.ledger.known.heads, 3)
    assert third is not None
    assert third.base == base
    assert third.last_step is None, "a round without a result is no step"
