"""What may happen, checked when built, and the journal's text of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcervix.core.events import (
    EVENTS,
    RULES,
    AggregateStored,
    AverageUnusable,
    BoxesStored,
    CloseSigned,
    Event,
    Masked,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
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
    check_event,
    event_from_json,
    event_to_json,
)
from fedcervix.core.formats import UnknownFormat
from fedcervix.core.measures import Measures

BASE, MADE = "b" * 64, "d" * 64
SEED = Task("run", TaskKind.SEED, 0, "")
TRAIN = Task("run", TaskKind.TRAIN, 3, BASE)
SCORE = Task("run", TaskKind.SCORE, 3, BASE)
ADOPT = Task("run", TaskKind.ADOPT, 3, BASE)
SEAL = Seal("{}", MADE, (("bob", "b0" * 48),), "5e")

ONE_OF_EACH: list[Event] = [
    SiteAttached("ada", 1.5),
    SiteSilent("ada", 1.5),
    SiteRefused("ada", "rounds_max is 2", 1.5),
    SiteRevoked("ada", 1.5),
    SiteFailed("ada", "training", "diverged", "INC-1", 1.5, "TrainingError", goes_on=True),
    UpdateStored("ada", TRAIN, MADE, 10, 7, 0.25, 60.0, 1.5),
    UpdateStored("ada", SEED, MADE, 0, 0, 0.0, 1.0, 1.5),
    UpdateStored("ada", TRAIN, MADE, 10, 7, 0.25, 60.0, 1.5, measures=Measures(2.5, 0.1)),
    AggregateStored(3, MADE, 1.5),
    AggregateStored(3, MADE, 1.5, measures=(("ada", Measures(2.5, 0.1, -0.5, 4.0)), ("bob", Measures(2.0)))),
    AverageUnusable(3, 1, 1.5),
    ModelUnusable("ada", TRAIN, 7, 1.5),
    ScoreReported("ada", SCORE, 8.0, 4, 10, (("alignment", 0.5), ("unit_std", 0.9)), 1.5),
    ModelAdopted("ada", ADOPT, 1.5),
    UpdateStored("ada", TRAIN, MADE, 10, 7, 0.25, 60.0, 1.5, MADE, seal=SEAL),
    Rewrapped("ada", Task("run", TaskKind.REWRAP, 3, BASE, readers=("bob",)), SEAL, 1.5),
    SiteOpened("ada", BASE, 12, MADE, "3045", 1.5),
    BoxesStored("ada", Task("run", TaskKind.BOX, 0, ""), MADE, (("bob", "ab" * 48), ("cleo", "cd" * 48)), 1.5),
    UpdateStored("ada", replace(TRAIN, attempt=2), MADE, 10, 7, 0.25, 60.0, 1.5, masked=Masked(BASE, 0.5, "", "30")),
    ReleaseStored("ada", Task("run", TaskKind.RELEASE, 3, BASE, attempt=2), BASE, MADE, "3045", 1.5),
    CloseSigned("ada", Task("run", TaskKind.CLOSE, 3, BASE), ("ada", "bob"), "3045", 1.5),
    AggregateStored(3, MADE, 1.5, total=BASE),
    RunAborted("the operator’s wish", 1.5),
    Tick(1.5),
]


def test_every_kind_of_event_is_tried_here() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(EVENTS.values())


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_an_event_is_read_back_from_the_journal(event: Event) -> None:
    assert event_from_json(event_to_json(event)) == event


def test_the_journal_s_text_is_canonical_json_with_the_event_s_name() -> None:
    assert event_to_json(SiteAttached("ada", 1.5)) == (
        '{"at":1.5,"event":"SiteAttached","numerics":0,"site":"ada","software":""}'
    )


def test_a_journal_from_before_there_were_measures_is_read() -> None:
    old = json.loads(event_to_json(AggregateStored(3, MADE, 1.5)))
    del old["measures"]
    assert event_from_json(json.dumps(old)) == AggregateStored(3, MADE, 1.5)


def test_the_mean_of_a_score() -> None:
    assert ScoreReported("ada", SCORE, 8.0, 4, 10, (), 0.0).loss == 2.0


# --- impossible events cannot be built ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Task("run", TaskKind.TRAIN, -1, BASE), "round must be 0 to 1000000; found -1"),
        (lambda: Task("run", TaskKind.TRAIN, 1_000_001, BASE), "round must be 0 to 1000000"),
        (lambda: Task("run", TaskKind.TRAIN, 1, ""), "not a base digest: ''"),
        (lambda: Task("run", TaskKind.TRAIN, 1, "B" * 64), "not a base digest"),
        (lambda: Task("run", TaskKind.TRAIN, 1, BASE + "\n"), "not a base digest"),
        (lambda: Task("run", TaskKind.SEED, 0, BASE), "not a base digest"),
        (lambda: UpdateStored("ada", TRAIN, "x", 1, 1, 0.5, 1.0, 0.0), "not a digest: 'x'"),
        (lambda: UpdateStored("ada", SCORE, MADE, 1, 1, 0.5, 1.0, 0.0), "score makes no model"),
        (lambda: UpdateStored("ada", TRAIN, MADE, 0, 1, 0.5, 1.0, 0.0), "an update counts at least one image"),
        (lambda: UpdateStored("ada", TRAIN, MADE, -1, 1, 0.5, 1.0, 0.0), "images must be 0 to 2"),
        (lambda: UpdateStored("ada", TRAIN, MADE, 2**40 + 1, 1, 0.5, 1.0, 0.0), "images must be 0 to 2"),
        (lambda: UpdateStored("ada", TRAIN, MADE, 1, -1, 0.5, 1.0, 0.0), "steps must be 0 to 2"),
        (lambda: UpdateStored("ada", TRAIN, MADE, 1, 1, float("nan"), 1.0, 0.0), "loss is a finite number; found nan"),
        (lambda: UpdateStored("ada", TRAIN, MADE, 1, 1, 0.5, float("inf"), 0.0), "seconds is a finite number"),
        (lambda: AggregateStored(1, "", 0.0), "not a digest"),
        (lambda: ScoreReported("ada", TRAIN, 1.0, 1, 1, (), 0.0), "train gives no score"),
        (lambda: ScoreReported("ada", SCORE, 1.0, 0, 1, (), 0.0), "count must be 1 to 2"),
        (lambda: ScoreReported("ada", SCORE, 1.0, 1, 0, (), 0.0), "images must be 1 to 2"),
        (lambda: ScoreReported("ada", SCORE, float("-inf"), 1, 1, (), 0.0), "loss_sum is a finite number"),
        (lambda: ScoreReported("ada", SCORE, 1.0, 1, 1, (("rank", float("nan")),), 0.0), "rank is a finite number"),
        (lambda: ScoreReported("ada", SCORE, 1.0, 1, 1, (("g", 0.0),) * 33, 0.0), "at most 32 gauges"),
        (lambda: ModelAdopted("ada", TRAIN, 0.0), "train adopts no model"),
    ],
)
def test_impossible_events_cannot_be_built(build: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build()


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        (SiteAttached("Ada", 0.0), "not a site name: 'Ada'"),
        (SiteAttached("ada", float("nan")), "at is a finite number"),
        (RunAborted("x" * 601, 0.0), "reason is longer than 600 characters"),
        (SiteFailed("ada", "s" * 601, "", "", 0.0), "stage is longer than 600 characters"),
    ],
)
def test_what_could_not_be_read_back_is_never_written(event: Event, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_event(event)
    with pytest.raises(ValueError, match=complaint):
        event_to_json(event)


def test_the_largest_numbers_and_texts_that_pass() -> None:
    most = 2**40
    UpdateStored("ada", TRAIN, MADE, most, most, 0.5, 1.0, 0.0)
    ScoreReported("ada", SCORE, 1.0, most, most, (("g", 0.0),) * 32, 0.0)
    Task("run", TaskKind.TRAIN, 1_000_000, BASE)
    assert event_from_json(event_to_json(RunAborted("x" * 600, 0.0))) == RunAborted("x" * 600, 0.0)


@pytest.mark.parametrize("field", ["images", "steps", "count"])
def test_counts_end_at_two_to_the_fortieth(field: str) -> None:
    score = field == "count"
    event = next(event for event in ONE_OF_EACH if isinstance(event, ScoreReported if score else UpdateStored))
    with pytest.raises(ValueError, match=f"{field} must be . to 2"):
        replace(event, **{field: 2**40 + 1})  # type: ignore[arg-type]


# --- anything else in the journal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "[]",
        "{}",
        '{"event": []}',
        '{"event": "Nothing"}',
        '{"event": "Tick"}',
        '{"event": "Tick", "at": "noon"}',
        '{"event": "Tick", "at": NaN}',
        '{"event": "Tick", "at": 1' + "0" * 400 + "}",
        '{"event": "Tick", "at": 1, "site": "ada"}',
        '{"event": "SiteAttached", "site": 5, "at": 1}',
        '{"event": "ModelAdopted", "site": "ada", "task": 5, "at": 1}',
        '{"event": "AggregateStored", "round": 1, "digest": 5, "at": 1}',
        '{"event": "Tick", "gauges": [1], "at": 1}',
        '{"event": "Tick", "gauges": 5, "at": 1}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_what_is_not_an_event_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        event_from_json(text)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *((UpdateStored, "rules", value) for value in (None, "1", [], {}, True, -1)),
        (AggregateStored, "measures", None),
        (SiteAttached, "software", 5),
        (SiteAttached, "software", True),
        (SiteFailed, "goes_on", 1),
        (UpdateStored, "measures", []),
    ],
)
def test_a_field_of_another_type_is_a_value_error(kind: type, field: str, value: Any) -> None:
    event = next(event for event in ONE_OF_EACH if type(event) is kind)
    with pytest.raises(ValueError, match=rf"{field}|Measures"):
        event_from_json(json.dumps({**json.loads(event_to_json(event)), field: value}))


def test_an_event_by_the_rules_of_a_later_version_is_refused_by_their_number() -> None:
    raw = json.loads(event_to_json(SiteRevoked("ada", 1.5)))
    with pytest.raises(UnknownFormat, match=f"the set of rules of the event has format {RULES + 1}"):
        event_from_json(json.dumps({**raw, "rules": RULES + 1}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(event=st.sampled_from(ONE_OF_EACH), value=JSON, data=st.data())
def test_an_event_with_any_value_exchanged_is_an_event_or_a_value_error(event: Event, value: Any, data: Any) -> None:
    raw = json.loads(event_to_json(event))
    table = raw["task"] if "task" in raw and data.draw(st.booleans()) else raw
    table[data.draw(st.sampled_from(sorted(table)))] = value
    try:
        event_from_json(json.dumps(raw))
    except ValueError:
        return
