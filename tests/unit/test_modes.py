"""A mode is a line of a table: nobody asks for its name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from coordinator.cli import MODE
from fedcervix.core.events import RUN_OF_COORDINATOR
from fedcervix.core.modes import MODES, Mode, title_of
from site_agent.home import Policy
from site_agent.store.provenance import FEDERATED

ROOT = Path(__file__).parents[2]
PRODUCT = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")


def asked_by_name(source: str) -> list[str]:
    """Return the comparisons of something called mode with the name of a mode."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(side, ast.Constant) and side.value in MODES for side in (node.left, *node.comparators))
        and "mode" in ast.unparse(node).lower()
    ]


@pytest.mark.parametrize("package", PRODUCT)
def test_nobody_asks_for_the_name_of_a_mode(package: str) -> None:
    found = {str(path): asked_by_name(path.read_text()) for path in (ROOT / package).rglob("*.py")}
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_a_question_for_the_name_is_found() -> None:
    asked = 'a = plan.mode == "csfssl"\nb = raw.get("mode") != "ppfssl"\nc = start == "csfssl"\nd = mode == other\n'
    assert asked_by_name(asked) == ["plan.mode == 'csfssl'", "raw.get('mode') != 'ppfssl'"]


def test_every_mode_is_known_wherever_modes_are_listed() -> None:
    assert tuple(MODES) == get_args(Mode) == tuple(MODE.choices) == Policy().modes
    assert tuple(mode.upper() for mode in MODES) == FEDERATED
    for mode in MODES:
        assert RUN_OF_COORDINATOR.fullmatch(f"20260101-000000-{mode}-0123abcd")


def test_a_ring_s_model_is_named_by_the_site_that_begins() -> None:
    assert (title_of("csfssl", ["nhs", "alts"]), title_of("ppfssl", ["nhs", "alts"])) == ("CSFSSL", "PPFSSL_NHS")
