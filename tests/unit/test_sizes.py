"""No function of the product is long, and none has many parameters: what belongs together is one value."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX, PARAMETERS_MAX = 50, 8
PACKAGES = ("coordinator", "site_agent", "shared", "cervix_study")


def functions(package: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From `def` to the end, docstring included, decorators not."""
    assert function.end_lineno
    return function.end_lineno - function.lineno + 1


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """All that a call may give: positional, by keyword, *args, **kwargs; `self` and `cls` are not given."""
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")]) + sum(map(bool, (given.vararg, given.kwarg)))


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_short_and_have_few_parameters(package: str) -> None:
    found = dict(functions(package))
    assert len(found) > 100
    assert {name: lines(one) for name, one in found.items() if lines(one) > LINES_MAX} == {}
    assert {name: parameters(one) for name, one in found.items() if parameters(one) > PARAMETERS_MAX} == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("def f(): ...", 0),
        ("def f(self, a, /, b, *c, d=1, **e): ...", 5),
        ("async def f(cls, *, a, b): ...", 2),
    ],
)
def test_every_kind_of_parameter_counts(text: str, count: int) -> None:
    [function] = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    assert parameters(function) == count
