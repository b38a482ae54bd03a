"""A public function that raises an error itself says so in its docstring: whoever calls it has to know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("coordinator", "site_agent", "cervix_study", "shared/fedcervix")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
UNREACHABLE = "AssertionError"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(node: ast.AST) -> Iterator[Function]:
    """Yield the functions that a module shows, methods of public classes included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function) and not child.name.startswith("_"):
            yield child
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)


def raised(function: Function) -> list[str]:
    """Return what a function itself raises anew, functions within it aside."""
    found: list[str] = []
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            found.append(ast.unparse(node.exc))
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(node))
    return [error for error in found if not error.startswith(UNREACHABLE)]


def silent_about(source: str) -> list[str]:
    """Return the public functions that raise and do not say so."""
    return [
        function.name
        for function in public_functions(ast.parse(source))
        if raised(function) and "raise" not in (ast.get_docstring(function) or "").lower()
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_that_raises_says_so(path: Path) -> None:
    assert silent_about(path.read_text(encoding="utf-8")) == []


def test_a_function_that_is_silent_about_it_is_found() -> None:
    source = '''
def says() -> None:
    """Do it. Raises ValueError."""
    raise ValueError
def silent() -> None:
    """Do it."""
    if True:
        raise ValueError("no")
def inner() -> None:
    """Return a function that raises later."""
    def later() -> None:
        raise ValueError
def again() -> None:
    """Do it."""
    try:
        pass
    except OSError:
        raise
class Thing:
    async def silent_too(self) -> None:
        """Do it."""
        raise ValueError
def _private() -> None:
    raise ValueError
'''
    assert silent_about(source) == ["silent", "silent_too"]
