"""What whoever watches is sent: a whole document, then what changed, in parts that have a bound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from coordinator.run.changes import BRIEF_ROUNDS, applied, brief, changes, ended_rounds, joined, parts
from coordinator.run.history import replayed
from coordinator.run.liveness import STOPPED, Line
from coordinator.run.status import overview
from coordinator.run.status_document import StatusDocument
from fedcervix.core.events import (
    AggregateStored,
    Event,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteSilent,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.runtime.typed_json import fields_of, to_text
from fedcervix.transport.rpc import MESSAGE_BYTES_MAX

RUN = "20300101-000000-csfssl-00000000"
GAUGES = tuple((name, 0.123456789) for name in sorted(("zero_rows", "dead_units", "unit_std", "effective_rank")))


def plan(sites: int, rounds: int) -> Plan:
    names = tuple(f"site-{number:03}" for number in range(sites))
    terms = Terms(rounds=rounds, patience_rounds=rounds)
    return Plan(mode="csfssl", sites=names, profile="paper", terms=terms, recipe=Recipe(epochs_max=rounds))


def events_of(plan: Plan, rounds: int, sites_in_last: int = 0) -> Iterator[Event]:
    """Yield the events of so many whole rounds, and of a last one to which so many sites have contributed."""
    yield from (SiteAttached(site, 1.0) for site in plan.sites)
    base = "5" * 64
    for round_ in range(1, rounds + 1):
        train = Task(RUN, TaskKind.TRAIN, round_, base)
        yield from (updated(site, train, n) for n, site in enumerate(plan.sites))
        base = f"{10**12 + round_:064x}"
        yield AggregateStored(round_, base, float(round_))
        score = Task(RUN, TaskKind.SCORE, round_, base)
        loss = 300.0 - round_ / 10
        yield from (ScoreReported(site, score, loss, 100, 1000, GAUGES, float(round_)) for site in plan.sites)
    train = Task(RUN, TaskKind.TRAIN, rounds + 1, base)
    yield from (updated(site, train, n) for n, site in enumerate(plan.sites[:sites_in_last]))


def updated(site: str, task: Task, number: int) -> UpdateStored:
    return UpdateStored(site, task, f"{task.round * 1000 + number:064x}", 1000, 125, 2.3456, 123.4, float(task.round))


def run_of(plan: Plan, events: Iterator[Event]) -> Run:
    run = begin(RUN, plan, base="5" * 64, at=0.0)
    for event in events:
        run, _ = step(run, event)
    return run


def seen(run: Run, *, now: float = 9.0, since: int = 0) -> StatusDocument:
    return overview(run, {}, now=now, since=since)


def sent(before: StatusDocument | None, after: StatusDocument) -> StatusDocument:
    """Send what changed through the wire's parts, and return what came of it."""
    [change] = joined(parts(changes(before, after)))
    return applied(before, change)


def test_a_first_picture_is_whole_and_a_second_one_says_what_changed() -> None:
    two = plan(2, 9)
    first, second = (seen(run_of(two, events_of(two, 3, last)), now=float(last)) for last in (0, 1))
    assert sent(None, first) == first
    change = changes(first, second)
    assert change.keys() == {"now", "ledger", "waits", "sites"}
    assert change["ledger"] == [second.ledger[3]]
    assert change["sites"] == [second.sites[0]]
    assert sent(first, second) == second


@pytest.mark.parametrize("last", [0, 1, 2])
def test_who_knows_the_ended_rounds_is_not_sent_them_again(last: int) -> None:
    """As after a restart of the coordinator: `known_rounds` of the request."""
    two = plan(2, 9)
    known = seen(run_of(two, events_of(two, 3, 1)))
    assert ended_rounds(known) == 3
    later = run_of(two, events_of(two, 5, last))
    after = seen(later, since=ended_rounds(known))
    assert [line.round for line in after.ledger] == [4, 5, 6]
    assert sent(known, after) == seen(later)


def test_another_run_replaces_the_document() -> None:
    two = plan(2, 9)
    before = seen(run_of(two, events_of(two, 3)))
    after = replace(seen(run_of(two, events_of(two, 1))), run="another")
    assert changes(before, after) == fields_of(after)
    assert sent(before, after) == after


def test_keys_of_a_later_version_are_ignored_in_a_document_and_in_a_change() -> None:
    """The command may be of another version than the coordinator that runs."""
    two = plan(2, 9)
    document = seen(run_of(two, events_of(two, 1)))
    later = {**json.loads(to_text(document)), "more": [7]}
    later["sites"] = [{**site, "more": {}} for site in later["sites"]]
    assert applied(None, later) == document
    assert applied(document, {"now": 10.0, "more": "words"}) == replace(document, now=10.0)
    with pytest.raises(ValueError, match=r"StatusDocument\.now: Field required"):
        applied(None, {key: value for key, value in later.items() if key != "now"})


