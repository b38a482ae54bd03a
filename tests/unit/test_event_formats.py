"""The formats of an event: what format 1 has, for good, and how a later event and a later field are told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.events import EVENTS, FORMAT, SINCE, RunAborted, Tick, event_from_json, event_to_json, needed_format
from fedcervix.core.formats import UnknownFormat

FIRST_FORMAT = Path(__file__).parent.parent / "golden" / "events-format-1.json"
FIRST: dict[str, dict[str, Any]] = json.loads(FIRST_FORMAT.read_text())
"""event -> field -> what a text without it means. Never edited: what is added later is a line of SINCE"""
NEEDED = "it must be said"


def fields(kind: type) -> dict[str, Any]:
    """Return the fields of an event, each with what a text without it means."""
    found = {}
    for field in dataclasses.fields(kind):
        missing = field.default is dataclasses.MISSING
        found[field.name] = NEEDED if missing else 0 if field.name == "rules" else json.loads(json.dumps(field.default))
    return found


NOW = {name: fields(kind) for name, kind in EVENTS.items()}


@pytest.mark.parametrize("name", FIRST)
def test_an_event_of_format_1_is_read_for_good_and_means_the_same(name: str) -> None:
    assert FIRST[name].items() <= NOW[name].items()
    new = NOW[name].keys() - FIRST[name].keys()
    assert {field for field in new if f"{name}.{field}" not in SINCE} == set(), "add it to SINCE, and raise FORMAT"
    assert [field for field in new if NOW[name][field] == NEEDED] == [], "give it a default: older texts lack it"


def test_an_event_that_format_1_does_not_have_is_told() -> None:
    assert {name for name in NOW.keys() - FIRST.keys() if name not in SINCE} == set(), "add it to SINCE"
    assert max(SINCE.values(), default=1) == FORMAT


def test_an_event_of_format_1_names_no_format() -> None:
    assert needed_format(RunAborted("enough", 4.0)) == 1
    assert "format" not in json.loads(event_to_json(Tick(4.0)))


def test_an_event_of_a_later_format_is_refused_by_its_number_whatever_it_holds() -> None:
    for raw in ({"event": "Tick", "at": 1.0}, {"event": "FromTheFuture"}, {"event": "Tick", "at": 1.0, "more": 5}):
        with pytest.raises(UnknownFormat, match=f"the event has format {FORMAT + 1}"):
            event_from_json(json.dumps({**raw, "format": FORMAT + 1}))
        assert event_from_json(json.dumps({"event": "Tick", "at": 1.0, "format": 1})) == Tick(1.0)
