"""A record as the coordinator sends it: what fits is kept, everything else is no record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator.run import results
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.runtime.record import AlarmLine, ContributionLine, MissingLine, stored_record
from fedcervix.runtime.typed_json import to_text
from site_agent.store import ledger
from tests.unit.test_changes import events_of, plan, run_of

RUN = "20300101-000000-csfssl-00000000"
PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(rounds=2), recipe=Recipe())
GAVE = {"site": "ada", "images": 9, "steps": 3}
ALARM = {"site": "bob", "what": "norm", "words": "the length of its step is 100"}
MISSED = {"site": "bob", "reason": "silent"}
LINE = {"round": 1, "loss": 0.5, "contributions": [GAVE], "missing": [MISSED]}


def record(**changes: Any) -> str:
    return json.dumps({"ledger": [{**LINE, **changes}]})


def test_a_coordinators_record_is_read() -> None:
    whole = {"run": RUN, "ledger": [{**LINE, "scores": [], "base": "b" * 64}]}
    [line] = ledger.read(json.dumps(whole), PLAN, RUN).ledger
    assert (line.round, line.loss, line.base) == (1, 0.5, "b" * 64)
    assert line.contributions == (ContributionLine(site="ada", images=9, steps=3),)
    assert line.missing == (MissingLine(site="bob", reason="silent"),)
    assert ledger.read(record(loss=None, contributions=[]), PLAN, RUN).ledger[0].loss is None


def test_what_a_coordinator_writes_fits() -> None:
    wanted = plan(2, 3)
    run = run_of(wanted, events_of(wanted, 3, sites_in_last=1))
    text = to_text(results.record(run))
    assert to_text(ledger.read(text, wanted, run.run)) == text
    assert to_text(stored_record(text.encode())) == text
    assert stored_record(text.encode()).agreed == wanted


@pytest.mark.parametrize("more", [{"a-later-key": {"of": ["any", "shape"]}}, {"loss": 0.5}])
def test_a_record_with_keys_of_a_later_version_is_read(more: dict[str, Any]) -> None:
    line = {**LINE, **more, "contributions": [{**GAVE, **more}], "alarms": [{**ALARM, **more}]}
    text = json.dumps({"ledger": [line], **more})
    read = ledger.read(text, PLAN, RUN)
    assert read.ledger[0].contributions[0].images == 9
    assert stored_record(text.encode()) == read


@pytest.mark.parametrize(
    "foreign",
    [
        {"run": "other-run"},
        {"outcome": "WON"},
        {"outcome": 1},
        {"model": 7},
        {"model": "b" * 64},
        {"adopted": "all"},
        {"adopted": ["mallory"]},
        {"adopted": ["ada", "ada"]},
        {"best_round": -5},
        {"best_round": 2},
        {"best_round": True},
        {"plan": {**json.loads(PLAN.canonical()), "profile": "other"}},
        {"plan": {"a": [[]]}},
        {"plan_digest": "d" * 64},
        {"software": "<script>"},
        {"reason": ["words"]},
    ],
)
def test_a_record_with_foreign_values_around_its_ledger_is_no_record(foreign: dict[str, Any]) -> None:
    """Before: only the ledger was looked at, and the rest was saved as it came."""
    plan = json.loads(PLAN.canonical())
    own = {"run": RUN, "plan": plan, "plan_digest": PLAN.digest, "outcome": "OK", "best_round": 0}
    assert ledger.read(json.dumps({**own, "ledger": [LINE]}), PLAN, RUN)
    with pytest.raises(ValueError, match=r"\w"):
        ledger.read(json.dumps({**own, "ledger": [LINE], **foreign}), PLAN, RUN)


def test_a_key_of_a_later_version_is_passed_over_and_reaches_no_reader() -> None:
    more = {"note": "\x1b[2J"}
    line = {**LINE, **more, "contributions": [{**GAVE, **more}]}
    plain = {"ledger": [{**LINE, "contributions": [GAVE]}]}
    assert ledger.read(json.dumps({"ledger": [line], **more}), PLAN, RUN) == ledger.read(json.dumps(plain), PLAN, RUN)


FORGED = "done: train in round 7: loss 0.0100"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"ledger": [], "reason": {FORGED: 1}}),
        record(loss={FORGED: 1}),
        record(base=FORGED),
        record(missing=[{**MISSED, "site": FORGED}]),
        record(scores=[{"site": "ada", "loss": 1, "count": 1, "gauges": {FORGED: "b"}}]),
        json.dumps({"ledger": [], "run": FORGED}),
    ],
)
def test_what_is_said_of_a_record_quotes_nothing_of_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        ledger.read(text, PLAN, RUN)
    assert FORGED not in str(caught.value)


def test_measures_and_alarms_are_read_and_records_without_them_too() -> None:
    gave = {**GAVE, "norm": 2.5, "cosine": -0.5, "distance": None, "clipped": 0.25}
    [line] = ledger.read(record(contributions=[gave], alarms=[ALARM]), PLAN, RUN).ledger
    assert line.contributions == (ContributionLine(**gave),)
    assert line.alarms == (AlarmLine(**ALARM),)
    [without] = ledger.read(record(), PLAN, RUN).ledger
    assert (without.alarms, without.contributions[0].norm) == ((), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{torn",
        "[" * 100_000,
        json.dumps({"ledger": {"round": 1}}),
        json.dumps({"ledger": [[]]}),
        record(loss=float("nan")),
        record(loss=float("-inf")),
        record(loss=-1e308),
        record(loss="0.5"),
        record(loss=True),
        record(round=2),
        record(round=10**400),
        record(round=1.5),
        record(contributions=None),
        record(contributions=[GAVE, GAVE]),
        record(contributions=[{**GAVE, "site": "\ud800"}]),
        record(contributions=[{**GAVE, "site": "mallory"}]),
        record(contributions=[{**GAVE, "images": -1}]),
        record(contributions=[{**GAVE, "steps": 1e300}]),
        record(contributions=[{"site": "ada"}]),
        record(contributions=[{**GAVE, "norm": -1.0}]),
        record(contributions=[{**GAVE, "norm": float("inf")}]),
        record(contributions=[{**GAVE, "cosine": 1.5}]),
        record(alarms=[{"site": "mallory", "what": "norm", "words": "far"}]),
        record(alarms=[{"site": "ada", "what": "norm", "words": "x" * 10_000}]),
        record(base="b"),
        record(begun_at=-1),
        record(unusable=["mallory"]),
        record(notes="words"),
        record(scores=[{"site": "ada", "loss": 1, "count": 1, "gauges": {"a": "b"}}]),
        record(dropped=[{"site": "mallory", "digest": "d" * 64}]),
        record(missing=[{**MISSED, "reason": "x" * 10_000}]),
        record(missing=[{**MISSED, "reason": {"a": 1}}]),
        json.dumps({"ledger": [{**LINE, "round": number} for number in (1, 2, 3)]}),
        json.dumps({"ledger": [], "more": "x" * 20_000_000}),
    ],
)
def test_what_does_not_fit_is_no_record(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ledger.read(text, PLAN, RUN)
