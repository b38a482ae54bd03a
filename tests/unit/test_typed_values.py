"""Values have types. What is JSON or TOML until somebody has looked at it is `object`, which nobody uses unseen."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")
LOOSE = re.compile(r"^(dict|Mapping|MutableMapping)\[str, Any\]$")


def loose(tree: ast.Module) -> int:
    """Count the annotations `dict[str, Any]` and `Mapping[str, Any]`, also within others."""
    return sum(isinstance(node, ast.Subscript) and bool(LOOSE.match(ast.unparse(node))) for node in ast.walk(tree))


def test_no_value_is_a_table_of_anything() -> None:
    """It is a dataclass; where foreign code takes or gives the keys, a TypedDict or `Mapping[str, object]`."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    found = {str(file.relative_to(ROOT)): loose(ast.parse(file.read_text())) for file in files}
    assert {file: count for file, count in found.items() if count and not file.endswith("_pb2.py")} == {}


def test_what_is_loose_is_found() -> None:
    tree = ast.parse("def f(a: dict[str, Any], b: Callable[[Mapping[str, Any]], None]) -> dict[str, object]: ...")
    assert loose(tree) == 2
