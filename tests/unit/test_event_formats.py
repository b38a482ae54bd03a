"""The formats of an event: what format 1 has, for good, and how a later event and a later field are told."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fedcervix.core.events import EVENTS, FORMAT, SINCE, RunAborted, Tick, event_from_json, event_to_json, needed_format
from fedcervix.core.formats import UnknownFormat
from tests.unit.goldens import NEEDED, check_written_down, default_of, with_values, written_down

FORMATS: dict[int, dict[str, dict[str, Any]]] = written_down("events")
"""format -> event, or value in one -> field -> what a text without it means. Never edited: what is added later is a
line of SINCE"""


def fields(kind: type) -> dict[str, Any]:
    """Return the fields of an event, each with what a text without it means."""
    return {field.name: 0 if field.name == "rules" else default_of(field) for field in dataclasses.fields(kind)}


NOW = {one.__name__: fields(one) for kind in EVENTS.values() for one in with_values(kind)}


def test_what_the_newest_format_has_is_written_down(pytestconfig: pytest.Config) -> None:
    check_written_down("events", FORMAT, NOW, pytestconfig)


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, kinds in FORMATS.items() for name in kinds])
def test_an_event_of_a_format_is_read_for_good_and_means_the_same(number: int, name: str) -> None:
    before, now = FORMATS[number][name], NOW[name]
    assert before.items() <= now.items()
    new = now.keys() - before.keys()
    assert {field for field in new if SINCE.get(f"{name}.{field}", 0) <= number} == set(), "add it to SINCE"
    assert [field for field in new if now[field] == NEEDED] == [], "give it a default: older texts lack it"


@pytest.mark.parametrize("number", FORMATS)
def test_an_event_that_a_format_does_not_have_is_told(number: int) -> None:
    new = NOW.keys() & EVENTS.keys() - FORMATS[number].keys()
    assert {name for name in new if SINCE.get(name, 0) <= number} == set(), "add it to SINCE"
    assert max(SINCE.values(), default=1) == FORMAT


def test_an_event_of_format_1_names_no_format() -> None:
    assert needed_format(RunAborted("enough", 4.0)) == 1
    assert "format" not in json.loads(event_to_json(Tick(4.0)))


def test_an_event_of_a_later_format_is_refused_by_its_number_whatever_it_holds() -> None:
    for raw in ({"event": "Tick", "at": 1.0}, {"event": "FromTheFuture"}, {"event": "Tick", "at": 1.0, "more": 5}):
        with pytest.raises(UnknownFormat, match=f"the event has format {FORMAT + 1}"):
            event_from_json(json.dumps({**raw, "format": FORMAT + 1}))
        assert event_from_json(json.dumps({"event": "Tick", "at": 1.0, "format": 1})) == Tick(1.0)
