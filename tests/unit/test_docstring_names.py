"""A name `module.NAME` or `Class.name` in a docstring is in the code: renaming leaves no dead reference."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from itertools import pairwise

from tests.unit.walked_code import Code
from tools import house

CODE = Code(house.ROOT)
DOTTED = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\([^`]*)?`")
OTHERS = {"click", "dataclasses", "fcntl", "json", "rich", "sys", "Image"}
"""libraries, and Pillow's `Image`"""
TABLES = {"machine", "recipe"}
"""tables of configuration files"""
ENDINGS = ("csv", "json", "lock", "toml")
"""of files' names"""


def defined(tree: ast.AST) -> set[str]:
    """Return every name that a piece of code defines: functions, classes, variables, fields, attributes."""
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    found |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return found | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def scopes() -> dict[str, set[str]]:
    """Return what may stand behind a dot, by what stands before it: the name of a folder, a module or a class."""
    found: dict[str, set[str]] = {}
    for module in CODE.texts:
        *folders, stem = module.removesuffix(".__init__").split(".")
        tree = CODE.tree(module)
        for name in (*folders, stem):
            found.setdefault(name, set()).update(defined(tree), folders, {stem})
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(defined(node))
    return found


def dead(texts: Iterable[str], known: dict[str, set[str]]) -> list[str]:
    """Return the names `a.b` of some texts whose first part nobody knows, or has no such second part."""
    names = {name for text in texts for name in DOTTED.findall(text) if not name.endswith(ENDINGS)}
    split = [(name, *name.split(".")) for name in sorted(names)]
    ours = [(name, parts) for name, *parts in split if parts[0] not in OTHERS | TABLES]
    return [name for name, parts in ours if any(b not in known.get(a, ()) for a, b in pairwise(parts))]


def test_a_name_in_a_docstring_is_in_the_code() -> None:
    strings = [node for module in CODE.texts for node in ast.walk(CODE.tree(module)) if isinstance(node, ast.Expr)]
    texts = [node.value.value for node in strings if isinstance(node.value, ast.Constant)]
    assert dead([text for text in texts if isinstance(text, str)], scopes()) == []


def test_a_dead_name_is_found() -> None:
    known = {"backoff": {"SIGN_S"}, "Plan": {"averages"}}
    assert dead(["see `backoff.SIGN_S`, `pauses.SIGN_S`", "`Plan.averages`, `Plan.means()`"], known) == [
        "Plan.means",
        "pauses.SIGN_S",
    ]
