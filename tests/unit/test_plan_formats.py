"""The formats of a plan: what each can say, for good, and what a version does with a text of a later one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from fedcervix.core.bounds import Within, allowed
from fedcervix.core.formats import UnknownFormat
from fedcervix.core.plan import Plan, Recipe, Terms, canonical_json, parse_recipe
from fedcervix.core.plan_formats import CHANGES, FORMAT, needed_format, to_dict
from tests.unit.goldens import check_written_down, written_down

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())


def vocabulary(schema: type = Plan, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a plan, and what it may be."""
    hints, bounds = get_type_hints(schema), allowed(schema)
    for field in dataclasses.fields(schema):
        if not field.compare:
            continue
        key, hint = f"{path}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from vocabulary(hint, f"{key}.")  # type: ignore[arg-type]
            continue
        found = bounds.get(field.name)
        values = dataclasses.asdict(found) if isinstance(found, Within) else list(found or ())
        kinds = sorted(kind.__name__ for kind in get_args(hint) or (hint,) if isinstance(kind, type))
        yield key, {"kinds": kinds if not found or isinstance(found, Within) else ["str"], "values": values}


NOW = json.loads(json.dumps(dict(vocabulary())))
FORMATS = written_down("plan")
"""format -> key -> the values that it allows. Never edited: what a later format adds is a row of CHANGES"""
KEYS = [(number, key) for number, keys in FORMATS.items() for key in keys]


def test_what_the_newest_format_can_say_is_written_down(pytestconfig: pytest.Config) -> None:
    check_written_down("plan", FORMAT, NOW, pytestconfig)


@pytest.mark.parametrize("number", FORMATS)
def test_a_key_or_a_value_that_a_format_does_not_have_is_a_row_of_the_table(number: int) -> None:
    before = FORMATS[number]
    assert before.keys() <= NOW.keys()
    for key in NOW:
        rows = [row for row in CHANGES if row.key == key and row.format > number]
        if key not in before:
            assert [row.is_new for row in rows][:1] == [True], (
                f"{key} is new: add Change(format, {key!r}, (what held,))"
            )
        elif before[key] != NOW[key]:
            assert rows, f"{key} takes other values: add Change(format, {key!r}, before, is_new=False)"
            assert not any(row.is_new for row in rows)


@pytest.mark.parametrize(("number", "key"), KEYS)
def test_what_a_format_allows_is_allowed_for_good(number: int, key: str) -> None:
    """A plan of an old run is read with today's bounds: they may be widened, never narrowed."""
    first, today = FORMATS[number][key], NOW[key]
    before, now = first["values"], today["values"]
    assert set(first["kinds"]) <= set(today["kinds"])
    if isinstance(before, list):
        assert set(before) <= set(now)
        return
    within = Within(**{**now, "also": tuple(now["also"])})
    for end in ("least", "most", "above", "below"):
        inside = before[end] in within or (end in ("above", "below") and before[end] == now[end])
        assert inside or (before[end] is None and now[end] is None), f"{end} of {key}"


def test_the_formats_have_no_gap() -> None:
    assert {row.format for row in CHANGES} == set(range(1, FORMAT + 1))


def said(**more: Any) -> str:
    return canonical_json({**json.loads(PLAN.canonical()), **more})


def test_a_plan_that_format_1_can_say_names_no_format() -> None:
    assert needed_format(PLAN) == 1
    assert "format" not in json.loads(PLAN.canonical())
    assert "format" not in to_dict(PLAN.recipe, "recipe")


@pytest.mark.parametrize("more", [{}, {"anything": 5}, {"sites": None}, {"terms": {}}])
def test_a_later_format_is_refused_by_its_number_whatever_else_stands_there(more: dict[str, Any]) -> None:
    with pytest.raises(UnknownFormat, match=f"the plan has format {FORMAT + 1}; fedcervix .* up to {FORMAT}$"):
        Plan.parse(said(format=FORMAT + 1, **more))


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "2", None, []])
def test_a_format_that_is_no_number_is_no_plan(number: Any) -> None:
    with pytest.raises(ValueError, match="format is a whole number from 1") as raised:
        Plan.parse(said(format=number))
    assert not isinstance(raised.value, UnknownFormat)


@pytest.mark.parametrize("path", ["", "terms", "recipe", "recipe.augment", "recipe.classifier"])
def test_a_known_format_has_no_unknown_key_and_lacks_none(path: str) -> None:
    for change, words in (
        (lambda table: table.update(new_key=1), "new_key"),
        (lambda table: table.pop(min(table)), "missing"),
    ):
        raw = json.loads(PLAN.canonical())
        table = raw
        for name in path.split(".") if path else ():
            table = table[name]
        change(table)
        with pytest.raises(ValueError, match=f"not a plan: .*{words}"):
            Plan.parse(canonical_json(raw))


def test_a_text_is_kept_as_it_was_written_and_a_changed_plan_is_written_anew() -> None:
    text = said(format=1)
    plan = Plan.parse(text)
    assert (plan, plan.canonical()) == (PLAN, text)
    assert dataclasses.replace(plan, sites=PLAN.sites).canonical() == PLAN.canonical()


def test_a_recipe_by_itself_names_its_format_too() -> None:
    assert parse_recipe(to_dict(PLAN.recipe, "recipe")) == PLAN.recipe
    with pytest.raises(UnknownFormat, match="the recipe has format"):
        parse_recipe({**to_dict(PLAN.recipe, "recipe"), "format": FORMAT + 1})