def test_a_document_that_was_cut_off_is_dropped() -> None:
    text = json.dumps({"run": "x"})
    assert list(joined([(text, False), (text[:3], True)])) == [{"run": "x"}]


@pytest.mark.parametrize("letter", ["x", "\U0001f9ec", "\x00", '"'])
def test_no_message_passes_the_bound_whatever_the_sites_say(letter: str) -> None:
    """256 sites that have all failed, in as many words as they may."""
    most = plan(256, 2)
    run = run_of(most, events_of(most, 1))
    for site in most.sites:
        for number in range(2):
            run, _ = step(run, SiteFailed(site, letter * 600, letter * 600, f"INC-{number}", 5.0, letter * 40))
    document = seen(run)
    assert len(brief(document).encode()) < MESSAGE_BYTES_MAX
    assert all(len(text.encode()) <= 1 << 20 for text, _ in parts(document))
    assert sent(None, document) == document


def test_a_single_answer_holds_the_last_rounds_that_fit() -> None:
    few, many = (json.loads(brief(seen(run_of(p, events_of(p, 20))))) for p in (plan(2, 30), plan(64, 30)))
    assert [line["round"] for line in few["ledger"]] == list(range(10, 22))
    assert 0 < len(many["ledger"]) <= BRIEF_ROUNDS
    assert many["ledger"][-1]["round"] == 21


@pytest.mark.timeout(400)  # a thousand rounds take ten seconds on a machine that does nothing else
@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_a_federation_of_64_sites_and_many_rounds_is_read_back_and_shown(
    tmp_path_factory: pytest.TempPathFactory, rounds: int
) -> None:
    """Read back by the same steps, from a real journal; what is sent later is small."""
    large = plan(64, rounds + 1)
    record = RunRecord(RUN, large, "5" * 64, 0.0)
    journal = Journal(tmp_path_factory.mktemp("large") / "journal.db")
    journal.begin(record)
    journal._db.execute("PRAGMA synchronous = OFF")  # it is the reading that is looked at
    journal._db.execute("BEGIN")
    for event in events_of(large, rounds, 3):
        journal.append(RUN, event)
    journal._db.execute("COMMIT")
    run = replayed(journal, record)
    journal.close()
    assert (len(run.rounds), len(run.current.contributions)) == (rounds + 1, 3)
    whole = seen(run)
    messages = list(parts(whole))
    assert len(messages) > rounds // 100
    assert max(len(text.encode()) for text, _ in messages) <= 1 << 20
    assert [document["round"] for document in joined(messages)] == [rounds + 1]
    assert len(brief(seen(run, since=rounds + 1 - BRIEF_ROUNDS)).encode()) < 1 << 20
    later, _ = step(run, updated("site-003", Task(RUN, TaskKind.TRAIN, rounds + 1, run.model), 3))
    change = changes(whole, seen(later, now=10.0, since=ended_rounds(whole)))
    assert len(to_text(change)) < 100_000


def test_a_site_that_was_stopped_is_said_to_be_stopped() -> None:
    two = plan(2, 3)
    run = run_of(two, events_of(two, 1))
    line = Line(False, 3.0, 3.0, 40.0, None, stopped=True)
    site, _ = overview(run, {"site-000": line}, now=9.0).sites
    assert (site.line, site.cut_at) == (STOPPED, 6.0)
    run, _ = step(run, SiteSilent("site-000", 50.0, STOPPED))
    document = overview(run, {}, now=60.0)
    assert document.sites[0].reason == "stopped by its engineer"
    assert document.waits[0].reason == "silent: stopped by its engineer"


def test_a_failure_is_mended_when_its_site_comes_back() -> None:
    two = plan(2, 3)
    run = run_of(two, events_of(two, 1))
    for event in (
        SiteFailed("site-000", "training", "no memory", "INC-1", 20.0),
        SiteFailed("site-001", "training", "slow", "INC-2", 21.0, goes_on=True),
        SiteAttached("site-000", 30.0),
        SiteFailed("site-000", "training", "no memory", "INC-3", 40.0),
    ):
        run, _ = step(run, event)
    assert [failure.mended_at for failure in seen(run).failures] == [30.0, None, None]
    run, _ = step(run, SiteAttached("site-000", 50.0))
    assert [failure.mended_at for failure in seen(run).failures] == [30.0, None, 50.0]
