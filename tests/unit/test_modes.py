"""A mode is a line of a table: nobody asks for its name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from coordinator.cli import MODE
from fedcervix.core.events import RUN_OF_COORDINATOR
from fedcervix.core.modes import MODES, Mode, ModeRules, title_of
from site_agent import starts
from site_agent.home import Policy
from site_agent.store.provenance import FEDERATED

ROOT = Path(__file__).parents[2]
PLACES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study", "tests/simulation")
TABLE = ROOT / "shared/fedcervix/core/modes.py"


def names(node: ast.expr | None) -> bool:
    """Say whether an expression is, or may be, the name of a mode that is written out."""
    match node:
        case ast.Constant():
            return node.value in MODES
        case ast.IfExp():
            return names(node.body) or names(node.orelse)
        case ast.Tuple() | ast.List() | ast.Set():
            return any(map(names, node.elts))
        case ast.BoolOp():
            return any(map(names, node.values))
    return False


def by_name(source: str) -> list[str]:
    """Return where a mode is asked for, told or looked up by a name that is written out."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare():
                hit = any(map(names, (node.left, *node.comparators)))
            case ast.Return():
                hit = names(node.value)
            case ast.MatchValue():
                hit = names(node.value)
            case ast.Dict():
                hit = any(map(names, node.keys))
            case _:
                hit = False
        found += [ast.unparse(node)] if hit else []
    return found


@pytest.mark.parametrize("place", PLACES)
def test_nobody_asks_for_the_name_of_a_mode(place: str) -> None:
    found = {str(path): by_name(path.read_text()) for path in (ROOT / place).rglob("*.py") if path != TABLE}
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_a_question_for_the_name_is_found() -> None:
    asked = (
        'a = plan.mode == "csfssl"',
        'b = raw.get("mode") != "ppfssl"',
        'c = start in ("random", "csfssl")',
        "d = mode == other",
        "def e(ring):",
        '    return "ppfssl" if ring else "csfssl"',
        'f = {"csfssl": 1}[mode]',
        'g = chosen("csfssl")',
    )
    assert sorted(by_name("\n".join(asked))) == [
        "plan.mode == 'csfssl'",
        "raw.get('mode') != 'ppfssl'",
        "return 'ppfssl' if ring else 'csfssl'",
        "start in ('random', 'csfssl')",
        "{'csfssl': 1}",
    ]


def test_every_mode_is_known_wherever_modes_are_listed() -> None:
    assert tuple(MODES) == get_args(Mode) == tuple(MODE.choices) == Policy().modes
    assert tuple(mode.upper() for mode in MODES) == FEDERATED
    for mode in MODES:
        assert RUN_OF_COORDINATOR.fullmatch(f"20260101-000000-{mode}-0123abcd")


def test_the_paper_s_two_modes_are_these() -> None:
    """The simulation's oracle asks the same table as the code: here its rows stand a second time."""
    assert {
        "csfssl": ModeRules(in_turns=False, needs_all=True, goes_on_from_average=True),
        "ppfssl": ModeRules(in_turns=True, needs_all=False, goes_on_from_average=False),
    } == MODES


def test_a_ring_s_model_is_named_by_the_site_that_begins() -> None:
    assert (title_of("csfssl", ["nhs", "alts"]), title_of("ppfssl", ["nhs", "alts"])) == ("CSFSSL", "PPFSSL_NHS")


def test_a_start_knows_its_mode() -> None:
    assert [starts.mode_of(start) for start in ("csfssl", "ppfssl-from-nhs")] == ["csfssl", "ppfssl"]
    assert {starts.mode_of(start) for start in ("ssl", "ppfssl", "csfssl-from-nhs", "new-from-nhs")} == {None}
    with pytest.raises(ValueError, match="start 'new-from-nhs' is not known"):
        starts.title("new-from-nhs")
