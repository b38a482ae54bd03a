"""The page docs/paper-fidelity.md is held to the code: what it names exists, and the values it shows are right."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe, Terms
from fedcervix.core.profiles import PROFILES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper-fidelity.md").read_text()
SYMBOL = re.compile(r"`((?:\w+\.)+)(\w+)`")
"""a name that a module defines, behind as much of the module's name as tells it from others: `loss.nt_xent`"""
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
VALUE = re.compile(r"`([a-z_.]+) = ([^`]+)`")
PACKAGES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")
MODES = {"csfssl", "ppfssl"}
NOT_IN_THE_PAPER = {"quorum", "lease_s", "grace_s", "give_up_s", "seed"}
"""keys of the terms that say how a real federation waits; the paper's had nobody to wait for"""


def defined(file: Path) -> set[str]:
    """Return the names that a module defines at its top."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


FILES = [file for folder in PACKAGES for file in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize(("module", "name"), sorted(set(SYMBOL.findall(PAGE))))
def test_code_that_the_page_names_is_there_once(module: str, name: str) -> None:
    end = f"/{module.strip('.').replace('.', '/')}.py"
    assert len([file for file in FILES if str(file).endswith(end) and name in defined(file)]) == 1


@pytest.mark.parametrize(("file", "name"), sorted(set(TEST.findall(PAGE))))
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    assert name in defined(ROOT / file)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))))
def test_every_file_of_tests_that_it_names_is_there(file: str) -> None:
    assert (ROOT / file).exists()


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table that has a column for each profile."""

    line: str
    paper: str
    recommended: str


def rows() -> Iterator[Row]:
    columns: list[str] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if not cells:
            columns = [] if not line.startswith("|---") else columns
        elif not columns:
            columns = cells
        elif "profile `paper`" in columns:
            yield Row(line, cells[1], cells[2])


ROWS = list(rows())
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.line[2:50])


def values(cell: str) -> dict[str, Any]:
    """Return the keys and values that a cell shows."""
    found = {key: text for key, text in VALUE.findall(cell) if text not in MODES}
    return {key: tomllib.loads(f"value = {text}")["value"] for key, text in found.items()}


def value_of(profile: str, key: str) -> Any:
    """Return a profile's value by its key: of the terms, of the recipe, or with a dot of a table in the recipe."""
    whole = PROFILES[profile]
    found: Any = whole.terms if hasattr(whole.terms, key) else whole.recipe
    for name in key.split("."):
        found = getattr(found, name)
    return list(found) if isinstance(found, tuple) else found


def test_the_tables_are_read() -> None:
    assert len(ROWS) > 70
    assert values('`loss = "dcl"`, `mode = csfssl` and `classifier.lr = 0.001`') == {
        "loss": "dcl",
        "classifier.lr": 0.001,
    }


@each_row
def test_the_values_of_both_profiles_are_right(row: Row) -> None:
    shown = values(row.paper)
    assert shown == {key: value_of("paper", key) for key in shown}
    changed = values(row.recommended)
    assert changed == {key: value_of("recommended", key) for key in changed}
    # A key that the line does not show as changed has not changed.
    assert {key: value_of("recommended", key) for key in shown} == {**shown, **changed}
    assert row.recommended.startswith("same") == (not changed)


@each_row
def test_every_line_names_its_code_and_its_test(row: Row) -> None:
    assert SYMBOL.search(row.line)
    assert TEST.search(row.line)


def keys() -> Iterator[str]:
    for field in dataclasses.fields(Recipe):
        below = {"augment": Augment, "classifier": ClassifierRecipe}.get(field.name)
        yield from (f"{field.name}.{f.name}" for f in dataclasses.fields(below)) if below else (field.name,)
    yield from (field.name for field in dataclasses.fields(Terms) if field.name not in NOT_IN_THE_PAPER)


def test_every_key_of_recipe_and_terms_is_on_the_page() -> None:
    shown = {key for row in ROWS for key in values(row.paper)}
    assert [key for key in keys() if key not in shown] == []
